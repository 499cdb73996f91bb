"""The README's picture: one held-out prompt of a finished run, drawn by the base and with the LoRA.

    python benchmarks/picture.py runs/demo --out docs/demo.png

Rows: the true continuation; the base and its error map; the LoRA and its error map (dark = the other frames confirm
it, bright = they do not, grey = not judged). By default the prompt whose gain is the median one, so not the best.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from videogpa.artifact import read_rows
from videogpa.contact_sheet import error_colors
from videogpa.geometry.base import load_prediction
from videogpa.metrics.consistency import error_maps
from videogpa.tensors import Video
from videogpa.types import EvalRow, Prompt
from videogpa.video_io import read_video, write_image
from videogpa.world.truth import true_continuation

FRAMES = (0, 2, 4, 6, 8)
ENLARGE, GAP = 3, 6
WHITE = 1.0


def main(
    run: Annotated[Path, typer.Argument(help="folder of a finished run")],
    out: Annotated[Path, typer.Option(help="picture to write")],
    arm: str = "dpo",
    quantile: Annotated[float, typer.Option(help="which rank by gain, 1 is the largest", min=0, max=1)] = 0.5,
) -> None:
    """Write the picture and print what it shows."""
    evaluation = run / "evaluation"
    rows = {r.id: r for r in read_rows(evaluation, EvalRow)}
    values = {r.id: v for r in rows.values() if (v := r.metrics.get("consistency")) is not None}
    gains = {
        row_id: values[f"{arm}/{row_id}"] - value
        for name, value in values.items()
        for name_arm, row_id in [name.split("/", 1)]
        if name_arm == "base" and f"{arm}/{row_id}" in values
    }
    ranked = sorted(gains, key=gains.__getitem__)
    chosen = ranked[round(quantile * (len(ranked) - 1))]
    prompts = {p.id: p for p in read_rows(run / "prompts" / "held_out", Prompt)}
    prompt = prompts[rows[f"base/{chosen}"].prompt_id]
    strips: list[Video] = []
    for name in ("base", arm):
        row = rows[f"{name}/{chosen}"]
        video = read_video(evaluation / row.video)
        geometry = load_prediction(evaluation / "scores" / name / "geometry" / f"{chosen}.safetensors")
        strips += [video, error_colors(*error_maps(geometry))]
        print(name, {k: round(v, 4) for k, v in row.metrics.items() if v is not None})
    strips.insert(0, true_continuation(prompt.world, *(video.shape[i] for i in (0, 2, 3))).frames)
    pictures = torch.stack([s[list(FRAMES)] for s in strips])
    pictures = pictures.repeat_interleave(ENLARGE, -1).repeat_interleave(ENLARGE, -2)
    padded = torch.nn.functional.pad(pictures, (0, GAP, 0, GAP), value=WHITE)
    lines, columns, _, height, width = padded.shape
    sheet = padded.permute(2, 0, 3, 1, 4).reshape(3, lines * height, columns * width)
    write_image(out, sheet[:, :-GAP, :-GAP])
    print(
        f"{chosen}: {prompt.text!r}, gain {gains[chosen]:+.4f}, median {np.median(list(gains.values())):+.4f}"
    )


if __name__ == "__main__":
    typer.run(main)
