"""Point splatting with an order-free z-buffer: the nearest point wins a pixel, ties go to the lowest index.

Depth and index are packed into one int64 key and reduced by minimum, so the result does not depend on
threads, chunks or the order of writes. `splat_slowly` says the same in plain loops.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from videogpa.geometry.cameras import NEAR

EMPTY = torch.iinfo(torch.int64).max
BYTES_PER_POINT = 128
"""Working memory of one point: at most sixteen 8-byte temporaries are alive at once."""
CACHE_BYTES = 4 << 20
"""Default budget. Chunks that stay in a core's cache are faster than one pass over all points."""


def nearest_points(
    points: Float[Tensor, "n 3"],
    extrinsics_w2c: Float[Tensor, "3 4"],
    intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int],
    budget_bytes: int = CACHE_BYTES,
) -> Int[Tensor, "h w"]:
    """Index of the world point seen in each pixel of an image of `size` (height, width); -1 where none is.

    A point covers the one pixel whose centre is nearest. Depths are compared in float32. Points that are
    not finite or not in front of the camera cover nothing. Working memory beyond input and output stays
    within `budget_bytes` (at least one point at a time).
    """
    height, width = size
    projection = _projection(extrinsics_w2c, intrinsics)
    # One pixel more than the image has takes the points that are not seen.
    keys = torch.full((height * width + 1,), EMPTY, device=points.device)
    chunk = max(1, budget_bytes // BYTES_PER_POINT)
    for start in range(0, len(points), chunk):
        x, y, z = points[start : start + chunk].T.double().contiguous()
        u, v, depth = (a * x + b * y + c * z + d for a, b, c, d in projection)
        column, row = (u / depth).round_(), (v / depth).round_()
        seen = (depth > NEAR) & (depth < math.inf)
        seen &= (column >= 0) & (column < width) & (row >= 0) & (row < height)
        pixel = torch.where(seen, row * width + column, height * width).long()
        # The bits of positive floats order like the floats themselves.
        order = depth.float().view(torch.int32).long() << 32
        keys.scatter_reduce_(0, pixel, order | torch.arange(start, start + len(x), device=x.device), "amin")
    return torch.where(keys == EMPTY, -1, keys & 0xFFFFFFFF)[:-1].view(size)


def splat(
    points: Float[Tensor, "n 3"],
    colors: Float[Tensor, "n c"],
    extrinsics_w2c: Float[Tensor, "3 4"],
    intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int],
    budget_bytes: int = CACHE_BYTES,
) -> Float[Tensor, "c h w"]:
    """The coloured world points seen by one camera, one pixel a point; pixels without a point are 0."""
    index = nearest_points(points, extrinsics_w2c, intrinsics, size, budget_bytes)
    seen = index >= 0
    image = colors.new_zeros(*size, colors.shape[-1])
    image[seen] = colors[index[seen]]
    return image.permute(2, 0, 1).contiguous()


def splat_slowly(
    points: Float[Tensor, "n 3"],
    colors: Float[Tensor, "n c"],
    extrinsics_w2c: Float[Tensor, "3 4"],
    intrinsics: Float[Tensor, "3 3"],
    size: tuple[int, int],
) -> Float[Tensor, "c h w"]:
    """`splat` as a loop over points: the definition that the fast version is tested against."""
    image = colors.new_zeros(colors.shape[-1], *size)
    nearest = torch.full(size, math.inf)
    projection = _projection(extrinsics_w2c, intrinsics)
    for (x, y, z), color in zip(points.tolist(), colors, strict=True):
        u, v, depth = (a * x + b * y + c * z + d for a, b, c, d in projection)
        if not NEAR < depth < math.inf or not math.isfinite(u + v):
            continue
        column, row = round(u / depth), round(v / depth)
        inside = 0 <= column < size[1] and 0 <= row < size[0]
        if inside and torch.tensor(depth) < nearest[row, column]:
            nearest[row, column] = depth
            image[:, row, column] = color
    return image


def _projection(extrinsics_w2c: Tensor, intrinsics: Tensor) -> list[list[float]]:
    """K [R | t] in float64: rounding in float32 alone would move points of a large image to a neighbour."""
    return (intrinsics.double() @ extrinsics_w2c.double()).tolist()
