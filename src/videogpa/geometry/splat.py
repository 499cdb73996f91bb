"""Point splatting with an order-free z-buffer: the nearest point wins a pixel, ties go to the lowest index.

Depth and index are packed into one int64 key and reduced by minimum, so the result does not depend on
threads, chunks or the order of writes.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from videogpa.geometry.cameras import NEAR, relative_pose

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
    projection = _projection(extrinsics_w2c, intrinsics)
    keys = _no_keys(size, points.device)
    chunk = max(1, budget_bytes // BYTES_PER_POINT)
    for start in range(0, len(points), chunk):
        x, y, z = points[start : start + chunk].T.double().contiguous()
        u, v, depth = (a * x + b * y + c * z + d for a, b, c, d in projection)
        _enter(keys, u, v, depth, start)
    return _indices(keys)


def nearest_pixels(
    depth: Float[Tensor, "t h w"],
    extrinsics_w2c: Float[Tensor, "t 3 4"],
    intrinsics: Float[Tensor, "t 3 3"],
    budget_bytes: int = CACHE_BYTES,
) -> Int[Tensor, "t h w"]:
    """`nearest_points` of every camera for the cloud of all pixels of all frames, placed at their depth.

    Pixels are numbered frame by frame and row by row. Pixels of unknown depth (0 or less, or not finite) are no
    points. The cloud is never built: on the grid of a frame the projection is K' R K⁻¹ (x, y, 1) times the
    depth plus K' t, and the first factor is a row plus a column.
    """
    frames, height, width = depth.shape
    poses, cameras = extrinsics_w2c.double(), intrinsics.double()
    back = cameras.inverse()
    known = torch.where((depth > 0) & depth.isfinite(), depth.double(), math.nan)
    x = torch.arange(width, device=depth.device, dtype=torch.float64)
    y = torch.arange(height, device=depth.device, dtype=torch.float64)[:, None]
    rows = max(1, budget_bytes // BYTES_PER_POINT // width)
    found = []
    for target in range(frames):
        keys = _no_keys((height, width), depth.device)
        motion = relative_pose(poses, poses[target].expand_as(poses))
        turns = (cameras[target] @ motion[..., :3] @ back).tolist()
        shifts = (cameras[target] @ motion[..., 3:])[..., 0].tolist()
        for source in range(frames):
            terms = list(zip(turns[source], shifts[source], strict=True))
            for row in range(0, height, rows):
                z, below = known[source, row : row + rows], y[row : row + rows]
                u, v, w = ((a * x + (b * below + c)).mul_(z).add_(d).flatten() for (a, b, c), d in terms)
                _enter(keys, u, v, w, (source * height + row) * width)
        found.append(_indices(keys))
    return torch.stack(found)


def _no_keys(size: tuple[int, int], device: torch.device) -> Int[Tensor, "hb wb"]:
    """An empty image of keys; the border around it takes the points that are not seen."""
    return torch.full((size[0] + 2, size[1] + 2), EMPTY, device=device)


def _enter(
    keys: Int[Tensor, "hb wb"],
    u: Float[Tensor, " n"],
    v: Float[Tensor, " n"],
    depth: Float[Tensor, " n"],
    first: int,
) -> None:
    """Let n points numbered from `first` compete for the pixels (u, v) / depth."""
    height, width = keys.shape
    column = u.div_(depth).round_().clamp_(-1, width - 2)
    row = v.div_(depth).round_().clamp_(-1, height - 2)
    pixel = row.mul_(width).add_(column).add_(width + 1).long()
    nearest, farthest = depth.aminmax()
    if not (nearest > NEAR and farthest < math.inf):
        pixel.masked_fill_(~((depth > NEAR) & (depth < math.inf)), 0)
    index = torch.arange(first, first + len(depth), device=depth.device)
    # The bits of positive floats order like the floats themselves.
    order = torch.add(index, depth.float().view(torch.int32).long(), alpha=1 << 32)
    keys.view(-1).scatter_reduce_(0, pixel, order, "amin")


def _indices(keys: Int[Tensor, "hb wb"]) -> Int[Tensor, "hb-2 wb-2"]:
    keys = keys[1:-1, 1:-1]
    return torch.where(keys == EMPTY, -1, keys & 0xFFFFFFFF)


def paint(index: Int[Tensor, "*s"], colors: Float[Tensor, "n c"]) -> Float[Tensor, "*s c"]:
    """The colour of every indexed point, 0 where the index is -1."""
    # Row 0 is the hole.
    return torch.cat([colors.new_zeros(1, colors.shape[-1]), colors])[index + 1]


def _projection(extrinsics_w2c: Tensor, intrinsics: Tensor) -> list[list[float]]:
    """K [R | t] in float64: rounding in float32 alone would move points of a large image to a neighbour."""
    return (intrinsics.double() @ extrinsics_w2c.double()).tolist()
