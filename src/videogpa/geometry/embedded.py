"""The geometry model that ships with the package: a small network for depth, poses by photometric alignment.

It knows indoor-like scenes of one field of view, those of the procedural world it was trained on.
"""

import math
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge, InputError
from videogpa.geometry.alignment import Alignment, align
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import backward_warp, relative_pose, resize_intrinsics
from videogpa.geometry.embedded_network import STRIDE, GeometryNetwork, SingleFrameGeometry
from videogpa.geometry.movers import moving_bodies
from videogpa.tensors import Depth, Extrinsics, Intrinsics, Video
from videogpa.world.render import FIELD_OF_VIEW_DEGREES

LICENSE = "Apache-2.0"
SCALE = "relative"
PREDICTS = ("depth", "poses", "normals", "albedo", "confidence")
NEEDS = ()
WEIGHT_OPTIONS = ("weights",)

SHORT_SIDE = 48
"""Frames are worked on at this size, the one the network was trained at."""
SMALLEST_CONTRAST = 0.02
"""Standard deviation of colours below which a frame shows nothing to align."""
SMALLEST_MOTION = 0.25
"""Pixels (median, farthest frame, at working size) below which the clip counts as frozen."""
LARGEST_RESIDUAL = 0.7
"""Colour difference to the first frame, as a share of the difference between unrelated pixels."""
SMALLEST_OVERLAP = 0.3
TRUSTED_ERROR = 0.05
"""Expected error of log depth at which confidence is one half."""


class Backend:
    """Depth, normals and albedo of every frame, with the poses that make the frames agree."""

    license = LICENSE
    needs: tuple[str, ...] = NEEDS
    scale = "relative"

    def __init__(self, weights: Path | None = None, field_of_view_degrees: float = FIELD_OF_VIEW_DEGREES):
        self.network = load_network(weights)
        self.field_of_view_degrees = field_of_view_degrees

    @torch.inference_mode()
    def predict(self, frames: Video) -> GeometryPrediction:
        """Geometry at a working size of about `SHORT_SIDE` pixels, the first camera being the world.

        Raises:
            CannotJudge: fewer than two frames, nothing to align, nothing moves, or no pose explains the frames.
        """
        if len(frames) < 2:
            raise CannotJudge("one frame has no motion; the embedded geometry needs at least two")
        images, intrinsics = at_working_size(frames, self.field_of_view_degrees)
        if images.std((2, 3)).amax(1).min() < SMALLEST_CONTRAST:
            raise CannotJudge("a frame shows no texture to align the camera by")
        single = self.network(images, intrinsics)
        confidence = TRUSTED_ERROR / (TRUSTED_ERROR + single.log_error.exp())
        prediction = _placed(images, intrinsics, single, confidence, confidence[0])
        movers = moving_bodies(prediction)
        if movers[0].any():
            # A body that moves pulls the cameras along: place them again without it.
            prediction = _placed(images, intrinsics, single, confidence, confidence[0] * ~movers[0])
            movers = moving_bodies(prediction)
        return replace(prediction, dynamic_mask=movers)


def _placed(
    images: Video,
    intrinsics: Intrinsics,
    single: SingleFrameGeometry,
    confidence: Depth,
    weight: Float[Tensor, "h w"],
) -> GeometryPrediction:
    """The frames' geometry with cameras that make them look like the first one, whose pixels count by `weight`."""
    poses = align(images, single.depth[0], weight, intrinsics)
    refuse_failed(poses)
    return GeometryPrediction(
        depth=to_one_scale(single.depth, poses.extrinsics_w2c, intrinsics),
        confidence=confidence,
        extrinsics_w2c=poses.extrinsics_w2c,
        intrinsics=intrinsics,
        images=images,
        scale="relative",
        normals=single.normals,
        albedo=single.albedo,
    )


@cache
def load_network(weights: Path | None = None) -> GeometryNetwork:
    """The network with the shipped weights, or those of another safetensors file.

    Raises:
        InputError: the file is missing or does not hold this network.
    """
    shipped = files("videogpa") / "weights" / "geometry" / "network.safetensors"
    with as_file(shipped) as default:
        path = weights or default
        network = GeometryNetwork()
        try:
            network.load_state_dict(load_file(path))
        except (OSError, RuntimeError) as error:
            raise InputError(
                f"'{path}' is not a file of the embedded geometry network's weights: {error}"
            ) from error
    return network.eval()


def at_working_size(
    frames: Video, field_of_view_degrees: float
) -> tuple[Float[Tensor, "t 3 height width"], Intrinsics]:
    """Frames resized to sides that the network takes, and the camera that goes with them."""
    height, width = frames.shape[-2:]
    ratio = SHORT_SIDE / min(height, width)
    size = _multiple_of_stride(height * ratio), _multiple_of_stride(width * ratio)
    focal = max(height, width) / (2 * math.tan(math.radians(field_of_view_degrees) / 2))
    k = frames.new_tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    k = resize_intrinsics(k, (height, width), size).expand(len(frames), 3, 3).contiguous()
    if size == (height, width):
        return frames, k
    return F.interpolate(frames, size, mode="bilinear", antialias=True).clamp(0, 1), k


def _multiple_of_stride(side: float) -> int:
    return max(1, round(side / STRIDE)) * STRIDE


def refuse_failed(poses: Alignment) -> None:
    """Stop where no geometry follows from the alignment.

    Raises:
        CannotJudge: the poses do not explain the frames, or the camera stood still.
    """
    if poses.displacement.max() < SMALLEST_MOTION:
        raise CannotJudge("the frames do not move")
    if poses.overlap.min() < SMALLEST_OVERLAP:
        raise CannotJudge(f"a frame shares only {poses.overlap.min():.0%} of its view with the first one")
    if (poses.residual > LARGEST_RESIDUAL * poses.chance).any():
        raise CannotJudge("no camera pose makes the frames look like the first one")


def to_one_scale(depth: Depth, extrinsics: Extrinsics, intrinsics: Intrinsics) -> Depth:
    """Each frame's depth times the one factor (median over the pixels) that brings it to the first frame's.

    Nothing else is adjusted: depths that disagree between frames are what the metrics look for.
    """
    count = len(depth)
    warp = backward_warp(
        (1 / depth[:1])[:, None].expand(count, -1, -1, -1),
        intrinsics[:1].expand(count, 3, 3),
        depth,
        intrinsics,
        relative_pose(extrinsics, extrinsics[:1].expand(count, 3, 4)),
    )
    ratio = torch.where(warp.inside, warp.values[:, 0] * warp.depth, torch.nan)
    factor = 1 / ratio[1:].flatten(1).nanmedian(1).values
    return torch.cat([depth[:1], depth[1:] * factor[:, None, None]])
