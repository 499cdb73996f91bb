"""The published multi-view consistency score of depth, weaknesses included; `mvcs` is the one to use.

It depends on the unit of length, so values of two geometry models, or of a relative and a metric one, cannot be
compared: of one clean scene in units ten times smaller or larger it makes .998 and 0. What one frame hides from
the next counts as error, depths at the far border are mixed with 0, and only neighbouring frames are compared,
so slow drift goes unnoticed and a frozen clip scores best.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import project, relative_pose, transform, unproject
from videogpa.metrics.base import Clip, Need, geometry_of

HIGHER_IS_BETTER = True
UNIT = "share, for one unit of length"
SOURCE = "MVCS of VideoGPA, arXiv 2601.23286, as the published code computes it"
NEEDS: frozenset[Need] = frozenset({"geometry"})


def measure(clip: Clip) -> float:
    """exp(-mean over t of the mean squared error of depth t seen from camera t + 1), in [0, 1].

    The error is between the depth of frame t's points in camera t + 1 and that frame's own depth, sampled
    bilinearly with 0 beyond the border, over the points in front of the camera whose pixel (u, v) has
    0 ≤ u < width and 0 ≤ v < height.

    Raises:
        CannotJudge: no geometry, fewer than two frames, a depth that is not finite, or no overlap.
    """
    prediction = geometry_of(clip)
    if len(prediction.depth) < 2 or not prediction.depth.isfinite().all():
        raise CannotJudge("the published score needs two frames of finite depth")
    errors = [_squared_error(prediction, t) for t in range(len(prediction.depth) - 1)]
    judged = [error for error in errors if error.isfinite()]
    if not judged:
        raise CannotJudge("no frame sees what the one before saw")
    return (-torch.stack(judged).mean()).exp().item()


def _squared_error(prediction: GeometryPrediction, t: int) -> Float[Tensor, ""]:
    """Mean over the points of frame t that fall into frame t + 1; NaN if none does."""
    depth, poses, intrinsics = prediction.depth, prediction.extrinsics_w2c, prediction.intrinsics
    height, width = depth.shape[1:]
    points = unproject(depth[t], intrinsics[t]).flatten(0, 1)
    pixels, moved = project(transform(relative_pose(poses[t], poses[t + 1]), points), intrinsics[t + 1])
    u, v = pixels.unbind(-1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    u, v = (u * (2 / max(width - 1, 1)) - 1).nan_to_num(), (v * (2 / max(height - 1, 1)) - 1).nan_to_num()
    grid = torch.stack([u, v], -1)[None, None]
    sampled = F.grid_sample(depth[t + 1][None, None], grid, align_corners=True).flatten()
    return (sampled - moved)[inside].square().mean()
