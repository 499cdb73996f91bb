import math

import pytest
from pydantic import ValidationError

from videogpa.types import EvalRow, PreferencePair, Score


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
