"""What pairs are worth: the gain against their number, candidates per prompt, which are taken, and how they train.

    python benchmarks/data_efficiency.py --out work/gain --result benchmarks/data_efficiency_cpu2_DATE

The candidates are those of `benchmarks/embedded_gain.py`, whose work folder this may share: each training seed's own
prompts. Every arm trains on its part of them by the embedded recipe, but with as many steps, whatever the number of
pairs (`*_short`: half as many); a part of more prompts takes those of the other training seeds, too. The base and all
arms draw the same held-out prompts from the same noise; those that may choose a recipe are drawn by `--split
development`. The CSV is as that of the gain, with the number of pairs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from comparisons import ALL, evaluated, of_seed, only, table, values_of, write
from embedded_gain import OURS, STEPS, TRUE, scored_candidates
from pydantic import BaseModel

from videogpa.artifact import link_files, open_artifact, read_rows
from videogpa.engines.local import map_rows
from videogpa.errors import RowFailed
from videogpa.recipes.embedded import recipe
from videogpa.stages import pair, prompts, train
from videogpa.stages.comparison import BASE
from videogpa.stages.evaluate import Arm, EvaluateConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate, Score
from videogpa.weights import model_folder

PROMPTS, CANDIDATES, SEEDS = 240, 6, 3
"""Of a training seed; of a prompt; and how many training seeds."""


class Split(StrEnum):
    """Whose prompts are drawn: what chooses a recipe looks at those for development."""

    DEVELOPMENT = "development"
    HELD_OUT = "held_out"


@dataclass(frozen=True, kw_only=True)
class Part:
    """So many prompts and of each one's candidates, and how pairs and training depart from the recipe."""

    prompts: int = PROMPTS
    candidates: int = CANDIDATES
    pairing: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


