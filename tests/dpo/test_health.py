import math

import pytest
import torch

from videogpa.dpo.diffusion import PairErrors
from videogpa.dpo.health import ChosenGuard, measure, must_stop


def errors(chosen, rejected, chosen_reference, rejected_reference):
    return PairErrors(
        chosen=torch.tensor(chosen),
        rejected=torch.tensor(rejected),
        chosen_reference=torch.tensor(chosen_reference),
        rejected_reference=torch.tensor(rejected_reference),
    )


def test_figures_of_a_known_batch():
    health = measure(errors([0.2, 0.5], [0.4, 0.4], [0.25, 0.45], [0.3, 0.4]), beta=10.0)
    assert health.accuracy == 0.5
    assert health.margin == pytest.approx((1.5 - 0.5) / 2, abs=1e-5)
    assert health.chosen_change == pytest.approx(0.0, abs=1e-6)
    assert health.rejected_change == pytest.approx(0.1 / 0.7, rel=1e-5)


def test_saturation_is_zero_at_the_start_and_one_where_the_gradient_is_gone():
    equal = ([0.3], [0.3], [0.3], [0.3])
    assert measure(errors(*equal), beta=5000.0).saturation == 0.0
    assert measure(errors([0.2], [0.4], [0.3], [0.3]), beta=5000.0).saturation == pytest.approx(1.0)


def test_the_guard_sees_a_rise_through_varying_timesteps():
    guard = ChosenGuard()
    assert guard.change == 0.0
    for step in range(100):
        reference = 0.2 + 0.15 * math.sin(step)
        guard = guard.update(errors([1.02 * reference], [0.3], [reference], [0.3]))
    assert guard.change == pytest.approx(0.02, rel=1e-4)


def test_the_stop_rule():
    assert must_stop(0.02, 0.015)
    assert not must_stop(0.01, 0.015)
    assert not must_stop(-0.5, 0.015)
    assert not must_stop(0.5, None)
    assert must_stop(math.nan, 0.015)
