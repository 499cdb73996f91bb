"""What a study asks, whom it believes and when it stops: all of it written down before the first vote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from videogpa.artifact import read_json
from videogpa.errors import InputError, first_problem
from videogpa.types import Name, Row

Choice = Literal["left", "right", "tie"]
Place = Literal["first", "second"]
"""Of an item's two videos; which of them is shown on the left is drawn for every rater."""


class Question(BaseModel):
    """One thing to decide about two videos; `key` names it in tables."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")
    text: str
    hint: str = ""


class Exclusion(BaseModel):
    """Whose votes do not count, decided before there are any.

    A rater is left out who has not finished (unless `unfinished` raters count), who fails more than `failed_checks`
    attention checks, whose median time for an item is below `median_seconds`, or who repeats fewer than
    `repeat_agreement` of the answers on items that come again with sides exchanged (None: not looked at).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    failed_checks: int = Field(default=0, ge=0)
    median_seconds: FiniteFloat = Field(default=1.5, ge=0)
    repeat_agreement: FiniteFloat | None = Field(default=None, ge=0, le=1)
    unfinished: bool = False


class StudyConfig(BaseModel):
    """A study. `comparisons` are (arm, against), by default every arm of the evaluation against the base.

    A rater sees `items` pairs, `checks` attention checks (the first question of one has a right answer) and `repeats`
    of the pairs again. `prompts` limits the pairs to so many prompts. No new raters are let in once `raters` have
    finished (None: never).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = "Which video holds together?"
    comparisons: tuple[tuple[str, str], ...] | None = None
    questions: tuple[Question, ...] = (
        Question(
            key="consistent",
            text="Which one is more consistent in 3D?",
            hint="As if one real, solid scene had been filmed: nothing bends, melts, appears or vanishes.",
        ),
        Question(key="better", text="Which one looks better?"),
    )
    tie: bool = False
    tags: tuple[str, ...] = ("bends or melts", "appears or vanishes", "flickers", "blurry", "hardly moves")
    items: int = Field(default=20, ge=1)
    checks: int = Field(default=2, ge=0)
    repeats: int = Field(default=2, ge=0)
    prompts: int | None = Field(default=None, ge=1)
    raters: int | None = Field(default=None, ge=1)
    exclusion: Exclusion = Exclusion()
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "StudyConfig":
        if not self.questions or len({q.key for q in self.questions}) < len(self.questions):
            raise ValueError("a study needs questions with different keys")
        if 2 * self.repeats > self.items:
            raise ValueError(f"{self.repeats} repeats need twice as many items, not {self.items}")
        if len(set(self.tags)) < len(self.tags):
            raise ValueError("a reason is listed twice")
        met: set[frozenset[str]] = set()
        for sides in self.comparisons or ():
            if len(set(sides)) < 2 or frozenset(sides) in met:
                raise ValueError(f"{sides[0]} against {sides[1]}: an arm with itself, or compared already")
            met.add(frozenset(sides))
        return self

    @property
    def screens(self) -> int:
        """How many a rater sees."""
        return self.items + self.repeats + self.checks


def study_config(file: Path | None, given: Mapping[str, Any]) -> StudyConfig:
    """What a JSON file says, and over it what is given; of the exclusion rules, too, each by itself.

    Raises:
        InputError: the file cannot be read, or something in it or given does not fit.
    """
    where = "the study" if file is None else str(file)
    try:
        told = {} if file is None else read_json(file)
        rules = {**told.get("exclusion", {}), **given.get("exclusion", {})}
        return StudyConfig.model_validate({**told, **given, "exclusion": rules})
    except ValidationError as error:
        raise InputError(f"{where} cannot be set up so: {first_problem(error)}") from error
    except (AttributeError, OSError, TypeError, ValueError) as error:
        raise InputError(f"{where} cannot be set up so: {error}") from error


class StudyItem(Row):
    """Two videos of one prompt and seed. `arms` and `videos` (relative to the study) are those of the first and the
    second; `expected` is the right answer of an attention check.
    """

    kind: Literal["pair", "check"]
    prompt_id: Name
    text: str
    seed: int
    arms: tuple[str, str]
    videos: tuple[Name, Name]
    expected: Place | None = None