WHOLE, WHOLE_SHORT = f"prompts_{PROMPTS}", f"prompts_{PROMPTS}_short"
SHORT = {"steps": STEPS // 2}
SETTINGS: dict[str, dict[str, Any]] = {
    "rank_4": {"rank": 4, "alpha": 4.0},
    "rank_64": {"rank": 64, "alpha": 64.0},
    "half_rate": {"learning_rate": 1e-4},
    "double_rate": {"learning_rate": 4e-4},
    "weak_beta": {"beta": 500.0},
    "strong_beta": {"beta": 8000.0},
    "cosine": {"schedule": "cosine"},
    "ema": {"ema_decay": 0.95},
    "batch_16": {"batch_pairs": 16},
}
"""How the training on all pairs of 240 prompts, half as many steps, departs from the recipe's."""
PARTS = {
    **{f"prompts_{count}": Part(prompts=count) for count in (8, 24, 64, 96, 144, PROMPTS, SEEDS * PROMPTS)},
    **{f"candidates_{c}": Part(prompts=PROMPTS * CANDIDATES // c, candidates=c) for c in (2, 3)},
    "prompts_64_short": Part(prompts=64, training=SHORT),
    "prompts_96_short": Part(prompts=96, training=SHORT),
    "prompts_96_margin_short": Part(prompts=96, training=SHORT | {"objective": "margin_weighted"}),
    WHOLE_SHORT: Part(training=SHORT),
    "two_pairs": Part(pairing={"pairs_per_prompt": 2}),
    "two_pairs_short": Part(pairing={"pairs_per_prompt": 2}, training=SHORT),
    "two_pairs_margin_short": Part(
        pairing={"pairs_per_prompt": 2}, training=SHORT | {"objective": "margin_weighted"}
    ),
    "best_worst": Part(pairing={"pairs_per_prompt": 1}),
    "all_pairs": Part(pairing={"pairs_per_prompt": 15}),
    "any_motion": Part(pairing={"motion_match": None, "least_motion": None}),
    "margin_weighted": Part(training={"objective": "margin_weighted"}),
    **{name: Part(training=SHORT | change) for name, change in SETTINGS.items()},
}
"""The sizes have six candidates a prompt; `candidates_*` have as many videos as 240 prompts of six."""
AGAINST = (
    *((arm, BASE) for arm in PARTS),
    *((arm, WHOLE) for arm in PARTS if arm != WHOLE),
    *(
        (arm, longer)
        for arm in PARTS
        if (longer := arm.removesuffix("_short")) in PARTS and longer not in (arm, WHOLE)
    ),
    *((arm, WHOLE_SHORT) for arm in SETTINGS),
)


class Named(BaseModel):
    """What an artifact of this benchmark was made of."""

    part: str


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    split: Annotated[Split, typer.Option(help="whose prompts are drawn")] = Split.HELD_OUT,
    drawn: Annotated[int, typer.Option(help="how many of them")] = 100,
    part: Annotated[
        list[str] | None, typer.Option(callback=only(PARTS), help="only these arms, repeatable")
    ] = None,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    made = [
        scored_candidates(out / f"seed{seed}", seed, PROMPTS, "embedded", workers) for seed in range(SEEDS)
    ]
    home = out / "efficiency"
    candidates = _together([folder for folder, _ in made], home / "candidates")
    names = [of_seed(name, seed) for name in part or PARTS for seed in range(SEEDS)]
    make_worker = partial(_make_trainer, candidates, [scores for _, scores in made], home)
    loras: dict[str, str] = {}
    for name, trained in map_rows(make_worker, names, workers=workers, description="training"):
        if isinstance(trained, RowFailed):
            raise trained
        if trained is not None:
            loras[name] = str(trained / train.LORA)
    full = recipe()
    cfg = EvaluateConfig(
        sample=full.evaluate.sample,
        score=ScoreConfig(metrics=TRUE),
        arms={name: Arm(lora=loras[name]) for name in names if name in loras},
        primary=full.evaluate.primary,
        trained_by=OURS,
    )
    held = prompts.run_world(WorldPrompts(split=split.value, count=drawn), home / split / "prompts")
    evaluation = evaluated(cfg, held, home / split, workers)
    rows = [
        {"pairs": _pairs(home, row), **row}
        for row in table(values_of(evaluation), AGAINST, SEEDS, cfg.primary)
    ]
    write(rows, result or out / "efficiency")


def _together(folders: Sequence[Path], out: Path) -> Path:
    """One folder of all training seeds' candidates; files are linked, not copied."""
    inputs = {folder.parent.name: folder for folder in folders}
    with open_artifact(
        out, stage="candidates", config=Named(part="all"), inputs=inputs, row_type=Candidate
    ) as artifact:
        if not artifact.complete:
            for folder in folders:
                for kind in ("videos", "latents", "conditioning"):
                    link_files(folder / kind, out / kind)
                rows = read_rows(folder, Candidate)
                artifact.append(*(row for row in rows if row.id not in artifact.done))
            artifact.finish(list(artifact.done))
    return out


def _make_trainer(candidates: Path, scores: Sequence[Path], home: Path) -> Callable[[str], Path | None]:
    def fit(name: str) -> Path | None:
        arm, _, seed = name.rpartition("_")
        part, full = PARTS[arm], recipe(int(seed))
        chosen = _part(part, int(seed), candidates, scores, home / "scores_of" / name)
        pairing = full.pair.model_copy(update=part.pairing)
        formed = pair.run(pairing, chosen, home / "pairs" / name)
        cfg = full.trainings["dpo"].model_copy(update={"steps": STEPS} | part.training)
        try:
            return train.run(cfg, formed, candidates, model_folder(full.sample.model), home / "lora" / name)
        except train.StoppedItself as stopped:
            # As happens on very few pairs: the others are compared without it.
            print(f"{name} is left out: {stopped}")
            return None

    return fit


def _part(part: Part, seed: int, candidates: Path, scores: Sequence[Path], out: Path) -> Path:
    """The scores of the part's candidates: of so many prompts from the seed's first on, in a circle."""
    by_prompt: dict[str, list[str]] = {}
    for row in read_rows(candidates, Candidate):
        by_prompt.setdefault(row.prompt_id, []).append(row.id)
    everyone, first = list(by_prompt), seed * PROMPTS
    taken = [everyone[i % len(everyone)] for i in range(first, first + part.prompts)]
    kept = {id for prompt in taken for id in by_prompt[prompt][: part.candidates]}
    rows = [row for folder in scores for row in read_rows(folder, Score) if row.id in kept]
    inputs = {folder.parent.name: folder for folder in scores}
    with open_artifact(
        out, stage="scores", config=Named(part=out.name), inputs=inputs, row_type=Score
    ) as artifact:
        if not artifact.complete:
            artifact.append(*(row for row in rows if row.id not in artifact.done))
            artifact.finish([row.id for row in rows])
    return out


def _pairs(home: Path, row: Mapping[str, Any]) -> int:
    """Of a training seed, or the mean over all."""
    these = range(SEEDS) if row["seed"] == ALL else [int(row["seed"])]
    told = [json.loads((home / "lora" / of_seed(row["arm"], s) / train.SUMMARY).read_text()) for s in these]
    return round(sum(each["pairs"] + each["held_out_pairs"] for each in told) / len(told))


if __name__ == "__main__":
    typer.run(main)
