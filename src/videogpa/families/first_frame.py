"""The first frame that image-to-video models are given."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from diffusers.image_processor import VaeImageProcessor
from jaxtyping import Bool, Float
from PIL.Image import Image
from torch import Tensor

from videogpa.errors import InputError
from videogpa.families.base import Conditioning
from videogpa.tensors import Latents


def require_first_frame(folder: Path, takes_image: bool, image: Tensor | None) -> None:
    """There is one if and only if the model takes one.

    Raises:
        InputError: it is missing or superfluous.
    """
    if image is None and takes_image:
        raise InputError(f"{folder} is an image-to-video model: give every prompt a first frame")
    if image is not None and not takes_image:
        raise InputError(f"{folder} is a text-to-video model: it cannot take a first frame")


def require_fit(image: Tensor | None, frames: int, height: int, width: int) -> None:
    """The image, if there is one, has the video's size and is not all of it.

    Raises:
        InputError: it has another one, or no other frame is to be drawn.
    """
    if image is not None and frames == 1:
        raise InputError(
            "a video of one frame with a first frame leaves nothing to draw: ask for more frames"
        )
    if image is not None and tuple(image.shape[1:]) != (height, width):
        raise InputError(
            f"the first frame is {image.shape[2]}x{image.shape[1]} but the video {width}x{height}: "
            "resize or crop the image to the video's size"
        )


def as_picture(image: Float[Tensor, "3 height width"]) -> Image:
    """An image in [0, 1] in 8 bits, as the image encoders of the pipelines take it."""
    return VaeImageProcessor.numpy_to_pil(VaeImageProcessor.pt_to_numpy(image[None]))[0]


def with_first_frame(latents: Latents, conditioning: Conditioning) -> Latents:
    """The latents with the given clean first frame in place, if there is one."""
    if "first_frame" not in conditioning:
        return latents
    return torch.cat([conditioning["first_frame"].to(latents), latents[:, :, 1:]], dim=2)


def without_first_frame(latents: Latents, conditioning: Conditioning) -> Bool[Tensor, "b 1 f h w"]:
    """The loss mask: False on the first latent frame where it is given."""
    mask = torch.ones_like(latents[:, :1], dtype=torch.bool)
    mask[:, :, 0] = "first_frame" not in conditioning
    return mask


@contextmanager
def encoding_by_mode(vae: Any) -> Iterator[None]:
    """For a while the VAE encodes to the mode of its distribution instead of a draw from it, in its own precision."""
    encode = vae.encode
    vae.encode = lambda pixels: SimpleNamespace(latents=encode(pixels.to(vae.dtype)).latent_dist.mode())
    try:
        yield
    finally:
        # The class's own method shows again.
        del vae.encode
