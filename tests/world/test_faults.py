from itertools import pairwise

import numpy as np
import pytest
import torch

from videogpa.world.faults import FAULTS, blurred, largest_body, vanish, warp
from videogpa.world.render import render
from videogpa.world.scene import sample_scene


@pytest.fixture(scope="module")
def clean():
    return render(sample_scene(3), 5, 32, 32)


@pytest.mark.parametrize("name", FAULTS)
def test_a_stronger_fault_departs_further_from_the_clean_clip(name, clean):
    fault, strengths = FAULTS[name]
    departures = [
        (fault(clean, strength, np.random.default_rng(0)) - clean.rgb).abs().mean().item()
        for strength in (0.0, *strengths)
    ]
    assert departures[0] < 1e-5
    assert all(a < b for a, b in pairwise(departures))


def test_the_vanished_body_is_gone_and_back(clean):
    frames = vanish(clean, 100.0, np.random.default_rng(0))
    body = (clean.object_ids == largest_body(clean) + 1)[:, None]
    changed = ((frames - clean.rgb).abs() * body).flatten(1).amax(1) > 0.05
    assert changed.any()
    assert not changed[0]
    assert torch.equal(frames[~changed], clean.rgb[~changed])


def test_a_warp_moves_by_the_pixels_it_is_told():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    by_two = torch.zeros(1, 2, 16, 16)
    by_two[:, 0] = 2
    assert torch.allclose(warp(image, by_two)[..., :13], image[..., 2:15], atol=1e-4)


def test_blur_by_nothing_is_nothing(clean):
    assert torch.equal(blurred(clean.rgb, 0.0), clean.rgb)
