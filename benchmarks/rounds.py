"""Rounds of sampling, pairing and training on the embedded world: where do they stop paying, and who says so?

    python benchmarks/rounds.py --out work/rounds --result benchmarks/rounds_cpu2_DATE

Every training seed runs the embedded recipe for as many rounds, and trains `longer` once more on the first round's
pairs, as many steps as all rounds together: what is more than that comes from new samples. Held-out prompts and their
noise are the same for all. The CSV has a row for every comparison and metric of every training seed, with what the
doctor says of the arm, and one over all seeds. A finished part of the work folder is kept.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from comparisons import ALL, of_runs, table, write

from videogpa.recipes.embedded import recipe
from videogpa.run import RunConfig, run
from videogpa.stages.comparison import BASE
from videogpa.stages.doctor import VERDICTS
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.rounds import evaluation_of, round_arm

ARM, LONGER = "dpo", "longer"
METRICS = (
    *("edge_agreement", "consistency", "perceptual_drift", "depth_agreement"),
    *("motion", "dynamic_degree", "sharpness"),
    *("oracle_psnr", "oracle_flow_epe", "oracle_warp"),
)


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    seeds: Annotated[int, typer.Option(help="training seeds")] = 3,
    rounds: int = 4,
    held_out: int = 100,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    folders = [out / f"seed{seed}" for seed in range(seeds)]
    for seed, folder in enumerate(folders):
        run(config(seed, rounds, held_out), folder, rounds, workers=workers)
    evaluations = [evaluation_of(folder) for folder in folders]
    said = [json.loads(folder.with_name(VERDICTS).read_text()) for folder in evaluations]
    arms = [round_arm(ARM, number) for number in range(1, rounds + 1)]
    pairs = [
        *((arm, BASE) for arm in (*arms, LONGER)),
        *zip(arms[1:], arms[:-1], strict=True),
        *((arm, LONGER) for arm in arms),
    ]
    found = table(of_runs(evaluations), pairs, seeds, recipe().evaluate.primary)
    rows = [{**row, "doctor": _verdicts(said, row)} for row in found]
    write(rows, result or out / "rounds")


def config(seed: int, rounds: int, held_out: int) -> RunConfig:
    """The embedded recipe, with one training of as many steps as all rounds in the place of the control."""
    full = recipe(seed)
    training = full.trainings[ARM]
    # To its last step, whatever the training itself would think of it: a control of as many.
    longer = training.model_copy(update={"steps": rounds * training.steps, "stop_at_chosen_rise": None})
    judge = full.evaluate.score.model_copy(update={"metrics": METRICS})
    evaluate = full.evaluate.model_copy(update={"score": judge, "comparisons": None})
    changes = {
        "held_out_prompts": WorldPrompts(split="held_out", count=held_out),
        "trainings": {ARM: training, LONGER: longer},
        "evaluate": evaluate,
    }
    return full.model_copy(update=changes)


def _verdicts(said: list[dict[str, list[str]]], row: Mapping[str, Any]) -> str:
    return "" if row["seed"] == ALL else " | ".join(said[int(row["seed"])][row["arm"]])


if __name__ == "__main__":
    typer.run(main)
