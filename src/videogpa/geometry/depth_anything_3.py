"""Depth Anything 3 (Lin et al., arXiv 2511.10647): depth and cameras of all frames from one plain transformer."""

import importlib
import os
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from videogpa.errors import InputError
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.multi_view import MultiViewOutput, Poses, fitted, to_prediction
from videogpa.geometry.poses import require_video
from videogpa.tensors import Video

LICENSE = "Apache-2.0 (large: CC-BY-NC-4.0)"
LICENSES = {
    "small": "Apache-2.0",
    "base": "Apache-2.0",
    "large": "CC-BY-NC-4.0",
    "giant": "CC-BY-NC-4.0",
}
SCALE = "relative"
PREDICTS = ("depth", "poses", "confidence")
NEEDS = ("depth_anything_3", "omegaconf", "addict", "einops")
INSTALL = "pip install 'videogpa[da3]' && pip install --no-deps depth-anything-3==0.1.1"
WEIGHT_OPTIONS = ("weights",)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GAUSSIANS = ("gs_head", "gs_adapter")
"""Parts of the largest network that nothing here reads and that need more packages."""
Size = Literal["small", "base", "large", "giant"]


def licenses(size: Size, **_: object) -> dict[str, str]:
    """The licence that the authors' model table gives for weights of this size."""
    return {f"depth_anything_3 {size}": LICENSES[size]}


class Backend:
    """Depth Anything 3 with the weights of a folder (`model.safetensors`), float32 or, on a GPU, bfloat16.

    Args:
        weights: the folder of DA3-SMALL, -BASE, -LARGE or -GIANT.
        size: which of them it is.
        longer_side: pixels; 504 is the authors' default, less is faster.
        poses: `learned` from its camera head, or found by `alignment` of the images at its depth.
        device: where it runs.

    Raises:
        InputError: a package or the folder is missing, or its weights are not those of a network of this size.
    """

    license = LICENSE
    needs: tuple[str, ...] = NEEDS
    scale = "relative"

    def __init__(
        self,
        weights: Path,
        size: Size = "small",
        longer_side: int = 504,
        poses: Poses = "learned",
        device: str = "cpu",
    ):
        self.network = load_network(weights, size).to(device)
        self.longer_side = longer_side
        self.poses: Poses = poses
        self.device = torch.device(device)

    @torch.inference_mode()
    def predict(self, frames: Video) -> GeometryPrediction:
        """Geometry at the network's own size.

        Raises:
            CannotJudge: fewer than two frames, no texture, no motion, or no pose explains the frames.
        """
        require_video(frames)
        images = fitted(frames, self.longer_side)
        mean, std = (images.new_tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
            answer = self.network(((images - mean) / std)[None].to(self.device))
        output = MultiViewOutput(
            depth=answer["depth"][0].float().cpu(),
            confidence=answer["depth_conf"][0].float().cpu(),
            extrinsics_w2c=answer["extrinsics"][0, :, :3].float().cpu(),
            intrinsics=answer["intrinsics"][0].float().cpu(),
        )
        return to_prediction(output, images, self.poses)


def load_network(folder: Path, size: Size) -> nn.Module:
    """The bare network (no demo, no exporters) with weights from a local folder.

    Raises:
        InputError: a package or the folder is missing, or its weights are not those of a network of this size.
    """
    network = build_network(size)
    path = folder / "model.safetensors"
    # The published files hold the network as the attribute `model` of a wrapper.
    whole = nn.ModuleDict({"model": network})
    try:
        missing, unexpected = load_model(whole, path, strict=False)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(_misfit(path, size, str(error).splitlines()[0])) from error
    extra = [name for name in unexpected if not name.startswith(tuple(f"model.{g}" for g in GAUSSIANS))]
    if missing or extra:
        raise InputError(_misfit(path, size, f"{len(missing)} tensors are missing, {len(extra)} too many"))
    return network.eval()


def build_network(size: Size) -> nn.Module:
    """The network with random weights.

    Raises:
        InputError: a package is missing.
    """
    os.environ.setdefault("DA3_LOG_LEVEL", "WARN")
    try:
        configuration = importlib.import_module("depth_anything_3.cfg")
        paths = importlib.import_module("depth_anything_3.registry").MODEL_REGISTRY
        config = configuration.load_config(paths[f"da3-{size}"])
        return configuration.create_object({k: v for k, v in config.items() if k not in GAUSSIANS})
    except ImportError as error:
        raise InputError(f"geometry 'depth_anything_3' needs packages: {INSTALL} ({error})") from error


def _misfit(path: Path, size: str, reason: str) -> str:
    return f"'{path}' does not hold the weights of Depth Anything 3 {size} (option size): {reason}"
