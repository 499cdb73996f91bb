"""One picture that shows where a clip breaks: frames, depth, and what the other frames do not confirm."""

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videogpa.geometry.base import GeometryPrediction
from videogpa.metrics.cross_view import error_maps
from videogpa.tensors import Depth, Mask, Video

Sheet = Float[Tensor, "3 rows columns"]
"""RGB in [0, 1]."""
COLUMNS = 6
SMALLEST_WIDTH = 144
GAP = 4
"""Black pixels between pictures."""
UNJUDGED = 0.25
"""Grey of pixels that no other frame sees."""


def contact_sheet(frames: Video, geometry: GeometryPrediction | None) -> Sheet:
    """Rows: frames, depth (near is bright), error (dark = consistent, bright = not, grey = not judged).

    Only the frames where no geometry was found.
    """
    if geometry is None:
        return _row(_spread(frames))
    errors, judged = error_maps(geometry)
    rows = (geometry.images, depth_colors(geometry.depth), error_colors(errors, judged))
    return _joined([_row(_spread(r)) for r in rows], dim=1)


def depth_colors(depth: Depth) -> Video:
    """Inverse depth between its 2nd and 98th percentile, in colour; unknown depth is grey."""
    known = depth > 0
    inverse = torch.where(known, 1 / depth.clamp_min(1e-9), 0)
    if not known.any():
        return torch.full((len(depth), 3, *depth.shape[1:]), UNJUDGED)
    low, high = np.percentile(inverse[known].numpy(), [2, 98])
    shades = ((inverse - low) / max(high - low, 1e-9)).clamp(0, 1)
    return torch.where(known[:, None], _colored(shades, cv2.COLORMAP_VIRIDIS), UNJUDGED)


def error_colors(errors: Float[Tensor, "t h w"], judged: Mask) -> Video:
    """The share in [0, 1] that is inconsistent, in colour; pixels that nobody could judge are grey."""
    return torch.where(judged[:, None], _colored(errors, cv2.COLORMAP_INFERNO), UNJUDGED)


def _colored(shades: Float[Tensor, "t h w"], colormap: int) -> Video:
    images = [cv2.applyColorMap(x, colormap)[..., ::-1] for x in (shades * 255).round().byte().numpy()]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255


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
