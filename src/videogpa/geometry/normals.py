"""Surface normals: from depth, or from a network of transformers or a Marigold pipeline in a local folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from diffusers import MarigoldNormalsPipeline
from torch.nn import functional as F
from transformers import AutoModelForNormalEstimation

from videogpa.geometry.cameras import unproject
from videogpa.geometry.marigold_pipeline import load_pipeline, predict_frames
from videogpa.geometry.network_folder import at_size, input_format, load, prepared
from videogpa.tensors import Depth, Intrinsics, Normals, Video

Axes = Literal["right_up_back", "right_down_forward"]
"""Axes of the normals that a network gives: y up and z towards the viewer (OpenGL), or this project's (OpenCV)."""


def normals_from_depth(depth: Depth, intrinsics: Intrinsics) -> Normals:
    """Unit normals towards the camera, of the surface through each pixel's neighbours; depth is positive."""
    points = unproject(depth, intrinsics).permute(0, 3, 1, 2)
    padded = F.pad(points, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    return F.normalize(torch.linalg.cross(down, across, dim=1), dim=1)


def load_normals(folder: Path, axes: Axes, seed: int = 0, device: str = "cpu") -> Callable[[Video], Normals]:
    """A function from frames [t 3 h w] in [0, 1] to unit normals in the camera's OpenCV frame, at their size.

    A folder with a `model_index.json` is a Marigold pipeline, whose axes are right_up_back; any other one is a
    transformers network with the `axes` given.

    Raises:
        InputError: the folder cannot be loaded.
    """
    if (folder / "model_index.json").exists():
        pipeline = load_pipeline(MarigoldNormalsPipeline, folder, device)
        return lambda frames: to_opencv(
            predict_frames(pipeline, frames, steps=None, resolution=None, seed=seed)[:, 0], "right_up_back"
        )
    network, form = load(AutoModelForNormalEstimation, folder).to(device), input_format(folder)

    @torch.inference_mode()
    def see(frames: Video) -> Normals:
        size = (frames.shape[-2], frames.shape[-1])
        found = [network(pixel_values=x[None].to(device)).normals for x in prepared(frames, form)]
        return to_opencv(torch.cat([at_size(x.float().cpu(), size) for x in found]), axes)

    return see


def to_opencv(normals: Video, axes: Axes) -> Normals:
    """Normals of any length [t 3 h w] as unit vectors in OpenCV axes."""
    signs = (1, -1, -1) if axes == "right_up_back" else (1, 1, 1)
    return F.normalize(normals * normals.new_tensor(signs)[:, None, None], dim=1)
