"""The base's best sampler setting, on development prompts: oracle errors against the number of steps.

    python benchmarks/sampler_setting.py --out work/sampler_setting

Several seeds a prompt, so that what they have in common is apart from their spread: an oracle that compares with one
true video rewards lost spread.
"""

from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rows import write_rows

from videogpa.artifact import read_rows
from videogpa.metrics import oracle_flow_epe, oracle_psnr, oracle_ssim, sharpness
from videogpa.metrics.base import Clip
from videogpa.metrics.between_seeds import BETWEEN_SEEDS
from videogpa.stages import prompts, sample
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.types import Candidate, Prompt
from videogpa.video_io import read_video
from videogpa.world.faults import blurred
from videogpa.world.truth import true_continuation

SETTINGS = (4, 6, 8, 10, 15)
BLUR = 0.6
"""Pixels; a base that is nearer to the truth when blurred makes blurring look like a gain."""


def main(
    out: Annotated[Path, typer.Option(help="work folder")],
    model: str = "embedded",
    count: int = 40,
    seeds: int = 3,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    table = []
    for steps in SETTINGS:
        found = oracle_errors(model, steps, count, seeds, out, workers)
        table.append({"steps": steps, **found})
        print({k: round(v, 4) for k, v in table[-1].items()})
    write_rows(table, result or out / "sampler_setting")


def oracle_errors(
    model: str, steps: int, count: int, seeds: int, out: Path, workers: int
) -> dict[str, float]:
    """What a model draws of development prompts, against the truth: means over prompts and seeds."""
    torch.set_num_threads(1)
    rows = prompts.run_world(WorldPrompts(split="development", count=count), out / "prompts")
    cfg = SampleConfig(model=model, candidates=seeds, steps=steps, keep_latents=False)
    drawn = sample.run(cfg, rows, out / f"steps{steps}", workers=workers)
    worlds = {p.id: p.world for p in read_rows(rows, Prompt)}
    by_prompt = defaultdict(list)
    for candidate in read_rows(drawn, Candidate):
        by_prompt[candidate.prompt_id].append(read_video(drawn / candidate.video))
    values = defaultdict(list)
    for prompt_id, videos in by_prompt.items():
        truth = true_continuation(worlds[prompt_id], *(videos[0].shape[i] for i in (0, 2, 3)))
        for name, together in BETWEEN_SEEDS.items():
            values[name.removeprefix("oracle_")].append(together.measure(torch.stack(videos), truth))
        for frames in videos:
            clip = Clip(frames=frames, truth=truth)
            values["psnr"].append(oracle_psnr.measure(clip))
            values["psnr_blurred"].append(
                oracle_psnr.measure(Clip(frames=blurred(frames, BLUR), truth=truth))
            )
            values["ssim"].append(oracle_ssim.measure(clip))
            values["flow_epe"].append(oracle_flow_epe.measure(clip))
            values["sharpness"].append(sharpness.measure(clip) / sharpness.measure(Clip(frames=truth.frames)))
    return {k: float(np.mean(v)) for k, v in values.items()}


if __name__ == "__main__":
    typer.run(main)
