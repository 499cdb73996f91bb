import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogpa.errors import InputError
from videogpa.report.findings import (
    Comparison,
    Summary,
    caveat,
    decimals,
    evidence,
    headline,
    naming,
    number,
    read_summary,
    remarks,
)

TRUTH = ["oracle_psnr", "oracle_flow_epe"]
INTERVALS = {"better": (0.1, 0.3), "worse": (-0.3, -0.1), "unclear": (-0.1, 0.2)}
INTERVALS |= {"disqualified": (0.1, 0.3), "neither": (-0.1, 0.2)}


def comparison(metric: str, verdict: str, against: str = "base", arm: str = "dpo") -> Comparison:
    higher = metric != "oracle_flow_epe"
    low, high = INTERVALS[verdict]
    interval = (low, high) if higher else (-high, -low)
    return Comparison(
        arm=arm,
        against=against,
        metric=metric,
        higher_is_better=higher,
        mean_difference=sum(interval) / 2,
        ci95=interval,
        win_rate=0.75,
        win_rate_ci95=(0.6, 0.9),
        rank_biserial=0.5 if higher else -0.5,
        holm_p=0.01,
        mde=0.05,
        headroom_share=0.4,
        headroom_ci95=(-0.1, 0.9),
        verdict=verdict,
        n=96,
        prompts=48,
    )


def summary(*comparisons: Comparison, guards: dict[str, list[str]] | None = None) -> Summary:
    arms = {key: {c.metric: 0.5 for c in comparisons} for key in ("base", "dpo", "dpo_random")}
    return Summary(arms=arms, comparisons=list(comparisons), guards=guards or {"dpo": []})


def test_a_confirmed_gain():
    found = summary(comparison("consistency", "better"), comparison("oracle_psnr", "better"))
    sentence = headline(found, "consistency", TRUTH)
    assert sentence == (
        "Videos by dpo hold together better in 3D than those by base, and the true continuation confirms it."
    )


@pytest.mark.parametrize(
    ("primary", "truth", "expected"),
    [
        ("better", "unclear", "but against the true continuation nothing clear changed"),
        ("better", "worse", "but dpo moved away from the true continuation"),
        (
            "unclear",
            "unclear",
            "No clear gain: in consistency, videos by dpo and by base cannot be told apart.",
        ),
        ("unclear", "better", "cannot be told apart, but dpo came closer to the true continuation"),
        ("worse", "worse", "hold together worse in 3D than those by base, and dpo moved away"),
    ],
)
def test_what_is_no_confirmed_gain_is_said_plainly(primary, truth, expected):
    found = summary(comparison("consistency", primary), comparison("oracle_psnr", truth))
    sentence = headline(found, "consistency", TRUTH)
    assert expected in sentence
    assert "confirms" not in sentence


def test_a_gain_that_breaks_a_guard_is_disqualified_in_the_headline():
    guards = {"dpo": ["sharpness is 91.0% of the base's"]}
    found = summary(
        comparison("consistency", "disqualified"), comparison("oracle_psnr", "disqualified"), guards=guards
    )
    sentence = headline(found, "consistency", TRUTH)
    assert sentence == (
        "dpo is disqualified (sharpness is 91.0% of the base's): no gain in consistency counts."
    )
    assert not any("better" in remark for remark in remarks(found, ["motion", "sharpness"]))
    assert any("disqualified" in remark for remark in remarks(found, ["motion", "sharpness"]))


def test_a_gain_that_the_control_has_too_is_not_credited():
    found = summary(
        comparison("consistency", "better"),
        comparison("oracle_psnr", "better"),
        comparison("consistency", "unclear", against="dpo_random"),
    )
    assert "but not clearly better than dpo_random" in headline(found, "consistency", TRUTH)


def test_without_a_comparison_nothing_is_claimed():
    alone = Summary(arms={"base": {"consistency": 0.5}}, comparisons=[])
    assert (
        headline(alone, "consistency", TRUTH)
        == "Only base was evaluated; there is nothing to compare it with."
    )
    assert evidence(alone, "consistency") == ""
    assert "cannot be compared" in headline(
        summary(comparison("oracle_psnr", "better")), "consistency", TRUTH
    )


def test_a_loss_against_a_disqualified_arm_is_its_disqualification():
    found = summary(comparison("consistency", "disqualified", against="dpo_random"))
    guarded = found.model_copy(
        update={"guards": {"dpo": [], "dpo_random": ["motion is 80.0% of the base's"]}}
    )
    assert headline(guarded, "consistency", TRUTH).startswith("dpo_random is disqualified (motion")


verdicts = st.sampled_from(["better", "worse", "unclear", "disqualified"])


