import pytest
import torch

from videogpa.dpo.calibration import QUANTILE, WANTED_LOGIT, advantages, calibrated
from videogpa.dpo.diffusion import PairErrors
from videogpa.dpo.loss import preference_logits


def test_the_wanted_share_of_logits_ends_below_the_wanted_one():
    generator = torch.Generator().manual_seed(0)
    names = ("chosen", "rejected", "chosen_reference", "rejected_reference")
    errors = PairErrors(**dict(zip(names, torch.rand(4, 500, generator=generator), strict=True)))
    found = calibrated(advantages(errors), steps=50)
    logits = preference_logits(*errors.sides, found.beta).abs()
    assert (logits < WANTED_LOGIT).float().mean().item() == pytest.approx(QUANTILE, abs=0.005)
    assert found.steps == 50
    assert found.beta * found.advantage == pytest.approx(WANTED_LOGIT)


def test_no_advantage_gives_a_finite_beta():
    assert calibrated(torch.zeros(8), steps=1).beta < 1e9
