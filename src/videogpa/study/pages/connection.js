// Requests that are tried until there is an answer: a connection comes back, and asking twice does no harm.
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10000;
const TOO_BUSY = new Set([408, 425, 429]);
let tries = new AbortController();

// What was under way when the browser put this page aside may never end.
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  tries.abort();
  tries = new AbortController();
});

export async function ask(address, { read = json, troubled = () => {}, ...options } = {}) {
  for (let pause = FIRST_PAUSE; ; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
    try {
      const response = await fetch(address, { ...options, signal: tries.signal });
      const { ok, status } = response;
      if (ok) return { ok, status, content: await read(response) };
      if (status < 500 && !TOO_BUSY.has(status)) return { ok, status, content: await refusal(response) };
    } catch {
      // No connection, or it broke before all had come.
    }
    troubled();
    await later(pause);
  }
}

const json = (response) => response.json();

/** The server's reason, as text. */
async function refusal(response) {
  const text = await response.text();
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === "string" ? detail : detail.map((fault) => fault.msg).join("; ");
  } catch {
    return `error ${response.status}`;
  }
}

function later(pause) {
  return new Promise((done) => {
    const go = () => {
      clearTimeout(timer);
      removeEventListener("online", go);
      done();
    };
    const timer = setTimeout(go, pause);
    addEventListener("online", go);
  });
}
