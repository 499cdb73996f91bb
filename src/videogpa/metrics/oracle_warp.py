"""Whether a sample's frames agree with each other under the *true* geometry: the reward's own oracle."""

import torch

from videogpa.errors import CannotJudge
from videogpa.metrics.base import Clip, Need, truth_of
from videogpa.metrics.warping import field_of, see, sources_of

HIGHER_IS_BETTER = False
UNIT = "intensity"
SOURCE = "leave-one-out warp by true depth and poses; this project"
NEEDS: frozenset[Need] = frozenset({"truth"})

SAME_SURFACE = 0.03
"""Largest difference in log depth of one surface seen twice; the geometry is exact."""


def measure(clip: Clip) -> float:
    """Mean absolute colour difference, in [0, 1], of all pairs of frames on the truly co-visible pixels.

    Plain colours on purpose: nothing is shared with `cross_view`'s way of comparing. Blur lowers it.

    Raises:
        CannotJudge: no truth of this shape, or no two frames see the same surface.
    """
    truth = truth_of(clip)
    frames = len(clip.frames)
    field = field_of(truth.geometry, clip.frames)
    total = clip.frames.new_zeros(())
    count = 0
    for target in range(frames):
        views = see(field, target, sources_of(target, frames))
        visible = views.inside & (views.depth_gap.abs() < SAME_SURFACE)
        difference = (views.values - clip.frames[target]).abs().mean(1)
        total += torch.where(visible, difference, 0).sum()
        count += int(visible.sum())
    if not count:
        raise CannotJudge("no two frames truly see the same surface")
    return (total / count).item()
