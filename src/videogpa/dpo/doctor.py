"""The doctor: from the figures of a training, and of videos drawn with it, to what is wrong and what helps.

Thresholds were chosen from trainings of the embedded model that were made ill on purpose
(`benchmarks/doctor_diseases.py`; the measurements are in `docs/doctor.md`). Shares come with Wilson's interval, so
that few pairs make no verdict.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from videogpa.dpo.calibration import WANTED_LOGIT
from videogpa.dpo.config import TrainConfig

Figures = Mapping[str, float]
"""One line of `log.csv`; what the line leaves empty is absent."""

NO_EFFECT = 1e-4
"""Share of the weights that a LoRA changes at least: below it, errors change by less than a ten-thousandth."""
STRAIGHT = 0.01
"""Saturation up to which the sigmoid is straight: logits of about .2, so the pull has changed by less than a tenth."""
SATURATED = 0.9
"""Saturation of which only a wrong beta is the reason this early: logits of about 3.6, pull of a twentieth or all."""
EARLY_STEPS = 20
"""What counts as early: so many steps after the warm-up."""
LEARNABLE = 0.6
"""Accuracy on pairs never seen before that preferences with something to learn can be expected to reach."""
LEARNT_BY_HEART = 0.65
"""Accuracy on pairs seen before from which on the model has learnt them."""
FALLEN = 0.01
"""Rise of the held-out chosen error from its lowest at which training has begun to undo what it had learnt."""
WORSENED = 0.002
"""Rise of the chosen error over the base's that is more than its fluctuation between two evaluations."""
DESTROYED = 0.25
"""Rise of both errors over the base's at which no video model is left."""
LOST = 0.05
"""Share of motion or sharpness that may be lost, as in the evaluation's guards."""
ENOUGH = 0.25
"""Share of the planned steps that must be done before it counts that something has not happened."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is wrong, the number that says so with its threshold, and what helps."""

    name: str
    figure: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.figure}. {self.remedy}"


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a measure of the LoRA's videos differs from the base's, paired, as a share of the base's mean (-0.1 is a
    tenth less), with its 95 % interval over `count` videos.
    """

    mean: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Training:
    """A training, finished or under way. `pairs` and `held_out_pairs` are None where nobody knows; `beta` is the one
    used, None while it is being calibrated.
    """

    config: TrainConfig
    rows: Sequence[Figures]
    beta: float | None = None
    pairs: int | None = None
    held_out_pairs: int | None = None

    @property
    def warm(self) -> Sequence[Figures]:
        """The steps after the warm-up."""
        return [row for row in self.rows if row["step"] > self.config.warmup_steps]

    @property
    def late(self) -> Sequence[Figures]:
        """The last quarter of the steps done."""
        return self.rows[-max(1, len(self.rows) // 4) :]

    @property
    def evaluations(self) -> Sequence[Figures]:
        """The steps after which held-out pairs were looked at."""
        return [row for row in self.rows if "held_out_margin" in row]

    @property
    def prefers(self) -> bool:
        """Whether its objective knows a rejected video."""
        return self.config.objective != "sft"


def diagnose(training: Training, probes: Mapping[str, Change] | None = None) -> list[Verdict]:
    """All verdicts; none for a healthy training. `probes` are changes of `motion` and `sharpness`.

    What follows from another disease is not told again: a diverged or idle training gets that verdict alone.
    """
    for decisive in (diverged, no_op):
        if verdict := decisive(training):
            return [verdict]
    diseases: Sequence[Callable[[Training], Verdict | None]] = (
        beta_too_small,
        beta_too_large,
        random_pairs,
        overfitting,
        loser_driven,
    )
    found = [disease(training) for disease in diseases] if training.rows else []
    return [verdict for verdict in [*found, *_of_videos(probes or {})] if verdict]
