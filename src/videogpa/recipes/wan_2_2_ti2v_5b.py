"""VideoGPA on Wan2.2-TI2V-5B: --model, --prompts (with first frames or without) and --held-out."""

from typing import Any

from videogpa.recipes.published import run_config
from videogpa.run import RunConfig

DRAWN = {"frames": 81, "height": 704, "width": 1280, "steps": 50, "guidance_scale": 5.0, "fps": 24}
"""Frames, steps, guidance and rate of the published generation script; the size is the model's own."""
TRAINING: dict[str, Any] = {}


def recipe(**given: Any) -> RunConfig:
    """The run (`published.run_config` says what has to be given)."""
    return run_config(family="wan", drawn=DRAWN, training=TRAINING, **given)
