"""Every frame explained by the *other* frames only: the consistency score that videos are compared by.

The colours of a source frame are carried to a target frame through the target's depth and the relative pose
and compared where the source sees the same surface. The difference is set against the local contrast: the
difference that a shift by a small share of the image would make. Blur and fade shrink both alike, and a
noise level that stays makes them lose, so neither smooths its way to a better score. A pair between
which nothing moved proves nothing and is not judged, so freezing does not help either.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.warping import Views, see
from videogpa.tensors import Mask, Video

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "leave-one-out backward warping, photometric difference against local contrast; this project"
NEEDS: frozenset[Need] = frozenset({"geometry"})

OCCLUSION = 0.1
"""A point this much (log depth) behind the source's own surface is hidden there and not compared."""
SHIFT = 1 / 64
"""Share of the longer image side; colours that differ as under this shift are half wrong."""
NOISE = 2 / 255
"""Colour difference that proves nothing; it keeps images without contrast from looking consistent."""
CONTRAST_RADIUS = 3
"""Contrast is averaged over a square window of 2r + 1 pixels."""
SMALLEST_MOTION = 0.01
"""Share of the longer image side that must separate two frames (median over what both see)."""
SMALLEST_COVERAGE = 0.25
"""Share of all pixels that some other frame must see."""
MOST_SOURCES = 24
"""Sources per target, spread evenly over the clip, so that cost stays linear in long clips."""


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


def measure(clip: Clip) -> float:
    """1 - mean over frames of Σ difference / Σ (difference + contrast), in [0, 1].

    The sums run over the judged pixels of all pairs of a target frame, weighted by confidence, so pixels
    with much contrast or much difference count most. Independent of the scene's scale and origin.

    Raises:
        CannotJudge: no geometry, no camera motion, or too little of the clip is seen by two frames.
    """
    errors = clip_errors(geometry_of(clip))
    if not any(e.mask.any() for e in errors):
        raise CannotJudge("no camera motion, or no frame sees what another one saw")
    covered = coverage(_heat_maps(errors)[1])
    if covered < SMALLEST_COVERAGE:
        raise CannotJudge(f"only {covered:.0%} of the pixels are seen by another frame after some motion")
    return 1 - torch.stack([_ratio(e) for e in errors if e.mask.any()]).mean().item()


def error_maps(prediction: GeometryPrediction) -> tuple[Float[Tensor, "t h w"], Mask]:
    """Per pixel of every frame: the share in [0, 1) that is inconsistent with the other frames, and where
    any of them could tell. Pixels that none could judge are 0.
    """
    return _heat_maps(clip_errors(prediction))


def coverage(judged: Mask) -> float:
    """Share of all pixels that were judged."""
    return judged.float().mean().item()


def clip_errors(prediction: GeometryPrediction) -> list[PairErrors]:
    """Every frame of the clip against its sources."""
    contrast = local_contrast(prediction.images)
    frames = range(len(prediction.images))
    return [pair_errors(prediction, t, sources_of(t, len(frames)), contrast) for t in frames]


def pair_errors(
    prediction: GeometryPrediction, target: int, sources: list[int], contrast: Float[Tensor, "t 1 h w"]
) -> PairErrors:
    """One target frame against its sources; `contrast` is `local_contrast` of all frames."""
    images, confidence = prediction.images, prediction.confidence
    maps = torch.cat([images, contrast, confidence[:, None]], 1)
    views = see(prediction, target, sources, maps)
    colors, contrasts, confidences = views.values.split([3, 1, 1], 1)
    return PairErrors(
        difference=(colors - images[target]).norm(dim=1) + NOISE,
        contrast=(contrasts[:, 0] + contrast[target]) / 2,
        weight=(confidences[:, 0] * confidence[target]).clamp_min(0).sqrt(),
        mask=views.inside & (views.depth_gap < OCCLUSION) & _moved(views)[:, None, None],
    )


def sources_of(target: int, frames: int) -> list[int]:
    """All other frames, thinned evenly when there are more than `MOST_SOURCES`."""
    others = [t for t in range(frames) if t != target]
    stride = -(-len(others) // MOST_SOURCES)
    return others[target % stride :: stride] if others else []


def local_contrast(images: Video) -> Float[Tensor, "t 1 h w"]:
    """Colour difference that a shift by `SHIFT` makes: the mean gradient around each pixel times that shift."""
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    dx = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    dy = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    gradient = (dx.square() + dy.square()).sum(1, keepdim=True).sqrt()
    r = CONTRAST_RADIUS
    around = F.avg_pool2d(F.pad(gradient, (r, r, r, r), mode="replicate"), 2 * r + 1, stride=1)
    return around * SHIFT * max(images.shape[-2:])


def _moved(views: Views) -> Bool[Tensor, " s"]:
    seen = torch.where(views.inside, views.displacement, torch.nan).flatten(1)
    return seen.nanmedian(1).values > SMALLEST_MOTION * max(views.inside.shape[-2:])


def _ratio(errors: PairErrors) -> Float[Tensor, ""]:
    weight = errors.weight * errors.mask
    wrong = (weight * errors.difference).sum()
    return wrong / (wrong + (weight * errors.contrast).sum())


def _heat_maps(errors: list[PairErrors]) -> tuple[Float[Tensor, "t h w"], Mask]:
    maps = []
    for pairs in errors:
        weight = pairs.weight * pairs.mask
        wrong = (weight * pairs.difference).sum(0)
        maps.append(wrong / (wrong + (weight * pairs.contrast).sum(0)).clamp_min(1e-12))
    return torch.stack(maps), torch.stack([pairs.mask.any(0) for pairs in errors])
