"""Dense preferences: where in a video its score was lost decides where its prediction error counts.

A map of inconsistency [t h w] becomes a weight for every place of the latents: its pixels are averaged over the frames
that one latent frame stands for (causal autoencoders: the first frame alone, then groups of equal length), and over
the picture's cells. Weights are 1 on average, so that the error stays one of the same size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor
from torch.nn.functional import adaptive_avg_pool2d

from videogpa.errors import InputError
from videogpa.families.base import LatentSize, load_tensors

Dense = Literal["off", "own", "contrast"]
TEMPORAL_FACTORS = (1, 2, 4, 8)
"""By which autoencoders for video shorten it."""
Cells = Float[Tensor, "f h w"]


@dataclass(frozen=True)
class ErrorMap:
    """What a metric found in a video: the share of inconsistency [t h w] in [0, 1], and where it could tell."""

    error: Float[Tensor, "t h w"]
    judged: Bool[Tensor, "t h w"]


def read_map(path: Path) -> ErrorMap:
    """The map of one candidate.

    Raises:
        InputError: the file is missing or holds something else.
    """
    tensors = load_tensors(path)
    if tensors.keys() != {"error", "judged"}:
        raise InputError(f"{path} is no map of inconsistency: make it with `videogpa error-maps`")
    return ErrorMap(tensors["error"], tensors["judged"].bool())


def pair_weights(chosen: ErrorMap, rejected: ErrorMap, size: LatentSize, how: Dense) -> tuple[Cells, Cells]:
    """The weights of chosen and rejected, each of mean 1.

    `own`: each side by its own map: the rejected where it is inconsistent, the chosen where it is consistent.
    `contrast`: both where the rejected is less consistent than the chosen.
    """
    good, bad = cells(chosen, size), cells(rejected, size)
    if how == "own":
        return _normalised(1 - good), _normalised(bad)
    shared = _normalised((bad - good).clamp_min(0))
    return shared, shared


def cells(map: ErrorMap, size: LatentSize) -> Cells:
    """The mean inconsistency in every place of the latents; where nothing could be judged, that of the whole video.

    Raises:
        InputError: the map's frames are no whole groups of latent frames.
    """
    judged = map.judged.float()
    typical = (map.error * judged).sum() / judged.sum().clamp_min(1)
    filled = torch.where(map.judged, map.error, typical)
    pooled = adaptive_avg_pool2d(filled[:, None], size[1:])[:, 0]
    shown = _shown_latent_frames(len(filled), size[0])
    rest = pooled[1:].unflatten(0, (shown - 1, -1)).mean(1) if shown > 1 else pooled[:0]
    padding = typical.expand(size[0] - shown, *size[1:])
    return torch.cat([padding, pooled[:1], rest])


def shuffled_in_space(weights: Cells, rng: Generator) -> Cells:
    """The control: the same weights at random places of their own frame."""
    orders = torch.stack([torch.randperm(weights[0].numel(), generator=rng) for _ in weights])
    return weights.flatten(1).gather(1, orders).view_as(weights)


def _shown_latent_frames(frames: int, latent_frames: int) -> int:
    """How many of the latent frames show video: some models put padding in front."""
    if frames == 1:
        return 1
    for shown in range(latent_frames, 1, -1):
        if (frames - 1) / (shown - 1) in TEMPORAL_FACTORS:
            return shown
    raise InputError(f"maps of {frames} frames do not fit {latent_frames} latent frames: score all frames")


def _normalised(weights: Cells) -> Cells:
    mean = weights.mean()
    return weights / mean if mean > 0 else torch.ones_like(weights)
