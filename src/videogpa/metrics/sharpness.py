"""How much fine detail the frames have: the guard against blur that is sold as consistency."""

import torch
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.flow import luma
from videogpa.metrics.base import Clip, Need

HIGHER_IS_BETTER = True
UNIT = "intensity"
SOURCE = "mean absolute Laplacian; compare arms with each other, not scenes"
NEEDS: frozenset[Need] = frozenset()

LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def measure(clip: Clip) -> float:
    """Mean of |Laplacian| of the luma over the inner pixels of frames 1, 2, ...

    Frame 0 is left out: in image-to-video it is given and would hide a part of the loss.

    Raises:
        CannotJudge: fewer than two frames, or frames smaller than 3×3.
    """
    if len(clip.frames) < 2 or min(clip.frames.shape[-2:]) < 3:
        raise CannotJudge("sharpness needs two frames of at least 3×3 pixels")
    gray = luma(clip.frames[1:])[:, None]
    return F.conv2d(gray, torch.tensor([[LAPLACIAN]]).to(gray)).abs().mean().item()
