"""The coloured points of a clip: one for every pixel whose depth is known."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import invert, pixel_grid, transform, unproject
from videogpa.tensors import Extrinsics, Intrinsics, Mask


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Points [n 3] in the world of the prediction (OpenCV axes), colors [n 3] in [0, 1], confidence [n] > 0,
    and where each was seen: frame [n] and pixel [n 2] = (x, y), pixel centres at integers.
    """

    points: Float[Tensor, "n 3"]
    colors: Float[Tensor, "n 3"]
    confidence: Float[Tensor, " n"]
    frame: Int[Tensor, " n"]
    pixel: Float[Tensor, "n 2"]


def cloud_of(prediction: GeometryPrediction, min_confidence: float | int = 0) -> Cloud:
    """The points of all frames in order of frame, row and column.

    Pixels of unknown depth (0 or not finite) have no place in space and are left out, and so are those whose
    confidence is not above `min_confidence`: 0 means "do not use". Computed in float64, so that a point
    projects back to its own pixel.
    """
    count, _, height, width = prediction.images.shape
    keep = placed(prediction) & (prediction.confidence > min_confidence)
    camera = unproject(prediction.depth.double(), prediction.intrinsics.double()).flatten(1, 2)
    points = transform(invert(prediction.extrinsics_w2c.double()), camera).view(count, height, width, 3)
    pixels = pixel_grid(height, width, like=prediction.depth).expand(count, -1, -1, -1)
    frames = torch.arange(count)[:, None, None].expand(count, height, width)
    return Cloud(
        points=points[keep].float(),
        colors=prediction.images.permute(0, 2, 3, 1)[keep],
        confidence=prediction.confidence[keep],
        frame=frames[keep],
        pixel=pixels[keep],
    )


def placed(prediction: GeometryPrediction) -> Mask:
    """Pixels that have a place in space: their depth is known."""
    return (prediction.depth > 0) & prediction.depth.isfinite()


def thinned(cloud: Cloud, most: int) -> Cloud:
    """At most that many of the points, drawn evenly at random, always the same ones, in their order."""
    if len(cloud.points) <= most:
        return cloud
    drawn = torch.randperm(len(cloud.points), generator=torch.Generator().manual_seed(0))[:most].sort().values
    return Cloud(**{f.name: getattr(cloud, f.name)[drawn] for f in fields(cloud)})


def frustums(
    extrinsics_w2c: Extrinsics, intrinsics: Intrinsics, size: tuple[int, int], depth: float
) -> Float[Tensor, "t 5 3"]:
    """Five world points of every camera: its centre, and the corners of its image (top left, top right, bottom
    right, bottom left) at z-depth `depth`. `size` is (height, width); corners are the pixels' outer edges.
    """
    height, width = size
    x = intrinsics.new_tensor([0, width, width, 0]) - 0.5
    y = intrinsics.new_tensor([0, 0, height, height]) - 0.5
    focal, centre = intrinsics.diagonal(dim1=-2, dim2=-1)[:, None, :2], intrinsics[:, None, :2, 2]
    rays = torch.cat([(torch.stack([x, y], -1) - centre) / focal, torch.ones(len(focal), 4, 1)], -1) * depth
    return transform(invert(extrinsics_w2c), torch.cat([torch.zeros_like(rays[:, :1]), rays], 1))
