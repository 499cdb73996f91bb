// The questions of one screen, the reasons, and what is chosen of them.
const [questions, tags] = ["questions", "tags"].map((id) => document.getElementById(id));
const made = (tag, properties) => Object.assign(document.createElement(tag), properties);
let asked = [];

/** New questions, none of them answered. */
export function pose(state) {
  asked = state.questions.map(({ key }) => key);
  questions.replaceChildren(...state.questions.map((question) => group(question, state.tie)));
  tags.hidden = state.tags.length === 0;
  tags.replaceChildren(tags.querySelector("legend"), ...state.tags.map(reason));
}

function group(question, tie) {
  const set = made("fieldset");
  set.dataset.key = question.key;
  set.append(made("legend", { textContent: question.text }));
  if (question.hint) set.append(made("p", { textContent: question.hint }));
  const row = made("div", { className: "choices" });
  row.append(choice(question, "left", "Left", "←"));
  if (tie) row.append(choice(question, "tie", "Same", "↓"));
  row.append(choice(question, "right", "Right", "→"));
  set.append(row);
  return set;
}

function choice(question, value, label, key) {
  // A form's own properties are hidden by inputs of the same name.
  const input = made("input", { type: "radio", name: `answer-${question.key}`, value, required: true });
  const text = made("span", { textContent: label });
  const hint = made("kbd", { textContent: key });
  hint.setAttribute("aria-hidden", "true");
  text.append(hint);
  return labelled(input, text);
}

function reason(text) {
  return labelled(made("input", { type: "checkbox", name: "tag", value: text }), made("span", { textContent: text }));
}

function labelled(input, text) {
  const shell = made("label");
  shell.append(input, text);
  return shell;
}

const radio = (key, value) => questions.querySelector(`[data-key="${key}"] input[value="${value}"]`);

export function answers() {
  const chosen = (key) => questions.querySelector(`[data-key="${key}"] input:checked`)?.value ?? null;
  return Object.fromEntries(asked.map((key) => [key, chosen(key)]));
}

export const reasons = () => [...tags.querySelectorAll("input:checked")].map((input) => input.value);

export const complete = () => Object.values(answers()).every((answer) => answer !== null);

/** The question that the focus is in, or else the first open one. */
export function current() {
  const focused = document.activeElement?.closest("#questions [data-key]");
  return focused ? focused.dataset.key : asked.find((key) => answers()[key] === null);
}

export const offered = (key, value) => radio(key, value) !== null;

export function choose(key, value) {
  const input = radio(key, value);
  input.click();
  if (document.activeElement?.closest(`[data-key="${key}"]`)) input.focus();
}

/** Choices made before, as far as they are still asked for. */
export function fill(given) {
  for (const [key, value] of Object.entries(given.answers)) {
    const input = asked.includes(key) && radio(key, value);
    if (input) input.checked = true;
  }
  for (const input of tags.querySelectorAll("input")) input.checked = given.tags.includes(input.value);
}
