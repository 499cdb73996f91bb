import math
from datetime import UTC, datetime

import numpy as np
import pytest

from videogpa.study.analysis import analyse
from videogpa.study.plan import Exclusion, Question, StudyConfig, StudyItem
from videogpa.study.schedule import schedule
from videogpa.study.votes import Rater, Vote
from videogpa.types import EvalRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CFG = StudyConfig(
    questions=(Question(key="consistent", text="Which?"),), items=10, checks=1, repeats=2, tie=True
)


def pairs(*arms: tuple[str, str], prompts: int = 20) -> list[StudyItem]:
    made = [
        StudyItem(
            id=f"{a}{b}{i}", kind="pair", prompt_id=f"p{i}", text="", seed=0, arms=(a, b), videos=("x", "y")
        )
        for a, b in arms
        for i in range(prompts)
    ]
    check = StudyItem(
        id="check", kind="check", prompt_id="p0", text="", seed=0, arms=("base", "broken"), videos=("x", "y"),
        expected="first",
    )  # fmt: skip
    return [*made, check]


def rated(cfg, items, raters, prefers, *, seconds=3.0, check="first", tags=(), screens=None) -> list[Vote]:
    """Votes of raters to whom the first video is the better one with chance `prefers(item)`, of the first `screens`."""
    votes = []
    for number in range(1, raters + 1):
        own = np.random.default_rng(number)
        for position, shown in enumerate(schedule(cfg, items, number - 1)[:screens]):
            first = check == "first" if shown.item.kind == "check" else own.random() < prefers(shown.item)
            side = "left" if (shown.left == "first") == first else "right"
            votes.append(
                Vote(
                    rater=Rater(number=number, name=f"r{number}"), position=position, item=shown.item.id,
                    left=shown.left, again=shown.again, answers={q.key: side for q in cfg.questions},
                    tags=list(tags), seconds=seconds, received=NOW,
                )
            )  # fmt: skip
    return votes


def test_a_known_preference_is_found_within_its_interval():
    items = pairs(("dpo", "base"))
    found = analyse(CFG, items, rated(CFG, items, 30, lambda item: 0.7))
    (row,) = found["comparisons"]
    assert row["votes"] == 300
    assert row["wins"] + row["losses"] == 300
    for low, high in (row["wilson95"], row["by_rater95"]):
        assert low < 0.7 < high
        assert low > 0.5
    assert row["p"] < 1e-6
    low, high = found["left"]["wilson95"]
    assert low < 0.5 < high


def test_wilson_and_the_exact_test_are_the_textbooks():
    items = pairs(("dpo", "base"), prompts=10)
    answers = iter([True] * 8 + [False] * 2)
    cfg = CFG.model_copy(update={"checks": 0, "repeats": 0})
    (row,) = analyse(cfg, items, rated(cfg, items, 1, lambda item: float(next(answers))))["comparisons"]
    assert row["p"] == pytest.approx(112 / 1024)
    centre, half = (0.8 + 1.96**2 / 20) / (1 + 1.96**2 / 10), None
    half = 1.96 * math.sqrt(0.8 * 0.2 / 10 + 1.96**2 / 400) / (1 + 1.96**2 / 10)
    assert row["wilson95"] == pytest.approx([centre - half, centre + half], abs=1e-3)


def test_ties_count_half_and_are_no_decision():
    items = pairs(("dpo", "base"), prompts=10)
    cfg = CFG.model_copy(update={"checks": 0, "repeats": 0})
    votes = [
        Vote(**{**vars(v), "answers": {"consistent": "tie"}}) for v in rated(cfg, items, 2, lambda i: 1.0)
    ]
    (row,) = analyse(cfg, items, votes)["comparisons"]
    assert (row["win_rate"], row["ties"], row["p"], row["wilson95"]) == (0.5, 20, None, None)


@pytest.mark.parametrize(
    ("careless", "rule"),
    [
        ({"check": "second"}, "attention checks"),
        ({"seconds": 0.5}, "too quick"),
        ({"screens": 6}, "not finished"),
    ],
)
def test_careless_raters_do_not_count(careless, rule):
    items = pairs(("dpo", "base"))
    good = rated(CFG, items, 10, lambda item: 1.0)
    bad = [
        Vote(**{**vars(v), "rater": Rater(number=99, name="bad")})
        for v in rated(CFG, items, 1, lambda item: 0.0, **careless)
    ]
    found = analyse(CFG, items, good + bad)
    assert found["excluded"] == {rule: 1}
    assert (found["raters"], found["counted_raters"]) == (11, 10)
    assert found["comparisons"][0]["win_rate"] == 1


def test_who_does_not_repeat_the_own_answers_does_not_count():
    items = pairs(("dpo", "base"))
    cfg = CFG.model_copy(update={"exclusion": Exclusion(repeat_agreement=0.9)})
    steady = rated(cfg, items, 5, lambda item: float(int(item.prompt_id[1:]) % 2))
    whims = [
        Vote(**{**vars(v), "answers": {"consistent": "left"}, "rater": Rater(number=99, name="left")})
        if items[-1].id != v.item
        else Vote(**{**vars(v), "rater": Rater(number=99, name="left")})
        for v in rated(cfg, items, 1, lambda item: 1.0)
    ]
    found = analyse(cfg, items, steady + whims)
    assert found["excluded"] == {"repeats differ": 1}
    assert found["repeat_agreement"] == 1