@given(verdicts, verdicts, verdicts, verdicts)
def test_only_a_gain_that_survives_everything_is_confirmed(primary, psnr, flow, control):
    found = summary(
        comparison("consistency", primary),
        comparison("oracle_psnr", psnr),
        comparison("oracle_flow_epe", flow),
        comparison("consistency", control, against="dpo_random"),
        guards={"dpo": ["motion is 80.0% of the base's"] if primary == "disqualified" else []},
    )
    sentence = headline(found, "consistency", TRUTH)
    truth = {psnr, flow}
    survives = primary == control == "better" and "better" in truth and "worse" not in truth
    assert ("confirms" in sentence) == survives
    assert ("hold together better" in sentence) == (primary == "better")
    assert sentence.count(".") >= 1
    assert sentence.endswith(".")


def test_the_evidence_has_the_numbers():
    found = summary(comparison("consistency", "better"))
    level = {"base": {"consistency": 0.5}, "dpo": {"consistency": 0.7}}
    rest = "(95% interval +0.10 to +0.30, 40% of what the true videos gain), better in 75% of 48 prompts."
    assert evidence(found.model_copy(update={"arms": level}), "consistency") == (
        f"In consistency, dpo reaches 0.70 and base 0.50: a difference of +0.20 {rest}"
    )
    # Means of different videos differ by something else.
    assert evidence(found, "consistency") == (
        f"In consistency, dpo differs from base by +0.20 in the 96 videos that both have {rest}"
    )


def test_of_two_that_break_a_guard_the_winner_is_named():
    guards = {"dpo": ["sharpness is 90.0% of the base's"], "dpo_random": ["motion is 80.0% of the base's"]}
    found = summary(comparison("consistency", "disqualified", against="dpo_random"), guards=guards)
    assert headline(found, "consistency", TRUTH).startswith("dpo is disqualified (sharpness")
    turned = found.comparisons[0].model_copy(update={"arm": "dpo_random", "against": "dpo"})
    found = found.model_copy(update={"comparisons": [turned]})
    assert headline(found, "consistency", TRUTH).startswith("dpo_random is disqualified (motion")


def test_a_primary_that_was_named_after_the_data_does_not_pass_for_another():
    found = summary(comparison("consistency", "better"))
    assert naming(found) == ""
    found = found.model_copy(update={"primary": "consistency", "primaries_before": ["consistency"]})
    assert naming(found) == "The primary, named before the data, is consistency."
    assert not any("primary" in sentence for sentence in remarks(found, []))
    found = found.model_copy(update={"primaries_before": ["consistency", "mvcs", None, "mvcs"]})
    assert naming(found) == (
        "The primary, consistency, was named after an evaluation of some of these videos by mvcs and without a "
        "primary was finished."
    )
    assert naming(found) in remarks(found, [])


def test_few_prompts_are_a_reason_for_doubt():
    assert caveat(2) == "With only 2 prompts, no interval here can be trusted."
    assert caveat(48) == ""


def test_remarks_sort_the_metrics_by_verdict():
    found = summary(
        comparison("consistency", "better"), comparison("oracle_psnr", "worse"), comparison("motion", "worse")
    )
    first, guards = remarks(found, ["motion"])
    assert first == "dpo against base: better in consistency; worse in oracle_psnr."
    assert guards == "dpo keeps motion within the limits."


def test_remarks_say_what_made_an_arm_and_that_circles_were_allowed():
    made = {"circular": {"best": ["consistency", "cross_view"]}, "allow_circular": True}
    *_, judged, allowed = remarks(summary().model_copy(update=made), [])
    assert judged == "best was made by consistency and cross_view: what that says of it is no evidence."
    assert "Circular judging was allowed" in allowed


@given(st.floats(-1e6, 1e6), st.integers(0, 6))
def test_numbers_are_read_back_as_they_were_rounded(value, places):
    text = number(value, places, signed=True)
    assert float(text.replace("−", "-")) == round(value, places)
    assert "-" not in text


def test_numbers_never_show_a_signed_zero():
    assert number(-0.0001, 2) == "0.00"
    assert number(0.0, 2, signed=True) == "0.00"
    assert number(0.004, 2, signed=True) == "0.00"


@given(st.floats(1e-5, 1e3))
def test_decimals_keep_one_to_two_digits_of_the_interval(width):
    found = comparison("consistency", "better").model_copy(update={"ci95": (0.0, 2 * width)})
    assert width * 10 ** decimals([found]) >= 0.999 * min(1, width * 10**6)


def test_decimals_of_nothing():
    assert decimals([]) == decimals([comparison("x", "better").model_copy(update={"ci95": (0.0, 0.0)})]) == 4


def test_a_damaged_summary_is_refused(tmp_path):
    with pytest.raises(InputError, match="redo the evaluation"):
        read_summary(tmp_path / "summary.json")
    (tmp_path / "summary.json").write_text('{"arms": {"base": {"psnr": NaN}}, "comparisons": []}')
    with pytest.raises(InputError, match="redo the evaluation"):
        read_summary(tmp_path / "summary.json")
