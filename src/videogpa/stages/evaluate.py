"""Held-out evaluation: every arm on the same prompts and seeds, compared pair by pair with intervals."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field

from videogpa.artifact import open_artifact, read_rows, write_json_atomic
from videogpa.errors import InputError
from videogpa.stages import sample, score
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig, higher_is_better, protocol_hash
from videogpa.types import Candidate, EvalRow, Score
from videogpa.weights import lora_folder

BASE = "base"
KIN = {"consistency", "cross_view"}
"""One measures by the other: neither judges what the other trained."""
GUARDED = ("sharpness", "motion")
SMALLEST_SHARPNESS = 0.95
LARGEST_MOTION_CHANGE = 0.05


class EvaluateConfig(BaseModel):
    """`sample` draws every arm (its candidates are the seeds per prompt); `comparisons` are (arm, against).

    `strengths` are those of arms whose LoRA is drawn with another one than `sample` says. `trained_by` is the metric
    whose preferences trained the arms; it may not be the only judge.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: SampleConfig
    score: ScoreConfig
    comparisons: tuple[tuple[str, str], ...]
    strengths: dict[str, float] = {}
    trained_by: str | None = None
    resamples: int = Field(default=10_000, ge=100)
    bootstrap_seed: int = 0


def run(
    cfg: EvaluateConfig,
    prompts: Path,
    loras: Mapping[str, Path],
    out: Path,
    *,
    workers: int = 1,
    overwrite: bool = False,
) -> Path:
    """Sample and score the base and every LoRA, write one row per (arm, prompt, seed) and `summary.json`.

    Raises:
        InputError: a comparison or a strength names an unknown arm, the training metric would be the only judge, or
            the scores cannot be made (`score.check`).
    """
    arms: dict[str, Path | None] = {BASE: None, **loras}
    _check(cfg, list(arms))
    inputs = {"prompts": prompts, **{f"lora_{name}": lora_folder(str(path)) for name, path in loras.items()}}
    with open_artifact(
        out, stage="evaluation", config=cfg, inputs=inputs, row_type=EvalRow, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        rows = [
            row for arm, lora in arms.items() for row in _evaluate_arm(cfg, arm, lora, prompts, out, workers)
        ]
        artifact.append(*(r for r in rows if r.id not in artifact.done))
        write_json_atomic(out / "summary.json", summarize(cfg, rows))
        artifact.finish([r.id for r in rows])
    return out


def summarize(cfg: EvaluateConfig, rows: Sequence[EvalRow]) -> dict[str, Any]:
    """Means per arm, paired comparisons, and which arms break a guard (blur or lost motion sold as gain)."""
    values: dict[str, dict[str, dict[tuple[str, int], float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        for metric, value in row.metrics.items():
            if value is not None:
                values[row.arm][metric][row.prompt_id, row.seed] = value
    arms = {arm: {m: float(np.mean(list(v.values()))) for m, v in by.items()} for arm, by in values.items()}
    comparisons = [
        compared
        for arm, against in cfg.comparisons
        for metric in values[arm]
        if (compared := _compare(cfg, arm, against, metric, values[arm][metric], values[against][metric]))
    ]
    return {
        "arms": arms,
        "comparisons": comparisons,
        "guards": {arm: guard_problems(arms[BASE], arms[arm]) for arm in arms if arm != BASE},
        "failed_rows": sum(r.status == "failed" for r in rows),
        "protocol": protocol_hash(cfg.score),
    }


def guard_problems(base: Mapping[str, float], arm: Mapping[str, float]) -> list[str]:
    """Why an arm is disqualified; empty when sharpness and motion are kept."""
    problems = [f"{m} could not be measured" for m in GUARDED if m not in base or m not in arm]
    if problems:
        return problems
    if arm["sharpness"] < SMALLEST_SHARPNESS * base["sharpness"]:
        problems.append(f"sharpness is {arm['sharpness'] / base['sharpness']:.1%} of the base's")
    if abs(arm["motion"] / base["motion"] - 1) > LARGEST_MOTION_CHANGE:
        problems.append(f"motion is {arm['motion'] / base['motion']:.1%} of the base's")
    return problems


def bootstrap_interval(
    differences: Float[np.ndarray, " n"], clusters: Sequence[str], resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of the mean, resampling whole prompts: seeds of one prompt are not independent."""
    names = sorted(set(clusters))
    index = np.array([names.index(c) for c in clusters])
    sums = np.bincount(index, differences, len(names))
    counts = np.bincount(index, minlength=len(names))
    drawn = np.random.default_rng(seed).integers(0, len(names), (resamples, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _compare(
    cfg: EvaluateConfig,
    arm: str,
    against: str,
    metric: str,
    ours: Mapping[tuple[str, int], float],
    theirs: Mapping[tuple[str, int], float],
) -> dict[str, Any] | None:
    keys = sorted(ours.keys() & theirs.keys())
    if not keys:
        return None
    differences = np.array([ours[k] - theirs[k] for k in keys])
    better = higher_is_better(metric)
    gains = differences if better else -differences
    interval = bootstrap_interval(differences, [k[0] for k in keys], cfg.resamples, cfg.bootstrap_seed)
    return {
        "arm": arm,
        "against": against,
        "metric": metric,
        "higher_is_better": better,
        "mean_difference": float(differences.mean()),
        "ci95": list(interval),
        "win_rate": float((gains > 0).mean() + 0.5 * (gains == 0).mean()),
        "n": len(keys),
    }


def _evaluate_arm(
    cfg: EvaluateConfig, arm: str, lora: Path | None, prompts: Path, out: Path, workers: int
) -> list[EvalRow]:
    strength = cfg.strengths.get(arm, cfg.sample.lora_strength)
    drawn = cfg.sample.model_copy(
        update={"lora": None if lora is None else str(lora), "lora_strength": strength}
    )
    samples = sample.run(drawn, prompts, out / "samples" / arm, workers=workers)
    scored = score.run(cfg.score, samples, out / "scores" / arm, prompts=prompts, workers=workers)
    scores = {s.id: s for s in read_rows(scored, Score)}
    rows = []
    for candidate in read_rows(samples, Candidate):
        # A candidate that failed was not scored; its own row says why.
        found = scores.get(candidate.id, candidate)
        assert candidate.seed is not None
        rows.append(
            EvalRow(
                id=f"{arm}/{candidate.id}",
                status=found.status,
                reason=found.reason,
                arm=arm,
                prompt_id=candidate.prompt_id,
                seed=candidate.seed,
                video=candidate.video and f"samples/{arm}/{candidate.video}",
                metrics=found.metrics if isinstance(found, Score) else {},
            )
        )
    return rows


def _check(cfg: EvaluateConfig, arms: list[str]) -> None:
    score.check(cfg.score)
    for name in {n for pair in cfg.comparisons for n in pair}:
        if name not in arms:
            raise InputError(f"cannot compare unknown arm '{name}'; arms are {', '.join(arms)}")
    for name in cfg.strengths:
        if name not in arms or name == BASE:
            raise InputError(f"a strength is given for '{name}', which is no LoRA that is compared")
    kin = KIN if cfg.trained_by in KIN else {cfg.trained_by}
    if cfg.trained_by and not set(score.metric_names(cfg.score)) - kin - set(GUARDED):
        raise InputError(
            f"the arms were trained by '{cfg.trained_by}' and nothing else would judge them: add other metrics"
        )
