import math

import pytest
from pydantic import ValidationError

from videogpa.types import Candidate, EvalRow, PreferencePair, Prompt, Score


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_no_number_is_no_value(value):
    with pytest.raises(ValidationError, match="finite"):
        Score(id="a", video="a.mkv", metrics={"motion": value})
    with pytest.raises(ValidationError, match="finite"):
        EvalRow(id="a", arm="base", prompt_id="p", seed=0, metrics={"motion": value})
    with pytest.raises(ValidationError, match="finite"):
        PreferencePair(
            id="a",
            prompt_id="p",
            chosen="a",
            rejected="b",
            chosen_value=value,
            rejected_value=0,
            margin=value,
        )


@pytest.mark.parametrize("name", ["", ".", "../a", "a/../../b", "/etc/passwd", "a\0b", "a\nb", "a\\b"])
def test_no_name_leads_out_of_its_folder(name):
    with pytest.raises(ValidationError, match="no name of a file inside"):
        Prompt(id=name, text="a room")
    with pytest.raises(ValidationError, match="no name of a file inside"):
        Candidate(id="a", prompt_id="p", video=name)


def test_a_scene_has_finite_numbers():
    with pytest.raises(ValidationError, match="Out of range"):
        Prompt.model_validate_json('{"id": "a", "text": "a room", "world": {"seed": Infinity}}')
