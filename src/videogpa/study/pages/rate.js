// One screen after the other. The server says which comes next; an answer is kept here until the server has it.
import { clips, clips_anew, forget } from "./clips.js";
import { ask } from "./connection.js";
import { drop, keep, recall } from "./kept.js";
import { listen } from "./keys.js";
import * as player from "./player.js";
import { answers, complete, fill, pose, reasons } from "./questions.js";

const HOME = location.pathname;
const WAITING = `answer:${HOME}`;
/** Seconds for one screen that the server believes. */
const LONGEST = 24 * 3600;
const element = (id) => document.getElementById(id);
const [form, taken, next, notice, status] = ["form", "answers", "next", "notice", "status"].map(element);
const still = matchMedia("(prefers-reduced-motion: reduce)");
let screen = null;
let shown = false;
let began = 0;
let sending = false;

const say = (text) => {
  status.textContent = text;
};

/** Unlike what is said, this stays until the next answer. */
const notify = (text) => {
  notice.textContent = text;
  if (text) notice.scrollIntoView({ block: "center" });
};

const open = () => shown && !sending;

function let_answer() {
  taken.disabled = !open();
  next.disabled = !open() || !complete();
}

async function show(state) {
  screen = state;
  shown = false;
  delete form.dataset.shown;
  element("reload").hidden = true;
  document.title = element("title").textContent = state.title;
  element("progress").max = state.screens;
  element("progress").value = state.position;
  element("place").textContent = state.done ? "Done" : `Pair ${state.position + 1} of ${state.screens}`;
  form.hidden = state.done;
  element("thanks").hidden = !state.done;
  element("later").hidden = state.done;
  forget(state.position - 1);
  player.pause();
  if (state.done) {
    say("");
    element("thanks").focus();
    return;
  }
  element("prompt").textContent = state.text;
  pose(state);
  let_answer();
  scrollTo(0, 0);
  say("Loading");
  try {
    await load(state);
  } catch (error) {
    if (screen === state) be_stuck(error.message);
    return;
  }
  if (screen !== state) return;
  shown = true;
  form.dataset.shown = state.position;
  say("");
  if (still.matches) player.pause();
  else player.restart();
  let_answer();
  form.focus({ preventScroll: true });
  began = performance.now();
  if (state.position + 1 < state.screens) clips(state.position + 1, () => troubled(state.position + 1)).catch(() => {});
}

async function load(state) {
  const { position } = state;
  const refused = () => screen === state && say("Press Play to see the videos.");
  const sources = await clips(position, () => troubled(position));
  if (screen !== state) return;
  try {
    await player.load(sources, refused);
  } catch {
    // Broken on the way, perhaps; the browser would give the same again.
    const anew = await clips_anew(position, () => troubled(position));
    if (screen === state) await player.load(anew, refused);
  }
}

function troubled(position) {
  // What is loaded ahead is nobody's worry yet.
  if (!shown && screen?.position === position) say("No connection. The videos are not here yet; trying again.");
}

function be_stuck(text) {
  shown = false;
  form.hidden = true;
  player.pause();
  say(`${text} Reload this page to try again: what you have answered is stored. If that does not help, tell whoever invited you.`);
  element("reload").hidden = false;
}

async function send(answer) {
  if (sending) return;
  sending = true;
  let_answer();
  notify("");
  keep("sessionStorage", WAITING, JSON.stringify(answer));
  const { ok, status: code, content } = await ask(`/api${HOME}/votes`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(answer),
    troubled: () => say("No connection. Your answer is kept; trying again."),
  });
  sending = false;
  say("");
  if (ok || code === 409 || code === 404) drop("sessionStorage", WAITING);
  if (ok) {
    await show(content);
  } else if (code === 409) {
    shown = false;
    notify("This one was answered already, perhaps in another tab.");
    await refresh();
  } else if (code === 404) {
    be_unknown();
  } else {
    await be_refused(answer, content);
  }
}

async function be_refused(answer, reason) {
  notify(`This answer was not taken: ${reason}. Your choices are kept; you can change them and send them again.`);
  if (!screen) await refresh();
  if (screen?.position === answer.position && !screen.done) fill(answer);
  let_answer();
  if (open()) next.focus({ preventScroll: true });
}

function be_unknown() {
  screen = null;
  shown = false;
  form.hidden = true;
  player.pause();
  say("This link is not known here.");
}

async function refresh() {
  const { ok, content } = await ask(`/api${HOME}`, { troubled: () => say("No connection; trying again.") });
  if (ok) await show(content);
  else be_unknown();
}

/** Back on a page as it was left: it may have been answered since. */
async function look_again() {
  const { ok, content } = await ask(`/api${HOME}`);
  if (ok && content.position === screen?.position) return;
  if (ok) await show(content);
  else be_unknown();
}

const seconds = () => Math.min(Math.max(0, performance.now() - began) / 1000, LONGEST);

function submit() {
  if (!open() || !complete()) return;
  send({ position: screen.position, answers: answers(), tags: reasons(), seconds: seconds() });
}

function waiting() {
  try {
    return JSON.parse(recall("sessionStorage", WAITING));
  } catch {
    return null;
  }
}

form.addEventListener("change", let_answer);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
player.when_broken(() => {
  if (shown) be_stuck("A video cannot be played any more.");
});
listen(open, submit);
element("reload").addEventListener("click", () => location.reload());
addEventListener("pageshow", (event) => {
  // What is being sent goes on by itself.
  if (event.persisted && !sending) look_again();
});

const left_over = waiting();
if (left_over) send(left_over);
else refresh();
