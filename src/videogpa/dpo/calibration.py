"""beta by rule: as large as puts the logits of a short trial training where the sigmoid bends but does not saturate."""

from dataclasses import dataclass
from pathlib import Path

import torch

from videogpa.artifact import read_json
from videogpa.dpo.diffusion import PairErrors
from videogpa.errors import InputError

QUANTILE = 0.8
WANTED_LOGIT = 2.0
"""Where the trial ends, that share of the pairs is to have a logit below this one: sigmoid(2) = .88, so that those who
gained most pull with an eighth of their first gradient."""
TRIAL_SHARE = 0.5
"""The trial runs through this share of the training's steps."""
SMALLEST_ADVANTAGE = 1e-7


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What the trial found: the `QUANTILE` of the advantages over its last steps, and the beta that follows."""

    beta: float
    advantage: float
    steps: int


def advantages(errors: PairErrors) -> torch.Tensor:
    """|(e_w - e_w^ref) - (e_l - e_l^ref)| of every pair, [b]: the logit at beta = 1, whatever its sign."""
    chosen = errors.chosen - errors.chosen_reference
    return (chosen - (errors.rejected - errors.rejected_reference)).detach().abs()


def calibrated(found: torch.Tensor, steps: int) -> Calibration:
    """The beta at which the `QUANTILE` of these advantages is a logit of `WANTED_LOGIT`."""
    advantage = found.quantile(QUANTILE).clamp_min(SMALLEST_ADVANTAGE).item()
    return Calibration(beta=WANTED_LOGIT / advantage, advantage=advantage, steps=steps)


def read_calibration(path: Path) -> Calibration:
    """What an earlier trial found.

    Raises:
        InputError: the file was damaged.
    """
    damaged = InputError(f"{path} is damaged: delete it, and the training finds its beta again")
    try:
        found = Calibration(**read_json(path))
        fits = found.beta == WANTED_LOGIT / found.advantage
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise damaged from error
    if not fits:
        raise damaged
    return found
