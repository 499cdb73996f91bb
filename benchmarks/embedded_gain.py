"""What preference training gains on the embedded world: rewards, objectives and controls, judged by an oracle.

    python benchmarks/embedded_gain.py --out work/gain --result benchmarks/embedded_gain_cpu2_DATE

Every training seed draws its own prompts and candidates; all arms of a seed train on as much. Held-out prompts and
their noise are the same for all arms, drawn at the base's best sampler setting. The primary was chosen before
(`benchmarks/primary_oracle.py`). Three evaluations: static scenes with their truth, scenes with a moving body, and
captions alone, which have no truth and are judged with structure from motion, a geometry that trained no arm. The CSV
has a row for every comparison and metric of every training seed, and one over all seeds, whose interval resamples
prompts. Finished parts of the work folder are kept.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from videogpa.artifact import read_rows
from videogpa.dpo.config import TrainConfig
from videogpa.engines.local import map_rows
from videogpa.errors import RowFailed
from videogpa.recipes.embedded import recipe
from videogpa.stages import error_maps, evaluate, pair, prompts, sample, score, train
from videogpa.stages.against_truth import BetweenSeedsRow
from videogpa.stages.evaluate import BASE, BETWEEN, Arm, EvaluateConfig, direction
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.statistics import bootstrap_interval, cluster_means, wins
from videogpa.types import EvalRow
from videogpa.weights import model_folder

OURS, PAPER, EPIPOLAR = "consistency", "paper_reward", "epipolar"
PRIMARY = "oracle_gradient_bias2"
SHUFFLED: dict[str, Any] = {"labels": "shuffled"}
SFT: dict[str, Any] = {"objective": "sft"}
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    "ours": (OURS, {}),
    "ours_shuffled": (OURS, SHUFFLED),
    "paper": (PAPER, {}),
    "paper_shuffled": (PAPER, SHUFFLED),
    "epipolar": (EPIPOLAR, {}),
    "anchored": (OURS, {"objective": "anchored", "anchor": 1.0}),
    "safeguarded": (OURS, {"objective": "safeguarded"}),
    "dense": (OURS, {"dense": "contrast"}),
    "sft_chosen": (OURS, SFT),
    "sft_random": (OURS, SFT | SHUFFLED),
}
"""The reward whose pairs an arm trains on, and how it departs from the recipe's training."""
AGAINST = (
    *((arm, BASE) for arm in ARMS),
    *(("ours", arm) for arm in ARMS if arm != "ours"),
    ("paper", "paper_shuffled"),
)
TRUE = ("oracle_psnr", "oracle_ssim", "oracle_flow_epe", "oracle_warp", "sharpness", "motion")
JUDGED = ("consistency", "depth_agreement", "perceptual_drift", "motion_smoothness", "sharpness", "motion")
MAIN = ("ours", "ours_shuffled", "paper")
"""The arms that are also measured on moving scenes and on captions alone."""


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    seeds: Annotated[int, typer.Option(help="training seeds")] = 3,
    train_prompts: int = 240,
    held_out: int = 300,
    captions: Annotated[int, typer.Option(help="held-out captions without a first frame")] = 100,
    arm: Annotated[list[str] | None, typer.Option(help="only these, repeatable")] = None,
    model: str = "embedded",
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    arms = tuple(arm or ARMS)
    loras = {
        (name, seed): lora
        for seed in range(seeds)
        for name, lora in trained(out / f"seed{seed}", seed, train_prompts, arms, model, workers).items()
    }
    few = {key: lora for key, lora in loras.items() if key[0] in MAIN}
    held = WorldPrompts(split="held_out", count=held_out)
    plans = {
        "static": (held, loras, ScoreConfig(geometry="embedded", metrics=TRUE)),
        "dynamic": (
            held.model_copy(update={"dynamic": True}),
            few,
            ScoreConfig(geometry="embedded", metrics=TRUE),
        ),
        "captions": (
            held.model_copy(update={"text_only": True, "count": captions}),
            few,
            ScoreConfig(geometry="sfm", metrics=JUDGED),
        ),
    }
    rows = []
    for scenes, (asked, measured, judge) in plans.items():
        folder = evaluated(out / scenes, asked, measured, judge, model, workers)
        rows += [{"scenes": scenes, **row} for row in table(folder, seeds)]
    with (result or out / "gain").with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        if row["seed"] == "all":
            print(*row.values(), sep="  ")


