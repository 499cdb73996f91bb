"use strict";

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const HOLD_LAST_FRAME = 700; // milliseconds: late frames are where a scene falls apart
const LARGEST_DRIFT = 0.06; // seconds

document.querySelectorAll(".together").forEach(playTogether);

function playTogether(group) {
  const videos = [...group.querySelectorAll("video")];
  const [lead] = videos;
  const player = group.querySelector(".player");
  const button = player.querySelector("button");
  const slider = player.querySelector("input");
  let wanted = !calm.matches;
  let visible = false;
  let restart = 0;

  for (const video of videos) {
    video.controls = false;
    video.loop = false;
  }
  player.hidden = false;

  const tell = (share) => group.dispatchEvent(new CustomEvent("moved", { detail: share }));
  const seek = (share) => {
    tell(share);
    for (const video of videos) {
      if (video.duration) video.currentTime = Math.min(share, 0.999) * video.duration;
    }
  };
  const update = () => {
    clearTimeout(restart);
    button.textContent = wanted ? "Pause" : "Play";
    if (!wanted || !visible) return videos.forEach((video) => video.pause());
    if (lead.ended) seek(0);
    videos.forEach((video) => video.play().catch(() => {}));
    requestAnimationFrame(follow);
  };
  const follow = () => {
    if (lead.paused) return;
    slider.value = lead.currentTime / lead.duration;
    tell(lead.currentTime / lead.duration);
    for (const video of videos.slice(1)) {
      const due = (lead.currentTime / lead.duration) * video.duration;
      if (!video.ended && Math.abs(video.currentTime - due) > LARGEST_DRIFT) video.currentTime = due;
    }
    requestAnimationFrame(follow);
  };

  lead.addEventListener("ended", () => {
    slider.value = 1;
    restart = setTimeout(update, HOLD_LAST_FRAME);
  });
  button.addEventListener("click", () => {
    wanted = !wanted;
    update();
  });
  slider.addEventListener("input", () => {
    wanted = false;
    update();
    seek(Number(slider.value));
  });
  calm.addEventListener("change", () => {
    wanted = !calm.matches;
    update();
  });
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    update();
  }).observe(group);
}
