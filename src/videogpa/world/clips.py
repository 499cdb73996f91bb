"""Rendered training clips on disk: one memory-mapped array a chunk, made once by worker processes, resumable."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from rich.progress import track

from videogpa.world.render import render
from videogpa.world.scene import sample_scene

CHUNK = 250
DYNAMIC_EVERY = 8
"""One clip in so many has a moving body."""


def render_clips(
    folder: Path, *, count: int, frames: int, size: int, workers: int, first_seed: int = 0
) -> None:
    """Render `count` clips (rounded up to whole chunks) of scenes first_seed, first_seed + 1, ...; existing
    chunks are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeds = range(first_seed, first_seed + count, CHUNK)
    todo = [s for s in seeds if not (folder / f"{s:08d}.json").exists()]
    job = partial(_render_chunk, folder, frames, size)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for _ in track(pool.map(job, todo), total=len(todo), description="rendering clips"):
            pass


def read_clips(folder: Path) -> Iterator[tuple[UInt8[np.ndarray, "n t h w 3"], list[str]]]:
    """All finished chunks in order: frames and captions."""
    for captions in sorted(folder.glob("*.json")):
        yield np.load(captions.with_suffix(".npy"), mmap_mode="r"), json.loads(captions.read_text())


def _render_chunk(folder: Path, frames: int, size: int, first_seed: int) -> None:
    torch.set_num_threads(1)
    scenes = [
        sample_scene(seed, dynamic=seed % DYNAMIC_EVERY == 0)
        for seed in range(first_seed, first_seed + CHUNK)
    ]
    rgb = torch.stack([render(scene, frames, size, size).rgb for scene in scenes])
    pixels = (rgb * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2)
    np.save(folder / f"{first_seed:08d}.npy", pixels.numpy())
    # The captions are written last: they mark the chunk as whole.
    (folder / f"{first_seed:08d}.json").write_text(json.dumps([scene.caption for scene in scenes]))
