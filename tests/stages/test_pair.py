import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogpa.artifact import open_artifact, read_rows
from videogpa.errors import InputError
from videogpa.stages import pair
from videogpa.stages.pair import PairConfig, form_pairs
from videogpa.types import PreferencePair, Score


def score(k: int, value: float | None, motion: float | None = 1.0, prompt: str = "p", **fields) -> Score:
    metrics = {"consistency": value, "paper_reward": None if value is None else 1 - value, "motion": motion}
    return Score(id=f"{prompt}-{k}", prompt_id=prompt, video=f"{k}.mkv", frames=9, metrics=metrics, **fields)


def test_best_is_chosen_against_worst():
    (found,) = form_pairs(PairConfig(), "p", [score(0, 0.5), score(1, 0.9), score(2, 0.1)])
    assert (found.chosen, found.rejected) == ("p-1", "p-2")
    assert found.margin == pytest.approx(0.8)


def test_direction_comes_from_the_metric():
    group = [score(0, 0.2), score(1, 0.7)]
    (found,) = form_pairs(PairConfig(metric="paper_reward"), "p", group)
    assert found.chosen == "p-1"  # its paper reward, an error, is the lower one
    assert found.margin > 0


def test_a_failed_measurement_never_wins():
    group = [score(0, None), score(1, 0.2), score(2, 0.3), score(3, 0.99, status="failed", reason="broken")]
    (found,) = form_pairs(PairConfig(), "p", group)
    assert {found.chosen, found.rejected} == {"p-1", "p-2"}


def test_as_many_pairs_as_asked_for_with_margins_above_the_threshold():
    group = [score(k, k / 10) for k in range(8)]
    pairs = form_pairs(PairConfig(pairs_per_prompt=4), "p", group)
    assert [round(p.margin, 6) for p in pairs] == [0.7, 0.5, 0.3, 0.1]
    assert len(form_pairs(PairConfig(pairs_per_prompt=4, min_margin=0.2), "p", group)) == 3


def test_candidates_may_be_used_again_where_margins_are_wide():
    group = [score(k, k / 10) for k in range(4)]
    pairs = form_pairs(PairConfig(pairs_per_prompt=6, reuse_candidates=True), "p", group)
    assert [round(p.margin, 6) for p in pairs] == [0.3, 0.2, 0.2, 0.1, 0.1, 0.1]
    assert len({p.id for p in pairs}) == 6


def test_motion_must_match():
    group = [score(0, 0.9, motion=0.5), score(1, 0.8, motion=1.0), score(2, 0.1, motion=1.05)]
    (found,) = form_pairs(PairConfig(motion_match=0.1), "p", group)
    assert (found.chosen, found.rejected) == ("p-1", "p-2")


def test_the_chosen_may_be_asked_not_to_be_the_calmer_one():
    group = [score(0, 0.9, motion=0.9), score(1, 0.5, motion=1.2), score(2, 0.1, motion=1.0)]
    (found,) = form_pairs(PairConfig(least_motion=1.0), "p", group)
    assert (found.chosen, found.rejected) == ("p-1", "p-2")


def test_unknown_motion_matches_nothing():
    assert not form_pairs(PairConfig(motion_match=0.1), "p", [score(0, 0.9, motion=None), score(1, 0.1)])


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=2, max_size=9),
    st.integers(1, 4),
    st.floats(0, 0.5),
)
def test_pairs_are_disjoint_ordered_and_wide_enough(values, most, min_margin):
    cfg = PairConfig(pairs_per_prompt=most, min_margin=min_margin)
    found = form_pairs(cfg, "p", [score(k, v) for k, v in enumerate(values)])
    used = [c for p in found for c in (p.chosen, p.rejected)]
    assert len(used) == len(set(used)) <= 2 * most
    assert all(
        p.margin > min_margin and math.isclose(p.margin, p.chosen_value - p.rejected_value) for p in found
    )
    assert sorted((p.margin for p in found), reverse=True) == [p.margin for p in found]


def write_scores(folder, rows):
    with open_artifact(folder, stage="scores", config=PairConfig(), inputs={}, row_type=Score) as artifact:
        artifact.append(*rows)
        artifact.finish([r.id for r in rows])


def test_dropped_prompts_keep_their_reason(tmp_path):
    rows = [
        score(0, 0.9),
        score(1, 0.2),
        score(0, None, prompt="q", reason="no texture"),
        score(1, 0.5, prompt="q"),
    ]
    write_scores(tmp_path / "scores", rows)
    out = pair.run(PairConfig(), tmp_path / "scores", tmp_path / "pairs")
    assert [p.prompt_id for p in read_rows(out, PreferencePair)] == ["p"]
    assert '"q"' in (out / "dropped.json").read_text()
    assert "no texture" in (out / "dropped.json").read_text()


def test_the_licences_of_the_weights_that_judged_go_along(tmp_path):
    write_scores(tmp_path / "scores", [score(0, 0.9), score(1, 0.2)])
    out = pair.run(PairConfig(), tmp_path / "scores", tmp_path / "unrecorded")
    assert pair.licenses_of(out) == {}
    (tmp_path / "scores" / "licenses.json").write_text('{"vggt": "CC-BY-NC-4.0"}')
    out = pair.run(PairConfig(), tmp_path / "scores", tmp_path / "pairs")
    assert pair.licenses_of(out) == {"vggt": "CC-BY-NC-4.0"}


def test_no_pair_at_all_is_an_error(tmp_path):
    write_scores(tmp_path / "scores", [score(0, 0.5), score(1, 0.5)])
    with pytest.raises(InputError, match="no preference pair"):
        pair.run(PairConfig(), tmp_path / "scores", tmp_path / "pairs")
    with pytest.raises(InputError, match="'beauty'"):
        pair.run(PairConfig(metric="beauty"), tmp_path / "scores", tmp_path / "pairs")