def test_three_arms_are_ranked():
    items = pairs(("good", "base"), ("bad", "base"), ("good", "bad"))
    chance = {("good", "base"): 0.8, ("bad", "base"): 0.2, ("good", "bad"): 0.94}
    cfg = CFG.model_copy(update={"items": 20})
    found = analyse(cfg, items, rated(cfg, items, 20, lambda item: chance[item.arms]))
    assert [row["arm"] for row in found["ranking"]] == ["good", "base", "bad"]
    # Strengths of log odds 1.39, 0 and −1.39.
    for row, strength in zip(found["ranking"], (0.8, 0.5, 0.2), strict=True):
        assert row["strength"] == pytest.approx(strength, abs=0.06)
        assert row["ci95"][0] <= row["strength"] <= row["ci95"][1]


def test_arms_that_did_not_meet_are_not_ranked():
    items = pairs(("good", "base"), ("bad", "worse"))
    assert analyse(CFG, items, rated(CFG, items, 20, lambda item: 0.8))["ranking"] == []


def test_an_arm_that_wins_everything_has_a_finite_strength():
    items = pairs(("good", "base"), ("bad", "base"))
    chance = {"good": 1.0, "bad": 0.0}
    found = analyse(CFG, items, rated(CFG, items, 20, lambda item: chance[item.arms[0]]))
    assert [row["arm"] for row in found["ranking"]] == ["good", "base", "bad"]
    assert 0.9 < found["ranking"][0]["strength"] < 1


def test_comparisons_keep_their_order_and_are_corrected_for_their_number():
    items = pairs(("sft", "base"), ("dpo", "base"))
    found = analyse(CFG, items, rated(CFG, items, 3, lambda item: 0.75))
    assert [row["arm"] for row in found["comparisons"]] == ["sft", "dpo"]
    p, corrected = ([row[key] for row in found["comparisons"]] for key in ("p", "p_holm"))
    assert min(corrected) == pytest.approx(min(1, 2 * min(p)))
    assert found["few_raters"]
    assert found["stop_rule"].startswith("3 raters have finished; no number was stated")


def test_unfinished_raters_count_where_the_plan_says_so():
    items = pairs(("dpo", "base"))
    cfg = CFG.model_copy(update={"exclusion": Exclusion(unfinished=True), "raters": 2})
    found = analyse(cfg, items, rated(cfg, items, 3, lambda item: 1.0, screens=4))
    assert found["counted_raters"] == 3
    assert "stop at 2, which is not reached yet" in found["stop_rule"]


def test_raters_who_all_agree_are_unanimous():
    items = pairs(("dpo", "base"), prompts=10)
    (found,) = analyse(CFG, items, rated(CFG, items, 5, lambda item: 1.0))["agreement"]
    assert (found["alpha"], found["unanimous"], found["pairs"]) == (None, True, 10)


def test_raters_agree_by_alpha():
    items = pairs(("dpo", "base"), prompts=10)
    fixed = rated(CFG, items, 12, lambda item: float(int(item.prompt_id[1:]) % 2))
    chance = rated(CFG, items, 40, lambda item: 0.5)
    (agreed,), (random,) = (analyse(CFG, items, v)["agreement"] for v in (fixed, chance))
    assert agreed["alpha"] == pytest.approx(1)
    assert abs(random["alpha"]) < 0.05


def test_metrics_are_set_beside_the_raters():
    items = pairs(("dpo", "base"))
    votes = rated(CFG, items, 30, lambda item: 0.8, tags=["blurry"])
    rows = [
        EvalRow(
            id=f"{arm}{i}", arm=arm, prompt_id=f"p{i}", seed=0,
            metrics={
                "consistency": float(arm == "dpo"), "oracle_warp": float(arm == "dpo"), "sharpness": None,
                "lpips": float(arm == "base"),
            },
        )
        for arm in ("base", "dpo")
        for i in range(20)
    ]  # fmt: skip
    found = analyse(CFG, items, votes, rows, {"lpips": False})
    agreement = {row["metric"]: row for row in found["metrics"]}
    assert agreement["consistency"]["agreement"] == pytest.approx(0.8, abs=0.06)
    # Lower is better: it always prefers the other one.
    assert agreement["oracle_warp"]["agreement"] == pytest.approx(0.2, abs=0.06)
    assert agreement["lpips"]["agreement"] == agreement["consistency"]["agreement"]
    assert "sharpness" not in agreement
    assert {row["reason"] for row in found["reasons"]} == {"blurry"}


def test_nobody_has_voted_yet():
    found = analyse(CFG, pairs(("dpo", "base"), ("sft", "base")), [])
    assert (found["comparisons"], found["ranking"], found["left"]) == ([], [], None)
