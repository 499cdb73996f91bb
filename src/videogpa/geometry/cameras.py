"""Pinhole camera algebra on tensors. OpenCV axes, world-to-camera extrinsics, pixel centres at integers.

Leading axes `*b` are batch axes; everything is differentiable and keeps dtype and device.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

NEAR = 1e-6
"""Depths at or below this, in scene units, are behind the camera or unknown."""
BORDER_SLACK = 1e-3
"""Pixels: where a camera slides along its rows, rounding alone would decide whether a whole border row is seen."""


def pixel_grid(height: int, width: int, like: Tensor) -> Float[Tensor, "h w 2"]:
    """(x, y) of every pixel centre, in the dtype and on the device of `like`."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack([x, y], -1)


def unproject(
    depth: Float[Tensor, "*b h w"], intrinsics: Float[Tensor, "*b 3 3"]
) -> Float[Tensor, "*b h w 3"]:
    """Camera-frame point of every pixel: depth times the ray with unit z."""
    height, width = depth.shape[-2:]
    pixels = pixel_grid(height, width, like=depth)
    focal, centre = _focal_and_centre(intrinsics)
    rays = (pixels - centre[..., None, None, :]) / focal[..., None, None, :]
    return torch.cat([rays, torch.ones_like(rays[..., :1])], -1) * depth[..., None]


def project(
    points: Float[Tensor, "*b n 3"], intrinsics: Float[Tensor, "*b 3 3"]
) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
    """Pixels and z-depths of camera-frame points. Pixels of points not in front of the camera are NaN."""
    focal, centre = _focal_and_centre(intrinsics)
    z = points[..., 2]
    seen = torch.where(z > NEAR, z, torch.nan)
    return points[..., :2] / seen[..., None] * focal[..., None, :] + centre[..., None, :], z


def transform(
    extrinsics: Float[Tensor, "*b 3 4"], points: Float[Tensor, "*b n 3"]
) -> Float[Tensor, "*b n 3"]:
    """R x + t for every point."""
    return points @ extrinsics[..., :3].mT + extrinsics[..., None, :, 3]


def invert(extrinsics: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3 4"]:
    """The inverse rigid motion: world-to-camera becomes camera-to-world."""
    rotation = extrinsics[..., :3].mT
    return torch.cat([rotation, -rotation @ extrinsics[..., 3:]], -1)


def compose(outer: Float[Tensor, "*b 3 4"], inner: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3 4"]:
    """The rigid motion that applies `inner` first."""
    rotation = outer[..., :3] @ inner[..., :3]
    return torch.cat([rotation, outer[..., :3] @ inner[..., 3:] + outer[..., 3:]], -1)


def relative_pose(
    source_w2c: Float[Tensor, "*b 3 4"], target_w2c: Float[Tensor, "*b 3 4"]
) -> Float[Tensor, "*b 3 4"]:
    """The motion that takes points of the source camera's frame to the target camera's frame."""
    return compose(target_w2c, invert(source_w2c))


def camera_centers(extrinsics_w2c: Float[Tensor, "*b 3 4"]) -> Float[Tensor, "*b 3"]:
    """Camera positions in the world, -Rᵀt; the translation column itself is no position."""
    return invert(extrinsics_w2c)[..., 3]


def world_points(
    depth: Float[Tensor, "t h w"], extrinsics_w2c: Float[Tensor, "t 3 4"], intrinsics: Float[Tensor, "t 3 3"]
) -> Float[Tensor, "t h w 3"]:
    """World point of every pixel of every frame."""
    camera = unproject(depth, intrinsics)
    return transform(invert(extrinsics_w2c), camera.flatten(1, 2)).view_as(camera)


def look_at(
    eye: Float[Tensor, "*b 3"], target: Float[Tensor, "*b 3"], down: Float[Tensor, " 3"]
) -> Float[Tensor, "*b 3 4"]:
    """World-to-camera extrinsics of a camera at `eye` whose z axis meets `target`; `down` is roughly +y."""
    forward = F.normalize(target - eye, dim=-1)
    right = F.normalize(torch.linalg.cross(down.expand_as(forward), forward), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], -2)
    return torch.cat([rotation, -rotation @ eye[..., None]], -1)


def rotation_angle(rotation: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Angle of a rotation matrix in radians, accurate near 0 and π where arccos of the trace is not."""
    skew = rotation - rotation.mT
    axis = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)
    return torch.atan2(axis.norm(dim=-1), rotation.diagonal(dim1=-2, dim2=-1).sum(-1) - 1)


def resize_intrinsics(
    intrinsics: Float[Tensor, "*b 3 3"], size: tuple[int, int], new_size: tuple[int, int]
) -> Float[Tensor, "*b 3 3"]:
    """Intrinsics after the image is resized from `size` to `new_size`, both (height, width).

    Pixel edges map to pixel edges, so with centres at integers c' = (c + 1/2) s - 1/2.
    """
    scale = intrinsics.new_tensor([new_size[1] / size[1], new_size[0] / size[0], 1.0])
    half = intrinsics.new_tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    return (intrinsics + half) * scale[:, None] - half


def median_scale(lengths: Float[Tensor, " n"], reference: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """The factor that brings `lengths` to `reference`: the median of their ratios. All must be positive."""
    return (reference / lengths).median()


@dataclass(frozen=True)
class Warp:
    """A source map seen from target pixels: the sampled `values` [*b c h w], the source `pixels` [*b h w 2]
    they come from, the z-depth [*b h w] of the target's points in the source camera, and whether they fall
    `inside` the source frame, in front of its camera.
    """

    values: Float[Tensor, "*b c h w"]
    pixels: Float[Tensor, "*b h w 2"]
    depth: Float[Tensor, "*b h w"]
    inside: Bool[Tensor, "*b h w"]


def backward_warp(
    source: Float[Tensor, "s c hs ws"],
    source_intrinsics: Float[Tensor, "s 3 3"],
    target_depth: Float[Tensor, "s h w"],
    target_intrinsics: Float[Tensor, "s 3 3"],
    target_to_source: Float[Tensor, "s 3 4"],
) -> Warp:
    """Sample source maps bilinearly where the target's pixels, placed at their depth, project to.

    `inside` asks for all four neighbours, so nothing is interpolated with what lies beyond the border.
    """
    height, width = source.shape[-2:]
    points = transform(target_to_source, unproject(target_depth, target_intrinsics).flatten(1, 2))
    flat, z = project(points, source_intrinsics)
    pixels = flat.view(*target_depth.shape, 2)
    last = pixels.new_tensor([width - 1, height - 1])
    known = (target_depth > NEAR) & target_depth.isfinite()
    inside = known & (pixels >= -BORDER_SLACK).all(-1) & (pixels <= last + BORDER_SLACK).all(-1)
    grid = torch.where(inside[..., None], pixels, 0) / last.clamp_min(1) * 2 - 1
    values = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=True)
    return Warp(values, pixels, z.view(target_depth.shape), inside)


def _focal_and_centre(intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    return intrinsics.diagonal(dim1=-2, dim2=-1)[..., :2], intrinsics[..., :2, 2]
