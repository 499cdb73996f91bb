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
RIGHT_PAIRS = 100
"""Training pairs of which right preferences teach something: with 20, they are learnt by heart and nothing else."""
GAP = 0.006
"""Distance of the chosen errors' changes, held-out above known pairs, that no healthy training comes half near to."""
LAST_EVALUATIONS = 3
"""So many are averaged: at a high learning rate the held-out error swings by half the gap from one to the next."""
HELD_OUT = 16
"""Held-out pairs that are few enough to be had and enough for their mean error to mean something."""
WORSENED = 0.002
"""Rise of the chosen error over the base's that is more than it fluctuates."""
DESTROYED = 0.25
"""Rise of both errors over the base's at which no video model is left."""
LOST = {"motion": 0.05, "dynamic_degree": 0.1, "sharpness": 0.05}
"""Shares that may be lost, as in the evaluation's guards; where nothing moves, `motion` has no value."""
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
    """By which share a measure of the LoRA's videos differs from the base's, video by video: the median over `count`
    videos (-0.1 is a tenth less) with its 95 % interval.
    """

    median: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Gain:
    """By which share a metric of an arm's videos is better than `against`'s (below 0: worse) with its 95 % interval."""

    metric: str
    against: str
    mean: float
    low: float
    high: float


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


def diagnose(
    training: Training,
    probes: Mapping[str, Change] | None = None,
    *,
    beats_control: bool | None = None,
    gains: Sequence[tuple[Gain, Gain]] = (),
) -> list[Verdict]:
    """All verdicts; none for a healthy training.

    What follows from another disease is not told again: a diverged or idle training gets that verdict alone, and pairs
    are doubted only where nothing else is wrong.

    Args:
        probes: changes of the measures in LOST.
        beats_control: whether its videos are better than those of the same training on shuffled labels, by the
            measure that made the pairs; None where there is nothing to compare.
        gains: against the round before, or the base: by the measure that made the pairs, by the evaluation's primary.
    """
    of_videos = _of_videos(probes or {}) + reward_hacked(gains)
    for decisive in (diverged, no_op):
        if verdict := decisive(training):
            return [verdict]
    if not training.rows:
        return of_videos
    diseases: Sequence[Callable[[Training], Verdict | None]] = (
        beta_too_small,
        beta_too_large,
        overfitting,
        loser_driven,
    )
    found = [verdict for disease in diseases if (verdict := disease(training))]
    if not found and (verdict := random_pairs(training, beats_control)):
        found = [verdict]
    return found + of_videos


def hopeless(training: Training) -> Verdict | None:
    """What no further step can heal, if it is so: worth stopping for."""
    return diverged(training) or beta_too_large(training)


def diverged(training: Training) -> Verdict | None:
    """A figure is no number, or both errors left the base's far behind."""
    remedy = (
        f"Lower learning_rate (now {training.config.learning_rate:g}) to a tenth, or max_grad_norm; "
        "begin again, these weights are lost"
    )
    for row in training.rows:
        broken = [name for name, value in row.items() if not math.isfinite(value)]
        if broken:
            figure = f"{broken[0]} is {row[broken[0]]} at step {row['step']:.0f}"
            return Verdict(name="diverged", figure=figure, remedy=remedy)
    if not training.rows:
        return None
    rise = min(_mean(training.late, "chosen_change"), _mean(training.late, "rejected_change"))
    if rise <= DESTROYED:
        return None
    figure = f"both errors are at least {rise:.0%} above the base's in the last steps (limit {DESTROYED:.0%})"
    return Verdict(name="diverged", figure=figure, remedy=remedy)


def no_op(training: Training) -> Verdict | None:
    """The LoRA changes nothing, though there was time to."""
    if not _had_time(training) or "effect" not in training.rows[-1]:
        return None
    effect = training.rows[-1]["effect"]
    if effect >= NO_EFFECT:
        return None
    return Verdict(
        name="no_op",
        figure=f"the LoRA changes {effect:.1e} of the weights (at least {NO_EFFECT:.0e} is wanted)",
        remedy=f"Raise learning_rate (now {training.config.learning_rate:g}) or steps, and see that grad_norm is not 0",
    )


