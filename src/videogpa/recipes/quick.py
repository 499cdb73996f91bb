"""The embedded recipe at its smallest, to see that everything works; its figures mean nothing."""

from videogpa.recipes import embedded
from videogpa.run import RunConfig
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import WorldPrompts


def recipe() -> RunConfig:
    """Five prompts of three candidates of five frames, two sampler steps, six training steps."""
    full = embedded.recipe()
    return full.model_copy(
        update={
            "train_prompts": WorldPrompts(split="train", count=5),
            "held_out_prompts": WorldPrompts(split="held_out", count=2),
            "sample": full.sample.model_copy(update={"candidates": 3, "steps": 2, "frames": 5}),
            "pair": PairConfig(metric=embedded.REWARD),
            "trainings": {
                arm: training.model_copy(
                    update={
                        "steps": 6,
                        "batch_pairs": 2,
                        "evaluate_every": 2,
                        "checkpoint_every": 2,
                        "stop_at_chosen_rise": None,
                    }
                )
                for arm, training in full.trainings.items()
            },
            "evaluate": full.evaluate.model_copy(
                update={
                    "sample": full.evaluate.sample.model_copy(
                        update={"candidates": 2, "steps": 2, "frames": 5}
                    )
                }
            ),
        }
    )
