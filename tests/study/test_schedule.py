from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogpa.study.plan import StudyConfig, StudyItem
from videogpa.study.schedule import schedule


def made(pairs: int, checks: int = 0) -> list[StudyItem]:
    kinds = ["pair"] * pairs + ["check"] * checks
    return [
        StudyItem(
            id=f"{kind}{i}", kind=kind, prompt_id="p", text="t", seed=0, arms=("a", "b"), videos=("x", "y"),
            expected="first" if kind == "check" else None,
        )
        for i, kind in enumerate(kinds)
    ]  # fmt: skip


@given(st.integers(4, 40), st.integers(0, 6), st.integers(0, 3), st.integers(0, 2), st.integers(0, 500))
def test_a_hand_is_whole_and_the_same_every_time(pairs, more, checks, repeats, rater):
    cfg = StudyConfig(items=4, checks=checks, repeats=repeats)
    items = made(pairs, checks + more)
    shown = schedule(cfg, items, rater)
    assert shown == schedule(cfg, items, rater)
    fresh = [s.item.id for s in shown if s.item.kind == "pair" and not s.again]
    assert len(fresh) == len(set(fresh)) == 4
    assert sum(s.item.kind == "check" for s in shown) == checks
    assert shown[0].item.kind == "pair"
    for i, again in enumerate(shown):
        if again.again:
            before = [s for s in shown[:i] if s.item == again.item]
            assert len(before) == 1
            assert before[0].left != again.left
    assert sum(s.again for s in shown) == repeats


@pytest.mark.parametrize("pairs", [20, 23])
def test_all_pairs_are_seen_about_as_often_and_on_both_sides(pairs):
    cfg, items = StudyConfig(items=5, checks=0, repeats=0), made(pairs)
    shown = [s for rater in range(200) for s in schedule(cfg, items, rater)]
    seen = Counter(s.item.id for s in shown)
    assert len(seen) == pairs
    assert max(seen.values()) <= 1.4 * min(seen.values())
    assert 0.45 < sum(s.left == "first" for s in shown) / len(shown) < 0.55


def test_raters_of_one_deck_see_other_pairs():
    cfg, items = StudyConfig(items=5, checks=0, repeats=0), made(10)
    first, second = ({s.item.id for s in schedule(cfg, items, rater)} for rater in (0, 1))
    assert first.isdisjoint(second)


@given(st.integers(0, 500))
def test_a_check_is_of_a_video_that_no_pair_of_the_rater_shows(rater):
    """As far as there are such: here eight clips, of which a hand shows four."""
    pairs = [item.model_copy(update={"videos": (f"base{i}", f"dpo{i}")}) for i, item in enumerate(made(8))]
    checks = [
        item.model_copy(update={"videos": (f"base{i}", f"broken{i}")}) for i, item in enumerate(made(0, 8))
    ]
    shown = schedule(StudyConfig(items=4, checks=2, repeats=1), [*pairs, *checks], rater)
    seen = {video for s in shown if s.item.kind == "pair" for video in s.item.videos}
    assert all(seen.isdisjoint(s.item.videos) for s in shown if s.item.kind == "check")
