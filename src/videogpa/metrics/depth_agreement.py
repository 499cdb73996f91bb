"""Whether the depths of different frames describe one surface, whatever the scene's scale."""

import torch

from videogpa.errors import CannotJudge
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.warping import field_of, see, sources_of

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "pairwise reprojected depth, as in MVCS, in log depth and with occlusion masked"
NEEDS: frozenset[Need] = frozenset({"geometry"})

TOLERANCE = 0.05
"""A pixel whose depth is off by this log ratio counts half."""
OCCLUSION = 0.25
"""A point this much (log depth) behind the other frame's surface is hidden by it and not compared."""
SMALLEST_COVERAGE = 0.25
"""Share of the pixels of all pairs that both frames must see."""


def measure(clip: Clip) -> float:
    """Mean of 1 / (1 + |r - m| / 5 %) over all pixels that two frames see, in [0, 1].

    For a pixel of frame i, r = log(its depth moved into frame j / frame j's own depth where it lands), over
    all ordered pairs (i, j), and m is the one median of r over the clip. Scaling the scene, lengths and
    depths alike, changes nothing, nor does moving the world's origin.

    Raises:
        CannotJudge: no geometry, fewer than two frames, or no overlap to compare.
    """
    prediction = geometry_of(clip)
    frames = len(prediction.depth)
    field = field_of(prediction, prediction.images[:, :0])
    pairs = [see(field, t, sources_of(t, frames)) for t in range(frames)]
    gaps = torch.cat([p.depth_gap[p.inside & (p.depth_gap < OCCLUSION)] for p in pairs])
    possible = sum(p.inside.numel() for p in pairs)
    if len(gaps) < SMALLEST_COVERAGE * max(possible, 1):
        raise CannotJudge(
            f"only {len(gaps) / max(possible, 1):.0%} of the pixels of all pairs of frames overlap"
        )
    return (1 / (1 + (gaps - gaps.median()).abs() / TOLERANCE)).mean().item()
