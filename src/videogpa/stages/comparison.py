"""Arms of an evaluation compared pair by pair: differences, tests, guards, verdicts (`docs/evaluation.md`)."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from videogpa.metrics.between_seeds import BETWEEN_SEEDS
from videogpa.plugin import load
from videogpa.stages.against_truth import BetweenSeedsRow
from videogpa.stages.external_scores import ExternalScore, from_outside
from videogpa.stages.score import higher_is_better
from videogpa.statistics import (
    bootstrap_interval,
    cluster_means,
    holm,
    is_clear,
    minimum_detectable_effect,
    rank_biserial,
    ratio_interval,
    wilcoxon_p,
    wins,
)
from videogpa.types import EvalRow, MetricValues, Score

BASE = "base"
TRUTH = "truth"
"""No arm that can win: the ceiling."""
MOVING = ("motion", "dynamic_degree")
GUARDED = ("sharpness", *MOVING)
SMALLEST_SHARPNESS = 0.95
LARGEST_CHANGES = {"motion": 0.05, "dynamic_degree": 0.1}
"""Of the base's mean. Flicker counts as dynamics, and may go; where nothing moves, no geometry is found and `motion`
has no value."""
SMALLEST_JUDGED = 0.9
"""Of the base's videos that have a guard's value, the share that must have one in the arm, too; and of the prompts
compared, the share whose truth must have one for a share of headroom."""
NEITHER = {name for name, together in BETWEEN_SEEDS.items() if together.higher_is_better is None}
"""Reported, but neither better nor worse."""
Family = Literal["primary", "between_seeds", "truth", "other", "guard", "neither"]
"""Metrics whose tests are corrected together."""
WITH_HEADROOM = {
    *("oracle_warp", "oracle_flow_epe", "perceptual_drift"),
    *("consistency", "edge_agreement", "cross_view", "depth_agreement"),
    *(BETWEEN_SEEDS.keys() - NEITHER),
}
"""Metrics whose value for the true video is a ceiling to reach. Similarity to the truth itself has none to measure."""
Found = Mapping[tuple[str, int], float]
"""By prompt and seed; what seeds say together, and the truth, have seed 0."""
Values = Mapping[str, Found]
"""By metric."""


def by_arm(
    rows: Sequence[EvalRow],
    between: Sequence[BetweenSeedsRow],
    truth: Sequence[Score],
    external: Mapping[str, Sequence[ExternalScore]] = {},
) -> dict[str, Values]:
    """What was measured of every arm, and of the truth."""
    values: dict[str, dict[str, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    keyed: list[tuple[str, str, int, MetricValues]] = [
        *((row.arm, row.prompt_id, row.seed, row.metrics) for row in rows),
        *((row.arm, row.prompt_id, 0, row.metrics) for row in between),
        *((TRUTH, str(row.prompt_id), 0, row.metrics) for row in truth),
        *((*row.key, row.metrics) for found in external.values() for row in found),
    ]
    for arm, prompt_id, seed, metrics in keyed:
        for metric, value in metrics.items():
            if value is not None:
                values[arm][metric][prompt_id, seed] = value
    return {arm: dict(found) for arm, found in values.items()}


def compare(
    values: Mapping[str, Values],
    pairs: Sequence[tuple[str, str]],
    *,
    primary: str | None,
    resamples: int,
    seed: int,
    outside: Mapping[str, bool] = {},
) -> list[dict[str, Any]]:
    """Every (arm, against) in every metric that both have, the primary's first; `docs/evaluation.md` has the keys.

    A prompt counts once, by the mean over its seeds. `outside` has the directions of metrics that are none of this
    package's.
    """
    compared = partial(_compare, values, primary=primary, resamples=resamples, seed=seed, outside=outside)
    found = [
        figures
        for arm, against in pairs
        for metric in values.get(arm, {})
        if (figures := compared(arm, against, metric))
    ]
    found.sort(key=lambda c: c["metric"] != primary)
    arms = {arm for pair in pairs for arm in pair if arm in values} - {BASE}
    guards = {arm: guard_problems(values.get(BASE, {}), values[arm]) for arm in arms}
    return [c | {"verdict": _verdict(c, guards)} for c in _with_holm(found)]


def means(values: Values) -> dict[str, float]:
    """Over all videos."""
    return {metric: float(np.mean(list(found.values()))) for metric, found in values.items()}


def prompt_means(values: Found) -> dict[str, float]:
    """Every prompt's mean over its seeds, by sorted prompt."""
    if not values:
        return {}
    keys = sorted(values)
    clusters = [prompt for prompt, _ in keys]
    found = cluster_means(np.array([values[key] for key in keys]), clusters)
    return dict(zip(sorted(set(clusters)), found.tolist(), strict=True))


def guard_problems(base: Values, arm: Values) -> list[str]:
    """Why an arm is disqualified (blur or lost motion sold as gain); empty when sharpness and motion are kept.

    Compared are the videos that both have; at least one measure of motion must be there.
    """
    moving = [name for name in MOVING if base.get(name)] or ["motion"]
    found = {name: (base.get(name, {}), arm.get(name, {})) for name in ("sharpness", *moving)}
    return [problem for name, values in found.items() if (problem := _guard_problem(name, *values))]


