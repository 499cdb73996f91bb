"""Optical flow as the pictures show it: dense inverse search (DIS), the same numbers every time."""

from collections.abc import Iterable
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
QUICK_SIDE = 96
"""The same for measures that need flow often: on 48×48 pixels a quarter of the time for an end-point error of .17
instead of .14 pixels (`docs/metrics.md`)."""
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
    return flow_between(frames, pairwise(range(len(frames))))


def flow_between(
    frames: Video, pairs: Iterable[tuple[int, int]], smallest_side: int = SMALLEST_SIDE
) -> Float[Tensor, "n 2 h w"]:
    """DIS flow from frame i to frame j for every pair (i, j), in pixels of frame i."""
    gray = gray_frames(frames, smallest_side)
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    with deterministic_opencv():
        flows = [search.calc(gray[i], gray[j], None) for i, j in pairs]
    return _in_frame_pixels(flows, frames, smallest_side)


def enlargement(frames: Video, smallest_side: int = SMALLEST_SIDE) -> int:
    """The whole factor by which `gray_frames` enlarges."""
    return max(1, round(smallest_side / min(frames.shape[-2:])))


def gray_frames(frames: Video, smallest_side: int = SMALLEST_SIDE) -> Gray:
    """The luma of every frame, enlarged where frames are small."""
    gray, factor = luma(frames), enlargement(frames, smallest_side)
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
    if luma(frames).flatten(1).std(1).min() < SMALLEST_CONTRAST:
        raise CannotJudge("a frame shows no texture that could be followed")


def luma(frames: Video) -> Float[Tensor, "t h w"]:
    """Brightness of colours in [0, 1] (ITU-R BT.601)."""
    return (frames * frames.new_tensor(LUMA).view(3, 1, 1)).sum(1)


def _in_frame_pixels(
    flows: list[np.ndarray], frames: Video, smallest_side: int = SMALLEST_SIDE
) -> Float[Tensor, "n 2 h w"]:
    factor = enlargement(frames, smallest_side)
    enlarged = torch.from_numpy(np.stack(flows)).permute(0, 3, 1, 2)
    return F.avg_pool2d(enlarged, factor).to(frames) / factor
