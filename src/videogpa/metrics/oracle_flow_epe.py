"""Whether a sample moves as its one true continuation does: estimated against true optical flow."""

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.metrics.base import Clip, Need, truth_of
from videogpa.tensors import Flow, Video

HIGHER_IS_BETTER = False
UNIT = "pixels"
SOURCE = "end-point error of DIS flow (Kroeger et al., ECCV 2016) from frame 0, against the true flow"
NEEDS: frozenset[Need] = frozenset({"truth"})

SMALLEST_SIDE = 192
"""Smaller frames are enlarged (bicubic, whole factors) to about this side: DIS matches 8-pixel patches."""


def measure(clip: Clip) -> float:
    """Mean over frames 1, 2, ... of the end-point error, in pixels, on frame 0's truly co-visible pixels.

    Raises:
        CannotJudge: no truth of this shape, or nothing of frame 0 stays visible.
    """
    truth = truth_of(clip)
    error = (flow_from_first(clip.frames) - truth.flow).square().sum(1).sqrt()
    seen = [e[m].mean() for e, m in zip(error[1:], truth.covisible[1:], strict=True) if m.any()]
    if not seen:
        raise CannotJudge("nothing of the first frame stays visible")
    return torch.stack(seen).mean().item()


def flow_from_first(frames: Video) -> Flow:
    """DIS flow of frame 0 to every frame, in pixels of frame 0; zero for frame 0 itself.

    Each search starts from the flow to the frame before, so that motion may grow beyond what DIS finds alone.
    """
    factor = max(1, round(SMALLEST_SIDE / min(frames.shape[-2:])))
    gray = _gray(frames, factor)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [np.zeros((*gray.shape[1:], 2), np.float32)]
    for image in gray[1:]:
        flows.append(search.calc(gray[0], image, flows[-1].copy()))
    enlarged = torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)
    return F.avg_pool2d(enlarged, factor).to(frames) / factor


def _gray(frames: Video, factor: int) -> UInt8[np.ndarray, "t hf wf"]:
    weights = frames.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    gray: Float[Tensor, "t 1 h w"] = (frames * weights).sum(1, keepdim=True)
    large = F.interpolate(gray, scale_factor=factor, mode="bicubic", align_corners=False)
    return (large[:, 0].clamp(0, 1) * 255).round().byte().cpu().numpy()
