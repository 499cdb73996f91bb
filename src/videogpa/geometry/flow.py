"""Optical flow as the pictures show it: dense inverse search (DIS), the same numbers every time."""

from itertools import pairwise

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.opencv import deterministic_opencv
from videogpa.tensors import Flow, Video

SMALLEST_SIDE = 192
"""Smaller frames are enlarged (bicubic, whole factors) to about this side: DIS matches 8-pixel patches."""
LUMA = (0.299, 0.587, 0.114)
SMALLEST_CONTRAST = 0.01
"""Standard deviation of the luma, in [0, 1], below which a frame shows nothing that could be followed."""

Gray = UInt8[np.ndarray, "t hf wf"]
"""Luma from 0 to 255, enlarged by a whole factor."""


def flow_from_first(frames: Video) -> Flow:
    """DIS flow of frame 0 to every frame, in pixels of frame 0; zero for frame 0 itself.

    Each search starts from the flow to the frame before, so that motion may grow beyond what DIS finds alone.
    """
    gray = gray_frames(frames)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flows = [np.zeros((*gray.shape[1:], 2), np.float32)]
    with deterministic_opencv():
        for image in gray[1:]:
            flows.append(search.calc(gray[0], image, flows[-1].copy()))
    return _in_frame_pixels(flows, frames)


def flow_to_next(frames: Video) -> Float[Tensor, "t-1 2 h w"]:
    """DIS flow of frames 0, 1, ..., t - 2 to the frame after each, in pixels."""
    gray = gray_frames(frames)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    with deterministic_opencv():
        flows = [search.calc(a, b, None) for a, b in pairwise(gray)]
    return _in_frame_pixels(flows, frames)


def enlargement(frames: Video) -> int:
    """The whole factor by which `gray_frames` enlarges."""
    return max(1, round(SMALLEST_SIDE / min(frames.shape[-2:])))


def gray_frames(frames: Video) -> Gray:
    """The luma of every frame, enlarged where frames are small."""
    gray, factor = _luma(frames), enlargement(frames)
    if factor > 1:
        gray = F.interpolate(gray[:, None], scale_factor=factor, mode="bicubic", align_corners=False)[:, 0]
    return (gray.clamp(0, 1) * 255).round().byte().cpu().numpy()


def require_texture(frames: Video) -> None:
    """Stop where there is nothing to follow.

    Raises:
        CannotJudge: fewer than two frames, values that are not finite, or a frame of one colour.
    """
    if len(frames) < 2:
        raise CannotJudge("a single frame has no flow")
    if not frames.isfinite().all():
        raise CannotJudge("the frames are not finite")
    if _luma(frames).flatten(1).std(1).min() < SMALLEST_CONTRAST:
        raise CannotJudge("a frame shows no texture that could be followed")


def _luma(frames: Video) -> Float[Tensor, "t h w"]:
    return (frames * frames.new_tensor(LUMA).view(3, 1, 1)).sum(1)


def _in_frame_pixels(flows: list[np.ndarray], frames: Video) -> Float[Tensor, "n 2 h w"]:
    factor = enlargement(frames)
    enlarged = torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)
    return F.avg_pool2d(enlarged, factor).to(frames) / factor
