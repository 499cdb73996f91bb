// What this browser keeps for the study. Where it refuses (blocked cookies), the study goes on and nothing is kept.
export function recall(storage, key) {
  try {
    return window[storage].getItem(key);
  } catch {
    return null;
  }
}

export function keep(storage, key, value) {
  try {
    window[storage].setItem(key, value);
  } catch {
    // The page in front of the rater knows it all the same.
  }
}

export function drop(storage, key) {
  try {
    window[storage].removeItem(key);
  } catch {
    // Then it was never kept.
  }
}
