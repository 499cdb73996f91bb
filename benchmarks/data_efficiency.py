"""What pairs are worth: the gain against their number, candidates per prompt, and which pairs are taken.

    python benchmarks/data_efficiency.py --out work/pairs --result benchmarks/data_efficiency_cpu2_DATE

One pool of candidates is drawn and scored; every arm trains on its own part of it, by the embedded recipe and with as
many steps, whatever the number of pairs. Training seeds take other prompts, as far as there are enough. The base and
all arms draw the same held-out prompts from the same noise. The CSV is as that of `benchmarks/embedded_gain.py`, with
the number of pairs.
"""

import csv
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from comparisons import ALL, of_seed, table

from videogpa.artifact import open_artifact, read_rows
from videogpa.engines.local import map_rows
from videogpa.errors import RowFailed
from videogpa.recipes.embedded import recipe
from videogpa.stages import evaluate, pair, prompts, sample, score, train
from videogpa.stages.evaluate import BASE, Arm, EvaluateConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate, Prompt, Score
from videogpa.weights import model_folder

TRUE = ("oracle_psnr", "oracle_flow_epe", "oracle_warp", "sharpness")


@dataclass(frozen=True, kw_only=True)
class Part:
    """So many of the pool's prompts and of each one's candidates, and how pairs and training depart from the recipe."""

    prompts: int = 240
    candidates: int = 6
    pairing: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


PARTS = {
    **{f"prompts_{count}": Part(prompts=count) for count in (8, 24, 80, 240, 800)},
    **{f"candidates_{c}": Part(prompts=1440 // c, candidates=c) for c in (2, 3, 4)},
    "best_worst": Part(pairing={"pairs_per_prompt": 1}),
    "all_pairs": Part(pairing={"pairs_per_prompt": 15}),
    "any_motion": Part(pairing={"motion_match": None, "least_motion": None}),
    "margin_weighted": Part(training={"objective": "margin_weighted"}),
}
"""The sizes have six candidates a prompt; `candidates_*` have 1,440 videos, as many as 240 prompts of six."""
AGAINST = (*((arm, BASE) for arm in PARTS), *((arm, "prompts_240") for arm in PARTS if arm != "prompts_240"))


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    seeds: Annotated[int, typer.Option(help="training seeds")] = 3,
    pool: Annotated[int, typer.Option(help="prompts whose candidates are drawn")] = 800,
    held_out: int = 100,
    part: Annotated[list[str] | None, typer.Option(help="only these arms, repeatable")] = None,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    full, world = recipe(), WorldPrompts(split="train", count=pool)
    asked = prompts.run_world(world, out / "prompts")
    candidates = sample.run(full.sample, asked, out / "candidates", workers=workers)
    judge = ScoreConfig(geometry="embedded", metrics=("consistency", "motion"))
    scores = score.run(judge, candidates, out / "scores", workers=workers)
    names = [of_seed(name, seed) for name in part or PARTS for seed in range(seeds)]
    make_worker = partial(_make_trainer, asked, candidates, scores, out)
    loras: dict[str, str] = {}
    for name, made in map_rows(make_worker, names, workers=workers, description="training"):
        if isinstance(made, RowFailed):
            raise made
        loras[name] = str(made / train.LORA)
    cfg = EvaluateConfig(
        sample=full.evaluate.sample,
        score=ScoreConfig(metrics=TRUE),
        arms={name: Arm(lora=loras[name]) for name in names},
        primary=full.evaluate.primary,
        trained_by="consistency",
    )
    held = prompts.run_world(WorldPrompts(split="held_out", count=held_out), out / "held_out")
    evaluation = evaluate.run(cfg, held, out / "evaluation", workers=workers)
    rows = [{"pairs": _pairs(out, row, seeds), **row} for row in table(evaluation, AGAINST, seeds)]
    with (result or out / "pairs").with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        if seeds == 1 or row["seed"] == ALL:
            print(*row.values(), sep="  ")


def _make_trainer(asked: Path, candidates: Path, scores: Path, out: Path) -> Callable[[str], Path]:
    def fit(name: str) -> Path:
        arm, _, seed = name.rpartition("_")
        part, full = PARTS[arm], recipe(int(seed))
        chosen = _part(part, int(seed), asked, candidates, scores, out / "scores_of" / name)
        pairing = full.pair.model_copy(update=part.pairing)
        formed = pair.run(pairing, chosen, out / "pairs" / name)
        cfg = full.trainings["dpo"].model_copy(update=part.training)
        return train.run(cfg, formed, candidates, model_folder(full.sample.model), out / "lora" / name)

    return fit


def _part(part: Part, seed: int, asked: Path, candidates: Path, scores: Path, out: Path) -> Path:
    """The scores of the part's candidates: of the `seed`-th so many prompts, from the first again where they end."""
    everyone = [prompt.id for prompt in read_rows(asked, Prompt)]
    first = seed * part.prompts
    taken = {everyone[i % len(everyone)] for i in range(first, first + part.prompts)}
    number: dict[str, int] = {}
    kept = set()
    for row in read_rows(candidates, Candidate):
        number[row.prompt_id] = number.get(row.prompt_id, 0) + 1
        if row.prompt_id in taken and number[row.prompt_id] <= part.candidates:
            kept.add(row.id)
    rows = [row for row in read_rows(scores, Score) if row.id in kept]
    cfg = ScoreConfig(geometry="embedded", metrics=("consistency", "motion"))
    with open_artifact(
        out, stage="scores", config=cfg, inputs={"scores": scores}, row_type=Score
    ) as artifact:
        if not artifact.complete:
            artifact.append(*(row for row in rows if row.id not in artifact.done))
            artifact.finish([row.id for row in rows])
    return out


def _pairs(out: Path, row: Mapping[str, Any], seeds: int) -> int:
    """Of a training seed, or the mean over all."""
    these = range(seeds) if row["seed"] == ALL else [int(row["seed"])]
    told = [json.loads((out / "lora" / of_seed(row["arm"], s) / train.SUMMARY).read_text()) for s in these]
    return round(sum(each["pairs"] + each["held_out_pairs"] for each in told) / len(told))


if __name__ == "__main__":
    typer.run(main)
