"""The published set-up of VideoGPA (arXiv 2601.23286 and its code), as published (`exact`) and corrected.

Paper and code: LoRA of rank 64 and alpha 128 on the attention's matrices, AdamW at 5e-6 with 500 steps of warm-up and
a cosine, 16 pairs a step (8 processes, two pairs each), ten frames a video for the scorer, pairs whose reprojection
errors are at least .05 apart, the best against the worst of a prompt's eight videos. Code alone: beta 1 on mean
errors; torch's weight decay, .01; bfloat16; every block recomputed. What is different here: `docs/recipes.md`.
"""

from pathlib import Path
from typing import Any

from videogpa.dpo.config import TrainConfig
from videogpa.errors import InputError
from videogpa.run import RunConfig
from videogpa.stages.evaluate import EvaluateConfig
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import FilePrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig


def run_config(
    *,
    family: str,
    drawn: dict[str, Any],
    training: dict[str, Any],
    model: str | None,
    prompts: Path | None,
    held_out: Path | None,
    geometry: str,
    geometry_options: dict[str, Any],
    evaluation_geometry: str | None,
    evaluation_geometry_options: dict[str, Any],
    accepted_licenses: tuple[str, ...],
    device: str,
    exact: bool,
) -> RunConfig:
    """A whole run on a model folder and two files of prompts.

    Args:
        drawn: how this model draws (`SampleConfig`).
        training: where this model's training differs (`TrainConfig`).
        geometry: the model that judges candidates and, unless `evaluation_geometry` is given, held-out videos;
            published are `vggt` for the first and `depth_anything_3` for the second.
        exact: as published instead of the corrected default.

    Raises:
        InputError: no model or prompts.
    """
    if model is None or prompts is None or held_out is None:
        raise InputError("this recipe needs --model FOLDER, --prompts FILE and --held-out FILE")
    metric = "paper_reward" if exact else "consistency"
    sample = SampleConfig(
        family=family, model=model, candidates=8, seed=42, dtype="bfloat16", device=device,
        accepted_licenses=accepted_licenses, **drawn,
    )  # fmt: skip
    score = ScoreConfig(
        geometry=geometry,
        geometry_options=geometry_options,
        accepted_licenses=accepted_licenses,
        max_frames=10,
    )
    second = {"geometry": evaluation_geometry, "geometry_options": evaluation_geometry_options}
    published = {
        "beta": 1.0,
        "stop_at_chosen_rise": None,
        "stop_when_hopeless": False,
        "steps": 10_000,
    } | training
    corrected = {"beta": None, "steps": 1_000}
    dpo = TrainConfig(
        family=family,
        accepted_licenses=accepted_licenses,
        rank=64,
        alpha=128.0,
        batch_pairs=16,
        micro_pairs=1,
        learning_rate=5e-6,
        warmup_steps=500 if exact else 100,
        schedule="cosine",
        precision="bfloat16",
        recompute=1.0,
        held_out_fraction=0.05,
        evaluation_draws=1,
        evaluate_every=200,
        checkpoint_every=100,
        **({"weight_decay": 0.01} | (published if exact else training | corrected)),
    )
    return RunConfig(
        train_prompts=(FilePrompts(), prompts),
        held_out_prompts=(FilePrompts(), held_out),
        sample=sample,
        score=score.model_copy(update={"metrics": (metric, "motion", "sharpness")}),
        pair=PairConfig(metric=metric, min_margin=0.05)
        if exact
        else PairConfig(metric=metric, motion_match=0.15, least_motion=0.95),
        trainings={"dpo": dpo, "dpo_random": dpo.model_copy(update={"labels": "shuffled"})},
        evaluate=EvaluateConfig(
            sample=sample.model_copy(update={"candidates": 2, "seed": 1_000, "keep_latents": False}),
            score=score.model_copy(update=second if evaluation_geometry else {}),
            comparisons=(("dpo", "base"), ("dpo", "dpo_random"), ("dpo_random", "base")),
            trained_by=metric,
        ),
    )
