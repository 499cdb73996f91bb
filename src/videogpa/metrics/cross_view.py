"""Every frame explained by the *other* frames only: the consistency score that videos are compared by.

The colours of a source frame are carried to a target frame through the target's depth and the relative pose
and compared where the source sees the same surface. The difference is set against the local contrast: the
difference that a shift by a small share of the image would make. Blur and fade shrink both alike, and a
noise level that stays makes them lose, so neither smooths its way to a better score. A pair between
which nothing moved proves nothing and is not judged, so freezing does not help either.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.warping import Field, Views, field_of, see_from, sources_of
from videogpa.tensors import Mask, Video

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "leave-one-out backward warping, photometric difference against local contrast; this project"
NEEDS: frozenset[Need] = frozenset({"geometry"})

OCCLUSION = 0.1
"""A point this much (log depth) behind the source's own surface is hidden there and not compared."""
SHIFT = 1 / 8
"""Colours that differ as under a shift by SHIFT·√side pixels (side = the longer one) are half wrong: .9
pixels at 48, 2.4 at 360. Half-way between a fixed number of pixels, which is what resampling costs, and a
fixed share of the image, which is what an error in space makes; so the size of a clip hardly matters."""
NOISE = 1 / 255
"""Colour difference that proves nothing; it keeps images without contrast from looking consistent."""
CONTRAST_RADIUS = 3
"""Contrast is averaged over a square window of 2r + 1 pixels."""
SMALLEST_MOTION = 0.01
"""Share of the longer image side that must separate two frames (median over what both see)."""
SMALLEST_COVERAGE = 0.25
"""Share of all pixels that some other frame must see."""


@dataclass(frozen=True)
class PairErrors:
    """One target frame against its sources s, on the target's pixels.

    difference [s h w]: colour difference with the noise level added. contrast [s h w]: the difference that
    counts as half wrong. weight [s h w]: confidence. mask [s h w]: judged pixels.
    """

    difference: Float[Tensor, "s h w"]
    contrast: Float[Tensor, "s h w"]
    weight: Float[Tensor, "s h w"]
    mask: Bool[Tensor, "s h w"]


@dataclass(frozen=True)
class FrameSums:
    """Difference and contrast of one frame, weighted and summed over its judged pixels and pairs, how many pixels
    some source judged, and how many there are. Those of parts of a frame may be added up.
    """

    difference: float = 0.0
    contrast: float = 0.0
    judged: int = 0
    pixels: int = 0

    def __add__(self, other: "FrameSums") -> "FrameSums":
        return FrameSums(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


def measure(clip: Clip) -> float:
    """1 - mean over frames of Σ difference / Σ (difference + contrast), in [0, 1].

    The sums run over the judged pixels of all pairs of a target frame, weighted by confidence, so pixels
    with much contrast or much difference count most. Independent of the scene's scale and origin.

    Raises:
        CannotJudge: no geometry, no camera motion, or too little of the clip is seen by two frames.
    """
    return agreement([sums_of(errors) for errors in clip_errors(geometry_of(clip))])


def agreement(frames: Sequence[FrameSums]) -> float:
    """What `measure` returns, from what was summed up over each frame.

    Raises:
        CannotJudge: no camera motion, or too little of the clip is seen by two frames.
    """
    judged = [f for f in frames if f.judged and f.difference > 0]
    if not judged:
        raise CannotJudge("no camera motion, or no frame sees what another one saw")
    covered = sum(f.judged for f in judged) / sum(f.pixels for f in frames)
    if covered < SMALLEST_COVERAGE:
        raise CannotJudge(f"only {covered:.0%} of the pixels are seen by another frame after some motion")
    return 1 - sum(f.difference / (f.difference + f.contrast) for f in judged) / len(judged)


def sums_of(errors: PairErrors) -> FrameSums:
    """The errors of a frame, or of a part of it, summed up."""
    weight = errors.weight * errors.mask
    return FrameSums(
        (weight * errors.difference).sum(dtype=torch.float64).item(),
        (weight * errors.contrast).sum(dtype=torch.float64).item(),
        int(errors.mask.any(0).sum()),
        errors.mask[0].numel(),
    )


def error_maps(errors: Sequence[PairErrors]) -> tuple[Float[Tensor, "t h w"], Mask]:
    """Per pixel of every frame: the share in [0, 1) that is inconsistent with the other frames, and where
    any of them could tell. Pixels that none could judge are 0.
    """
    maps = []
    for pairs in errors:
        weight = pairs.weight * pairs.mask
        wrong = (weight * pairs.difference).sum(0)
        maps.append(wrong / (wrong + (weight * pairs.contrast).sum(0)).clamp_min(1e-12))
    return torch.stack(maps), torch.stack([pairs.mask.any(0) for pairs in errors])


def coverage(judged: Mask) -> float:
    """Share of all pixels that were judged."""
    return judged.float().mean().item()


def clip_errors(prediction: GeometryPrediction) -> list[PairErrors]:
    """Every frame of the clip against its sources.

    Raises:
        CannotJudge: fewer than two frames.
    """
    images = prediction.images
    field = field_of(prediction, compared_maps(prediction, images, local_contrast(images)))
    count = len(images)
    return [pair_errors(field.only([t]), field.only(sources_of(t, count))) for t in range(count)]


def compared_maps(
    prediction: GeometryPrediction, colors: Video, contrast: Float[Tensor, "t 1 h w"]
) -> Float[Tensor, "t 5 h w"]:
    """What of every frame is compared: colours, the contrast they are set against, and confidence."""
    return torch.cat([colors, contrast, prediction.confidence.nan_to_num(0, 0, 0)[:, None]], 1)


def pair_errors(target: Field, sources: Field, far_enough: Bool[Tensor, " s"] | None = None) -> PairErrors:
    """One target frame against its sources; the fields' maps are `compared_maps`.

    `far_enough` says which sources prove something about the target; by default the views themselves do.
    """
    views = see_from(target, sources)
    colors, contrast, confidence = views.values.split([3, 1, 1], 1)
    own_colors, own_contrast, own_confidence = target.maps[0].split([3, 1, 1])
    far_enough = moved(views) if far_enough is None else far_enough
    return PairErrors(
        difference=(colors - own_colors).square().sum(1).sqrt() + NOISE,
        contrast=(contrast[:, 0] + own_contrast) / 2,
        weight=(confidence[:, 0] * own_confidence).clamp_min(0).sqrt(),
        mask=views.inside & (views.depth_gap < OCCLUSION) & far_enough[:, None, None],
    )


def local_contrast(images: Video) -> Float[Tensor, "t 1 h w"]:
    """Colour difference that the half-wrong shift makes: the mean gradient around each pixel times it."""
    dx = F.pad(images, (0, 1, 0, 0), mode="replicate").diff(dim=-1)
    dy = F.pad(images, (0, 0, 0, 1), mode="replicate").diff(dim=-2)
    gradient = (dx.square() + dy.square()).sum(1, keepdim=True).sqrt()
    r = CONTRAST_RADIUS
    around = F.avg_pool2d(F.pad(gradient, (r, r, r, r), mode="replicate"), 2 * r + 1, stride=1)
    return around * SHIFT * max(images.shape[-2:]) ** 0.5


def moved(views: Views) -> Bool[Tensor, " s"]:
    """Whether target and source are far enough apart to prove something."""
    seen = torch.where(views.inside, views.displacement, torch.nan).flatten(1)
    return seen.nanmedian(1).values > SMALLEST_MOTION * max(views.inside.shape[-2:])
