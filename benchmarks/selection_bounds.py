"""How far can labels go? The seeds' common error after choosing among samples by a label, without any training.

    python benchmarks/selection_bounds.py RUN --out work/bounds --result benchmarks/selection_bounds_cpu2_DATE

RUN is a folder of `videogpa run embedded`. Its candidates of a prompt are split into two halves in every way; the best
of each half by a label are two independent choices, whose errors' product is the bias² of choosing by that label.
"""

import csv
import itertools
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track

from videogpa.artifact import read_rows
from videogpa.metrics.between_seeds import gradients
from videogpa.stages import score
from videogpa.stages.score import ScoreConfig, higher_is_better
from videogpa.types import Candidate, MetricValues, Prompt, Score
from videogpa.video_io import read_video
from videogpa.world.truth import true_continuation

LABELS = ("oracle_psnr", "oracle_ssim", "oracle_warp", "oracle_flow_epe", "consistency", "depth_agreement")


def main(
    run: Annotated[Path, typer.Argument(help="a folder of `videogpa run embedded`")],
    out: Annotated[Path, typer.Option(help="work folder")],
    workers: int = 1,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    torch.set_num_threads(1)
    asked = run / "prompts" / "train"
    cfg = ScoreConfig(geometry="embedded", metrics=LABELS)
    scored = score.run(cfg, run / "candidates", out / "scores", prompts=asked, workers=workers)
    labels = {row.id: row.metrics for row in read_rows(scored, Score)}
    worlds = {prompt.id: prompt.world for prompt in read_rows(asked, Prompt)}
    by_prompt: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in read_rows(run / "candidates", Candidate):
        by_prompt[candidate.prompt_id].append(candidate)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for prompt_id, candidates in track(by_prompt.items(), "measuring"):
        videos = torch.stack([read_video(run / "candidates" / str(c.video)) for c in candidates])
        truth = true_continuation(worlds[prompt_id] or {}, *(videos.shape[i] for i in (1, 3, 4))).frames
        errors = {
            "bias2": (videos - truth)[:, 1:].flatten(1),
            "gradient_bias2": torch.stack([(gradients(v) - gradients(truth))[1:].flatten() for v in videos]),
        }
        for name, error in errors.items():
            products = (error @ error.T / error.shape[1]).numpy()
            apart = ~np.eye(len(candidates), dtype=bool)
            found[name, "base"].append(float(products[apart].mean()))
            for label in LABELS:
                found[name, label].append(_chosen(products, [labels[c.id] for c in candidates], label))
    rows = [_row(name, label, values, found[name, "base"]) for (name, label), values in found.items()]
    with (result or out / "bounds").with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values(), sep="  ")


def _chosen(products: np.ndarray, metrics: list[MetricValues], label: str) -> float:
    """Mean product of the best of one half and the best of the other, over all halves; unjudged ones come last."""
    sign = 1 if higher_is_better(label) else -1
    ranks = [-np.inf if (value := m.get(label)) is None else sign * value for m in metrics]
    everyone = set(range(len(ranks)))
    halves = itertools.combinations(sorted(everyone), len(ranks) // 2)
    pairs = [
        (max(half, key=ranks.__getitem__), max(everyone - {*half}, key=ranks.__getitem__)) for half in halves
    ]
    return float(np.mean([products[pair] for pair in pairs]))


def _row(name: str, label: str, values: list[float], base: list[float]) -> dict[str, str]:
    ours, theirs = np.array(values), np.array(base)
    change = ours.mean() / theirs.mean() - 1
    return {"error": name, "label": label, "change": f"{change:+.4f}", "won": f"{(ours < theirs).mean():.3f}"}


if __name__ == "__main__":
    typer.run(main)
