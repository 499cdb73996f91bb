"""Other sizes and codes of the embedded video model: what each learns in as many steps, and how it errs.

    python benchmarks/base_size.py --out work/base_size --result benchmarks/base_size_cpu2_DATE

All are trained from nothing on the same clips in the same order, one after the other; an interrupted training goes on
from its last checkpoint. Their errors on development prompts are those of `benchmarks/sampler_setting.py`; seconds a
step, the median between checkpoints.
"""

import csv
import json
from itertools import pairwise
from pathlib import Path
from statistics import mean, median
from typing import Annotated

import typer
from rows import write_rows
from safetensors.torch import load_file
from sampler_setting import oracle_errors

from videogpa.artifact import read_rows
from videogpa.metrics import oracle_psnr
from videogpa.metrics.base import Clip
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


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    steps: int = 1500,
    batch: int = 16,
    clips: Annotated[int, typer.Option(help="to render")] = 6000,
    count: Annotated[int, typer.Option(help="development prompts")] = 40,
    seeds: int = 3,
    only: Annotated[list[str] | None, typer.Option(help="sizes, repeatable")] = None,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    rows = []
    for size in only or SIZES:
        home = out / size.replace(" ", "_")
        if not (home / "training.json").exists():
            train_generator.main(
                home, out / "clips", clips, faulty_share=0.4, steps=steps, batch=batch, cooldown=0.6,
                threads=workers, bfloat16=True, **SIZES[size],
            )  # fmt: skip
        told = json.loads((home / "training.json").read_text())
        errors = oracle_errors(str(home / "pipeline"), 8, count, seeds, home, workers)
        named = {"size": size, **{key: told[key] for key in SHOWN}}
        measured = {"parameters": _parameters(home / "pipeline"), "code_psnr": _code_psnr(home)}
        rows.append(named | measured | _log(home) | errors)
        print(*rows[-1].values(), sep="  ")
        write_rows(rows, result or out / "base_size")


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
