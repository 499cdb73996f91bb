import pytest

from videogpa.report.exhibit import Exhibit
from videogpa.report.score_page import (
    Measurement,
    ShownVideo,
    _video_context,
    list_headline,
    metric_reasons,
    ranked,
    video_headline,
)
from videogpa.report.table import metric_facts
from videogpa.types import Score, WindowScore

FACTS = {
    "consistency": metric_facts("cross_view"),
    "motion": metric_facts("motion"),
    "sharpness": metric_facts("sharpness"),
}
ABOUT = Measurement(geometry="sfm", protocol="0", versions={}, config="{}", facts={})


def shown(id: str, value: float | None) -> ShownVideo:
    score = Score(id=id, video=f"clips/{id}.mp4", frames=5, metrics={"consistency": value})
    return ShownVideo(
        score=score, exhibit=Exhibit(frames=5, height=48, width=48, panels=["frames"]), folder=f"videos/{id}"
    )


def test_the_most_consistent_comes_first_and_the_unjudged_last():
    videos = [shown("none", None), shown("low", 0.2), shown("high", 0.9), shown("empty", None)]
    assert [v.score.id for v in ranked(videos)] == ["high", "low", "none", "empty"]


@pytest.mark.parametrize(
    ("values", "failed", "sentence"),
    [
        ([0.9], 0, "1 video: consistency 0.90"),
        ([0.9, 0.2, None], 1, "4 videos: consistency from 0.20 to 0.90, 1 cannot be judged, 1 failed"),
        ([], 2, "2 videos: 2 failed"),
    ],
)
def test_the_headline_counts_everything(values, failed, sentence):
    videos = [shown(f"v{i}", value) for i, value in enumerate(values)]
    broken = [Score(id=f"f{i}", video="x", status="failed", reason="broken") for i in range(failed)]
    assert list_headline(videos, broken) == sentence


def test_a_video_has_its_place_or_its_reason():
    assert video_headline(shown("a", 0.5), 2, 3) == "Consistency 0.50: place 2 of 3"
    assert video_headline(shown("a", 0.5), 1, 1) == "Consistency 0.50"
    assert video_headline(shown("a", None), 1, 0) == "a.mp4 cannot be judged"


def test_a_video_in_windows_says_which_one_is_shown():
    parts = tuple(
        WindowScore(first=f, frames=24, metrics={"consistency": v})
        for f, v in ((0, 0.9), (12, 0.4), (24, None))
    )
    video = shown("a", 0.65)
    score = video.score.model_copy(update={"windows": parts, "shown": 1})
    context = _video_context(ShownVideo(score=score, exhibit=video.exhibit, folder="a"), 1, [video], ABOUT)
    assert context["shown_window"].first == 12
    assert context["judged_windows"] == 2
    assert _video_context(video, 1, [video], ABOUT)["shown_window"] is None


def test_every_missing_number_has_its_own_reason():
    reason = "geometry: no texture; none at all; sharpness: its value is nan"
    score = Score(id="a", video="a", reason=reason, metrics=dict.fromkeys(FACTS))
    assert metric_reasons(score, FACTS) == {
        "consistency": "no texture; none at all",
        "motion": "no texture; none at all",
        "sharpness": "its value is nan",
    }
    own = Score(
        id="a",
        video="a",
        reason="cross_view: no motion",
        metrics={"consistency": None, "motion": 0.0, "sharpness": 1.0},
    )
    assert metric_reasons(own, FACTS) == {"consistency": "no motion"}


def test_a_video_that_was_not_scored_by_consistency_is_not_called_unjudged():
    flat = ShownVideo(
        score=Score(id="a", video="clips/a.mp4", frames=5, metrics={"sharpness": 0.1}),
        exhibit=Exhibit(frames=5, height=48, width=48, panels=["frames"]),
        folder="videos/a",
    )
    assert video_headline(flat, 1, 0) == "a.mp4"
    assert list_headline([flat, flat], []) == "2 videos"
    assert ranked([flat, shown("high", 0.9)])[0].score.id == "high"
