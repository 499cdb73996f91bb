"use strict";

const PAGE = 24;
const DRIFT = 0.06; // seconds
const collection = JSON.parse(document.getElementById("data").textContent);
const filters = document.getElementById("filters");
const entries = document.getElementById("entries");
const count = document.getElementById("count");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const made = (tag, properties) => Object.assign(document.createElement(tag), properties);
const shown = (value) => (value === null ? "" : Number(value.toPrecision(3)).toString().replace("-", "−"));
let matching = [];
let drawn = 0;

// Only what can be seen loads and plays.
const watcher = new IntersectionObserver((seen) => seen.forEach(({ target, isIntersecting }) => {
  const videos = [...target.querySelectorAll("video")];
  for (const video of videos) {
    if (isIntersecting && !video.src) video.src = video.dataset.src;
    if (isIntersecting && !calm.matches) video.play().catch(() => {});
    else video.pause();
  }
}), { rootMargin: "200px" });

const more = made("button", { type: "button", id: "more", textContent: "Show more" });
more.addEventListener("click", draw);
entries.after(more);
filters.addEventListener("input", update);
filters.addEventListener("submit", (event) => event.preventDefault());
calm.addEventListener("change", update);
update();

function update() {
  const asked = Object.fromEntries(new FormData(filters));
  const words = asked.text.toLowerCase().split(/\s+/).filter(Boolean);
  const bound = (text, otherwise) => (text === "" ? otherwise : Number(text));
  const least = bound(asked.least, -Infinity);
  const most = bound(asked.most, Infinity);
  const bounded = asked.least !== "" || asked.most !== "";
  matching = collection.entries.filter((entry) =>
    words.every((word) => entry.text.toLowerCase().includes(word)) &&
    (entry.number === null ? !bounded : entry.number >= least && entry.number <= most));
  if (asked.order !== "given") {
    const sign = asked.order === "up" ? 1 : -1;
    matching.sort((a, b) => (a.number === null) - (b.number === null) || sign * (a.number - b.number));
  }
  watcher.disconnect();
  entries.replaceChildren();
  entries.className = `entries ${asked.view}`;
  drawn = 0;
  draw();
}

function draw() {
  const next = matching.slice(drawn, drawn + PAGE);
  entries.append(...next.map(card));
  drawn += next.length;
  more.hidden = drawn >= matching.length;
  count.textContent = `${matching.length} of ${collection.entries.length}` + (more.hidden ? "" : `, the first ${drawn} shown`);
}

function card(entry) {
  const sides = ["left", "right"].map((side) => [side, entry.clips.find((clip) => clip.label === filters[side].value)]);
  const figure = made("figure", { className: "entry" });
  const stage = made("div", { className: "stage" });
  const names = made("div", { className: "names" });
  for (const [side, clip] of sides) {
    const label = clip ? clip.label : "none";
    names.append(made("span", { textContent: clip && clip.value !== null ? `${label} ${shown(clip.value)}` : label }));
    if (!clip) continue;
    const video = made("video", { className: side, muted: true, loop: true, playsInline: true, preload: "none" });
    video.dataset.src = clip.video;
    video.setAttribute("aria-label", `${label}: ${entry.text}`);
    stage.append(video);
  }
  const [lead, other] = stage.querySelectorAll("video");
  lead?.addEventListener("loadedmetadata", () => {
    stage.style.setProperty("--shape", lead.videoWidth / lead.videoHeight);
  });
  if (other) {
    lead.addEventListener("timeupdate", () => {
      if (Math.abs(lead.currentTime - other.currentTime) > DRIFT) other.currentTime = lead.currentTime;
    });
    const cut = made("input", { type: "range", min: 0, max: 100, value: 50 });
    cut.setAttribute("aria-label", `How much of the left clip is seen: ${entry.text}`);
    cut.addEventListener("input", () => stage.style.setProperty("--cut", `${cut.value}%`));
    stage.append(cut);
  }
  const caption = made("figcaption");
  const number = made("b", { textContent: `${collection.number} ${entry.number === null ? "unknown" : shown(entry.number)}` });
  caption.append(names, `${entry.text} (${entry.note}), `, number);
  figure.append(stage, caption);
  watcher.observe(figure);
  return figure;
}
