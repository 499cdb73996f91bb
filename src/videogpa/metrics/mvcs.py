"""Multi-view consistency of depth, free of the unit of length and of what one frame hides from another."""

import torch

from videogpa.errors import CannotJudge
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.cross_view import SMALLEST_COVERAGE, coverage, moved
from videogpa.metrics.warping import field_of, see, sources_of

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "MVCS of VideoGPA, arXiv 2601.23286, with relative depths, occlusion and borders masked, all pairs"
NEEDS: frozenset[Need] = frozenset({"geometry"})

OCCLUSION = 0.25
"""A point this much (log depth) behind the other frame's surface is hidden by it and not compared."""


def measure(clip: Clip) -> float:
    """exp(-mean ((z' - z) / m)²) over all pixels that two frames see, in [0, 1].

    For a pixel of frame i, z' is its depth moved into frame j and z is frame j's own depth where it lands,
    over all ordered pairs (i, j); m is the one median depth of the clip. Scaling the scene changes nothing, nor
    does moving the world's origin. Errors of a few percent all read as nearly 1, as in the published score:
    `depth_agreement` is the measure that tells them apart.

    Raises:
        CannotJudge: no geometry, fewer than two frames, no camera motion, or too little overlap.
    """
    prediction = geometry_of(clip)
    frames = len(prediction.depth)
    field = field_of(prediction, prediction.images[:, :0])
    field = field_of(prediction, field.inverse_depth[:, None])
    errors, judged = [], []
    for target in range(frames):
        views = see(field, target, sources_of(target, frames))
        mask = views.inside & (views.depth_gap < OCCLUSION) & moved(views)[:, None, None]
        errors.append(((views.depth_gap.exp() - 1) / views.values[:, 0])[mask])
        judged.append(mask.any(0))
    covered = coverage(torch.stack(judged))
    if covered < SMALLEST_COVERAGE:
        raise CannotJudge(f"only {covered:.0%} of the pixels are seen by another frame after some motion")
    scale = (1 / field.inverse_depth[field.inverse_depth > 0]).median()
    return (-(torch.cat(errors) / scale).square().mean()).exp().item()
