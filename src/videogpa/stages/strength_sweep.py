"""One LoRA at several strengths, evaluated as arms of one comparison: what each metric gains or loses by strength."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from videogpa.artifact import atomic_path, read_as_made
from videogpa.engines.base import Workers
from videogpa.errors import InputError
from videogpa.stages import evaluate
from videogpa.stages.comparison import BASE
from videogpa.stages.evaluate import SUMMARY, Arm, EvaluateConfig

TABLE = "strengths.csv"
COLUMNS = (
    *("strength", "metric", "higher_is_better", "mean", "base_mean", "difference", "ci_low", "ci_high"),
    *("win_rate", "videos", "guards"),
)
"""`difference` = mean of paired differences against the base with its 95 % interval; `guards`: blur or lost motion."""


def run(
    cfg: EvaluateConfig,
    strengths: Sequence[float],
    prompts: Path,
    lora: Path,
    out: Path,
    *,
    workers: Workers = 1,
    overwrite: bool = False,
) -> Path:
    """Evaluate the LoRA at every strength against the base, which is strength 0; returns `strengths.csv` in `out`.

    `cfg` says how to sample and score; arms and comparisons are made here.

    Raises:
        InputError: no strength, one twice, or 0 (the base is drawn anyway); else as `evaluate.run`.
    """
    if not all(map(math.isfinite, strengths)):
        raise InputError(f"strengths {list(strengths)}: give finite numbers")
    arms = {arm_of(strength): strength for strength in strengths}
    if not arms or len(arms) != len(strengths) or 0 in strengths:
        raise InputError(
            f"strengths {list(strengths)}: give different ones, none of them 0, which is the base"
        )
    drawn = {name: Arm(lora=str(lora), strength=strength) for name, strength in arms.items()}
    swept = cfg.model_copy(update={"arms": drawn, "comparisons": None})
    evaluation = evaluate.run(swept, prompts, out / "evaluation", workers=workers, overwrite=overwrite)
    summary = json.loads(read_as_made(evaluation / SUMMARY))
    with atomic_path(out / TABLE) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(table(summary, arms))
    return out / TABLE


def arm_of(strength: float) -> str:
    """The arm's name, which is also a folder's."""
    return f"strength_{strength:g}"


def table(summary: dict[str, Any], arms: dict[str, float]) -> list[dict[str, Any]]:
    """One row for every metric and strength, by metric and then by strength."""
    rows = [
        {
            "strength": arms[found["arm"]],
            "metric": found["metric"],
            "higher_is_better": found["higher_is_better"],
            "mean": summary["arms"][found["arm"]][found["metric"]],
            "base_mean": summary["arms"][BASE][found["metric"]],
            "difference": found["mean_difference"],
            "ci_low": found["ci95"][0],
            "ci_high": found["ci95"][1],
            "win_rate": found["win_rate"],
            "videos": found["n"],
            "guards": "; ".join(summary["guards"][found["arm"]]),
        }
        for found in summary["comparisons"]
    ]
    return sorted(rows, key=lambda row: (row["metric"], row["strength"]))
