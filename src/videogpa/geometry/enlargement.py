"""Geometry of reduced frames brought to the size of the frames themselves, its edges led by the picture's edges.

Joint bilateral upsampling (Kopf et al., SIGGRAPH 2007, eq. 3) between the four pixels around: a pixel takes the depth
of those that look like it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import resize_intrinsics

SAME_COLOR = 0.05
"""Standard deviation of the colour differences (Euclidean) within a surface."""
LEAST = 1e-4
"""Weight that a pixel of another colour keeps, so that one whose neighbours all look different has a depth, too."""
ROWS = 128
"""Rows worked on at a time: what is in the cache costs half."""


def enlarged(prediction: GeometryPrediction, images: Float[Tensor, "t 3 height width"]) -> GeometryPrediction:
    """The prediction at the size of `images`, the same frames as its own and at least as large.

    Inverse depth follows the edges of `images`, confidence is interpolated, moving bodies keep their blocks; normals
    and albedo are left out.
    """
    (rows, columns), (height, width) = prediction.images.shape[-2:], images.shape[-2:]
    known = (prediction.depth > 0) & prediction.depth.isfinite()
    inverse = torch.where(known, 1 / prediction.depth, 0)
    if prediction.images.shape != images.shape:
        frames = zip(inverse, prediction.images, images, strict=True)
        inverse = torch.stack([_upsampled(*frame) for frame in frames])
    mask = prediction.dynamic_mask
    if mask is not None:
        mask = F.interpolate(mask[:, None].float(), (height, width), mode="nearest-exact")[:, 0] > 0
    return GeometryPrediction(
        depth=torch.where(inverse > 0, 1 / inverse, 0),
        confidence=F.interpolate(prediction.confidence[:, None], (height, width), mode="bilinear")[:, 0],
        extrinsics_w2c=prediction.extrinsics_w2c,
        intrinsics=resize_intrinsics(prediction.intrinsics, (rows, columns), (height, width)),
        images=images,
        scale=prediction.scale,
        dynamic_mask=mask,
    )


def _upsampled(
    values: Float[Tensor, "h w"], colors: Float[Tensor, "3 h w"], guide: Float[Tensor, "3 height width"]
) -> Float[Tensor, "height width"]:
    """`values`, 0 where unknown, on the pixels of `guide`; 0 where none of the four around is known."""
    rows = torch.arange(guide.shape[1]).split(ROWS)
    columns = _neighbours(torch.arange(guide.shape[2]), values.shape[1], guide.shape[2])
    layers = torch.cat([values[None], colors])
    return torch.cat(
        [
            _band(layers, guide[:, band], _neighbours(band, values.shape[0], guide.shape[1]), columns)
            for band in rows
        ]
    )


Neighbours = list[tuple[Tensor, Tensor]]
"""Indices and weights, each [n]."""


def _neighbours(at: Int[Tensor, " n"], size: int, large: int) -> Neighbours:
    """The coarse pixel before and the one after each fine one along an axis, with their linear weights."""
    position = (at + 0.5) * size / large - 0.5
    before = position.floor()
    after = position - before
    index = before.long()
    return [(index.clamp(0, size - 1), 1 - after), ((index + 1).clamp(0, size - 1), after)]


def _band(
    layers: Float[Tensor, "4 h w"], guide: Float[Tensor, "3 n m"], rows: Neighbours, columns: Neighbours
) -> Float[Tensor, "n m"]:
    total, weights = torch.zeros_like(guide[0]), torch.zeros_like(guide[0])
    for row, row_weight in rows:
        for column, column_weight in columns:
            near = layers[:, row][:, :, column]
            alike = (near[1:] - guide).square_().sum(0).mul_(-0.5 / SAME_COLOR**2).exp_().add_(LEAST)
            weight = alike * row_weight[:, None] * column_weight * (near[0] > 0)
            total += weight * near[0]
            weights += weight
    return torch.where(weights > 0, total / weights, 0)
