"""One picture that shows where a clip breaks: frames, depth, and what the other frames do not confirm."""

import torch
from jaxtyping import Float
from torch import Tensor

from videogpa.false_colors import depth_colors, error_colors, inconsistency
from videogpa.geometry.base import GeometryPrediction
from videogpa.tensors import Video

Sheet = Float[Tensor, "3 rows columns"]
"""RGB in [0, 1]."""
COLUMNS = 6
SMALLEST_WIDTH = 144
GAP = 4
"""Black pixels between pictures."""


def contact_sheet(frames: Video, geometry: GeometryPrediction | None) -> Sheet:
    """Rows: frames, depth (near is bright), error (dark = consistent, bright = not, grey = not judged).

    Only the frames where no geometry was found.
    """
    if geometry is None:
        return _row(_spread(frames))
    errors = error_colors(*inconsistency(geometry))
    rows = (geometry.images, depth_colors(geometry.depth), errors)
    return _joined([_row(_spread(r)) for r in rows], dim=1)


def _spread(images: Video) -> Float[Tensor, "n 3 h w"]:
    index = torch.linspace(0, len(images) - 1, min(COLUMNS, len(images))).round().long()
    return images[index]


def _row(images: Video) -> Sheet:
    enlarge = max(1, -(-SMALLEST_WIDTH // images.shape[-1]))
    images = images.repeat_interleave(enlarge, -1).repeat_interleave(enlarge, -2)
    return _joined(list(images), dim=2)


def _joined(images: list[Float[Tensor, "3 _ _"]], dim: int) -> Sheet:
    shape = list(images[0].shape)
    shape[dim] = GAP
    between = [piece for image in images for piece in (torch.zeros(shape), image)]
    return torch.cat(between[1:], dim)
