"""VideoGPA on CogVideoX1.5-5B, text to video: --model, --prompts and --held-out; --exact as published."""

from typing import Any

from videogpa.recipes.published import run_config
from videogpa.run import RunConfig

DRAWN = {"frames": 81, "height": 768, "width": 1360, "steps": 50, "guidance_scale": 6.0, "fps": 16}
"""Of the published generation script."""
TRAINING: dict[str, Any] = {"steps": 1_500, "weight_decay": 1e-3}


def recipe(**given: Any) -> RunConfig:
    """The run (`published.run_config` says what has to be given)."""
    return run_config(family="cogvideox", drawn=DRAWN, training=TRAINING, **given)
