// One screen after the other. The server says which comes next; an answer is kept here until the server has it.
const HOME = location.pathname;
const WAITING = `answer:${HOME}`;
const APART = 0.05;
const LONGEST_PAUSE = 10000;
const element = (id) => document.getElementById(id);
const [form, left, right, play, next, status] = ["form", "left", "right", "play", "next", "status"].map(element);
const videos = [left, right];
const still = matchMedia("(prefers-reduced-motion: reduce)");
const loaded = new Map();
let screen = null;
let began = 0;
let sending = false;

const say = (text) => {
  status.textContent = text;
};

async function ask(address, options) {
  // Until there is an answer: a connection comes back, and asking twice does no harm.
  for (let pause = 500; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    try {
      const response = await fetch(address, options);
      if (response.status < 500) return response;
    } catch {
      // No connection.
    }
    say("No connection. Your answer is kept; trying again.");
    await new Promise((done) => setTimeout(done, pause));
  }
}

function source(position, side) {
  const address = `${HOME}/${position}/${side}.mp4`;
  if (!loaded.has(address)) {
    const content = ask(address).then(async (response) => URL.createObjectURL(await response.blob()));
    loaded.set(address, content);
  }
  return loaded.get(address);
}

function forget(position) {
  for (const side of ["left", "right"]) {
    const address = `${HOME}/${position}/${side}.mp4`;
    loaded.get(address)?.then(URL.revokeObjectURL);
    loaded.delete(address);
  }
}

function choice(question, value, label, key) {
  const shell = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "radio", name: question.key, value });
  input.required = true;
  const text = Object.assign(document.createElement("span"), { textContent: label });
  const hint = Object.assign(document.createElement("kbd"), { textContent: key });
  hint.setAttribute("aria-hidden", "true");
  text.append(hint);
  shell.append(input, text);
  return shell;
}

function ask_for(question) {
  const set = document.createElement("fieldset");
  set.append(Object.assign(document.createElement("legend"), { textContent: question.text }));
  if (question.hint) set.append(Object.assign(document.createElement("p"), { textContent: question.hint }));
  const row = Object.assign(document.createElement("div"), { className: "choices" });
  row.append(choice(question, "left", "Left", "←"));
  if (screen.tie) row.append(choice(question, "tie", "Same", "↓"));
  row.append(choice(question, "right", "Right", "→"));
  set.append(row);
  return set;
}

function tag(text) {
  const shell = document.createElement("label");
  const input = Object.assign(document.createElement("input"), { type: "checkbox", name: "tag", value: text });
  shell.append(input, Object.assign(document.createElement("span"), { textContent: text }));
  return shell;
}

async function show(state) {
  screen = state;
  document.title = element("title").textContent = state.title;
  element("progress").max = state.screens;
  element("progress").value = state.position;
  element("place").textContent = `${Math.min(state.position + 1, state.screens)} of ${state.screens}`;
  form.hidden = state.done;
  element("thanks").hidden = !state.done;
  if (state.done) {
    element("place").textContent = "Done";
    for (const video of videos) video.pause();
    element("thanks").focus();
    say("");
    return;
  }
  element("prompt").textContent = state.text;
  element("questions").replaceChildren(...state.questions.map(ask_for));
  const tags = element("tags");
  tags.hidden = state.tags.length === 0;
  tags.replaceChildren(tags.querySelector("legend"), ...state.tags.map(tag));
  next.disabled = true;
  say("Loading");
  const sources = await Promise.all([source(state.position, "left"), source(state.position, "right")]);
  if (screen !== state) return;
  await Promise.all(videos.map((video, i) => play_from(video, sources[i])));
  if (screen !== state) return;
  form.dataset.shown = state.position;
  say("");
  restart();
  if (still.matches) pause();
  began = performance.now();
  forget(state.position - 1);
  if (state.position + 1 < state.screens) ["left", "right"].forEach((side) => source(state.position + 1, side));
}

function play_from(video, address) {
  return new Promise((done) => {
    video.addEventListener("loadeddata", done, { once: true });
    video.src = address;
  });
}

function restart() {
  for (const video of videos) {
    video.currentTime = 0;
    // Refused where the page may not play by itself; then the button does.
    video.play().catch(() => pause());
  }
  play.textContent = "Pause";
}

function pause() {
  for (const video of videos) video.pause();
  play.textContent = "Play";
}

function toggle() {
  if (play.textContent === "Pause") pause();
  else restart();
}

function keep_in_step() {
  if (!left.paused && !right.paused && Math.abs(left.currentTime - right.currentTime) > APART) {
    right.currentTime = left.currentTime;
  }
  requestAnimationFrame(keep_in_step);
}

function answers() {
  const given = new FormData(form);
  return Object.fromEntries(screen.questions.map((q) => [q.key, given.get(q.key)]));
}

const complete = () => Object.values(answers()).every((answer) => answer !== null);

async function send(answer) {
  if (sending) return;
  sending = true;
  next.disabled = true;
  sessionStorage.setItem(WAITING, JSON.stringify(answer));
  const response = await ask(`/api${HOME}/votes`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(answer),
  });
  sessionStorage.removeItem(WAITING);
  sending = false;
  if (response.ok) {
    await show(await response.json());
    scrollTo(0, 0);
  } else {
    await refresh();
    say(response.status === 409 ? "This one was answered already, perhaps in another tab." : "");
  }
}

async function refresh() {
  const response = await ask(`/api${HOME}`);
  if (!response.ok) {
    say("This link is not known here.");
    return;
  }
  await show(await response.json());
}

form.addEventListener("change", () => {
  next.disabled = sending || !complete();
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!complete()) return;
  const seconds = (performance.now() - began) / 1000;
  send({ position: screen.position, answers: answers(), tags: new FormData(form).getAll("tag"), seconds });
});
play.addEventListener("click", toggle);
left.addEventListener("ended", restart);
addEventListener("keydown", (event) => {
  if (form.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
  const value = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: screen.tie ? "tie" : undefined }[event.key];
  if (event.key === " " && event.target === document.body) {
    event.preventDefault();
    toggle();
  } else if (event.key === "Enter" && event.target.tagName !== "BUTTON" && complete()) {
    event.preventDefault();
    form.requestSubmit();
  } else if (value && event.target.type !== "radio") {
    event.preventDefault();
    const open = screen.questions.find((q) => answers()[q.key] === null);
    if (!open) return;
    form.querySelector(`input[name="${open.key}"][value="${value}"]`).click();
  }
});
// The browser may show this page again as it was left, behind what was answered since.
addEventListener("pageshow", (event) => {
  if (event.persisted && !sending) refresh();
});

const waiting = sessionStorage.getItem(WAITING);
if (waiting) {
  await refresh();
  if (!screen?.done) await send(JSON.parse(waiting));
} else {
  await refresh();
}
keep_in_step();
