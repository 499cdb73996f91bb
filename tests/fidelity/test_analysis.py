import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogpa.fidelity.analysis import by_change, mean_ranks, verdict, weakest_drop, within_prompt_spearman
from videogpa.fidelity.battery import Case, cases

CASES = [case for scene in range(3) for case in cases(scene)]


def perfect(case: Case) -> float:
    return {"fault": 1 - 0.1 * case.strength, "degradation": 0.9}.get(case.kind, 1.0)


def test_a_perfect_metric():
    found = verdict({c: perfect(c) for c in CASES}, CASES)
    assert (found.judged, found.ranking, found.monotone) == (1, 1, 1)
    assert (found.above_clean, found.false_alarms) == (0, 0)
    assert found.threshold == pytest.approx(0.1)


def test_a_constant_metric_ranks_nothing():
    found = verdict(dict.fromkeys(CASES, 1.0), CASES)
    assert (found.ranking, found.monotone, found.above_clean, found.false_alarms) == (0, 0, 0, 0)


def test_what_is_not_judged_is_counted_and_not_ranked():
    values = {c: perfect(c) for c in CASES if not (c.change == "wobble" and c.strength == 2)}
    found = verdict(values, CASES)
    faulty = sum(c.kind == "fault" for c in CASES)
    assert found.judged == pytest.approx(1 - 3 / faulty)
    assert found.ranking == 1
    rows = {r.change: r for r in by_change(values, CASES)}
    assert rows["wobble"].monotone is None
    assert rows["wobble"].drops[1] is None
    assert rows["melt"].monotone == 1


def test_a_punished_mover_is_a_false_alarm():
    values = {c: 0.8 if c.change == "mover" else perfect(c) for c in CASES}
    kinds = len({c.change for c in CASES if c.kind == "legitimate"})
    assert verdict(values, CASES).false_alarms == pytest.approx(1 / kinds)
    rows = {r.change: r for r in by_change(values, CASES)}
    assert rows["mover"].false_alarms == 1
    assert rows["specular"].false_alarms == 0


def test_the_waving_curtain_is_compared_with_the_still_one():
    values = {c: 0.5 if "curtain" in c.change or c.change == "waving_surface" else perfect(c) for c in CASES}
    assert verdict(values, CASES).false_alarms == 0


def test_rewarded_blur_is_above_clean():
    values = {c: 1.1 if c.change == "blur" else perfect(c) for c in CASES}
    kinds = len({c.change for c in CASES if c.kind == "degradation"})
    assert verdict(values, CASES).above_clean == pytest.approx(1 / kinds)


def test_the_weakest_fault_sets_the_threshold():
    values = {c: 0.97 if c.change == "vanish" and c.strength == 1 else perfect(c) for c in CASES}
    assert weakest_drop(values, CASES) == pytest.approx(0.03)


def test_nothing_judged_says_nothing():
    found = verdict({}, CASES)
    assert found.judged == 0
    assert found.ranking is found.monotone is found.threshold is found.false_alarms is None


@given(st.permutations(range(6)))
def test_rank_correlation_within_a_prompt(order):
    same = [(float(x), 10.0 * x) for x in order]
    assert within_prompt_spearman([same, [(-a, b) for a, b in same]])[0] == pytest.approx(0)
    mean, error, count = within_prompt_spearman([same, same])
    assert (mean, error, count) == (pytest.approx(1), pytest.approx(0), 2)


def test_groups_without_a_ranking_are_left_out():
    ranked = [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (4.0, 4.0)]
    ties, few, gaps = [(1.0, float(i)) for i in range(5)], ranked[:3], [*ranked[:3], (None, 4.0)]
    assert within_prompt_spearman([ranked, ties, few, gaps])[2] == 1
    assert math.isnan(within_prompt_spearman([ties])[0])


def test_mean_ranks_leave_out_what_one_column_leaves_out():
    assert mean_ranks([[0.1, 0.3, None, 0.2], [5.0, 7.0, 6.0, 9.0]]) == [1.0, 2.5, None, 2.5]
