import math

import pytest

from videogpa.dpo.config import TrainConfig
from videogpa.dpo.doctor import Change, Gain, Training, diagnose, new_accuracy, wilson

CFG = TrainConfig(steps=100, batch_pairs=4, warmup_steps=10, beta=2000.0)
PAIRS, HELD_OUT = 200, 24


def training(changes=None, *, steps=100, cfg=CFG, held_out=None, held_out_pairs=HELD_OUT, pairs=PAIRS):
    """Figures of a healthy training of the embedded model, rounded, and what `changes` makes of each step's."""
    rows = []
    for step in range(1, steps + 1):
        row = {
            "step": float(step),
            "loss": 0.69 - 0.003 * step,
            "accuracy": 0.62 if step <= 50 else 0.87,
            "margin": 0.02 * step,
            "chosen_change": -0.005,
            "rejected_change": -0.001,
            "saturation": 0.005 * step,
            "grad_norm": 10.0,
            "lr": 4e-4,
            "effect": 7e-5 * step,
        }
        row |= changes(step) if changes else {}
        if step % 20 == 0:
            figures = {"accuracy": 0.6, "margin": 0.1, "chosen_change": -0.004, "rejected_change": -0.003}
            figures |= held_out(step) if held_out else {}
            row |= {f"held_out_{name}": value for name, value in figures.items()}
        rows.append(row)
    return Training(config=cfg, rows=rows, beta=cfg.beta, pairs=pairs, held_out_pairs=held_out_pairs)


def names(*args, **kwargs):
    return [verdict.name for verdict in diagnose(*args, **kwargs)]


def test_a_healthy_training_gets_no_verdict_at_any_step():
    for steps in (0, 1, 5, 24, 25, 26, 50, 60, 100):
        assert names(training(steps=steps)) == []


def test_figures_that_are_no_numbers():
    [verdict] = diagnose(training(lambda step: {"grad_norm": math.nan} if step == 7 else {}))
    assert verdict.name == "diverged"
    assert verdict.figure == "grad_norm is nan at step 7"
    assert "0.0002" in verdict.remedy


def test_destroyed_errors_are_the_only_verdict():
    assert names(training(lambda _: {"chosen_change": 2.0, "rejected_change": 3.0})) == ["diverged"]


def test_an_idle_lora():
    idle = {"effect": 1e-8, "saturation": 0.0, "accuracy": 0.5}
    assert names(training(lambda _: idle)) == ["no_op"]
    assert names(training(lambda _: idle, steps=20)) == []


def test_beta_too_small_and_what_the_log_says_it_should_be():
    cfg = CFG.model_copy(update={"beta": 1.0})
    [verdict] = diagnose(training(lambda _: {"saturation": 1e-6}, cfg=cfg))
    assert verdict.name == "beta_too_small"
    assert "about 1e+03" in verdict.remedy


def test_supervised_training_has_no_beta():
    cfg = CFG.model_copy(update={"objective": "sft"})
    assert names(training(lambda _: {"saturation": 0.0}, cfg=cfg)) == []
    assert names(training(lambda _: {"saturation": 1.0}, cfg=cfg)) == []


def test_beta_too_large_is_seen_early_and_late_saturation_is_success():
    assert names(training(lambda _: {"saturation": 0.97}, steps=30)) == ["beta_too_large"]
    assert names(training(lambda step: {"saturation": 0.97 if step > 50 else 0.3})) == []


def memorising(step):
    return {"accuracy": 0.5 if step <= 50 else 0.87}


def test_random_pairs():
    [verdict] = diagnose(training(memorising, held_out=lambda _: {"accuracy": 0.5}), beats_control=False)
    assert verdict.name == "random_pairs"
    assert "on 184 new pairs" in verdict.figure


