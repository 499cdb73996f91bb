"""Whether what was seen stays what it was: local descriptors found again in the first and in the previous frame.

The idea is VBench's subject consistency; the numbers are not. There one DINO feature describes a frame; here
histograms of gradients describe every part of it, without weights, and each is looked for nearby, so that a camera
that moves matters less. Colours would hardly help and make changes of exposure count (`docs/metrics.md`).
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.flow import luma, require_texture
from videogpa.metrics.base import Clip, Need
from videogpa.tensors import Video

HIGHER_IS_BETTER = True
UNIT = "cosine"
SOURCE = (
    "after VBench's subject consistency (Huang et al., CVPR 2024), dense gradient histograms (Dalal and Triggs, "
    "CVPR 2005; Tola et al., TPAMI 2010) instead of DINO"
)
NEEDS: frozenset[Need] = frozenset()

SHORT_SIDE = 48
"""Frames are described at this size: what the value sees does not depend on theirs."""
DIRECTIONS = 8
BLOCK = 6
"""Pixels; a descriptor is made of 2×2 such blocks."""
STEP = 4
"""Pixels between descriptors."""
REACH = 3
"""A part is looked for so many steps around its place, a quarter of the shorter side."""
WEAKEST = 0.25
"""Share of the parts, those found worst, that count: a body covers a part of the picture only."""
FLAT = 0.02
"""Length of a gradient histogram that counts half, in intensity per pixel: what is nearly flat has no direction."""
SMALLEST_CHANGE = 0.01
"""Mean absolute difference to the first frame, in [0, 1], below which a clip stands still: compressing a frozen
clip makes up to .003, the slowest camera of the procedural world at least .035."""

Descriptors = Float[Tensor, "t d gy gx"]
"""Unit vectors on a grid."""


def measure(clip: Clip) -> float:
    """Mean cosine of each frame's worst-found quarter of descriptors with the first and the previous frame's best.

    It falls with the camera's motion, though less than by faults: compare clips of the same motion, and read it beside
    `motion`. A frozen clip would be perfect, and has no value.

    Raises:
        CannotJudge: fewer than two frames, not finite, no texture, or nothing changes.
    """
    frames = clip.frames
    if len(frames) < 2:
        raise CannotJudge("a single frame is consistent with nothing")
    require_texture(frames)
    if (frames - frames[:1]).abs().mean((1, 2, 3)).max() < SMALLEST_CHANGE:
        raise CannotJudge("the clip stands still")
    found = describe(frames)
    first, previous = found[:1].expand_as(found[1:]), found[:-1]
    return ((found_again(found[1:], first) + found_again(found[1:], previous)) / 2).mean().item()


def describe(frames: Video) -> Descriptors:
    """Gradients by direction in blocks of 2×2, whatever the contrast, as their difference from the clip's mean.

    Without that difference all histograms are alike, and noise would be found again everywhere.
    """
    height, width = frames.shape[-2:]
    ratio = SHORT_SIDE / min(height, width)
    size = round(height * ratio), round(width * ratio)
    small = F.interpolate(frames, size, mode="bilinear", antialias=True) if ratio != 1 else frames
    found = _blocks(_by_direction(small))
    found = found / (found.norm(dim=1, keepdim=True) + FLAT)
    return F.normalize(found - found.mean((0, 2, 3), keepdim=True), dim=1)


def found_again(parts: Descriptors, among: Descriptors) -> Float[Tensor, " t"]:
    """Of every frame the mean of the weakest quarter of best cosines, from `parts` to `among` and back.

    The outermost parts only serve to be found: what they show comes and goes with the camera.
    """
    near, inner = _near(parts), _inner(parts)
    cosines = (parts.flatten(2).mT @ among.flatten(2)).masked_fill(~near, -1)
    count = max(1, round(WEAKEST * int(inner.sum())))
    ways = [cosines.amax(axis)[:, inner].topk(count, largest=False).values.mean(1) for axis in (1, 2)]
    return (ways[0] + ways[1]) / 2


def _by_direction(frames: Video) -> Float[Tensor, "t directions h w"]:
    """Slope of the luma, shared out among directions by the third power of the cosine, where that is above 0."""
    around = F.pad(luma(frames)[:, None], (1, 1, 1, 1), mode="replicate")
    across = (around[..., 1:-1, 2:] - around[..., 1:-1, :-2]) / 2
    down = (around[..., 2:, 1:-1] - around[..., :-2, 1:-1]) / 2
    angles = torch.arange(DIRECTIONS).to(frames).view(-1, 1, 1) * (2 * math.pi / DIRECTIONS)
    along = F.relu(across * angles.cos() + down * angles.sin())
    return along**3 / (across.square() + down.square()).clamp_min(1e-12)


def _blocks(maps: Float[Tensor, "t c h w"]) -> Float[Tensor, "t 4*c gy gx"]:
    """Means over blocks; the four of a 2×2 side by side, every `STEP` pixels."""
    means = F.avg_pool2d(maps, BLOCK, 1)
    height, width = (side - BLOCK for side in means.shape[-2:])
    corners = [means[..., y : y + height, x : x + width] for y in (0, BLOCK) for x in (0, BLOCK)]
    return torch.cat(corners, 1)[..., ::STEP, ::STEP]


def _near(parts: Descriptors) -> Bool[Tensor, "n n"]:
    """Which places of the grid are within reach of each other."""
    rows, columns = (torch.arange(side, device=parts.device) for side in parts.shape[-2:])
    places = torch.cartesian_prod(rows, columns)
    return (places[:, None] - places).square().sum(-1) <= REACH**2


def _inner(parts: Descriptors) -> Bool[Tensor, " n"]:
    inner = torch.zeros(parts.shape[-2:], dtype=torch.bool, device=parts.device)
    inner[1:-1, 1:-1] = True
    return inner.flatten()
