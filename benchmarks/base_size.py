"""Other sizes and codes of the embedded video model: what each learns in as many steps, and how it errs.

    python benchmarks/base_size.py --out work/base_size --result benchmarks/base_size_cpu2_DATE

All are trained from nothing on the same clips in the same order, one after the other; an interrupted training goes on
from its last checkpoint. Their errors on development prompts are those of `benchmarks/sampler_setting.py`; seconds a
step, the median between checkpoints. Then the embedded recipe post-trains each: what it gains, on development prompts,
is a second CSV, `..._gain`.
"""

import csv
import json
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any

import typer
from comparisons import of_runs, only, table
from embedded_gain import TRUE
from rows import write_rows
from safetensors.torch import load_file
from sampler_setting import oracle_errors

from videogpa.artifact import read_rows
from videogpa.metrics import oracle_psnr
from videogpa.metrics.base import Clip
from videogpa.recipes.embedded import recipe
from videogpa.run import run
from videogpa.stages.comparison import BASE
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.rounds import evaluation_of
from videogpa.stages.score import ScoreConfig
from videogpa.types import Prompt
from videogpa.world import train_generator
from videogpa.world.generator import FRAMES, SIZE
from videogpa.world.linear_autoencoder import LinearVideoAutoencoder
from videogpa.world.truth import true_continuation

SIZES = {
    "narrower": {"heads": 2},
    "as shipped": {},
    "wider": {"heads": 6},
    "deeper": {"layers": 12},
    "coarser code": {"channels": 16},
    "finer code": {"channels": 48},
}
"""What differs from the shipped one: heads, each 48 wide, layers, channels of the code."""
SHOWN = ("heads", "layers", "channels", "steps", "batch", "clips")
AGAINST = (("dpo", BASE), ("dpo_random", BASE), ("dpo", "dpo_random"))


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    steps: int = 1500,
    batch: int = 16,
    clips: Annotated[int, typer.Option(help="to render")] = 6000,
    count: Annotated[int, typer.Option(help="development prompts")] = 40,
    seeds: int = 3,
    judged: Annotated[int, typer.Option(help="development prompts of the post-trained ones")] = 100,
    size: Annotated[
        list[str] | None, typer.Option(callback=only(SIZES), help="only these, repeatable")
    ] = None,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    rows, gains = [], []
    result = result or out / "base_size"
    for name in size or SIZES:
        home = out / name.replace(" ", "_")
        if not (home / "training.json").exists():
            train_generator.main(
                home, out / "clips", clips, faulty_share=0.4, steps=steps, batch=batch, cooldown=0.6,
                threads=workers, bfloat16=True, **SIZES[name],
            )  # fmt: skip
        told = json.loads((home / "training.json").read_text())
        errors = oracle_errors(str(home / "pipeline"), 8, count, seeds, home, workers)
        named = {"size": name, **{key: told[key] for key in SHOWN}}
        measured = {"parameters": _parameters(home / "pipeline"), "code_psnr": _code_psnr(home)}
        rows.append(named | measured | _log(home) | errors)
        print(*rows[-1].values(), sep="  ")
        write_rows(rows, result)
        gains += [{"size": name, **row} for row in _gain(home, judged, workers)]
        write_rows(gains, result.with_name(f"{result.name}_gain"))


def _gain(home: Path, judged: int, workers: int) -> list[dict[str, Any]]:
    """What the recipe's training gains on this base, and its control."""
    full, model = recipe(), {"model": str(home / "pipeline")}
    changes = {
        "sample": full.sample.model_copy(update=model),
        "held_out_prompts": WorldPrompts(split="development", count=judged),
        "evaluate": full.evaluate.model_copy(
            update={
                "sample": full.evaluate.sample.model_copy(update=model),
                "score": ScoreConfig(metrics=TRUE),
            }
        ),
    }
    run(full.model_copy(update=changes), home / "run", workers=workers)
    return table(of_runs([evaluation_of(home / "run")]), AGAINST, 1, full.evaluate.primary)


def _code_psnr(home: Path) -> float:
    """Of true videos that went through the code alone: no model that draws in it can be nearer."""
    vae = LinearVideoAutoencoder.from_pretrained(home / "pipeline" / "vae")
    found = []
    for prompt in read_rows(home / "prompts", Prompt):
        truth = true_continuation(prompt.world, FRAMES, SIZE, SIZE)
        video = truth.frames.transpose(0, 1)[None] * 2 - 1
        coded = vae.decode(vae.encode(video).latent_dist.mode()).sample[0].transpose(0, 1) / 2 + 0.5
        found.append(oracle_psnr.measure(Clip(frames=coded, truth=truth)))
    return mean(found)


def _parameters(pipeline: Path) -> int:
    [weights] = (pipeline / "transformer").glob("*.safetensors")
    return sum(tensor.numel() for tensor in load_file(weights).values())


def _log(folder: Path) -> dict[str, str]:
    rows = list(csv.DictReader((folder / "log.csv").open()))
    # Where a training went on, its clock began again.
    paces = [
        (float(later["seconds"]) - float(before["seconds"])) / (int(later["step"]) - int(before["step"]))
        for before, later in pairwise(rows)
    ]
    pace = median(pace for pace in paces if pace > 0)
    return {"validation_loss": rows[-1]["validation_loss"], "seconds_per_step": f"{pace:.3f}"}


if __name__ == "__main__":
    typer.run(main)
