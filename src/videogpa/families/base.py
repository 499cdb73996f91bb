"""The contract of video model families: all that differs between diffusion models, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from videogpa.artifact import atomic_path, require_as_made, require_file
from videogpa.errors import InputError
from videogpa.tensors import Latents, PerSample

LatentSize = tuple[int, int, int]
"""Frames, height and width of latents."""
Conditioning = Mapping[str, Tensor]
"""Everything `predict` needs beside x_t and t, batch first: prompt embeddings, first-frame latents, ..."""


@dataclass(frozen=True, kw_only=True)
class SamplerSettings:
    """How to draw one video; `frames`, `height`, `width` must fit the model's VAE and patch size."""

    frames: int
    height: int
    width: int
    steps: int
    guidance_scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Videos [b t 3 h w] in [0, 1], the final latents as the transformer sees them, and the conditioning."""

    videos: Float[Tensor, "b t 3 height width"]
    latents: Latents
    conditioning: Conditioning


def joined(parts: Sequence[Samples]) -> Samples:
    """One after the other, of videos that were drawn apart."""
    if len(parts) == 1:
        return parts[0]
    names = parts[0].conditioning
    return Samples(
        videos=torch.cat([part.videos for part in parts]),
        latents=torch.cat([part.latents for part in parts]),
        conditioning={name: torch.cat([part.conditioning[name] for part in parts]) for name in names},
    )


@runtime_checkable
class VideoFamily(Protocol):
    """What `families/<name>.py` offers: a class `Family(folder, *, dtype, device)` with these members.

    The constructor loads the transformer and the schedule; what only sampling and encoding need (VAE, text
    encoder) is loaded by their first call, so that training never holds it. `prediction_type` says what
    `target` is; `lora_targets` are module name endings of the transformer; `lora_loader` is the diffusers
    mixin from which the plain pipeline has its `load_lora_weights`.
    """

    prediction_type: Literal["epsilon", "v_prediction", "flow"]
    lora_targets: tuple[str, ...]
    lora_loader: Any
    device: torch.device
    """Where the transformer is; training moves both."""
    transformer: Any
    """A diffusers model: a torch module that also takes peft adapters."""

    def sample(
        self,
        text: str,
        image: Float[Tensor, "3 height width"] | None,
        seeds: Sequence[int],
        settings: SamplerSettings,
    ) -> Samples:
        """One video per seed, drawn by the diffusers pipeline itself; a seed gives the same video in any
        batch of the same size.
        """
        ...

    def encode(
        self,
        videos: Float[Tensor, "b t 3 height width"],
        text: str,
        image: Float[Tensor, "3 height width"] | None,
    ) -> tuple[Latents, Conditioning]:
        """Latents and conditioning of given videos, scaled exactly as `sample` returns them."""
        ...

    def sample_timesteps(self, generator: Generator, n: int, latent_size: LatentSize) -> PerSample:
        """Timesteps of the training schedule, on the scheduler's scale, shift included (some models shift by
        the size of what they draw); the n of one call are stratified: one from each n-th of the schedule, in
        random order.
        """
        ...

    def noise(self, x0: Latents, eps: Latents, t: PerSample) -> Latents:
        """x_t of the forward process; `predict` puts back what the model always sees clean."""
        ...

    def target(self, x0: Latents, eps: Latents, t: PerSample) -> Latents:
        """What a perfect `predict` returns."""
        ...

    def loss_mask(self, latents: Latents, conditioning: Conditioning) -> Bool[Tensor, "b 1 f h w"]:
        """False where the model is given the answer, so that it is no part of the loss."""
        ...

    def predict(self, x_t: Latents, t: PerSample, conditioning: Conditioning) -> Latents:
        """The transformer call of the pipeline, without guidance; gradients flow."""
        ...


def require_device(name: str) -> str:
    """The device itself, if torch can put something on it here.

    Raises:
        InputError: it cannot.
    """
    try:
        torch.empty(1, device=name)
    except (AssertionError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"there is no device '{name}' here ({reason}): give cpu, cuda or cuda:N") from error
    return name


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors as safetensors, atomically: the file is whole or absent."""
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        save_file(whole, temporary, dict(metadata) if metadata else None)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file onto the CPU.

    Raises:
        InputError: the file is missing, is not safetensors, or has values that are not finite.
        StageStopped: it was changed since its stage made it.
    """
    try:
        require_file(require_as_made(path))
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read tensors from {path}: {error}; redo the stage that wrote it") from error
    require_finite(tensors, path)
    return tensors


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """No value of a file is NaN or infinite: whatever is computed from it would be, too.

    Raises:
        InputError: one is.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{path}: '{name}' has values that are not finite; make the file again")
