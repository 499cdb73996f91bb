"""The base's best sampler setting, on development prompts: oracle errors against the number of steps.

    python benchmarks/sampler_setting.py --out work/sampler_setting

Several seeds a prompt, so that variance (spread between seeds) and bias squared (error of their mean) are apart:
an oracle that compares with one true video rewards lost spread.
"""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from videogpa.artifact import read_rows
from videogpa.metrics import oracle_flow_epe, oracle_psnr, oracle_ssim, sharpness
from videogpa.metrics.base import Clip
from videogpa.stages import prompts, sample
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.types import Candidate, Prompt
from videogpa.video_io import read_video
from videogpa.world.truth import true_continuation

SETTINGS = (4, 6, 8, 10, 15)


def main(
    out: Annotated[Path, typer.Option(help="work folder")],
    model: str = "embedded",
    count: int = 40,
    seeds: int = 3,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write")] = None,
) -> None:
    torch.set_num_threads(1)
    rows = prompts.run_world(WorldPrompts(split="development", count=count), out / "prompts")
    table = []
    for steps in SETTINGS:
        cfg = SampleConfig(model=model, candidates=seeds, steps=steps, keep_latents=False)
        drawn = sample.run(cfg, rows, out / f"steps{steps}", workers=workers)
        table.append({"steps": steps, **_measure(rows, drawn)})
        print({k: round(v, 4) for k, v in table[-1].items()})
    with (result or out / "sampler_setting.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)


def _measure(rows: Path, drawn: Path) -> dict[str, float]:
    worlds = {p.id: p.world for p in read_rows(rows, Prompt)}
    by_prompt = defaultdict(list)
    for candidate in read_rows(drawn, Candidate):
        by_prompt[candidate.prompt_id].append(read_video(drawn / candidate.video))
    values = defaultdict(list)
    for prompt_id, videos in by_prompt.items():
        truth = true_continuation(worlds[prompt_id], *(videos[0].shape[i] for i in (0, 2, 3)))
        mean = torch.stack(videos).mean(0)
        count = len(videos)
        spread = sum((v - mean)[1:].square().mean() for v in videos) / (count - 1)
        values["variance"].append(float(spread))
        values["bias2"].append(float((mean - truth.frames)[1:].square().mean() - spread / count))
        for frames in videos:
            clip = Clip(frames=frames, truth=truth)
            values["psnr"].append(oracle_psnr.measure(clip))
            values["ssim"].append(oracle_ssim.measure(clip))
            values["flow_epe"].append(oracle_flow_epe.measure(clip))
            values["sharpness"].append(sharpness.measure(clip) / sharpness.measure(Clip(frames=truth.frames)))
    return {k: float(np.mean(v)) for k, v in values.items()}


if __name__ == "__main__":
    typer.run(main)
