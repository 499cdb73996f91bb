"""VideoGPA on CogVideoX-5B-I2V, image to video: --model, --prompts (with first frames) and --held-out."""

from typing import Any

from videogpa.recipes.published import run_config
from videogpa.run import RunConfig

DRAWN = {"frames": 49, "height": 480, "width": 720, "steps": 50, "guidance_scale": 6.0, "fps": 8}
"""The pipeline's own size and frames; steps, guidance and rate of the published generation script."""
TRAINING: dict[str, Any] = {}


def recipe(**given: Any) -> RunConfig:
    """The run (`published.run_config` says what has to be given)."""
    return run_config(family="cogvideox", drawn=DRAWN, training=TRAINING, **given)
