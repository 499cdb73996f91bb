"""Is the training healthy? Figures of one step, and the rule that stops it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from videogpa.dpo.diffusion import PairErrors
from videogpa.dpo.loss import implicit_accuracy, preference_logits


@dataclass(frozen=True, kw_only=True)
class Health:
    """Averages over pairs.

    accuracy: share of pairs whose chosen video the policy prefers *against its reference*, ties half;
    margin: mean logit; chosen_change, rejected_change: relative change of the error against the reference
    (0.01 = 1 % worse than the base); saturation: 0 while the sigmoid is linear, 1 where its gradient is gone.
    """

    accuracy: float
    margin: float
    chosen_change: float
    rejected_change: float
    saturation: float


def measure(errors: PairErrors, beta: float) -> Health:
    """The figures of these pairs."""
    logits = preference_logits(*errors.sides, beta).detach()
    preference = logits.sigmoid()
    return Health(
        accuracy=implicit_accuracy(logits).mean().item(),
        margin=logits.mean().item(),
        chosen_change=relative_change(errors.chosen.detach(), errors.chosen_reference),
        rejected_change=relative_change(errors.rejected.detach(), errors.rejected_reference),
        saturation=(1 - 4 * preference * (1 - preference)).mean().item(),
    )


def effect_size(lora: Mapping[str, Tensor], scaling: float, base_norm: float) -> float:
    """|s B A| / |W| over all adapted matrices: how much of the base model's weights the LoRA changes.

    Args:
        lora: parameters by name, ending in lora_A... and lora_B...
        scaling: alpha / rank.
        base_norm: root of the sum of squares of the adapted matrices.
    """
    squared = 0.0
    for name, a in lora.items():
        if ".lora_A." in name:
            b = lora[name.replace(".lora_A.", ".lora_B.")].detach()
            # |B A|^2 = <B'B, A A'>: never the size of the matrix itself.
            squared += ((b.mT @ b) * (a.detach() @ a.detach().mT)).sum().item()
    return scaling * math.sqrt(max(squared, 0.0)) / base_norm


def relative_change(errors: Tensor, reference: Tensor) -> float:
    """(sum e - sum e^ref) / sum e^ref."""
    return ((errors.sum() - reference.sum()) / reference.sum()).item()


@dataclass(frozen=True, kw_only=True)
class ChosenGuard:
    """Follows the chosen videos' error against the reference by an exponential mean over steps.

    Errors at one timestep vary far more than they change, so both means are kept and divided at the end.
    """

    error: float = 0.0
    reference: float = 0.0
    decay: float = 0.95

    def update(self, errors: PairErrors) -> "ChosenGuard":
        """The guard after one more batch."""
        keep, take = self.decay, 1 - self.decay
        return ChosenGuard(
            error=keep * self.error + take * errors.chosen.mean().item(),
            reference=keep * self.reference + take * errors.chosen_reference.mean().item(),
            decay=self.decay,
        )

    @property
    def change(self) -> float:
        """Relative rise of the chosen error; both means start at 0, so their bias cancels."""
        return self.error / self.reference - 1 if self.reference else 0.0


def must_stop(chosen_change: float, limit: float | None) -> bool:
    """Whether the chosen's error rose past the limit, or is no number any more: the policy forgets how to
    draw what it should prefer.
    """
    return limit is not None and not chosen_change <= limit
