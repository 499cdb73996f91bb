// Two videos that play, loop and pause as one.
const APART = 0.05;
const PATIENCE = 1000;
const [left, right, button] = ["left", "right", "play"].map((id) => document.getElementById(id));
const videos = [left, right];
let playing = false;
let held = null;

/** Until both show their first picture; an error where one cannot be played. */
export async function load(addresses, refused) {
  await Promise.all(videos.map((video, i) => load_one(video, addresses[i], refused)));
}

function load_one(video, address, refused) {
  return new Promise((done, fail) => {
    const nudge = setTimeout(() => {
      // Some browsers load a video only when it is to play, and some play only what a person starts.
      if (video.src === address) video.play().catch((error) => error.name === "NotAllowedError" && refused());
    }, PATIENCE);
    video.onloadeddata = () => {
      clearTimeout(nudge);
      done();
    };
    video.onerror = () => {
      clearTimeout(nudge);
      fail(new Error("A video cannot be played here."));
    };
    video.src = address;
  });
}

export function when_broken(tell) {
  for (const video of videos) video.addEventListener("error", tell);
}

export function restart() {
  for (const video of videos) video.currentTime = 0;
  resume();
}

function resume() {
  set_playing(true);
  for (const video of videos.filter((video) => !video.ended)) run(video);
}

function run(video) {
  video.play().catch((error) => {
    // Refused where the page may not play by itself; then the button does.
    if (error.name === "NotAllowedError") pause();
  });
}

export function pause() {
  set_playing(false);
  for (const video of videos) video.pause();
  const going = videos.filter((video) => !video.ended);
  const time = Math.min(...going.map((video) => video.currentTime));
  for (const video of going) if (video.currentTime !== time) video.currentTime = time;
}

export function toggle() {
  if (playing) pause();
  else if (both_ended()) restart();
  else resume();
}

function set_playing(wanted) {
  playing = wanted;
  held = null;
  button.textContent = wanted ? "Pause" : "Play";
}

const both_ended = () => videos.every((video) => video.ended);

// The one ahead waits for the other: to seek takes longer than the gap is.
function keep_in_step() {
  if (playing) {
    if (held) {
      const other = held === left ? right : left;
      if (other.ended || other.currentTime >= held.currentTime) {
        run(held);
        held = null;
      }
    } else if (!left.ended && !right.ended && Math.abs(left.currentTime - right.currentTime) > APART) {
      held = left.currentTime > right.currentTime ? left : right;
      held.pause();
    }
  }
  requestAnimationFrame(keep_in_step);
}

for (const video of videos) {
  // The shorter one stands at its end until the longer one is there.
  video.addEventListener("ended", () => {
    if (playing && both_ended()) restart();
  });
  // What the browser or a key of the machine pauses, pauses both.
  video.addEventListener("pause", () => {
    if (playing && video.paused && !video.ended && video !== held && !document.hidden) pause();
  });
}
// Browsers stop videos that nobody sees, and not both at the same frame.
document.addEventListener("visibilitychange", () => {
  if (playing && !document.hidden) restart();
});
button.addEventListener("click", toggle);
keep_in_step();
