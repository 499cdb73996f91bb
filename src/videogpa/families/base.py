"""The contract of video model families: everything that differs between diffusion models, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from videogpa.tensors import Latents, PerSample

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

    videos: Float[Tensor, "b t 3 h w"]
    latents: Latents
    conditioning: Conditioning


class VideoFamily(Protocol):
    """What `families/<name>.py` offers: a class `Family` with these members.

    `prediction_type` says what `target` is; `lora_targets` are module name endings of the transformer.
    """

    prediction_type: Literal["epsilon", "v_prediction", "flow"]
    lora_targets: tuple[str, ...]
    license: str
    transformer: nn.Module

    def sample(
        self,
        text: str,
        image: Float[Tensor, "3 h w"] | None,
        seeds: Sequence[int],
        settings: SamplerSettings,
    ) -> Samples:
        """One video per seed, drawn by the diffusers pipeline itself; a seed gives the same video in any batch
        of the same size.
        """
        ...

    def encode(
        self, videos: Float[Tensor, "b t 3 h w"], text: str, image: Float[Tensor, "3 h w"] | None
    ) -> tuple[Latents, Conditioning]:
        """Latents and conditioning of given videos, scaled exactly as `sample` returns them."""
        ...

    def sample_timesteps(self, generator: Generator, n: int) -> PerSample:
        """Timesteps of the training schedule, on the scheduler's scale, shift included."""
        ...

    def noise(self, x0: Latents, eps: Latents, t: PerSample) -> Latents:
        """x_t; keeps clean whatever the model always sees clean (a conditioning first frame)."""
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
