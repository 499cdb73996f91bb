"""What makes a video worse without making it inconsistent: none of it may rank above the clean video."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from videogpa.tensors import Video
from videogpa.video_io import read_video, write_preview
from videogpa.world.faults import blurred

Degradation = Callable[[Video, float, np.random.Generator], Video]


def freeze(frames: Video, strength: float, rng: np.random.Generator) -> Video:
    """The last `strength` percent of the clip stand still."""
    moving = max(1, round(len(frames) * (1 - strength / 100)))
    return frames[torch.arange(len(frames)).clamp_max(moving - 1)]


def slow_down(frames: Video, strength: float, rng: np.random.Generator) -> Video:
    """As many frames for `strength` percent less of the motion, each shown longer."""
    return frames[(torch.arange(len(frames)) * (1 - strength / 100)).long()]


def blur(frames: Video, strength: float, rng: np.random.Generator) -> Video:
    """Gaussian, with a standard deviation of `strength` percent of the longer side."""
    return blurred(frames, strength / 100 * max(frames.shape[-2:]))


def fade(frames: Video, strength: float, rng: np.random.Generator) -> Video:
    """Towards grey, `strength` percent of the way at the end."""
    share = torch.linspace(0, strength / 100, len(frames)).view(-1, 1, 1, 1)
    return torch.lerp(frames, frames.new_tensor(0.5), share)


def noise(frames: Video, strength: float, rng: np.random.Generator) -> Video:
    """Independent and Gaussian, `strength` percent of white."""
    drawn = torch.from_numpy(rng.normal(size=frames.shape)).float()
    return (frames + strength / 100 * drawn).clamp(0, 1)


def compression(frames: Video, strength: float, rng: np.random.Generator) -> Video:
    """H.264 in 4:2:0 at constant rate factor `strength`, decoded again."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "compressed.mp4"
        write_preview(path, frames, scale=1, crf=round(strength))
        return read_video(path)[..., : frames.shape[-2], : frames.shape[-1]]


DEGRADATIONS: dict[str, tuple[Degradation, tuple[float, float, float]]] = {
    "freeze": (freeze, (25.0, 50.0, 75.0)),
    "slow_down": (slow_down, (25.0, 50.0, 75.0)),
    "blur": (blur, (1.0, 2.0, 4.0)),
    "fade": (fade, (25.0, 50.0, 75.0)),
    "noise": (noise, (2.0, 4.0, 8.0)),
    "compression": (compression, (28.0, 36.0, 44.0)),
}