def beta_too_small(training: Training) -> Verdict | None:
    """Nothing ever counts as learnt: every pair pulls as hard as at the start."""
    if not training.prefers or not _had_time(training):
        return None
    saturation = _mean(training.late, "saturation")
    if saturation >= STRAIGHT:
        return None
    # tanh^2(z/2), averaged: the root is about half of the logits' root mean square.
    logit = 2 * math.sqrt(max(saturation, 0.0))
    wanted = (
        f", about {training.beta * WANTED_LOGIT / logit:.0e} by this log" if training.beta and logit else ""
    )
    return Verdict(
        name="beta_too_small",
        figure=f"saturation {saturation:.1e} in the last steps, logits of {logit:.1g} (at least {STRAIGHT} is wanted)",
        remedy=f"Raise beta (now {_number(training.beta)}{wanted}) or set it to null, which calibrates it",
    )


def beta_too_large(training: Training) -> Verdict | None:
    """Pairs are won or lost outright before anything is learnt."""
    early = training.warm[:EARLY_STEPS]
    if not training.prefers or len(early) < EARLY_STEPS:
        return None
    saturation = _mean(early, "saturation")
    if saturation <= SATURATED:
        return None
    return Verdict(
        name="beta_too_large",
        figure=f"saturation {saturation:.2f} in the first {EARLY_STEPS} steps after the warm-up (limit {SATURATED})",
        remedy=f"Lower beta (now {_number(training.beta)}) or set it to null, which calibrates it",
    )


def random_pairs(training: Training, beats_control: bool | None) -> Verdict | None:
    """Pairs are learnt by heart while new ones stay at one half: nothing that it learns carries over.

    This alone proves nothing: eight of twenty trainings of the embedded model on right labels look like it, though
    their videos got better. So it takes labels that are known to be shuffled, or a control that the videos do not beat.
    """
    if beats_control or (beats_control is None and training.config.labels != "shuffled"):
        return None
    pairs, batch = training.pairs or 0, training.config.batch_pairs
    known = [row for row in training.late if (row["step"] - 1) * batch >= pairs]
    new = new_accuracy(training)
    if not training.prefers or pairs < RIGHT_PAIRS or not known or new is None:
        return None
    accuracy, count = new
    by_heart = _mean(known, "accuracy")
    _, high = wilson(accuracy, count)
    low, _ = wilson(by_heart, len(known) * batch)
    if high >= LEARNABLE or low <= LEARNT_BY_HEART:
        return None
    return Verdict(
        name="random_pairs",
        figure=(
            f"accuracy {accuracy:.2f} on {count} new pairs, at most {high:.2f} (at least {LEARNABLE} is wanted), "
            f"{by_heart:.2f} on known ones"
        ),
        remedy=(
            "With labels shuffled it is the control and meant to be so; else the pairs teach nothing: a larger "
            "min_margin, another metric, more candidates"
        ),
    )


def overfitting(training: Training) -> Verdict | None:
    """Known chosen videos are drawn better than by the base, held-out ones worse."""
    if not training.evaluations or (training.held_out_pairs or 0) < HELD_OUT:
        return None
    known = _mean(training.late, "chosen_change")
    changes = {row["step"]: row["held_out_chosen_change"] for row in training.evaluations}
    new = _mean(training.evaluations[-LAST_EVALUATIONS:], "held_out_chosen_change")
    if not (known < 0 < new and new - known > GAP):
        return None
    best = min(changes, key=lambda step: changes[step])
    return Verdict(
        name="overfitting",
        figure=(
            f"chosen error against the base's: {new:+.2%} on {training.held_out_pairs} held-out pairs (limit 0), "
            f"{known:+.2%} on known ones"
        ),
        remedy=(
            f"More pairs (now {training.pairs}) or fewer steps (held-out errors were lowest at step "
            f"{best:.0f}); evaluate more often and set stop_at_chosen_rise"
        ),
    )


