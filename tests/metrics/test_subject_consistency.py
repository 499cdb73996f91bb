from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.metrics.scenes import noise, rendered
from videogpa.errors import CannotJudge
from videogpa.fidelity.battery import clean_clip
from videogpa.metrics import subject_consistency
from videogpa.metrics.base import Clip
from videogpa.world.faults import melt, texture_swim, vanish


def value(frames) -> float:
    return subject_consistency.measure(Clip(frames=frames))


@pytest.mark.parametrize(
    ("fault", "strengths"),
    [(melt, (8.0, 16.0, 32.0)), (vanish, (50.0, 75.0, 100.0)), (texture_swim, (1.5, 3.0, 6.0))],
)
def test_falls_strictly_as_a_body_melts_or_vanishes_or_its_texture_swims(fault, strengths):
    clip = clean_clip("development", 1, 9, 48, 48)
    spoiled = [fault(clip, strength, np.random.default_rng(1)) for strength in strengths]
    values = [value(frames) for frames in (clip.rgb, *spoiled)]
    assert all(a > b for a, b in pairwise(values))


def test_does_not_depend_on_brightness_and_little_on_contrast():
    frames = rendered(3).rgb * 0.8
    assert value(frames + 0.2) == pytest.approx(value(frames), abs=1e-4)
    assert value(frames * 0.7) == pytest.approx(value(frames), abs=0.02)


def test_sees_the_same_at_any_size():
    clip = rendered(3, 5, 96, 96).rgb
    small = F.interpolate(clip, (48, 48), mode="bilinear", antialias=True)
    assert value(clip) == pytest.approx(value(small), abs=1e-5)
    assert value(rendered(3, 5, 96, 192).rgb) > 0.6


def test_a_part_is_found_where_it_went_but_not_beyond_reach():
    parts = F.normalize(noise(1, 32, 10, 10), dim=1)
    for steps, found in ((0, True), (1, True), (4, False)):
        score = subject_consistency.found_again(parts, parts.roll(steps, dims=-1)).item()
        assert score == pytest.approx(1, abs=1e-5) if found else score < 0.6


def test_only_the_worst_quarter_counts():
    parts = F.normalize(noise(1, 32, 10, 10), dim=1)
    spoiled = parts.clone()
    spoiled[..., 1:5, 1:5] = F.normalize(noise(1, 32, 4, 4, seed=1), dim=1)
    assert subject_consistency.found_again(spoiled, parts).item() < 0.6


def test_noise_is_worse_than_a_scene():
    frames = rendered(3).rgb
    assert value(noise(*frames.shape).sigmoid()) < value(frames) - 0.3


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (rendered(3, 1).rgb, "single frame"),
        (torch.full((3, 3, 48, 48), 0.5), "texture"),
        (torch.full((3, 3, 48, 48), torch.nan), "not finite"),
        (rendered(3, 1).rgb.expand(5, -1, -1, -1), "stands still"),
    ],
)
def test_what_proves_nothing_has_no_value(frames, reason):
    with pytest.raises(CannotJudge, match=reason):
        value(frames)
