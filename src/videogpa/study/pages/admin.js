// Live counts for whoever runs the study.
const EVERY = 5000;
const TOKEN = "study-token";
const element = (id) => document.getElementById(id);
const made = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
let timer = null;

function show(told) {
  document.title = element("title").textContent = told.title;
  const wanted = told.wanted === null ? "" : ` of ${told.wanted}`;
  const excluded = Object.entries(told.excluded).map(([rule, count]) => `${count} (${rule})`).join(", ");
  const numbers = {
    "Raters who began": told.raters,
    "Raters who finished": `${told.finished}${wanted}`,
    "Raters whose votes do not count": excluded || 0,
    Votes: told.votes,
    "Pairs, and how often each was seen": `${told.pairs}, ${told.least_seen} to ${told.most_seen} times`,
  };
  element("numbers").replaceChildren(
    ...Object.entries(numbers).flatMap(([name, value]) => [made("dt", name), made("dd", value)]),
  );
  element("rules").replaceChildren(...told.rules.map((rule) => made("li", rule)));
  element("raters").replaceChildren(
    ...told.by_rater.map((rater) => {
      const row = document.createElement("tr");
      const state = rater.excluded ?? (rater.finished ? "finished" : "under way");
      const began = new Date(rater.began).toLocaleString();
      row.append(made("td", rater.rater), made("td", began), made("td", `${rater.votes} of ${told.screens}`));
      row.append(made("td", state));
      return row;
    }),
  );
  element("counts").hidden = false;
  element("enter").hidden = true;
}

async function refresh() {
  clearTimeout(timer);
  const token = sessionStorage.getItem(TOKEN);
  if (!token) return;
  try {
    const response = await fetch("/api/admin", { headers: { Authorization: `Bearer ${token}` } });
    if (response.status === 401) {
      sessionStorage.removeItem(TOKEN);
      element("status").textContent = "This is not the token.";
      return;
    }
    show(await response.json());
    element("status").textContent = `As of ${new Date().toLocaleTimeString()}`;
  } catch {
    element("status").textContent = "No connection; trying again.";
  }
  timer = setTimeout(refresh, EVERY);
}

element("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, element("token").value);
  refresh();
});
refresh();