def loser_driven(training: Training) -> Verdict | None:
    """Pairs are won by drawing the rejected videos worse, and the chosen ones get worse with them."""
    if not training.prefers or not _had_time(training):
        return None
    chosen, rejected = (_mean(training.late, f"{side}_change") for side in ("chosen", "rejected"))
    if not rejected > chosen > WORSENED:
        return None
    return Verdict(
        name="loser_driven",
        figure=(
            f"errors against the base's in the last steps: chosen {chosen:+.2%} (limit {WORSENED:+.1%}), "
            f"rejected {rejected:+.2%}"
        ),
        remedy="Use objective anchored or safeguarded, a lower learning_rate, or stop earlier (stop_at_chosen_rise)",
    )


def new_accuracy(training: Training) -> tuple[float, int] | None:
    """Accuracy on pairs that it never saw, and on how many: the held-out ones at the last evaluation, and every
    training pair the first time it comes (figures are taken before the step). None where the pairs were not counted.
    """
    if training.pairs is None:
        return None
    batch = training.config.batch_pairs
    first = [row for row in training.warm if row["step"] * batch <= training.pairs]
    shares = [(row["accuracy"], batch) for row in first]
    if training.evaluations and training.held_out_pairs:
        shares.append((training.evaluations[-1]["held_out_accuracy"], training.held_out_pairs))
    count = sum(n for _, n in shares)
    return (sum(share * n for share, n in shares) / count, count) if count else None


def wilson(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` independent trials (Wilson 1927)."""
    z = 1.96
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (centre - half) / (1 + z * z / count), (centre + half) / (1 + z * z / count)


def _of_videos(probes: Mapping[str, Change]) -> list[Verdict]:
    """Motion or sharpness was lost, by more than chance."""
    calmer = (
        "static_collapse",
        "The calmer video tends to win: set motion_match and least_motion when pairing",
    )
    known = {
        "motion": calmer,
        "dynamic_degree": calmer,
        "sharpness": (
            "blur",
            "The softer video tends to win: stop earlier, lower learning_rate, or judge by a metric that sees blur",
        ),
    }
    found: dict[str, Verdict] = {}
    for measure, (name, remedy) in known.items():
        change, limit = probes.get(measure), LOST[measure]
        if change and change.median < -limit and change.high < 0:
            figure = (
                f"{measure} {change.median:+.1%} against the base [{change.low:+.1%}, {change.high:+.1%}] "
                f"on {change.count} videos (limit {-limit:.0%})"
            )
            found.setdefault(name, Verdict(name=name, figure=figure, remedy=remedy))
    return list(found.values())


def reward_hacked(gains: Sequence[tuple[Gain, Gain]]) -> list[Verdict]:
    """What made the pairs rose and what judges fell, both by more than chance, in the first comparison where that is so
    (over-optimization, Gao et al. 2023, arXiv 2210.10760).
    """
    for reward, primary in gains:
        if reward.low > 0 and primary.high < 0:
            return [
                Verdict(
                    name="reward_hacked",
                    figure=(
                        f"{reward.metric} is {reward.mean:.1%} better than that of {reward.against}, {primary.metric} "
                        f"{-primary.mean:.1%} [{-primary.high:.1%}, {-primary.low:.1%}] worse (limit 0)"
                    ),
                    remedy="Keep what was there before it (an earlier round), or train for fewer steps",
                )
            ]
    return []


def _had_time(training: Training) -> bool:
    """Whether warm-up and enough of the steps are done."""
    return bool(training.warm) and training.rows[-1]["step"] >= ENOUGH * training.config.steps


def _mean(rows: Sequence[Figures], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
