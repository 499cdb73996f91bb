"""From latents to per-sample prediction errors: the same noise and timestep for all that is compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from videogpa.families.base import Conditioning, VideoFamily
from videogpa.tensors import Latents, PerSample


@dataclass(frozen=True, kw_only=True)
class PairErrors:
    """Masked mean squared prediction errors of pairs, [b] float32; references carry no gradient."""

    chosen: PerSample
    rejected: PerSample
    chosen_reference: PerSample
    rejected_reference: PerSample


def prediction_errors(
    family: VideoFamily, x0: Latents, eps: Latents, t: PerSample, conditioning: Conditioning
) -> PerSample:
    """Mean squared prediction error of each sample over what the model has to predict, in float32."""
    predicted = family.predict(family.noise(x0, eps, t), t, conditioning).float()
    mask = family.loss_mask(x0, conditioning).expand_as(x0)
    squared = (predicted - family.target(x0, eps, t).float()).square() * mask
    return squared.flatten(1).sum(1) / mask.flatten(1).sum(1)


def pair_errors(
    family: VideoFamily,
    chosen: Latents,
    rejected: Latents,
    eps: Latents,
    t: PerSample,
    conditioning: Conditioning,
) -> PairErrors:
    """Errors of both sides under policy and reference; each side gets the pair's own noise and timestep.

    The reference is the same weights with the adapters off.
    """
    with torch.no_grad(), adapters_off(family.transformer):
        chosen_reference, rejected_reference = side_errors(family, chosen, rejected, eps, t, conditioning)
    chosen_error, rejected_error = side_errors(family, chosen, rejected, eps, t, conditioning)
    return PairErrors(
        chosen=chosen_error,
        rejected=rejected_error,
        chosen_reference=chosen_reference,
        rejected_reference=rejected_reference,
    )


def side_errors(
    family: VideoFamily,
    chosen: Latents,
    rejected: Latents,
    eps: Latents,
    t: PerSample,
    conditioning: Conditioning,
) -> tuple[PerSample, PerSample]:
    """Errors of chosen and rejected under the model as it stands, both in one batch."""
    both = prediction_errors(
        family,
        torch.cat([chosen, rejected]),
        torch.cat([eps, eps]),
        torch.cat([t, t]),
        {name: torch.cat([tensor, tensor]) for name, tensor in conditioning.items()},
    )
    chosen_error, rejected_error = both.chunk(2)
    return chosen_error, rejected_error


@contextmanager
def adapters_off(transformer: Any) -> Iterator[None]:
    """The reference model: the same weights without their LoRA, bit for bit the base."""
    transformer.disable_adapters()
    try:
        yield
    finally:
        transformer.enable_adapters()
