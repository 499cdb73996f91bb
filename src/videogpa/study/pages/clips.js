// The videos of the screens, loaded whole and ahead, so that both start at once.
import { ask } from "./connection.js";

const SIDES = ["left", "right"];
const loaded = new Map();
const addresses = (position) => SIDES.map((side) => `${location.pathname}/${position}/${side}.mp4`);

export function clips(position, troubled) {
  return Promise.all(
    addresses(position).map((address) => {
      if (!loaded.has(address)) loaded.set(address, load(address, { troubled }));
      return loaded.get(address);
    }),
  );
}

/** The same again, past whatever the browser has stored of them. */
export function clips_anew(position, troubled) {
  forget(position);
  for (const address of addresses(position)) loaded.set(address, load(address, { troubled, cache: "reload" }));
  return clips(position);
}

export function forget(position) {
  for (const address of addresses(position)) {
    loaded.get(address)?.then(URL.revokeObjectURL, () => {});
    loaded.delete(address);
  }
}

async function load(address, options) {
  const { ok, content } = await ask(address, { read: (response) => response.blob(), ...options });
  if (ok) return URL.createObjectURL(content);
  loaded.delete(address);
  throw new Error(`A video could not be loaded (${content}).`);
}
