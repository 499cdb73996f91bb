"""Rows of an evaluation's comparisons, of one training seed or over several whose arms are called `<arm>_<seed>`."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rows import write_rows

from videogpa.artifact import hash_json, read_rows
from videogpa.stages import evaluate
from videogpa.stages.against_truth import BETWEEN, BetweenSeedsRow
from videogpa.stages.comparison import BASE, TRUTH, Values, by_arm, compare, guard_problems, prompt_means
from videogpa.stages.evaluate import EvaluateConfig
from videogpa.types import EvalRow, Score

RESAMPLES, SEED = 10_000, 0
ALL = "all"
"""In the place of a training seed: all of them together, whose interval resamples prompts."""
FAULTLESS = "faultless"
"""The base before it learnt from clips with faults: what undoing them all would bring."""
SIX_STEPS = "six_steps"
"""The base's videos of six sampler steps: the best number by the primary of those that keep its sharpness."""
SIX_STEPS_FILTERED = "six_steps_filtered"
"""The same, smoothed in time and with more contrast: of all that gains so, the most."""
UNTRAINED = (BASE, TRUTH, FAULTLESS, SIX_STEPS, SIX_STEPS_FILTERED)
SEEDS_APART = 1_000
"""More than any arm has seeds of a prompt."""


def of_seed(arm: str, seed: int) -> str:
    """The name of a training seed's arm; what was not trained here has none."""
    return arm if arm in UNTRAINED else f"{arm}_{seed}"


def only(known: Collection[str]) -> Callable[[list[str] | None], list[str] | None]:
    """Refuses names of an option that are not known, before anything is drawn."""

    def check(names: list[str] | None) -> list[str] | None:
        for name in names or ():
            if name not in known:
                raise typer.BadParameter(f"{name} is none of {', '.join(known)}")
        return names

    return check


def evaluated(cfg: EvaluateConfig, asked: Path, home: Path, workers: int) -> Path:
    """The evaluation of these arms, a folder of its own in `home`; what the others there have of an arm is reused."""
    out = home / f"evaluation_{hash_json(sorted(cfg.arms))[:8]}"
    earlier = [folder for folder in sorted(home.glob("evaluation*")) if folder != out]
    return evaluate.run(cfg, asked, out, reuse=earlier, workers=workers)


def table(
    values: Mapping[str, Values], pairs: Sequence[tuple[str, str]], seeds: int, primary: str | None
) -> list[dict[str, Any]]:
    """A row for every comparison (arm, against) and metric, of each training seed and over all of them.

    `low` to `high` is the 95 % interval of the mean difference, as shares of the level; `share` is the difference as a
    share of what the truth has over the base, where that is clear; `holm_p` is corrected for all pairs. An arm of which
    one training breaks a guard wins nothing over all of them either: what it breaks is `arm_breaks` and
    `against_breaks`. Arms that not every seed has are left out.
    """
    arms = {arm for pair in pairs for arm in pair}
    whole = {arm for arm in arms if all(of_seed(arm, seed) in values for seed in range(seeds))}
    pairs = [(arm, against) for arm, against in pairs if {arm, against} <= whole]
    labels = {str(seed): [seed] for seed in range(seeds)} | ({ALL: list(range(seeds))} if seeds > 1 else {})
    rows = [
        row
        for label, some in labels.items()
        for row in _rows(
            label,
            _pooled(values, whole, some),
            pairs,
            primary,
            {arm: _broken(values, arm, some) for arm in whole},
        )
    ]
    order = {key: i for i, key in enumerate(dict.fromkeys(_compared(row) for row in rows))}
    return sorted(rows, key=lambda row: order[_compared(row)])


def of_runs(evaluations: Sequence[Path]) -> dict[str, Values]:
    """What every training seed's own run measured, all with the same base and truth."""
    return {
        of_seed(arm, seed): found
        for seed, evaluation in enumerate(evaluations)
        for arm, found in values_of(evaluation).items()
    }


def values_of(evaluation: Path) -> dict[str, Values]:
    """What one evaluation measured of all its arms."""
    lines = (evaluation / BETWEEN).read_text(encoding="utf-8").splitlines()
    together = [BetweenSeedsRow.model_validate_json(line) for line in lines]
    scores = evaluation / "scores" / TRUTH
    truth = read_rows(scores, Score) if scores.is_dir() else []
    return by_arm(read_rows(evaluation, EvalRow), together, truth)


def _broken(values: Mapping[str, Values], arm: str, seeds: Sequence[int]) -> str:
    """The guards that any of an arm's trainings breaks."""
    if arm in (BASE, TRUTH):
        return ""
    trained = dict.fromkeys(of_seed(arm, seed) for seed in seeds)
    return "; ".join(
        f"{name}: {problem}" for name in trained for problem in guard_problems(values[BASE], values[name])
    )


def _pooled(values: Mapping[str, Values], arms: set[str], seeds: Sequence[int]) -> dict[str, Values]:
    """Every arm's videos of these training seeds; the base's and the truth's as often."""
    pooled: dict[str, Values] = {}
    for arm in {*arms, BASE, TRUTH}:
        found = [values.get(of_seed(arm, seed), {}) for seed in seeds]
        pooled[arm] = {
            metric: {
                (prompt, SEEDS_APART * i + k): value
                for i, of_one in enumerate(found)
                for (prompt, k), value in of_one[metric].items()
            }
            for metric in found[0]
            if all(metric in of_one for of_one in found)
        }
    return pooled


def _rows(
    label: str,
    values: Mapping[str, Values],
    pairs: Sequence[tuple[str, str]],
    primary: str | None,
    broken: Mapping[str, str],
) -> Iterator[dict[str, Any]]:
    for found in compare(values, pairs, primary=primary, resamples=RESAMPLES, seed=SEED):
        ours, theirs = (values[found[side]][found["metric"]] for side in ("arm", "against"))
        common = prompt_means({key: theirs[key] for key in theirs.keys() & ours.keys()})
        level = abs(sum(common.values()) / len(common))
        low, high = found["ci95"]
        won, share, verdict = found["win_rate"], found["headroom_share"], found["verdict"]
        winner = {"better": found["arm"], "worse": found["against"]}.get(verdict, BASE)
        yield {
            "seed": label,
            **{key: found[key] for key in ("arm", "against", "metric")},
            "level": f"{level:.6g}",
            "difference": f"{found['mean_difference']:.6g}",
            "relative": f"{found['mean_difference'] / level:+.4f}",
            "low": f"{low / level:+.3g}",
            "high": f"{high / level:+.3g}",
            **_cells("won", ".3f", None if won is None else (won, *found["win_rate_ci95"])),
            **_cells("share", "+.3f", None if share is None else (share, *found["headroom_ci95"])),
            "holm_p": f"{found['holm_p']:.2g}",
            "verdict": "disqualified" if broken.get(winner) else verdict,
            "arm_breaks": broken[found["arm"]],
            "against_breaks": broken[found["against"]],
            "prompts": found["prompts"],
        }


def _cells(name: str, form: str, values: tuple[float, ...] | None) -> dict[str, str]:
    """A figure and its interval; empty where there is none."""
    columns = (name, f"{name}_low", f"{name}_high")
    return (
        dict.fromkeys(columns, "")
        if values is None
        else dict(zip(columns, (f"{v:{form}}" for v in values), strict=True))
    )


def _compared(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["arm"], row["against"], row["metric"]


def write(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The rows as a CSV, and those that are over all seeds on the screen."""
    write_rows(rows, path)
    overall = [row for row in rows if row["seed"] == ALL] or rows
    for row in overall:
        print(*row.values(), sep="  ")
