"""Dense DPO against plain DPO and against itself with the weights at random places, on the embedded world.

    python benchmarks/dense_preferences.py --out work/dense --result benchmarks/dense_preferences_cpu2_DATE

Every seed draws its own candidates and pairs as the embedded recipe does and trains all arms on them; held-out prompts
and their noise are the same for all.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from comparisons import of_runs, table, write

from videogpa.recipes.embedded import recipe
from videogpa.run import RunConfig, run
from videogpa.stages.rounds import EVALUATION

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
    training, judge = full.trainings["dpo"], full.evaluate.score.model_copy(update={"metrics": SHOWN})
    trainings = {arm: training.model_copy(update=changes) for arm, changes in ARMS.items()}
    evaluate = full.evaluate.model_copy(update={"comparisons": COMPARISONS, "score": judge})
    return full.model_copy(update={"trainings": trainings, "evaluate": evaluate})


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    seeds: int = 3,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    folders = [out / f"seed{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        run(config(seed), folder, workers=workers)
    evaluations = [folder / EVALUATION for folder in folders]
    write(table(of_runs(evaluations), COMPARISONS, seeds, recipe().evaluate.primary), result or out / "dense")


if __name__ == "__main__":
    typer.run(main)
