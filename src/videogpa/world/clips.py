"""Rendered training clips on disk: one memory-mapped array a chunk, made once by worker processes, resumable.

A share of them can have a fault, as clips collected from the world have: what learns from them also draws the faults.
"""

import json
import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from rich.progress import track

from videogpa.artifact import write_json_atomic
from videogpa.errors import InputError
from videogpa.tensors import Video
from videogpa.world.faults import FAULTS
from videogpa.world.render import render
from videogpa.world.scene import sample_scene

CHUNK = 250
DYNAMIC_EVERY = 8
"""One clip in so many has a moving body."""
MADE = "made.json"
"""How the clips of a folder were made, so that different ones do not mix."""
FAULT_STREAM = 2
"""Beside a scene's seed: whether its clip has a fault, which and how strong."""


def render_clips(
    folder: Path,
    *,
    count: int,
    frames: int,
    size: int,
    workers: int,
    first_seed: int = 0,
    faulty_share: float = 0.0,
) -> None:
    """Render `count` clips (rounded up to whole chunks) of scenes first_seed, first_seed + 1, ...; existing
    chunks are kept. About a `faulty_share` of the clips gets a fault (`training_clip`).

    Raises:
        InputError: the folder holds other clips.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = {"frames": frames, "size": size, "first_seed": first_seed, "faulty_share": faulty_share}
    if any(folder.iterdir()) and made_with(folder) != made:
        known = made_with(folder) or "settings that nobody wrote down"
        raise InputError(f"{folder} holds clips made with {known}, not with {made}: give another folder")
    write_json_atomic(folder / MADE, made)
    seeds = range(first_seed, first_seed + count, CHUNK)
    todo = [s for s in seeds if not (folder / f"{s:08d}.json").exists()]
    job = partial(_render_chunk, folder, frames, size, faulty_share)
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        for _ in track(pool.map(job, todo), total=len(todo), description="rendering clips"):
            pass


def read_clips(folder: Path) -> Iterator[tuple[UInt8[np.ndarray, "n t h w 3"], list[str]]]:
    """All finished chunks in order: frames and captions."""
    for captions in sorted(folder.glob("[0-9]*.json")):
        yield np.load(captions.with_suffix(".npy"), mmap_mode="r"), json.loads(captions.read_text())


def made_with(folder: Path) -> dict[str, int | float]:
    """Frames, size, first seed and share of faults of a folder's clips; empty where that was not written down."""
    return json.loads((folder / MADE).read_text()) if (folder / MADE).exists() else {}


def training_clip(seed: int, frames: int, size: int, faulty_share: float) -> tuple[Video, str]:
    """The clip of a scene and its caption. Every fault of `FAULTS` is as likely; its strength lies between the
    second weakest and the strongest, evenly in its logarithm. A fault does not show in the caption.
    """
    scene = sample_scene(seed, dynamic=seed % DYNAMIC_EVERY == 0)
    clip = render(scene, frames, size, size)
    rng = np.random.default_rng([seed, FAULT_STREAM])
    if rng.uniform() >= faulty_share:
        return clip.rgb, scene.caption
    fault, strengths = FAULTS[str(rng.choice(list(FAULTS)))]
    strength = math.exp(rng.uniform(math.log(strengths[1]), math.log(strengths[-1])))
    return fault(clip, strength, rng), scene.caption


def _render_chunk(folder: Path, frames: int, size: int, faulty_share: float, first_seed: int) -> None:
    torch.set_num_threads(1)
    made = [training_clip(seed, frames, size, faulty_share) for seed in range(first_seed, first_seed + CHUNK)]
    rgb = torch.stack([video for video, _ in made])
    pixels = (rgb * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    np.save(folder / f"{first_seed:08d}.npy", pixels.numpy())
    # The captions are written last: they mark the chunk as whole.
    (folder / f"{first_seed:08d}.json").write_text(json.dumps([caption for _, caption in made]))
