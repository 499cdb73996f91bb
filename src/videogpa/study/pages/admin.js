// Live counts for whoever runs the study.
import { drop, keep, recall } from "./kept.js";

const EVERY = 5000;
const TOKEN = "study-token";
const element = (id) => document.getElementById(id);
const made = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
let token = recall("sessionStorage", TOKEN);
let timer = null;

const say = (text) => {
  element("status").textContent = text;
};

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
  reveal(true);
}

function reveal(known) {
  element("counts").hidden = !known;
  element("enter").hidden = known;
}

async function refresh() {
  clearTimeout(timer);
  const given = token;
  if (!given) return;
  try {
    const response = await fetch("/api/admin", { headers: { Authorization: `Bearer ${given}` } });
    const told = response.ok ? await response.json() : null;
    if (token !== given) return;
    if (response.status === 401) {
      leave();
      return;
    }
    if (!told) throw new Error(response.statusText);
    show(told);
    say(`As of ${new Date().toLocaleTimeString()}`);
  } catch {
    if (token === given) say("No connection; trying again.");
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, EVERY);
}

function leave() {
  say(element("counts").hidden ? "This is not the token." : "This is not the token any more.");
  token = null;
  drop("sessionStorage", TOKEN);
  reveal(false);
  element("token").value = "";
  element("token").focus();
}

element("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value;
  keep("sessionStorage", TOKEN, token);
  refresh();
});
refresh();
