// The way in: a new link, or the one that this browser had before.
const LINK = "study-link";
const [title, screens, start, resume, status] =
  ["title", "screens", "start", "resume", "status"].map((id) => document.getElementById(id));

async function greet() {
  const study = await (await fetch("/api/study")).json();
  document.title = title.textContent = study.title;
  screens.textContent = study.screens;
  const link = localStorage.getItem(LINK);
  if (link && (await fetch(`/api${link}`)).ok) {
    resume.href = link;
    resume.hidden = false;
  }
  if (!study.open) {
    start.disabled = true;
    status.textContent = "This study has all the answers that it wanted. Thank you for coming.";
  }
}

start.addEventListener("click", async () => {
  start.disabled = true;
  try {
    const answer = await fetch("/api/raters", { method: "POST" });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail);
    localStorage.setItem(LINK, told.link);
    location.assign(told.link);
  } catch (error) {
    start.disabled = false;
    status.textContent = `That did not work: ${error.message}. Please try again.`;
  }
});
// The browser may show this page again as it was left.
addEventListener("pageshow", () => {
  start.disabled = false;
  greet();
});
