"""What fixed draws of timestep and noise cost in quality: K = 4, 16, 64 draws a pair against fresh ones.

    python benchmarks/reference_draws.py RUN --out work/draws --result benchmarks/reference_draws_cpu2_DATE

RUN is a folder of `videogpa run embedded`. Few pairs are trained on for long, so that even 64 draws come back; all
other prompts' pairs are held out and judge on fresh noise, the same for every arm. No stop rule: what overfits shows.
"""

import csv
import time
from pathlib import Path
from typing import Annotated

import typer
from rows import write_rows

from videogpa.dpo.config import TrainConfig
from videogpa.stages.train import LOG, run
from videogpa.weights import model_folder

ARMS = {"fresh": None, "K=64": 64, "K=16": 16, "K=4": 4}
SHOWN = ("held_out_accuracy", "held_out_margin", "held_out_chosen_change", "accuracy", "chosen_change")


def main(
    folder: Path,
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    seeds: int = 2,
    steps: int = 300,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    rows = []
    for seed in range(seeds):
        for arm, draws in ARMS.items():
            cfg = TrainConfig(
                objective="anchored", beta=2000.0, anchor=1.0, rank=16, alpha=16.0, learning_rate=4e-4, steps=steps,
                batch_pairs=4, held_out_fraction=0.93, evaluation_draws=1, evaluate_every=steps // 3, seed=seed,
                stop_at_chosen_rise=None, reference_draws=draws,
            )  # fmt: skip
            began = time.process_time()
            trained = run(
                cfg, folder / "pairs", folder / "candidates", model_folder("embedded"), out / f"{arm}_{seed}"
            )
            seconds = time.process_time() - began
            with (trained / LOG).open() as file:
                logged = list(csv.DictReader(file))
            for line in logged:
                if line["held_out_accuracy"]:
                    figures = {name: f"{float(line[name]):.5f}" for name in SHOWN}
                    rows.append({"seed": seed, "draws": arm, "step": line["step"], **figures})
            print(*rows[-1].values(), f"{seconds:.0f} s of processor time", sep="  ", flush=True)
    write_rows(rows, result or out / "draws")


if __name__ == "__main__":
    typer.run(main)
