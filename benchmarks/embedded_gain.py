"""What preference training gains on the embedded world: rewards, objectives and controls, judged by an oracle.

    python benchmarks/embedded_gain.py --out work/gain --result benchmarks/embedded_gain_cpu2_DATE

Every training seed draws its own prompts and candidates; all arms of a seed train on as much. Held-out prompts and
their noise are the same for all arms. The primary was chosen before (`benchmarks/primary_oracle.py`). Five evaluations:
static scenes by their truth; the same with six sampler steps instead of eight, ours and the base alone, its best number
by the primary of those that keep its sharpness; scenes with a moving body; some static ones, and captions alone, which
have no truth, with structure from motion, a geometry that trained no arm. The CSV has a row for every comparison and
metric of every training seed, and one over all seeds, whose interval resamples prompts. Finished parts of the work
folder are kept, so `--scenes` may name one evaluation more each time; the same arms give the same LoRAs in another run.
Beside the arms stand the base with six steps, these videos filtered, and the base before it saw clips with faults.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from cheats import measure_filtered
from comparisons import (
    FAULTLESS,
    SIX_STEPS,
    SIX_STEPS_FILTERED,
    evaluated,
    of_seed,
    only,
    table,
    values_of,
    write,
)

from videogpa.dpo.config import TrainConfig
from videogpa.engines.local import map_rows
from videogpa.errors import RowFailed
from videogpa.recipes.embedded import recipe
from videogpa.stages import error_maps, pair, prompts, sample, score, train
from videogpa.stages.comparison import BASE
from videogpa.stages.evaluate import Arm, EvaluateConfig
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.weights import model_folder

STEPS = 100
"""Less than one pass over the pairs of 240 prompts."""
OURS, CONSISTENCY, PAPER, EPIPOLAR = "edge_agreement", "consistency", "paper_reward", "epipolar"
PRIMARY = "oracle_unexplained"


class Scenes(StrEnum):
    """What is evaluated; the CSV names it so, too."""

    STATIC = "static"
    SIX = "static, six steps"
    MOVING = "dynamic"
    GEOMETRY = "static by geometry"
    CAPTIONS = "captions"


@dataclass(frozen=True)
class Training:
    """An arm: the reward of its pairs, how it departs from the recipe's training and pairing, its candidates' common
    noise.
    """

    reward: str = OURS
    changes: Mapping[str, Any] = field(default_factory=dict)
    pairing: Mapping[str, Any] = field(default_factory=dict)
    shared_noise: float = 0.0


SHUFFLED, SFT = {"labels": "shuffled"}, {"objective": "sft"}
ARMS = {
    "ours": Training(),
    "ours_shuffled": Training(changes=SHUFFLED),
    "consistency": Training(CONSISTENCY),
    "consistency_shuffled": Training(CONSISTENCY, SHUFFLED),
    "paper": Training(PAPER),
    "paper_shuffled": Training(PAPER, SHUFFLED),
    "epipolar": Training(EPIPOLAR),
    "epipolar_shuffled": Training(EPIPOLAR, SHUFFLED),
    "anchored": Training(changes={"objective": "anchored", "anchor": 1.0}),
    "safeguarded": Training(changes={"objective": "safeguarded"}),
    "dense": Training(changes={"dense": "contrast"}),
    "shared_noise": Training(shared_noise=0.5),
    "margin_weighted": Training(changes={"objective": "margin_weighted"}),
    "best_worst": Training(pairing={"pairs_per_prompt": 1}),
    "sft_chosen": Training(changes=SFT),
    "sft_random": Training(changes=SFT | SHUFFLED),
}
STRONGER = {"paper_1.2": ("paper", 1.2)}
"""LoRAs of other arms, drawn so strongly that seeds differ as little as by ours: as large a dose."""
AGAINST = (
    *((arm, BASE) for arm in (*ARMS, *STRONGER, SIX_STEPS, SIX_STEPS_FILTERED, FAULTLESS)),
    *(("ours", arm) for arm in (*ARMS, *STRONGER, SIX_STEPS, SIX_STEPS_FILTERED) if arm != "ours"),
    *((arm, f"{arm}_shuffled") for arm in ("consistency", "paper", "epipolar")),
)
TRUE = ("oracle_psnr", "oracle_ssim", "oracle_flow_epe", "oracle_warp", "sharpness", "dynamic_degree")
JUDGED = (
    CONSISTENCY,
    OURS,
    "depth_agreement",
    "perceptual_drift",
    "motion_smoothness",
    "sharpness",
    "motion",
    "dynamic_degree",
)
MAIN = ("ours", "ours_shuffled", "paper")
"""The arms that are also measured on moving scenes, by geometry and on captions alone."""


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    seeds: Annotated[int, typer.Option(help="training seeds")] = 3,
    train_prompts: int = 240,
    held_out: int = 300,
    judged: Annotated[int, typer.Option(help="held-out prompts that are measured by geometry")] = 30,
    arm: Annotated[list[str] | None, typer.Option(callback=only(ARMS), help="only these, repeatable")] = None,
    scenes: Annotated[list[Scenes] | None, typer.Option(help="only these evaluations, repeatable")] = None,
    model: str = "embedded",
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    arms = tuple(arm or ARMS)
    loras = [trained(out / f"seed{seed}", seed, train_prompts, arms, model, workers) for seed in range(seeds)]
    every = {
        of_seed(name, seed): Arm(lora=str(lora), trained_by=ARMS[name].reward)
        for seed, of in enumerate(loras)
        for name, lora in of.items()
    }
    few, alone = _named(every, MAIN), _named(every, ("ours",))
    for name, (weaker, strength) in STRONGER.items():
        for seed, of in enumerate(loras):
            if weaker in of:
                every[of_seed(name, seed)] = Arm(
                    lora=str(of[weaker]), trained_by=ARMS[weaker].reward, strength=strength
                )
    for measured in (every, few, alone):
        measured[FAULTLESS] = Arm(model="embedded-clean")
    held = WorldPrompts(split="held_out", count=held_out)
    dynamic, first = held.model_copy(update={"dynamic": True}), held.model_copy(update={"count": judged})
    captions = first.model_copy(update={"text_only": True})
    truth, geometry = ScoreConfig(metrics=TRUE), ScoreConfig(geometry="sfm", metrics=JUDGED)
    drawn = SampleConfig(model=model, candidates=2, seed=1_000, steps=8, keep_latents=False, previews=False)
    plans = {
        Scenes.STATIC: (held, every, drawn, truth),
        Scenes.SIX: (held, alone, drawn.model_copy(update={"steps": 6}), truth),
        Scenes.MOVING: (dynamic, few, drawn, truth),
        Scenes.GEOMETRY: (first, few, drawn, geometry),
        Scenes.CAPTIONS: (captions, few, drawn, geometry),
    }
    found, primaries = {}, {}
    for name in scenes or plans:
        asked, measured, sampler, judge = plans[name]
        home = out / name.replace(",", "").replace(" ", "_")
        primaries[name] = None if asked.text_only else PRIMARY
        cfg = EvaluateConfig(sample=sampler, score=judge, arms=measured, primary=primaries[name])
        folder = evaluated(cfg, prompts.run_world(asked, home / "prompts"), home, workers)
        found[name] = values_of(folder)
        if name == Scenes.SIX:
            found[name][SIX_STEPS_FILTERED] = measure_filtered(
                folder / "samples" / BASE, home / "prompts", judge, home / "filtered", workers=workers
            )
    if {Scenes.STATIC, Scenes.SIX} <= found.keys():
        found[Scenes.STATIC][SIX_STEPS] = found[Scenes.SIX][BASE]
        found[Scenes.STATIC][SIX_STEPS_FILTERED] = found[Scenes.SIX][SIX_STEPS_FILTERED]
    rows = [
        {"scenes": name, **row}
        for name, values in found.items()
        for row in table(values, AGAINST, seeds, primaries[name])
    ]
    write(rows, result or out / "gain")


def _named(arms: Mapping[str, Arm], names: Sequence[str]) -> dict[str, Arm]:
    """Those of all training seeds."""
    return {name: arm for name, arm in arms.items() if name.rpartition("_")[0] in names}


def trained(
    folder: Path, seed: int, count: int, arms: Sequence[str], model: str, workers: int
) -> dict[str, Path]:
    """The LoRA of every arm of one training seed."""
    full, made = recipe(seed), {}
    for share in sorted({ARMS[name].shared_noise for name in arms}):
        candidates, scores = scored_candidates(folder, seed, count, model, workers, share)
        here = {name: ARMS[name] for name in arms if ARMS[name].shared_noise == share}
        made[share] = _preferences(full.pair, candidates, scores, here, workers)
    training = full.trainings["dpo"].model_copy(update={"steps": STEPS})
    make_worker = partial(_make_trainer, training, made, model, folder / "lora")
    loras = {}
    for name, trained in map_rows(make_worker, list(arms), workers=workers, description="training"):
        if isinstance(trained, RowFailed):
            raise trained
        loras[name] = trained / train.LORA
    return loras


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """Candidates, their pairs by arm and, for dense preferences, their maps of inconsistency."""

    candidates: Path
    pairs: Mapping[str, Path]
    maps: Path | None


def scored_candidates(
    folder: Path, seed: int, count: int, model: str, workers: int, shared_noise: float = 0.0
) -> tuple[Path, Path]:
    """(candidates, scores) of a training seed's own prompts."""
    world = WorldPrompts(split="train", count=count, offset=seed * count)
    asked = prompts.run_world(world, folder / "prompts")
    home = folder / f"shared_{shared_noise}" if shared_noise else folder
    drawn = recipe(seed).sample.model_copy(update={"model": model, "shared_noise": shared_noise})
    candidates = sample.run(drawn, asked, home / "candidates", workers=workers)
    judge = ScoreConfig(geometry="embedded", metrics=(OURS, CONSISTENCY, PAPER, EPIPOLAR, "motion"))
    return candidates, score.run(judge, candidates, home / "scores", workers=workers)


def _preferences(
    pairing: PairConfig, candidates: Path, scores: Path, arms: Mapping[str, Training], workers: int
) -> Preferences:
    home = scores.parent
    pairs = {}
    for name, arm in arms.items():
        cfg = pairing.model_copy(update={"metric": arm.reward, **arm.pairing})
        pairs[name] = pair.run(cfg, scores, home / "pairs" / (name if arm.pairing else arm.reward))
    dense = any("dense" in arm.changes for arm in arms.values())
    maps = error_maps.run(scores, home / "error_maps", workers=workers) if dense else None
    return Preferences(candidates=candidates, pairs=pairs, maps=maps)


def _make_trainer(
    cfg: TrainConfig, made: Mapping[float, Preferences], model: str, out: Path
) -> Callable[[str], Path]:
    def fit(name: str) -> Path:
        arm = ARMS[name]
        given, own = made[arm.shared_noise], cfg.model_copy(update=dict(arm.changes))
        maps = None if own.dense == "off" else given.maps
        return train.run(own, given.pairs[name], given.candidates, model_folder(model), out / name, maps=maps)

    return fit


if __name__ == "__main__":
    typer.run(main)
