"""What networks that see all frames of a clip at once have in common: the size they take, the way out of their
conventions, and two ways to poses.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.poses import aligned_poses, require_motion
from videogpa.tensors import Depth, Extrinsics, Intrinsics, Video

PATCH = 14
"""Pixels of a vision transformer's patch: image sides are multiples of it."""
Poses = Literal["learned", "alignment"]


@dataclass(frozen=True, kw_only=True)
class MultiViewOutput:
    """What the networks return for one clip: z-depth [t h w]; its confidence [t h w] from 1 upwards, 1 + exp(x);
    OpenCV world-to-camera extrinsics; intrinsics with pixel *corners* at integers, so that cx = w/2.
    """

    depth: Depth
    confidence: Depth
    extrinsics_w2c: Extrinsics
    intrinsics: Intrinsics


def fitted(frames: Video, longer_side: int) -> Float[Tensor, "t 3 height width"]:
    """Frames [t 3 h w] in [0, 1] resized so that the longer side is about that many pixels; multiples of `PATCH`."""
    height, width = frames.shape[-2:]
    ratio = longer_side / max(height, width)
    size = [max(1, round(side * ratio / PATCH)) * PATCH for side in (height, width)]
    if size == [height, width]:
        return frames
    return F.interpolate(frames, size, mode="bicubic", antialias=True).clamp(0, 1)


def to_prediction(output: MultiViewOutput, images: Video, poses: Poses) -> GeometryPrediction:
    """The network's output in this project's conventions, around the images that it saw.

    Confidence becomes 1 - 1/c = sigmoid(x), in [0, 1). Poses are the network's own, or found by aligning the
    images to the first frame at the network's depth.

    Raises:
        CannotJudge: nothing moves, or (`alignment`) no pose explains the frames.
    """
    known = output.depth.isfinite() & (output.depth > 0)
    depth = torch.where(known, output.depth, 0)
    confidence = torch.where(known, 1 - 1 / output.confidence, 0)
    centre = output.intrinsics.new_tensor([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    intrinsics = output.intrinsics - centre
    if poses == "learned":
        extrinsics = output.extrinsics_w2c
        require_motion(depth[0], extrinsics, intrinsics)
    else:
        extrinsics = aligned_poses(images, depth[0], confidence[0], intrinsics)
    return GeometryPrediction(
        depth=depth,
        confidence=confidence,
        extrinsics_w2c=extrinsics,
        intrinsics=intrinsics,
        images=images,
        scale="relative",
    )
