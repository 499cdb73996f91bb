"""Single rendered frames with their geometry on disk, compact, made once in chunks; resumable."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor

from videogpa.world.render import Render, render
from videogpa.world.scene import sample_scene

CHUNK = 200
"""Scenes a file."""
FRAMES_A_SCENE = 2
"""The first and the last frame of the scene's camera move."""
CHANNELS = {"rgb": slice(0, 3), "albedo": slice(3, 6), "normals": slice(6, 9), "depth": slice(9, 10)}


def render_frames(folder: Path, *, scenes: int, size: int, first_seed: int) -> None:
    """Render the scenes first_seed, first_seed + 1, ... (rounded up to whole chunks) that `folder` lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    todo = [
        s for s in range(first_seed, first_seed + scenes, CHUNK) if not (folder / f"{s:08d}.npy").exists()
    ]
    for first in track(todo, description="rendering frames"):
        clips = (render(sample_scene(s), FRAMES_A_SCENE, size, size) for s in range(first, first + CHUNK))
        pixels = torch.cat([_pack(clip) for clip in clips])
        temporary = folder / f"{first:08d}.tmp"
        with temporary.open("wb") as file:
            np.save(file, pixels.numpy())
        temporary.replace(temporary.with_suffix(".npy"))


def read_frames(folder: Path, *, scenes: int, first_seed: int) -> Float[Tensor, "n 10 h w"]:
    """What `render_frames` wrote for the same scenes, in half precision; `CHANNELS` says what is where."""
    files = [folder / f"{s:08d}.npy" for s in range(first_seed, first_seed + scenes, CHUNK)]
    return torch.from_numpy(np.concatenate([np.load(f) for f in files]))


def _pack(clip: Render) -> Float[Tensor, "t 10 h w"]:
    return torch.cat([clip.rgb, clip.albedo, clip.normals, clip.depth[:, None]], 1).half()
