import pytest

from tests.report.test_findings import comparison, summary
from videogpa.report.findings import OutsideMetric
from videogpa.report.table import TITLES, metric_facts, table_rows


def facts(*names: str):
    roles = {"motion": "guard", "cross_view": "primary", "oracle_psnr": "truth", "oracle_flow_epe": "truth"}
    roles |= {"oracle_bias2": "between_seeds", "oracle_variance": "neither", "consistency": "made"}
    return [metric_facts(name, roles.get(name, "other")) for name in names]


def test_metrics_are_grouped_by_their_part_in_the_evidence():
    names = (
        *("motion", "oracle_variance", "depth_agreement", "oracle_psnr", "oracle_bias2", "consistency"),
        "cross_view",
    )
    found = summary(*(comparison(n, "better") for n in names))
    groups = table_rows(found, facts(*names))
    assert list(groups) == list(TITLES.values())
    assert [row.metric.name for rows in groups.values() for row in rows] == list(reversed(names))


def test_right_is_better_whatever_the_direction_of_the_metric():
    found = summary(comparison("cross_view", "better"), comparison("oracle_flow_epe", "better"))
    for rows in table_rows(found, facts("cross_view", "oracle_flow_epe")).values():
        cell = rows[0].cells["dpo", "base"]
        assert cell.tone == "better"
        assert 50 < cell.strip.low < cell.strip.middle < cell.strip.high <= 96


def test_guards_are_neither_better_nor_worse_but_a_share_of_the_base():
    found = summary(comparison("motion", "neither"))
    (row,) = table_rows(found, facts("motion"))[TITLES["guard"]]
    assert row.cells["dpo", "base"].tone == "neither"
    assert [row.means[arm].note for arm in ("base", "dpo")] == ["", "100.0%"]


def test_what_was_not_measured_is_none():
    found = summary(
        comparison("cross_view", "better"), comparison("oracle_psnr", "better", against="dpo_random")
    )
    arms = found.arms | {"base": {"oracle_psnr": 20.0}}
    (row,) = table_rows(found.model_copy(update={"arms": arms}), facts("cross_view"))[TITLES["primary"]]
    assert row.means["base"] is None
    assert list(row.cells) == [("dpo", "base")]
    assert row.truth is None


def test_texts_stand_for_their_values():
    (row,) = table_rows(summary(comparison("cross_view", "better")), facts("cross_view"))[TITLES["primary"]]
    cell = row.cells["dpo", "base"]
    assert (cell.difference.value, cell.difference.text) == (pytest.approx(0.2), "+0.20")
    assert (cell.low.text, cell.high.text, cell.win_rate.text) == ("+0.10", "+0.30", "75%")
    assert (cell.win_rate.note, cell.p.text, cell.detectable.text) == ("60% to 90%", "0.010", "0.05")
    assert (cell.headroom.text, cell.headroom.note) == ("40%", "−10% to 90%")


def test_what_has_no_better_says_so_and_has_no_wins():
    found = summary(comparison("oracle_variance", "neither"))
    none = {
        "higher_is_better": None,
        "win_rate": None,
        "win_rate_ci95": None,
        "mde": None,
        "headroom_share": None,
    }
    spread = found.comparisons[0].model_copy(update=none)
    (row,) = table_rows(found.model_copy(update={"comparisons": [spread]}), facts("oracle_variance"))[
        TITLES["neither"]
    ]
    assert row.metric.higher_is_better is None
    assert row.metric.unit == "intensity²"
    cell = row.cells["dpo", "base"]
    assert (cell.win_rate, cell.detectable, cell.headroom) == (None, None, None)


def test_the_truth_stands_beside_the_arms():
    found = summary(comparison("cross_view", "better")).model_copy(update={"truth": {"cross_view": 0.9}})
    (row,) = table_rows(found, facts("cross_view"))[TITLES["primary"]]
    assert row.truth.text == "0.90"


def test_what_another_tool_measured_stands_among_the_others_with_its_direction():
    outside = OutsideMetric(higher_is_better=False, file="vbench.csv")
    fact = metric_facts("dino", "other", outside)
    assert (fact.higher_is_better, fact.source) == (False, "vbench.csv")
    found = summary(comparison("dino", "unclear"), comparison("mvcs", "better"))
    rows = table_rows(found, [fact, *facts("mvcs")])[TITLES["other"]]
    assert [row.metric.name for row in rows] == ["dino", "mvcs"]
