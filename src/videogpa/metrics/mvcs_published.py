"""The published multi-view consistency score of depth, weaknesses included; `mvcs` is the one to use.

It depends on the unit of length, so values of two geometry models, or of a relative and a metric one, cannot be
compared: of one clean scene in units ten times smaller or larger it makes .998 and 0. What one frame hides from
the next counts as error, depths at the far border are mixed with 0, and only neighbouring frames are compared,
so slow drift goes unnoticed and a frozen clip scores best.
"""

import torch
from torch.nn import functional as F

from videogpa.errors import CannotJudge
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
    depth, poses, intrinsics = prediction.depth, prediction.extrinsics_w2c, prediction.intrinsics
    frames, height, width = depth.shape
    if frames < 2 or not depth.isfinite().all():
        raise CannotJudge("the published score needs two frames of finite depth")
    points = transform(
        relative_pose(poses[:-1], poses[1:]), unproject(depth[:-1], intrinsics[:-1]).flatten(1, 2)
    )
    pixels, moved = project(points, intrinsics[1:])
    inside = ((pixels >= 0) & (pixels < pixels.new_tensor([width, height]))).all(-1)
    last = pixels.new_tensor([width - 1, height - 1]).clamp_min(1)
    grid = torch.where(inside[..., None], pixels, 0) / last * 2 - 1
    sampled = F.grid_sample(depth[1:, None], grid[:, None], align_corners=True)[:, 0, 0]
    errors = [(s - z)[m].square().mean() for s, z, m in zip(sampled, moved, inside, strict=True) if m.any()]
    if not errors:
        raise CannotJudge("no frame sees what the one before saw")
    return (-torch.stack(errors).mean()).exp().item()
