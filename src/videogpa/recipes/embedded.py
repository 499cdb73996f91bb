"""The whole method on the embedded models, for two CPU cores."""

from videogpa.dpo.config import TrainConfig
from videogpa.run import RunConfig
from videogpa.stages.evaluate import EvaluateConfig
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig

REWARD = "edge_agreement"


def recipe(seed: int = 0) -> RunConfig:
    """DPO by how well edges agree between frames, and the same training on shuffled labels as its control.

    `seed` decides the candidates' noise and the training; the evaluation is the same for every seed.
    """
    drawn = SampleConfig(candidates=6, seed=seed, steps=8, previews=False)
    # What pairs need; held-out videos are measured by everything.
    score = ScoreConfig(geometry="embedded", metrics=(REWARD, "consistency", "motion", "sharpness"))
    dpo = TrainConfig(
        objective="dpo",
        beta=2000.0,
        rank=16,
        alpha=16.0,
        # Less than one pass over the pairs of 96 prompts: seeing them again costs some of the gain (docs/results.md).
        steps=50,
        batch_pairs=8,
        learning_rate=2e-4,
        evaluation_draws=2,
        evaluate_every=50,
        seed=seed,
    )
    return RunConfig(
        train_prompts=WorldPrompts(split="train", count=96),
        held_out_prompts=WorldPrompts(split="held_out", count=48),
        sample=drawn,
        score=score,
        pair=PairConfig(
            metric=REWARD, pairs_per_prompt=8, reuse_candidates=True, motion_match=0.15, least_motion=0.95
        ),
        trainings={"dpo": dpo, "dpo_random": dpo.model_copy(update={"labels": "shuffled"})},
        evaluate=EvaluateConfig(
            sample=drawn.model_copy(update={"candidates": 2, "seed": 1_000, "keep_latents": False}),
            score=ScoreConfig(geometry="embedded"),
            comparisons=(("dpo", "base"), ("dpo", "dpo_random"), ("dpo_random", "base")),
            primary="oracle_unexplained",
            trained_by=REWARD,
        ),
    )
