"""A whole run that takes seconds; its figures mean nothing."""

from videogpa.recipes import quick
from videogpa.run import RunConfig
from videogpa.stages.prompts import WorldPrompts


def recipe() -> RunConfig:
    """Two prompts of two candidates; one training of four steps; one held-out prompt of two seeds."""
    full = quick.recipe()
    small = {"candidates": 2, "frames": 5, "steps": 2}
    metrics = ("consistency", "motion", "sharpness", "oracle_psnr")
    training = full.trainings["dpo"].model_copy(
        update={"steps": 4, "rank": 2, "reference_draws": 1, "beta": None}
    )
    evaluation = {
        "sample": full.evaluate.sample.model_copy(update=small),
        "score": full.score.model_copy(update={"metrics": metrics}),
        "comparisons": (("dpo", "base"),),
        "resamples": 100,
    }
    return full.model_copy(
        update={
            "train_prompts": WorldPrompts(split="train", count=2),
            "held_out_prompts": WorldPrompts(split="held_out", count=1),
            "sample": full.sample.model_copy(update=small),
            "trainings": {"dpo": training},
            "evaluate": full.evaluate.model_copy(update=evaluation),
        }
    )
