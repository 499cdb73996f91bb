// The keyboard: arrows choose, Enter goes on, Space pauses; a key that is held down counts once.
import { choose, current, offered } from "./questions.js";
import { toggle } from "./player.js";

const form = document.getElementById("form");
const CHOICES = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie" };

/** `open` says whether answers are taken now, `submit` goes on. */
export function listen(open, submit) {
  addEventListener("keydown", (event) => {
    if (form.hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const { key, repeat, target } = event;
    if (key === " ") {
      if (target.closest("button, input")) return;
      event.preventDefault();
      if (!repeat) toggle();
    } else if (key === "Enter") {
      if (target.closest("button") && !repeat) return;
      event.preventDefault();
      if (!repeat) submit();
    } else if (key.startsWith("Arrow")) {
      // A browser would move to the choice beside it, which need not be the one of the arrow.
      if (target.type === "radio") event.preventDefault();
      const question = open() ? current() : undefined;
      if (question === undefined || !offered(question, CHOICES[key])) return;
      event.preventDefault();
      if (!repeat) choose(question, CHOICES[key]);
    }
  });
}
