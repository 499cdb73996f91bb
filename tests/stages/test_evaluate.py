import numpy as np
import pytest

from videogpa.errors import InputError
from videogpa.stages.evaluate import (
    EvaluateConfig,
    bootstrap_interval,
    guard_problems,
    run,
    summarize,
)
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import EvalRow

CFG = EvaluateConfig(
    sample=SampleConfig(),
    score=ScoreConfig(geometry="embedded"),
    comparisons=(("dpo", "base"),),
    resamples=500,
)


def rows(values: dict[str, dict[str, list[float | None]]]) -> list[EvalRow]:
    return [
        EvalRow(
            id=f"{arm}/{i}",
            arm=arm,
            prompt_id=f"p{i // 2}",
            seed=i % 2,
            metrics={m: v[i] for m, v in by.items()},
        )
        for arm, by in values.items()
        for i in range(len(next(iter(by.values()))))
    ]


def comparison(summary, metric):
    (found,) = [c for c in summary["comparisons"] if c["metric"] == metric]
    return found


def test_differences_are_paired_and_directed():
    base = {"cross_view": [0.5, 0.6, 0.7, 0.8], "oracle_flow_epe": [2.0, 2.0, 3.0, 3.0]}
    dpo = {"cross_view": [0.6, 0.7, 0.8, 0.8], "oracle_flow_epe": [1.0, 2.0, 2.0, 4.0]}
    summary = summarize(CFG, rows({"base": base, "dpo": dpo}))
    view, flow = comparison(summary, "cross_view"), comparison(summary, "oracle_flow_epe")
    assert view["mean_difference"] == pytest.approx(0.075)
    assert view["win_rate"] == pytest.approx(3.5 / 4)
    assert view["higher_is_better"] is True
    assert flow["mean_difference"] == pytest.approx(-0.25)
    assert flow["win_rate"] == pytest.approx(2.5 / 4)
    assert flow["higher_is_better"] is False
    assert view["n"] == 4
    assert summary["arms"]["base"]["cross_view"] == pytest.approx(0.65)


def test_a_value_missing_on_one_side_is_left_out_of_the_pair():
    summary = summarize(CFG, rows({"base": {"cross_view": [0.5, None]}, "dpo": {"cross_view": [0.4, 0.9]}}))
    found = comparison(summary, "cross_view")
    assert found["n"] == 1
    assert found["mean_difference"] == pytest.approx(-0.1)


def test_interval_covers_the_true_mean_about_95_percent_of_the_time():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        prompt_effect = rng.normal(size=40).repeat(2)
        values = 0.3 + prompt_effect + 0.1 * rng.normal(size=80)
        low, high = bootstrap_interval(values, [str(i // 2) for i in range(80)], 400, trial)
        hits += low <= 0.3 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_seeds_of_one_prompt_do_not_make_the_interval_narrower():
    rng = np.random.default_rng(1)
    effect = rng.normal(size=30)
    once = bootstrap_interval(effect, [str(i) for i in range(30)], 2000, 0)
    four_times = bootstrap_interval(effect.repeat(4), [str(i // 4) for i in range(120)], 2000, 0)
    assert four_times == pytest.approx(once)


def test_guards_name_blur_and_lost_motion():
    base = {"sharpness": 0.1, "motion": 0.4}
    assert guard_problems(base, {"sharpness": 0.099, "motion": 0.41}) == []
    assert "sharpness" in guard_problems(base, {"sharpness": 0.09, "motion": 0.4})[0]
    assert "motion" in guard_problems(base, {"sharpness": 0.1, "motion": 0.37})[0]
    assert guard_problems(base, {"sharpness": 0.1}) == ["motion could not be measured"]


def test_unknown_arm_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown arm 'dpo'"):
        run(CFG, tmp_path, {}, tmp_path / "out")


def test_a_strength_of_what_is_no_lora_is_refused(tmp_path):
    for arm in ("base", "sft"):
        cfg = CFG.model_copy(update={"strengths": {arm: 0.5}, "comparisons": ()})
        with pytest.raises(InputError, match=f"a strength is given for '{arm}'"):
            run(cfg, tmp_path, {"dpo": tmp_path}, tmp_path / "out")


def test_the_training_metric_may_not_be_the_only_judge(tmp_path):
    cfg = CFG.model_copy(
        update={
            "trained_by": "consistency",
            "comparisons": (),
            "score": ScoreConfig(geometry="embedded", metrics=("cross_view", "motion")),
        }
    )
    with pytest.raises(InputError, match="nothing else would judge"):
        run(cfg, tmp_path, {}, tmp_path / "out")
