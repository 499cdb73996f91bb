"""Depth, normals and errors as pictures."""

import cv2
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videogpa.geometry.base import GeometryPrediction
from videogpa.metrics import consistency
from videogpa.tensors import Depth, Mask, Normals, Video

UNJUDGED = 0.25
"""Grey of pixels that no other frame sees, and of unknown depth."""


def inconsistency(prediction: GeometryPrediction) -> tuple[Float[Tensor, "t h w"], Mask]:
    """Per pixel the share in [0, 1] that the other frames contradict, and where any of them could tell.

    The one place that says which metric draws the error maps: the one that videos are compared by.

    Raises:
        CannotJudge: fewer than two frames, or too small ones.
    """
    return consistency.error_maps(prediction)


def depth_colors(depth: Depth) -> Video:
    """Inverse depth between its 2nd and 98th percentile, in colour; unknown depth is grey."""
    known = depth > 0
    inverse = torch.where(known, 1 / depth.clamp_min(1e-9), 0)
    if not known.any():
        return torch.full((len(depth), 3, *depth.shape[1:]), UNJUDGED)
    low, high = np.percentile(inverse[known].numpy(), [2, 98])
    shades = ((inverse - low) / max(high - low, 1e-9)).clamp(0, 1)
    return torch.where(known[:, None], _colored(shades, cv2.COLORMAP_VIRIDIS), UNJUDGED)


def normal_colors(normals: Normals) -> Video:
    """Right is red, up is green and towards the camera is blue, as normal maps are usually drawn."""
    right_up_near = normals * normals.new_tensor([1, -1, -1])[:, None, None]
    return ((right_up_near + 1) / 2).clamp(0, 1)


def error_colors(errors: Float[Tensor, "t h w"], judged: Mask) -> Video:
    """The share in [0, 1] that is inconsistent, in colour; pixels that nobody could judge are grey."""
    return torch.where(judged[:, None], _colored(errors, cv2.COLORMAP_INFERNO), UNJUDGED)


def _colored(shades: Float[Tensor, "t h w"], colormap: int) -> Video:
    images = [cv2.applyColorMap(x, colormap)[..., ::-1] for x in (shades * 255).round().byte().numpy()]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255