def direction(metric: str) -> bool | None:
    """Whether higher is better; None where neither is. Of metrics of this package only."""
    if metric in NEITHER:
        return None
    return False if metric in BETWEEN_SEEDS else higher_is_better(metric)


def family_of(metric: str, primary: str | None) -> Family:
    """The family of a metric's tests."""
    if metric == primary:
        return "primary"
    if metric in NEITHER:
        return "neither"
    if metric in BETWEEN_SEEDS:
        return "between_seeds"
    if metric in GUARDED:
        return "guard"
    if from_outside(metric):
        return "other"
    return "truth" if "truth" in load("metrics", metric).NEEDS else "other"


def _compare(
    values: Mapping[str, Values],
    arm: str,
    against: str,
    metric: str,
    *,
    primary: str | None,
    resamples: int,
    seed: int,
    outside: Mapping[str, bool],
) -> dict[str, Any] | None:
    ours, theirs = values[arm][metric], values.get(against, {}).get(metric, {})
    differences = prompt_means({key: ours[key] - theirs[key] for key in ours.keys() & theirs.keys()})
    if not differences:
        return None
    names, by_prompt = list(differences), np.array(list(differences.values()))
    better = outside[metric] if metric in outside else direction(metric)
    won = None if better is None else wins(by_prompt if better else -by_prompt)
    interval = partial(bootstrap_interval, clusters=names, resamples=resamples, seed=seed)
    base, truth = (prompt_means(values.get(name, {}).get(metric, {})) for name in (BASE, TRUTH))
    share = _headroom_share(metric, differences, base, truth, resamples, seed)
    return {
        "arm": arm,
        "against": against,
        "metric": metric,
        "family": family_of(metric, primary),
        "higher_is_better": better,
        "mean_difference": float(by_prompt.mean()),
        "ci95": list(interval(by_prompt)),
        "win_rate": None if won is None else float(won.mean()),
        "win_rate_ci95": None if won is None else list(interval(won)),
        "p": wilcoxon_p(by_prompt),
        "rank_biserial": rank_biserial(by_prompt),
        "mde": minimum_detectable_effect(by_prompt),
        "headroom_share": share and share[0],
        "headroom_ci95": share and list(share[1]),
        "n": len(ours.keys() & theirs.keys()),
        "prompts": len(names),
    }


def _headroom_share(
    metric: str,
    gained: Mapping[str, float],
    base: Mapping[str, float],
    truth: Mapping[str, float],
    resamples: int,
    seed: int,
) -> tuple[float, tuple[float, float]] | None:
    """What was gained as a share of what the truth has over the base, and its 95 % interval; all by prompt.

    None for a metric of which the truth is no ceiling, unless the truth is clearly better, and where it was not found
    for most of the prompts.
    """
    names = sorted(gained.keys() & base.keys() & truth.keys())
    if metric not in WITH_HEADROOM or not names or len(names) < SMALLEST_JUDGED * len(gained):
        return None
    room = np.array([truth[n] - base[n] for n in names])
    low, high = bootstrap_interval(room, names, resamples, seed)
    if not (low > 0 if direction(metric) else high < 0):
        return None
    closed = np.array([gained[n] for n in names])
    interval = ratio_interval(closed, room, resamples, seed)
    return (float(closed.mean() / room.mean()), interval) if all(map(math.isfinite, interval)) else None


def _guard_problem(name: str, base: Found, arm: Found) -> str | None:
    both = sorted(base.keys() & arm.keys())
    if not both:
        return f"{name} could not be measured"
    if len(both) < SMALLEST_JUDGED * len(base):
        return f"{name} was found in {len(both)} of the base's {len(base)} videos"
    ours, theirs = (float(np.mean([found[key] for key in both])) for found in (arm, base))
    if name == "sharpness":
        kept = ours >= SMALLEST_SHARPNESS * theirs
    else:
        kept = abs(ours - theirs) <= LARGEST_CHANGES[name] * theirs
    if kept:
        return None
    return f"{name} is {ours / theirs:.1%} of the base's" if theirs else f"{name} is no longer 0"


def _with_holm(comparisons: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    families: dict[str, list[int]] = defaultdict(list)
    for i, compared in enumerate(comparisons):
        families[compared["family"]].append(i)
    corrected = {
        i: p
        for members in families.values()
        for i, p in zip(members, holm([comparisons[i]["p"] for i in members]), strict=True)
    }
    return [c | {"holm_p": corrected[i]} for i, c in enumerate(comparisons)]


def _verdict(compared: Mapping[str, Any], guards: Mapping[str, Sequence[str]]) -> str:
    """A difference counts where the interval and the signed ranks, corrected, point the same way and the winner keeps
    the guards.
    """
    if compared["family"] in ("guard", "neither"):
        return "neither"
    low, high = compared["ci95"]
    if not is_clear((low, high), compared["rank_biserial"], compared["holm_p"]):
        return "unclear"
    verdict = "better" if (low > 0) == compared["higher_is_better"] else "worse"
    winner = compared["arm" if verdict == "better" else "against"]
    return "disqualified" if guards.get(winner) else verdict
