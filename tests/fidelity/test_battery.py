from itertools import pairwise

import numpy as np
import pytest
import torch

from videogpa.fidelity.battery import FIRST_SEED, PATTERNS, battery_scene, cases, clean_clip, frames_of
from videogpa.fidelity.degradations import DEGRADATIONS, freeze, slow_down
from videogpa.fidelity.legitimate import LEGITIMATE, still_curtain, waving_surface
from videogpa.world.faults import FAULTS

FRAMES, SIZE = 5, 32


@pytest.fixture(scope="module")
def clean():
    return clean_clip("development", 3, FRAMES, SIZE, SIZE)


@pytest.mark.parametrize("case", list(cases(3)), ids=lambda case: case.id)
def test_every_case_is_a_video_like_the_clean_one(case, clean):
    frames = frames_of(case, clean)
    assert frames.shape == clean.rgb.shape
    assert frames.isfinite().all()
    assert frames.min() >= 0
    assert frames.max() <= 1
    assert torch.equal(frames, frames_of(case, clean))
    if case.change == "clean":
        assert torch.equal(frames, clean.rgb)
    else:
        assert not torch.equal(frames, clean.rgb)


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_a_stronger_degradation_departs_further(name, clean):
    degrade, strengths = DEGRADATIONS[name]
    departures = [
        (degrade(clean.rgb, strength, np.random.default_rng(0)) - clean.rgb).abs().mean().item()
        for strength in strengths
    ]
    assert all(a <= b for a, b in pairwise(departures))
    assert departures[0] < departures[-1]


def test_freeze_and_slow_motion_repeat_frames(clean):
    rng = np.random.default_rng(0)
    assert torch.equal(freeze(clean.rgb, 50.0, rng), clean.rgb[[0, 1, 1, 1, 1]])
    assert torch.equal(slow_down(clean.rgb, 50.0, rng), clean.rgb[[0, 0, 1, 1, 2]])


def test_the_waving_curtain_hangs_where_the_still_one_does(clean):
    still, waving = (change(clean, np.random.default_rng(1)) for change in (still_curtain, waving_surface))
    assert torch.allclose(still[0], waving[0], atol=1e-5)
    assert not torch.equal(still[-1], waving[-1])


def test_legitimate_changes_have_names_of_their_own():
    assert not set(LEGITIMATE) & (set(FAULTS) | set(DEGRADATIONS))


def test_the_splits_share_nothing():
    first, second = ([battery_scene(split, n) for n in range(30)] for split in ("development", "held_out"))
    assert not {s.move for s in first} & {s.move for s in second}
    patterns = [
        {t.pattern for s in scenes for t in (*s.room_textures, *(b.texture for b in s.bodies))}
        for scenes in (first, second)
    ]
    assert patterns == [set(PATTERNS["development"]), set(PATTERNS["held_out"])]
    assert abs(FIRST_SEED["development"] - FIRST_SEED["held_out"]) > 100_000
