import json
from dataclasses import asdict

import pytest
import torch

from videogpa.dpo.calibration import QUANTILE, WANTED_LOGIT, advantages, calibrated, read_calibration
from videogpa.dpo.diffusion import PairErrors
from videogpa.dpo.loss import preference_logits
from videogpa.errors import InputError


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


def test_a_stored_calibration_is_believed_where_its_numbers_agree(tmp_path):
    found = calibrated(torch.rand(20, generator=torch.Generator().manual_seed(0)), steps=3)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(asdict(found)))
    assert read_calibration(path) == found
    for damaged in (asdict(found) | {"beta": found.beta * 2}, asdict(found) | {"advantage": 0}, {}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(InputError, match="is damaged: delete it"):
            read_calibration(path)
