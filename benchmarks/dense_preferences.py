"""Dense DPO against plain DPO and against itself with the weights at random places, on the embedded world.

    python benchmarks/dense_preferences.py --out work/dense --result benchmarks/dense_preferences_cpu2_DATE

Every seed draws its own candidates and pairs as the embedded recipe does and trains all arms on them; held-out prompts
and their noise are the same for all. The table compares each dense arm with plain DPO and with its own control, for
each seed, and over all seeds by the mean over seeds of each prompt (bootstrap over prompts).
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rows import write_rows

from videogpa.artifact import read_rows
from videogpa.recipes.embedded import recipe
from videogpa.run import RunConfig, run
from videogpa.types import EvalRow

SHOWN = ("consistency", "oracle_flow_epe", "oracle_psnr", "oracle_ssim", "oracle_warp", "motion", "sharpness")
ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "own": {"dense": "own"},
    "own_shuffled": {"dense": "own", "dense_shuffled": True},
    "contrast": {"dense": "contrast"},
    "contrast_shuffled": {"dense": "contrast", "dense_shuffled": True},
}
COMPARISONS = (
    ("own", "plain"), ("own", "own_shuffled"), ("contrast", "plain"), ("contrast", "contrast_shuffled"),
    ("own_shuffled", "plain"), ("contrast_shuffled", "plain"),
    ("plain", "base"), ("own", "base"), ("contrast", "base"),
)  # fmt: skip


def config(seed: int) -> RunConfig:
    """The embedded recipe with these arms."""
    full = recipe(seed)
    training = full.trainings["dpo"]
    return full.model_copy(
        update={
            "trainings": {arm: training.model_copy(update=changes) for arm, changes in ARMS.items()},
            "evaluate": full.evaluate.model_copy(
                update={
                    "comparisons": COMPARISONS,
                    "score": full.evaluate.score.model_copy(update={"metrics": SHOWN}),
                }
            ),
        }
    )


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    seeds: int = 3,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    rows = []
    for seed in range(seeds):
        folder = out / f"seed{seed}"
        run(config(seed), folder, workers=workers)
        summary = json.loads((folder / "evaluation" / "summary.json").read_text())
        rows += [_of_summary(seed, c) for c in summary["comparisons"] if c["metric"] in SHOWN]
        for row in read_rows(folder / "evaluation", EvalRow):
            for metric in SHOWN:
                value = row.metrics.get(metric)
                if value is not None:
                    values[row.arm, row.prompt_id, metric].append(value)
    rows += list(_over_seeds(values))
    write_rows(rows, result or out / "dense")
    for row in rows:
        print(*row.values(), sep="  ")


def _over_seeds(values: dict[tuple[str, str, str], list[float]]) -> Iterator[dict[str, Any]]:
    prompts = sorted({prompt for _, prompt, _ in values})
    for arm, against in COMPARISONS:
        for metric in SHOWN:
            pairs = [(values[arm, p, metric], values[against, p, metric]) for p in prompts]
            differences = np.array([np.mean(a) - np.mean(b) for a, b in pairs if a and b])
            picks = np.random.default_rng(0).integers(len(differences), size=(10_000, len(differences)))
            low, high = np.quantile(differences[picks].mean(1), [0.025, 0.975])
            yield _row("all", arm, against, metric, differences.mean(), low, high)


def _of_summary(seed: int, c: dict[str, Any]) -> dict[str, Any]:
    return _row(str(seed), c["arm"], c["against"], c["metric"], c["mean_difference"], *c["ci95"])


def _row(
    seed: str, arm: str, against: str, metric: str, mean: float, low: float, high: float
) -> dict[str, Any]:
    figures = {"mean_difference": f"{mean:.5f}", "low": f"{low:.5f}", "high": f"{high:.5f}"}
    clear = "unclear" if low <= 0 <= high else ("higher" if low > 0 else "lower")
    return {"seed": seed, "arm": arm, "against": against, "metric": metric} | figures | {"verdict": clear}


if __name__ == "__main__":
    typer.run(main)
