"""What the other frames say about a frame: every source seen from a target's pixels, with what is visible."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import backward_warp, pixel_grid, relative_pose
from videogpa.tensors import Depth, Extrinsics, Intrinsics, Mask

EDGE_RATIO = 1.2
"""Four neighbouring pixels whose depths differ by more than this factor straddle a depth edge."""
MOST_SOURCES = 24
"""Sources per target, spread evenly over the clip, so that cost stays linear in long clips."""


@dataclass(frozen=True)
class Views:
    """Source frames s seen from the pixels of one target frame.

    values [s c h w]: the source maps. depth_gap [s h w]: log of the depth of the target's point in the
    source camera over the source's own depth there; positive = behind what the source sees. displacement
    [s h w]: pixels moved between target and source. inside [s h w]: in the source frame, depth usable in
    both and not across a depth edge of the source. Gap and displacement are 0 outside.
    """

    values: Float[Tensor, "s c h w"]
    depth_gap: Float[Tensor, "s h w"]
    displacement: Float[Tensor, "s h w"]
    inside: Bool[Tensor, "s h w"]


@dataclass(frozen=True)
class Field:
    """What can be sampled from some frames of a clip: `maps` [t c h w], inverse depth, the cells (between four pixel
    centres) where sampling is meaningful, and the cameras.
    """

    maps: Float[Tensor, "t c h w"]
    inverse_depth: Depth
    smooth: Bool[Tensor, "t h-1 w-1"]
    extrinsics_w2c: Extrinsics
    intrinsics: Intrinsics

    def only(self, frames: list[int]) -> "Field":
        """The field of these frames."""
        return Field(*(value[frames] for value in vars(self).values()))


def field_of(prediction: GeometryPrediction, maps: Float[Tensor, "t c h w"]) -> Field:
    """The clip's own `maps`, ready to be seen from any frame; prepared once a clip.

    Raises:
        CannotJudge: there is no second frame, or the frames are too small to interpolate in.
    """
    if len(maps) < 2 or min(maps.shape[-2:]) < 2:
        raise CannotJudge("comparing views needs two frames of at least 2×2 pixels")
    return frame_field(prediction, maps)


def frame_field(prediction: GeometryPrediction, maps: Float[Tensor, "t c h w"]) -> Field:
    """The same for frames that are compared with those of another field; one is enough."""
    # Over a plane inverse depth is linear in the image, so it may be interpolated; depth may not.
    inverse = torch.where(depth_usable(prediction), 1 / prediction.depth, 0)
    return Field(maps, inverse, _smooth_cells(inverse), prediction.extrinsics_w2c, prediction.intrinsics)


def see(field: Field, target: int, sources: list[int]) -> Views:
    """The `sources` at the pixels of the `target`, by the target's depth and the relative poses."""
    return see_from(field.only([target]), field.only(sources))


def see_from(target: Field, sources: Field) -> Views:
    """All frames of `sources` at the pixels of the one frame of `target`, which may be of another size."""
    count, inverse = len(sources.maps), target.inverse_depth[0]
    warp = backward_warp(
        torch.cat([sources.maps, sources.inverse_depth[:, None]], 1),
        sources.intrinsics,
        torch.where(inverse > 0, 1 / inverse, 0).expand(count, -1, -1),
        target.intrinsics.expand(count, 3, 3),
        relative_pose(target.extrinsics_w2c.expand(count, 3, 4), sources.extrinsics_w2c),
    )
    inside = warp.inside & _at(warp.pixels, sources.smooth)
    gap = (warp.depth * warp.values[:, -1]).log()
    height, width = inverse.shape
    moved = (warp.pixels - pixel_grid(height, width, like=inverse)).square().sum(-1).sqrt()
    return Views(warp.values[:, :-1], torch.where(inside, gap, 0), torch.where(inside, moved, 0), inside)


def sources_of(target: int, frames: int) -> list[int]:
    """All other frames, thinned evenly when there are more than `MOST_SOURCES`."""
    others = [t for t in range(frames) if t != target]
    stride = -(-len(others) // MOST_SOURCES)
    return others[target % stride :: stride] if others else []


def depth_usable(prediction: GeometryPrediction) -> Mask:
    """Pixels with a depth, with some confidence, and without motion of their own."""
    usable = (prediction.depth > 0) & prediction.depth.isfinite() & (prediction.confidence > 0)
    return usable if prediction.dynamic_mask is None else usable & ~prediction.dynamic_mask


def _smooth_cells(inverse_depth: Float[Tensor, "t h w"]) -> Bool[Tensor, "t h-1 w-1"]:
    """Whether the four pixels around each pixel corner are all usable and on one surface."""
    nearest = F.max_pool2d(inverse_depth, 2, stride=1)
    farthest = -F.max_pool2d(-inverse_depth, 2, stride=1)
    return farthest * EDGE_RATIO > nearest


def _at(pixels: Float[Tensor, "s h w 2"], cells: Bool[Tensor, "s rows columns"]) -> Bool[Tensor, "s h w"]:
    """The cell each pixel position falls into; anything for positions outside."""
    height, width = cells.shape[-2:]
    column, row = pixels.nan_to_num(0, 0, 0).floor().unbind(-1)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    return cells.flatten(1).gather(1, index.long().flatten(1)).view_as(column)
