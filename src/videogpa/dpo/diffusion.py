"""From latents to per-sample prediction errors: the same noise and timestep for all that is compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from videogpa.dpo.lora import ADAPTER, EARLIER, switch
from videogpa.families.base import Conditioning, VideoFamily
from videogpa.tensors import Latents, PerSample

Weights = Float[Tensor, "b 1 f h w"]
"""How much each place of a sample's latents counts; 1 on average over what the model has to predict."""
Sides = tuple[PerSample, PerSample]
"""Errors of chosen and rejected."""


class Batch(NamedTuple):
    """Latents of both sides, and the one noise and timestep that each pair's sides share.

    `weights` are those of chosen and rejected (dense preferences), the same for policy and reference; `margin` is by
    how much the chosen video was scored better, 1 on average over the training pairs.
    """

    chosen: Latents
    rejected: Latents
    eps: Latents
    t: PerSample
    conditioning: Conditioning
    weights: tuple[Weights, Weights] | None = None
    margin: PerSample | None = None

    def take(self, part: slice) -> "Batch":
        """Some of the pairs."""
        return Batch(
            self.chosen[part],
            self.rejected[part],
            self.eps[part],
            self.t[part],
            {name: tensor[part] for name, tensor in self.conditioning.items()},
            None if self.weights is None else (self.weights[0][part], self.weights[1][part]),
            None if self.margin is None else self.margin[part],
        )


@dataclass(frozen=True, kw_only=True)
class PairErrors:
    """Masked mean squared prediction errors of pairs, [b] float32; references carry no gradient.

    `rejected_scale` in [0, 1] is how much of the rejected error's gradient leaves the chosen error non-increasing
    (`safe_scale`); `margin` is the batch's.
    """

    chosen: PerSample
    rejected: PerSample
    chosen_reference: PerSample
    rejected_reference: PerSample
    rejected_scale: PerSample | None = None
    margin: PerSample | None = None

    @property
    def sides(self) -> tuple[PerSample, PerSample, PerSample, PerSample]:
        """The four errors in the order in which the losses take them."""
        return self.chosen, self.rejected, self.chosen_reference, self.rejected_reference


def pair_errors(family: VideoFamily, batch: Batch, reference: Sides | None = None) -> PairErrors:
    """Errors of both sides under policy and reference; each side gets the pair's own noise and timestep.

    The reference is the same weights without the LoRA that is trained, unless its errors are known already.
    """
    chosen_reference, rejected_reference = reference or reference_errors(family, batch)
    chosen, rejected = residuals(family, batch)
    counted = _counted(family, batch)
    return PairErrors(
        chosen=_mean_square(chosen, counted[0]),
        rejected=_mean_square(rejected, counted[1]),
        chosen_reference=chosen_reference,
        rejected_reference=rejected_reference,
        rejected_scale=safe_scale(chosen.detach() * counted[0], rejected.detach() * counted[1]),
        margin=batch.margin,
    )


@torch.no_grad()
def reference_errors(family: VideoFamily, batch: Batch) -> Sides:
    """Errors of both sides under the reference: the base model, or the base with an earlier LoRA."""
    with adapters_off(family.transformer):
        return side_errors(family, batch)


def side_errors(family: VideoFamily, batch: Batch) -> Sides:
    """Errors of chosen and rejected under the model as it stands, both in one forward."""
    chosen, rejected = residuals(family, batch)
    counted = _counted(family, batch)
    return _mean_square(chosen, counted[0]), _mean_square(rejected, counted[1])


def residuals(family: VideoFamily, batch: Batch) -> tuple[Latents, Latents]:
    """Prediction less target of chosen and rejected, in float32; both sides go through the model in one batch."""
    x0, eps, t = (
        torch.cat(sides) for sides in ((batch.chosen, batch.rejected), [batch.eps] * 2, [batch.t] * 2)
    )
    conditioning = {name: torch.cat([tensor, tensor]) for name, tensor in batch.conditioning.items()}
    predicted = family.predict(family.noise(x0, eps, t), t, conditioning).float()
    chosen, rejected = (predicted - family.target(x0, eps, t).float()).chunk(2)
    return chosen, rejected


def safe_scale(chosen_gradient: Latents, rejected_gradient: Latents) -> PerSample:
    """The largest s in [0, 1] with <g_w, g_w - s g_l> >= 0, for each pair: a step down the chosen error and up s times
    the rejected one does not raise the chosen error, to first order and in the space of predictions.

    Diffusion-SDPO, Fu et al. 2025 (arXiv 2511.03317), with mu = 0, for each pair instead of each batch.

    Args:
        chosen_gradient: of the chosen error with respect to its prediction, up to a factor that both share.
        rejected_gradient: of the rejected error.
    """
    own = chosen_gradient.square().flatten(1).sum(1)
    shared = (chosen_gradient * rejected_gradient).flatten(1).sum(1)
    return torch.where(shared > own, own / shared.clamp_min(torch.finfo(own.dtype).tiny), 1.0)


@contextmanager
def adapters_off(transformer: Any) -> Iterator[None]:
    """The reference model: the same weights without the LoRA that is trained, bit for bit the base, which may carry an
    earlier one.
    """
    switch(transformer, EARLIER)
    try:
        yield
    finally:
        switch(transformer, EARLIER, ADAPTER)


def _counted(family: VideoFamily, batch: Batch) -> tuple[Weights, Weights]:
    """The weight of every place of chosen and rejected: 0 where the model is given the answer."""
    mask = family.loss_mask(batch.chosen, batch.conditioning).float()
    return (mask, mask) if batch.weights is None else (mask * batch.weights[0], mask * batch.weights[1])


def _mean_square(residual: Latents, counted: Weights) -> PerSample:
    everywhere = counted.expand_as(residual)
    return (residual.square() * everywhere).flatten(1).sum(1) / everywhere.flatten(1).sum(1)
