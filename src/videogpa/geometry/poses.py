"""Poses for depth that a network gave: found by alignment at a limited size, or refused."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.alignment import Alignment, align
from videogpa.geometry.cameras import (
    pixel_grid,
    project,
    relative_pose,
    resize_intrinsics,
    transform,
    unproject,
)
from videogpa.geometry.embedded import SHORT_SIDE, SMALLEST_CONTRAST, SMALLEST_MOTION, refuse_failed
from videogpa.tensors import Extrinsics, Intrinsics, Video

LARGEST_SHORT_SIDE = 96
"""Pixels; larger frames are aligned at this size, which bounds the time and loses nothing that poses need."""


def require_video(images: Video) -> None:
    """Stop at clips that no camera can be followed in.

    Raises:
        CannotJudge: fewer than two frames, or a frame without texture.
    """
    if len(images) < 2:
        raise CannotJudge("one frame has no motion; at least two are needed")
    if images.std((2, 3)).amax(1).min() < SMALLEST_CONTRAST:
        raise CannotJudge("a frame shows no texture to align the camera by")


def alignment(
    images: Video,
    depth: Float[Tensor, "h w"],
    confidence: Float[Tensor, "h w"],
    intrinsics: Intrinsics,
    short_side: int = LARGEST_SHORT_SIDE,
) -> Alignment:
    """How the camera moved, from the first frame's depth and confidence [h w]; unknown depth (0) gets no weight."""
    known = depth > 0
    inverse = torch.where(known, 1 / depth, (1 / depth[known]).median())
    weight = confidence * known
    size = (images.shape[-2], images.shape[-1])
    ratio = short_side / min(size)
    if ratio < 1:
        small = (round(size[0] * ratio), round(size[1] * ratio))
        images = F.interpolate(images, small, mode="bilinear", antialias=True)
        inverse, weight = F.interpolate(torch.stack([inverse, weight])[None], small, mode="area")[0]
        intrinsics = resize_intrinsics(intrinsics, size, small)
    return align(images, 1 / inverse, weight, intrinsics)


def aligned_poses(
    images: Video, depth: Float[Tensor, "h w"], confidence: Float[Tensor, "h w"], intrinsics: Intrinsics
) -> Extrinsics:
    """Extrinsics [t 3 4] that make all frames look like the first one, placed at its depth [h w]; the first camera
    is the world.

    Raises:
        CannotJudge: the poses do not explain the frames, or the camera stood still.
    """
    found = alignment(images, depth, confidence, intrinsics)
    refuse_failed(found)
    return found.extrinsics_w2c


def require_motion(depth: Float[Tensor, "h w"], extrinsics: Extrinsics, intrinsics: Intrinsics) -> None:
    """Stop where the poses hardly move the first frame's pixels, placed at its depth [h w].

    Raises:
        CannotJudge: less than `SMALLEST_MOTION` pixels at `SHORT_SIDE`, the limit that aligned poses have too.
    """
    height, width = depth.shape
    count = len(extrinsics)
    points = unproject(torch.where(depth > 0, depth, torch.nan), intrinsics[0]).flatten(0, 1)
    motion = relative_pose(extrinsics[:1].expand(count, 3, 4), extrinsics)
    pixels, _ = project(transform(motion, points.expand(count, -1, -1)), intrinsics)
    moved = (pixels - pixel_grid(height, width, like=depth).flatten(0, 1)).norm(dim=-1)
    if moved.nanmedian(1).values.max() < SMALLEST_MOTION * min(height, width) / SHORT_SIDE:
        raise CannotJudge("the frames do not move")
