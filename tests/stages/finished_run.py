"""A finished run made with the real artifact writers: rendered clips with a known amount of jitter, and scores
that follow it.
"""

import csv
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel

from videogpa.artifact import Artifact, open_artifact, read_rows, write_json_atomic
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.log import COLUMNS
from videogpa.geometry.base import save_prediction
from videogpa.stages import pair, prompts
from videogpa.stages.against_truth import between_seeds
from videogpa.stages.evaluate import Arm, EvaluateConfig, summarize
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate, EvalRow, Prompt, Row, Score
from videogpa.video_io import write_master
from videogpa.weights import GENERATOR
from videogpa.world.render import Render, render
from videogpa.world.scene import scene_from_spec
from videogpa.world.truth import exact_geometry

FRAMES, SIZE = 4, 32
JITTER = {"base": 1.0, "dpo": 0.7, "dpo_random": 1.08}


@dataclass(frozen=True)
class Size:
    """How much there is of everything."""

    train: int = 4
    candidates: int = 3
    held_out: int = 3
    seeds: int = 2
    steps: int = 6


def make(folder: Path, size: Size = Size(), *, jitter: dict[str, float] = JITTER) -> Path:
    """Write all artifacts of a finished run; `jitter` is how restless the arms' videos are."""
    for split, count in (("train", size.train), ("held_out", size.held_out)):
        prompts.run_world(WorldPrompts(split=split, count=count, size=SIZE), folder / "prompts" / split)
    train, held_out = folder / "prompts" / "train", folder / "prompts" / "held_out"
    sampling = SampleConfig(candidates=size.candidates)
    _samples(sampling, train, folder / "candidates", folder / "scores", jitter=1.0)
    pair.run(PairConfig(min_margin=0.01), folder / "scores", folder / "pairs")
    for i, arm in enumerate(a for a in jitter if a != "base"):
        _lora(TrainConfig(steps=size.steps, labels="shuffled" if i else "as_scored"), folder, arm)
    _evaluation(folder, held_out, SampleConfig(candidates=size.seeds, seed=1000), jitter)
    return folder


def _samples(
    cfg: SampleConfig, source: Path, candidates: Path, scores: Path, *, jitter: float
) -> list[Score]:
    rows, measured = [], []
    with (
        _artifact(candidates, "candidates", cfg, Candidate, {"prompts": source}) as sampled,
        _artifact(scores, "scores", ScoreConfig(), Score, {"prompts": source}) as scored,
    ):
        for prompt in read_rows(source, Prompt):
            for k in range(cfg.candidates):
                id = f"{prompt.id}-{k}"
                row = Candidate(id=id, prompt_id=prompt.id, seed=k, video=f"videos/{id}.mkv")
                clip = _rendered(json.dumps(prompt.world))
                strength, frames = _shaken(clip, row, jitter)
                write_master(candidates / str(row.video), frames)
                save_prediction(scores / "geometry" / f"{id}.safetensors", exact_geometry(clip, frames))
                rows.append(row)
                measured.append(_score(row, strength))
        for artifact, items in ((sampled, rows), (scored, measured)):
            artifact.append(*items)
            artifact.finish([r.id for r in items])
    return measured


def _artifact(
    folder: Path, stage: str, config: BaseModel, row_type: type[Row], inputs: dict[str, Path]
) -> Artifact:
    return open_artifact(folder, stage=stage, config=config, inputs=inputs, row_type=row_type)


@cache
def _rendered(world: str) -> Render:
    return render(scene_from_spec(json.loads(world)), FRAMES, SIZE, SIZE)


def _shaken(clip: Render, row: Candidate, jitter: float) -> tuple[float, torch.Tensor]:
    """Every frame moved by whole pixels; the first one stays."""
    rng = np.random.default_rng([int(row.prompt_id.removeprefix("scene")), row.seed])
    strength = jitter * rng.uniform(0.2, 2.5)
    frames = [clip.rgb[0]]
    for frame in clip.rgb[1:]:
        dx, dy = np.rint(rng.normal(0, strength, 2)).astype(int).tolist()
        frames.append(torch.roll(frame, (dy, dx), (-2, -1)))
    return strength, torch.stack(frames)


