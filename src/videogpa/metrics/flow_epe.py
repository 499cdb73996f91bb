"""Whether the pictures move as the geometry says they do: estimated optical flow against the flow it induces."""

import torch
from jaxtyping import Bool
from torch import Tensor

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import pixel_grid, project, relative_pose, transform, unproject
from videogpa.geometry.flow import flow_to_next, require_texture
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.cross_view import SMALLEST_COVERAGE, coverage
from videogpa.metrics.warping import field_of, see
from videogpa.tensors import Flow, Mask

HIGHER_IS_BETTER = False
UNIT = "share of the longer image side"
SOURCE = "end-point error of DIS flow (Kroeger et al., ECCV 2016) against the flow of depth and poses; this project"
NEEDS: frozenset[Need] = frozenset({"geometry"})

OCCLUSION = 0.25
"""A point this much (log depth) behind the next frame's surface is hidden by it and not compared."""
SMALLEST_MOTION = 0.0025
"""Share of the longer image side (median, by either flow) that must separate neighbouring frames."""


def measure(clip: Clip) -> float:
    """Mean end-point error of the flow from each frame to the next, as a share of the longer image side.

    Over the pixels that the geometry says the next frame sees, what moves by itself (`dynamic_mask`) left out.
    Neighbouring frames that stand still by both flows prove nothing and are not judged.

    Raises:
        CannotJudge: no geometry, fewer than two frames, no texture, no motion, or too little is seen twice.
    """
    prediction = geometry_of(clip)
    require_texture(prediction.images)
    induced, visible = induced_flow(prediction), visible_in_next(prediction)
    estimated = flow_to_next(prediction.images)
    side = max(induced.shape[-2:])
    visible &= _moved(induced, estimated, visible, SMALLEST_MOTION * side)[:, None, None]
    if not visible.any():
        raise CannotJudge("no motion between neighbouring frames, or none sees what the one before saw")
    judged = visible[visible.flatten(1).any(1)]
    if coverage(judged) < SMALLEST_COVERAGE:
        raise CannotJudge(f"only {coverage(judged):.0%} of the pixels are seen in the next frame")
    return (induced - estimated).square().sum(1).sqrt()[visible].mean().item() / side


def induced_flow(prediction: GeometryPrediction) -> Flow:
    """Flow in pixels from every frame to the next that depth and cameras induce; NaN behind the camera."""
    poses, intrinsics, depth = prediction.extrinsics_w2c, prediction.intrinsics, prediction.depth[:-1]
    points = unproject(depth, intrinsics[:-1]).flatten(1, 2)
    pixels, _ = project(transform(relative_pose(poses[:-1], poses[1:]), points), intrinsics[1:])
    height, width = depth.shape[1:]
    flow = pixels.view(-1, height, width, 2) - pixel_grid(height, width, like=pixels)
    return flow.permute(0, 3, 1, 2)


def visible_in_next(prediction: GeometryPrediction) -> Mask:
    """Pixels of every frame but the last that the frame after it sees."""
    field = field_of(prediction, prediction.images[:, :0])
    views = [see(field, t, [t + 1]) for t in range(len(prediction.depth) - 1)]
    return torch.cat([v.inside & (v.depth_gap < OCCLUSION) for v in views])


def _moved(induced: Flow, estimated: Flow, visible: Mask, smallest_px: float) -> Bool[Tensor, " t"]:
    lengths = [
        torch.where(visible, flow.square().sum(1).sqrt(), torch.nan).flatten(1).nanmedian(1).values
        for flow in (induced, estimated)
    ]
    return torch.maximum(*lengths) > smallest_px