def trained(
    folder: Path, seed: int, count: int, arms: Sequence[str], model: str, workers: int
) -> dict[str, Path]:
    """The LoRA of every arm of one training seed."""
    full = recipe(seed)
    world = WorldPrompts(split="train", count=count, offset=seed * count)
    drawn = full.sample.model_copy(update={"model": model})
    candidates = sample.run(
        drawn, prompts.run_world(world, folder / "prompts"), folder / "candidates", workers=workers
    )
    judge = ScoreConfig(geometry="embedded", metrics=(OURS, PAPER, EPIPOLAR, "motion"))
    scores = score.run(judge, candidates, folder / "scores", workers=workers)
    pairs = {
        reward: pair.run(full.pair.model_copy(update={"metric": reward}), scores, folder / "pairs" / reward)
        for reward in {ARMS[name][0] for name in arms}
    }
    maps = error_maps.run(scores, folder / "error_maps", workers=workers) if "dense" in arms else None
    make_worker = partial(
        _make_trainer, full.trainings["dpo"], pairs, candidates, maps, model, folder / "lora"
    )
    loras = {}
    for name, made in map_rows(make_worker, list(arms), workers=workers, description="training"):
        if isinstance(made, RowFailed):
            raise made
        loras[name] = made / train.LORA
    return loras


def _make_trainer(
    cfg: TrainConfig, pairs: Mapping[str, Path], candidates: Path, maps: Path | None, model: str, out: Path
) -> Callable[[str], Path]:
    def fit(name: str) -> Path:
        reward, changes = ARMS[name]
        own = cfg.model_copy(update=changes)
        needed = None if own.dense == "off" else maps
        return train.run(own, pairs[reward], candidates, model_folder(model), out / name, maps=needed)

    return fit


def evaluated(
    out: Path,
    asked: WorldPrompts,
    loras: Mapping[tuple[str, int], Path],
    judge: ScoreConfig,
    model: str,
    workers: int,
) -> Path:
    """All arms of all training seeds on the same held-out prompts and noise."""
    drawn = SampleConfig(model=model, candidates=2, seed=1_000, steps=8, keep_latents=False, previews=False)
    cfg = EvaluateConfig(
        sample=drawn,
        score=judge,
        arms={_name(*key): Arm(lora=str(lora)) for key, lora in loras.items()},
        primary=None if asked.text_only else PRIMARY,
        trained_by=OURS,
    )
    rows = prompts.run_world(asked, out / "prompts")
    return evaluate.run(cfg, rows, out / "evaluation", workers=workers)


def table(evaluation: Path, seeds: int) -> Iterator[dict[str, Any]]:
    """A row for every comparison and metric, of each training seed and over all of them."""
    values = _values(evaluation)
    for arm, against in AGAINST:
        for metric in dict.fromkeys(metric for _, metric in values):
            by_seed = []
            for seed in range(seeds):
                ours = values.get((_name(arm, seed), metric), {})
                theirs = values.get((_name(against, seed), metric), {})
                by_seed.append({key: (ours[key], theirs[key]) for key in ours.keys() & theirs.keys()})
            if not all(by_seed):
                continue
            for seed, found in enumerate(by_seed):
                yield _row(str(seed), arm, against, metric, [(key[0], *v) for key, v in found.items()])
            everything = [(key[0], *v) for found in by_seed for key, v in found.items()]
            yield _row("all", arm, against, metric, everything)


def _name(arm: str, seed: int) -> str:
    return arm if arm == BASE else f"{arm}_{seed}"


def _values(evaluation: Path) -> dict[tuple[str, str], dict[tuple[str, int], float]]:
    """By arm and metric, then by prompt and seed; what seeds say together has seed 0."""
    values: dict[tuple[str, str], dict[tuple[str, int], float]] = defaultdict(dict)
    single = [(r.arm, r.prompt_id, r.seed, r.metrics) for r in read_rows(evaluation, EvalRow)]
    lines = (evaluation / BETWEEN).read_text().splitlines()
    together = [BetweenSeedsRow.model_validate_json(line) for line in lines]
    for arm, prompt_id, seed, metrics in [
        *single,
        *((r.arm, r.prompt_id, 0, r.metrics) for r in together),
    ]:
        for metric, value in metrics.items():
            if value is not None:
                values[arm, metric][prompt_id, seed] = value
    return values


def _row(
    seed: str, arm: str, against: str, metric: str, found: Sequence[tuple[str, float, float]]
) -> dict[str, Any]:
    found = sorted(found)
    clusters = [prompt for prompt, _, _ in found]
    differences = np.array([ours - theirs for _, ours, theirs in found])
    level = abs(float(np.mean([theirs for _, _, theirs in found])))
    low, high = bootstrap_interval(differences, clusters, 10_000, 0)
    better = direction(metric)
    figures = {
        "level": f"{level:.6g}",
        "difference": f"{differences.mean():.6g}",
        "relative": f"{differences.mean() / level:+.4f}",
        "low": f"{low / level:+.4f}",
        "high": f"{high / level:+.4f}",
    }
    won = {"won": "", "won_low": "", "won_high": ""}
    if better is not None:
        by_prompt = wins(cluster_means(differences if better else -differences, clusters))
        ends = bootstrap_interval(by_prompt, sorted(set(clusters)), 10_000, 0)
        won = dict(zip(won, (f"{v:.3f}" for v in (by_prompt.mean(), *ends)), strict=True))
    counted = {"prompts": len(set(clusters))}
    return {"seed": seed, "arm": arm, "against": against, "metric": metric} | figures | won | counted


if __name__ == "__main__":
    typer.run(main)
