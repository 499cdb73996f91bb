import pytest

from videogpa.stages.windows import order, over_windows
from videogpa.types import WindowScore


def window(value, reason=None, motion=0.1):
    return WindowScore(first=0, frames=8, metrics={"consistency": value, "motion": motion}, reason=reason)


def test_a_clip_is_worth_the_mean_of_its_windows():
    values, reasons = over_windows([window(0.6), window(0.8), window(0.7)])
    assert values == pytest.approx({"consistency": 0.7, "motion": 0.1})
    assert reasons == []


def test_windows_that_cannot_judge_do_not_count_while_half_can():
    still = window(None, "geometry: the camera stands still", motion=None)
    values, reasons = over_windows([window(0.6), still])
    assert values["consistency"] == 0.6
    assert reasons == ["geometry: 1 of 2 windows cannot be judged; the first: the camera stands still"]


def test_fewer_than_half_give_no_value_but_a_reason():
    still = window(None, "geometry: the camera stands still", motion=None)
    values, reasons = over_windows([window(0.6), still, still])
    assert values["consistency"] is None
    assert reasons == ["geometry: 2 of 3 windows cannot be judged; the first: the camera stands still"]


def test_every_reason_stays_with_what_could_not_judge():
    still = window(None, "geometry: the camera stands still", motion=None)
    grey = window(None, "consistency: no contrast")
    values, reasons = over_windows([window(0.6), still, grey])
    assert values == {"consistency": None, "motion": pytest.approx(0.1)}
    assert reasons == [
        "geometry: 1 of 3 windows cannot be judged; the first: the camera stands still",
        "consistency: 1 of 3 windows cannot be judged; the first: no contrast",
    ]


def test_the_lowest_window_comes_first_and_the_unjudged_last():
    low, high, unknown = window(0.2), window(0.9), window(None)
    assert sorted([unknown, high, low], key=order) == [low, high, unknown]
