"""The frozen rows that stages exchange, one JSON line each."""

import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat

CONSISTENCY = "consistency"
"""The metric that is the overall score."""
MetricValues = dict[str, FiniteFloat | None]
"""By metric; None where it cannot judge. NaN is refused: it would win or lose comparisons at random."""


NEVER_IN_NAMES = re.compile(r"[\x00-\x1f\\]")


def _stays_inside(name: str) -> str:
    # Every row has several names: pathlib would take longer than all the rest of reading it.
    parts = {*name.split("/")}
    if name.startswith("/") or ".." in parts or not parts - {"", "."} or NEVER_IN_NAMES.search(name):
        raise ValueError("is no name of a file inside the folder")
    return name


Name = Annotated[str, AfterValidator(_stays_inside)]
"""What names a file of an artifact, or becomes a part of its name."""


def _is_finite(value: dict[str, Any]) -> dict[str, Any]:
    json.dumps(value, allow_nan=False)
    return value


World = Annotated[dict[str, Any], AfterValidator(_is_finite)]


class Row(BaseModel):
    """One record of an artifact. A failed row keeps its reason and has no values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Name
    status: Literal["ok", "failed"] = "ok"
    reason: str | None = None


class AnyRow(Row):
    """What all rows share, whatever else they hold."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Prompt(Row):
    """What to draw: a caption, optionally a first frame, optionally the procedural scene it came from.

    `image` is a path relative to the prompts folder. `world` is the scene description that lets an
    oracle render the one true continuation; it is None for prompts from anywhere else.
    """

    text: str
    image: Name | None = None
    world: World | None = None


class Candidate(Row):
    """One video of one (prompt, seed). Paths are relative to the candidates folder; `seed` is None for a video that
    was made elsewhere.
    """

    prompt_id: Name
    seed: int | None = None
    video: Name | None = None
    preview: Name | None = None
    latents: Name | None = None
    conditioning: Name | None = None


class WindowScore(BaseModel):
    """What the metrics say about `frames` consecutive frames of a long video, from frame `first` on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first: int
    frames: int
    metrics: MetricValues = {}
    reason: str | None = None


class Score(Row):
    """What the metrics say about one video; where one cannot judge, `reason` says why.

    Of a video looked at in windows the metrics are the means over those that could judge, and `shown` is the index
    of the window whose geometry is kept and shown, the one with the lowest score.
    """

    prompt_id: str | None = None
    video: str
    frames: int = 0
    metrics: MetricValues = {}
    geometry: str | None = None
    windows: tuple[WindowScore, ...] = ()
    shown: int | None = None


class PreferencePair(Row):
    """Two candidates of one prompt; `margin` = chosen value - rejected value in the direction of better.

    A number is None where the source of a preference gives none (a vote).
    """

    prompt_id: Name
    chosen: Name
    rejected: Name
    chosen_value: FiniteFloat | None = None
    rejected_value: FiniteFloat | None = None
    margin: FiniteFloat | None = None


class EvalRow(Row):
    """All metrics of one (arm, prompt, seed)."""

    arm: Name
    prompt_id: Name
    seed: int
    video: Name | None = None
    metrics: MetricValues = {}


class FidelityRow(Row):
    """All metrics of one clip whose faults or whose truth are known.

    `scene` and `strength` place it in the battery; `prompt_id` is set for samples of a generator instead.
    """

    kind: Literal["clean", "fault", "degradation", "legitimate", "invariance", "gloss", "sample"]
    change: str
    strength: int = 0
    scene: int | None = None
    prompt_id: str | None = None
    geometry: str
    metrics: MetricValues = {}