def test_pairs_are_not_doubted_by_the_log_alone_nor_where_beta_is_wrong():
    chance = {"held_out": lambda _: {"accuracy": 0.5}}
    assert names(training(memorising, **chance)) == []
    assert names(training(memorising, **chance), beats_control=True) == []
    control = CFG.model_copy(update={"labels": "shuffled"})
    assert names(training(memorising, cfg=control, **chance)) == ["random_pairs"]
    saturated = training(lambda step: memorising(step) | {"saturation": 0.97})
    assert names(saturated, beats_control=False) == ["beta_too_large"]


@pytest.mark.parametrize(
    "unclear",
    [
        {"steps": 50},
        {"pairs": None},
        {"pairs": 40, "held_out_pairs": 10},
        {"cfg": CFG.model_copy(update={"objective": "sft"})},
    ],
)
def test_random_pairs_need_a_second_pass_and_enough_of_them(unclear):
    memorised = training(memorising, held_out=lambda _: {"accuracy": 0.4}, **unclear)
    assert names(memorised, beats_control=False) == []


def test_overfitting_is_held_out_videos_drawn_worse_and_known_ones_better():
    worse = {"chosen_change": 0.004}
    [verdict] = diagnose(training(held_out=lambda step: worse if step > 60 else {}))
    assert verdict.name == "overfitting"
    assert "lowest at step 20" in verdict.remedy
    assert names(training(held_out=lambda _: worse, held_out_pairs=4)) == []
    assert names(training(held_out=lambda _: {"chosen_change": 0.0005})) == []


def test_loser_driven():
    lost = {"chosen_change": 0.004, "rejected_change": 0.01}
    assert names(training(lambda step: lost if step > 60 else {})) == ["loser_driven"]
    assert names(training(lambda _: lost | {"rejected_change": 0.003})) == []


def test_videos():
    clear = Change(median=-0.08, low=-0.11, high=-0.05, count=16)
    unclear = Change(median=-0.08, low=-0.3, high=0.1, count=3)
    small = Change(median=-0.03, low=-0.04, high=-0.02, count=96)
    assert names(training(), {"motion": clear, "sharpness": small}) == ["static_collapse"]
    assert names(training(), {"motion": unclear, "sharpness": clear}) == ["blur"]
    # Where nothing moves no geometry is found: there is no motion to speak of, but dynamics of 0.
    still = Change(median=-1.0, low=-1.0, high=-1.0, count=16)
    assert names(training(), {"dynamic_degree": clear}) == []
    assert names(training(), {"dynamic_degree": still}) == ["static_collapse"]
    assert names(training(), {"motion": clear, "dynamic_degree": still}) == ["static_collapse"]
    [verdict] = diagnose(training(), {"motion": clear})
    assert "-8.0% against the base [-11.0%, -5.0%] on 16 videos (limit -5%)" in str(verdict)


def test_a_reward_is_hacked_where_it_rises_and_the_primary_falls():
    def gain(metric, low, high):
        return Gain(metric=metric, against="dpo", mean=(low + high) / 2, low=low, high=high)

    rose, fell = gain("consistency", 0.004, 0.008), gain("primary", -0.008, -0.004)
    unclear = gain("primary", -0.008, 0.001)
    assert names(training(), gains=[(rose, unclear), (unclear, fell)]) == []
    [verdict] = diagnose(training(), gains=[(rose, unclear), (rose, fell)])
    assert verdict.name == "reward_hacked"
    assert verdict.figure == (
        "consistency is 0.6% better than that of dpo, primary 0.6% [0.4%, 0.8%] worse (limit 0)"
    )


def test_new_pairs_are_those_held_out_and_those_of_the_first_pass_after_the_warm_up():
    known = training(memorising, held_out=lambda _: {"accuracy": 0.9})
    assert new_accuracy(known) == (pytest.approx((160 * 0.5 + 24 * 0.9) / 184), 184)
    assert new_accuracy(training(pairs=None)) is None


def test_wilsons_interval_by_its_known_values():
    assert wilson(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = wilson(0.0, 10)
    assert low == pytest.approx(0.0, abs=1e-12)
    assert high == pytest.approx(0.2775, abs=1e-3)
