"""Surfaces that change colour from frame to frame, where a light that changes smoothly would not do it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.cross_view import OCCLUSION, SMALLEST_COVERAGE, coverage
from videogpa.metrics.warping import Field, field_of, see

HIGHER_IS_BETTER = False
UNIT = "share of the clip's contrast"
SOURCE = "second difference of the colours along the flow of depth and poses; this project"
NEEDS: frozenset[Need] = frozenset({"geometry"})

SMALLEST_MOTION = 0.0025
"""Share of the longer image side (median) that a frame must be away from both its neighbours."""
SMALLEST_CONTRAST = 0.01
"""Standard deviation of the colours, in [0, 1], below which a clip shows nothing."""
RADIUS = 3
"""Changes are averaged over a square window of 2r + 1 pixels, so that resampling does not count."""


def measure(clip: Clip) -> float:
    """Mean of |c(t) - (c(t-1) + c(t+1)) / 2| along the induced flow, as a share of the colours' spread.

    c is the colour of one surface point, and the difference is averaged over a small window before its length
    is taken. Any light that changes linearly in time cancels out. The spread is the standard deviation of the
    clip's colours, so a clip that fades to grey or black flickers no less.

    Raises:
        CannotJudge: no geometry, fewer than three frames, no contrast, no motion, or too little is seen in
            three frames in a row.
    """
    prediction = geometry_of(clip)
    images = prediction.images
    if len(images) < 3:
        raise CannotJudge("flicker needs three frames")
    spread = images.transpose(0, 1).flatten(1).std(1).square().sum().sqrt()
    if not spread > SMALLEST_CONTRAST:
        raise CannotJudge("the colours of the clip show no contrast")
    field = field_of(prediction, images)
    changes = [_change(field, t) for t in range(1, len(images) - 1)]
    changes = [(change, seen) for change, seen in changes if seen.any()]
    if not changes:
        raise CannotJudge("no camera motion, or no surface is seen in three frames in a row")
    covered = coverage(torch.stack([seen for _, seen in changes]))
    if covered < SMALLEST_COVERAGE:
        raise CannotJudge(f"only {covered:.0%} of the pixels are seen in three frames in a row")
    return (torch.cat([change[seen] for change, seen in changes]).mean() / spread).item()


def _change(field: Field, t: int) -> tuple[Float[Tensor, "h w"], Bool[Tensor, "h w"]]:
    """Length of the averaged second difference at the pixels of frame t, and where both neighbours see it."""
    views = see(field, t, [t - 1, t + 1])
    seen = (views.inside & (views.depth_gap < OCCLUSION)).all(0)
    away = views.displacement[:, seen].mean(0).median() if seen.any() else seen.new_zeros(())
    seen &= away > SMALLEST_MOTION * max(seen.shape)
    change = (field.maps[t] - views.values.mean(0)) * seen
    return _averaged(torch.cat([change, seen[None].to(change)])[None])[0].square().sum(0).sqrt(), seen


def _averaged(maps: Float[Tensor, "1 4 h w"]) -> Float[Tensor, "1 3 h w"]:
    """The first three maps averaged with the fourth as weight."""
    sums = F.avg_pool2d(maps, 2 * RADIUS + 1, stride=1, padding=RADIUS)
    return sums[:, :3] / sums[:, 3:].clamp_min(1e-6)