def _score(row: Candidate, strength: float) -> Score:
    noise = np.random.default_rng([row.seed, int(strength * 1e6)]).normal
    consistency = 0.92 - 0.1 * strength + noise(0, 0.01)
    metrics = {
        "consistency": consistency,
        "depth_agreement": None if row.id.endswith("0-1") else 0.9 - 0.05 * strength + noise(0, 0.02),
        "motion": 0.2 + noise(0, 0.01),
        "oracle_flow_epe": 0.5 + 0.3 * strength + noise(0, 0.05),
        "oracle_psnr": 27 - 1.5 * strength + noise(0, 0.3),
        "oracle_ssim": 0.8 + noise(0, 0.01),
        "paper_reward": 0.1 + 0.05 * strength + noise(0, 0.01),
        "sharpness": 0.05 + noise(0, 0.001),
    }
    return Score(id=row.id, prompt_id=row.prompt_id, video=str(row.video), frames=FRAMES, metrics=metrics)


def _lora(cfg: TrainConfig, folder: Path, arm: str) -> None:
    out = folder / "lora" / arm
    inputs = {"pairs": folder / "pairs", "candidates": folder / "candidates"}
    with _artifact(out, "train", cfg, Row, inputs) as artifact:
        _log(cfg, out, len(arm))
        outcome = {
            "last_step": cfg.steps,
            "exported_step": cfg.steps,
            "stopped_early": False,
            "beta": 2000.0,
            "pairs": 3,
        }
        write_json_atomic(out / "training.json", outcome | {"held_out_pairs": 1, "health": None})
        artifact.finish([], ["log.csv", "training.json"])


def _log(cfg: TrainConfig, out: Path, seed: int) -> None:
    with (out / "log.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        rng = np.random.default_rng(seed)
        for step in range(1, cfg.steps + 1):
            done = step / cfg.steps
            row = {
                "step": step,
                "loss": 0.693 - 0.1 * done + rng.normal(0, 0.02),
                "lr": 2e-4,
                "grad_norm": 1.0,
            }
            figures = {
                "accuracy": min(1, 0.5 + 0.3 * done + rng.normal(0, 0.1)),
                "margin": done,
                "chosen_change": 0.002 * done + rng.normal(0, 0.002),
                "rejected_change": 0.01 * done + rng.normal(0, 0.002),
                "saturation": 0.01,
            }
            row |= figures
            if step % max(cfg.steps // 6, 1) == 0:
                row |= {f"held_out_{k}": v for k, v in figures.items()}
            writer.writerow(row)


def _evaluation(folder: Path, held_out: Path, sampling: SampleConfig, jitter: dict[str, float]) -> None:
    cfg = EvaluateConfig(
        sample=sampling,
        score=ScoreConfig(),
        arms={arm: Arm(lora="given") for arm in jitter if arm != "base"},
        comparisons=(("dpo", "base"), ("dpo", "dpo_random"), ("dpo_random", "base")),
        trained_by="consistency",
        resamples=500,
    )
    out = folder / "evaluation"
    with _artifact(out, "evaluation", cfg, EvalRow, {"prompts": held_out, "model": GENERATOR}) as artifact:
        for arm, strength in jitter.items():
            samples, scores = out / "samples" / arm, out / "scores" / arm
            artifact.append(
                *(_eval_row(arm, s) for s in _samples(sampling, held_out, samples, scores, jitter=strength))
            )
        rows = list(artifact.done.values())
        asked = read_rows(held_out, Prompt)
        videos: dict[tuple[str, str], list[Path]] = {}
        for row in rows:
            videos.setdefault((row.arm, row.prompt_id), []).append(out / str(row.video))
        together = between_seeds(cfg.score, videos, {p.id: p.world for p in asked})
        truth = [_score(Candidate(id=f"{p.id}-0", prompt_id=p.id, seed=0, video="none"), 0.0) for p in asked]
        write_json_atomic(out / "summary.json", summarize(cfg, rows, together, truth))
        artifact.finish([r.id for r in rows])


def _eval_row(arm: str, score: Score) -> EvalRow:
    return EvalRow(
        id=f"{arm}/{score.id}",
        arm=arm,
        prompt_id=str(score.prompt_id),
        seed=int(score.id.rsplit("-", 1)[1]),
        video=f"samples/{arm}/{score.video}",
        metrics=score.metrics,
    )
