"""Whether what `videogpa plan` says comes true: on this machine with one and two workers, and on a simulated cluster.

    python benchmarks/run_plan.py --out work/run_plan --result benchmarks/run_plan_cpu2_DATE

A pilot of two prompts predicts the embedded recipe with more of everything, which is then run with one worker and with
two; the CSV has a row for every stage. The simulated cluster is the local engine with many processes that sleep as long
as the pilot's rows took (shortened, so that the two cores are not what is measured) instead of computing them.
"""

import csv
import itertools
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from videogpa.engines.local import map_rows, preload
from videogpa.plan import STAGES, Costs, PassCost, measure, pass_seconds, predict
from videogpa.recipes import embedded
from videogpa.run import RunConfig, run

CLUSTER = (8, 32, 64)
ROWS_OF_A_WORKER, SECONDS_OF_A_ROW = 15, 0.4


def main(
    out: Annotated[Path, typer.Option(help="work folder; what is in it is replaced")],
    train_prompts: int = 16,
    held_out: int = 8,
    steps: int = 40,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="the cluster alone, from a pilot in OUT")
    ] = False,
) -> None:
    cfg = recipe(train_prompts, held_out, steps)
    if simulate:
        # What every process would import is imported once: the two cores are not what is measured.
        preload("videogpa.plan", "videogpa.recipes.embedded")
        costs = measure(cfg, out, prompts=2)
        print(json.dumps([compared("simulated", n, "candidates", *cluster(costs, n)) for n in CLUSTER]))
        return
    shutil.rmtree(out, ignore_errors=True)
    costs = measure(cfg, out, prompts=2)
    table = [*here(cfg, costs, out)]
    size = ("--train-prompts", train_prompts, "--held-out", held_out, "--steps", steps)
    command = [sys.executable, __file__, "--out", out, *size, "--simulate"]
    told = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout
    table += json.loads(told.splitlines()[-1])
    path = (result or out / "run_plan").with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    for row in table:
        print(*row.values())


def here(cfg: RunConfig, costs: Costs, out: Path) -> Iterator[dict[str, Any]]:
    """Every stage, and all, with one worker and with two."""
    for workers in (1, 2):
        took = stages(cfg, out / f"{workers}_workers", workers)
        plans = predict(cfg, costs, (workers,))
        for plan in plans:
            yield compared("this machine", workers, plan.stage, plan.lasts[workers], took[plan.stage])
        yield compared(
            "this machine", workers, "all", sum(p.lasts[workers] for p in plans), sum(took.values())
        )


def recipe(train_prompts: int, held_out: int, steps: int) -> RunConfig:
    """The embedded recipe, shorter."""
    full = embedded.recipe()
    return full.model_copy(
        update={
            "train_prompts": full.train_prompts.model_copy(update={"count": train_prompts}),
            "held_out_prompts": full.held_out_prompts.model_copy(update={"count": held_out}),
            "trainings": {
                name: training.model_copy(
                    update={"steps": steps, "evaluate_every": steps // 2, "stop_when_hopeless": False}
                )
                for name, training in full.trainings.items()
            },
        }
    )


def stages(cfg: RunConfig, out: Path, workers: int) -> dict[str, float]:
    """Seconds of every stage."""
    marks = [time.perf_counter()]
    run(cfg, out, workers=workers, keep=lambda: marks.append(time.perf_counter()))
    marks.append(time.perf_counter())
    return {stage: end - begin for stage, (begin, end) in zip(STAGES, itertools.pairwise(marks), strict=True)}


def cluster(costs: Costs, workers: int) -> tuple[float, float]:
    """Predicted and measured seconds of a pass whose workers sleep."""
    pilot = costs.stages["candidates"].passes[0].jobs
    scale = SECONDS_OF_A_ROW / statistics.mean(pilot)
    jobs = [
        scale * seconds
        for seconds, _ in zip(itertools.cycle(pilot), range(workers * ROWS_OF_A_WORKER), strict=False)
    ]
    one = PassCost(description="sleeping", load=1.0, jobs=tuple(jobs))
    began = time.perf_counter()
    for _ in map_rows(partial(sleeper, one.load), jobs, workers=workers, description="sleeping"):
        pass
    return pass_seconds(one, workers, costs), time.perf_counter() - began


def sleeper(load: float) -> Callable[[float], None]:
    time.sleep(load)
    return time.sleep


def compared(where: str, workers: int, stage: str, predicted: float, measured: float) -> dict[str, Any]:
    return {
        "where": where, "workers": workers, "stage": stage, "predicted": round(predicted, 1),
        "measured": round(measured, 1), "ratio": round(predicted / measured, 2) if measured else "",
    }  # fmt: skip


if __name__ == "__main__":
    typer.run(main)
