"""A recipe that reads the prompts it is given and is then refused: its held-out prompts do not exist."""

from pathlib import Path
from typing import Any

from videogpa.recipes import quick
from videogpa.run import RunConfig
from videogpa.stages.prompts import FilePrompts


def recipe(**given: Any) -> RunConfig:
    """The quick recipe with `--prompts`."""
    changes = {
        "train_prompts": (FilePrompts(), given["prompts"] or Path("nothing.json")),
        "held_out_prompts": (FilePrompts(), Path("nothing.json")),
    }
    return quick.recipe().model_copy(update=changes)
