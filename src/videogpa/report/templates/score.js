
for (const exhibit of document.querySelectorAll(".exhibit")) followFrames(exhibit);

// Page, curve and cloud follow the frame that the videos show.
function followFrames(exhibit) {
  const count = Number(exhibit.dataset.frames);
  const slider = exhibit.querySelector(".player input");
  const now = exhibit.querySelector(".now");
  const worst = exhibit.querySelector(".worst");
  const bars = Array.from({ length: count }, (_, i) => document.getElementById(`errors-frame-${i}`));
  const show = (frame) => {
    slider.setAttribute("aria-valuetext", `frame ${frame}`);
    now.textContent = `Frame ${frame} / ${count - 1}`;
    bars.forEach((bar, i) => bar?.classList.toggle("now", i === frame));
    document.dispatchEvent(new CustomEvent("frame", { detail: frame }));
  };
  const go = (frame) => {
    slider.value = frame / (count - 1);
    slider.dispatchEvent(new Event("input"));
  };
  exhibit.addEventListener("moved", (event) => show(Math.min(count - 1, Math.floor(event.detail * count))));
  bars.forEach((bar, i) => bar?.addEventListener("click", () => go(i)));
  if (worst) {
    worst.hidden = false;
    worst.addEventListener("click", () => go(Number(worst.dataset.frame)));
  }
}
