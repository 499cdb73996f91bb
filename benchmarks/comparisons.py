"""Rows of an evaluation's comparisons, of one training seed or over several whose arms are called `<arm>_<seed>`."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rows import write_rows

from videogpa.artifact import read_rows
from videogpa.stages.against_truth import BetweenSeedsRow
from videogpa.stages.evaluate import BASE, BETWEEN, TRUTH, direction, headroom_share, prompt_means
from videogpa.statistics import bootstrap_interval, cluster_means, wins
from videogpa.types import EvalRow, MetricValues, Score

RESAMPLES, SEED = 10_000, 0
ALL = "all"
"""In the place of a training seed: all of them together, whose interval resamples prompts."""
Values = dict[tuple[str, str], dict[tuple[str, int], float]]
"""By arm and metric, then by prompt and seed; what seeds say together, and the truth, have seed 0."""


def of_seed(arm: str, seed: int) -> str:
    """The name of a training seed's arm; the base has none."""
    return arm if arm == BASE else f"{arm}_{seed}"


def table(values: Values, pairs: Sequence[tuple[str, str]], seeds: int) -> Iterator[dict[str, Any]]:
    """A row for every comparison (arm, against) and metric, of each training seed and over all of them.

    `low` to `high` is the 95 % interval of the mean difference, as shares of the level; `share` is the difference as a
    share of what the truth has over the base, where that is clear.
    """
    for arm, against in pairs:
        for metric in dict.fromkeys(metric for _, metric in values):
            by_seed = [_together(values, of_seed(arm, s), of_seed(against, s), metric) for s in range(seeds)]
            if not all(by_seed):
                continue
            named = {"arm": arm, "against": against, "metric": metric}
            for seed, found in enumerate(by_seed):
                yield {"seed": str(seed), **named, **_figures(values, metric, found)}
            if seeds > 1:
                everything = [entry for found in by_seed for entry in found]
                yield {"seed": ALL, **named, **_figures(values, metric, everything)}


def of_runs(evaluations: Sequence[Path]) -> Values:
    """What every training seed's own run measured, all with the same base and truth."""
    values: Values = {}
    for seed, evaluation in enumerate(evaluations):
        found = values_of(evaluation)
        values |= {
            (arm if arm == TRUTH else of_seed(arm, seed), metric): figures
            for (arm, metric), figures in found.items()
        }
    return values


def values_of(evaluation: Path) -> Values:
    """What one evaluation measured of all its arms."""
    values: Values = defaultdict(dict)
    lines = (evaluation / BETWEEN).read_text(encoding="utf-8").splitlines()
    together = [BetweenSeedsRow.model_validate_json(line) for line in lines]
    scores = evaluation / "scores" / TRUTH
    truth = read_rows(scores, Score) if scores.is_dir() else []
    keyed: list[tuple[str, str, int, MetricValues]] = [
        *((r.arm, r.prompt_id, r.seed, r.metrics) for r in read_rows(evaluation, EvalRow)),
        *((r.arm, r.prompt_id, 0, r.metrics) for r in together),
        *((TRUTH, str(r.prompt_id), 0, r.metrics) for r in truth),
    ]
    for arm, prompt_id, seed, metrics in keyed:
        for metric, value in metrics.items():
            if value is not None:
                values[arm, metric][prompt_id, seed] = value
    return values


def _together(values: Values, arm: str, against: str, metric: str) -> list[tuple[str, float, float]]:
    ours, theirs = values.get((arm, metric), {}), values.get((against, metric), {})
    return [(key[0], ours[key], theirs[key]) for key in ours.keys() & theirs.keys()]


def _figures(values: Values, metric: str, found: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    found = sorted(found)
    clusters = [prompt for prompt, _, _ in found]
    differences = np.array([ours - theirs for _, ours, theirs in found])
    level = abs(float(np.mean([theirs for _, _, theirs in found])))
    low, high = bootstrap_interval(differences, clusters, RESAMPLES, SEED)
    by_prompt, better = cluster_means(differences, clusters), direction(metric)
    won = {"won": "", "won_low": "", "won_high": ""}
    if better is not None:
        by_win = wins(by_prompt if better else -by_prompt)
        ends = bootstrap_interval(by_win, sorted(set(clusters)), RESAMPLES, SEED)
        won = dict(zip(won, (f"{v:.3f}" for v in (by_win.mean(), *ends)), strict=True))
    return {
        "level": f"{level:.6g}",
        "difference": f"{differences.mean():.6g}",
        "relative": f"{differences.mean() / level:+.4f}",
        "low": f"{low / level:+.4f}",
        "high": f"{high / level:+.4f}",
        **won,
        **_share(values, metric, dict(zip(sorted(set(clusters)), by_prompt.tolist(), strict=True))),
        "prompts": len(by_prompt),
    }


def _share(values: Values, metric: str, gained: dict[str, float]) -> dict[str, str]:
    base, truth = (prompt_means(values.get((name, metric), {})) for name in (BASE, TRUTH))
    found = headroom_share(metric, gained, base, truth, RESAMPLES, SEED)
    cells = ("",) * 3 if found is None else (f"{v:+.3f}" for v in (found[0], *found[1]))
    return dict(zip(("share", "share_low", "share_high"), cells, strict=True))


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The rows as a CSV, and those that are over all seeds on the screen."""
    write_rows(rows, path)
    overall = [row for row in rows if row["seed"] == ALL] or rows
    for row in overall:
        print(*row.values(), sep="  ")
