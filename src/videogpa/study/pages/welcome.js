// The way in: the link that this browser had before, or a new one.
import { ask } from "./connection.js";
import { keep, recall } from "./kept.js";

const LINK = "study-link";
const [title, screens, start, resume, status] =
  ["title", "screens", "start", "resume", "status"].map((id) => document.getElementById(id));
const say = (text) => {
  status.textContent = text;
};
const troubled = () => say("The study cannot be reached just now; trying again.");
let latest = 0;

async function greet() {
  const own = ++latest;
  start.disabled = true;
  const study = (await ask("/api/study", { troubled })).content;
  const link = recall("localStorage", LINK);
  const known = link !== null && (await ask(`/api${link}`, { troubled })).ok;
  if (own !== latest) return;
  document.title = title.textContent = study.title;
  screens.textContent = study.screens;
  offer(known ? link : null);
  start.disabled = !study.open;
  say(study.open ? "" : "This study has all the answers that it wanted. Thank you for coming.");
}

/** Whoever was here before goes on; that somebody else sits down at this browser is the exception. */
function offer(link) {
  resume.hidden = link === null;
  if (link !== null) resume.href = link;
  start.textContent = link === null ? "Start" : "Start as somebody else";
  start.classList.toggle("main", link === null);
}

start.addEventListener("click", async () => {
  start.disabled = true;
  say("");
  try {
    const answer = await fetch("/api/raters", { method: "POST" });
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.detail);
    keep("localStorage", LINK, told.link);
    location.assign(told.link);
  } catch (error) {
    start.disabled = false;
    const reason = error instanceof Error && error.name === "Error" ? error.message : "no connection";
    say(`That did not work: ${reason}. Please try again.`);
  }
});
// The browser may show this page again as it was left.
addEventListener("pageshow", greet);
// Begun in another tab.
addEventListener("storage", greet);
