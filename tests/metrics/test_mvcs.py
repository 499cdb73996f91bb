from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import mvcs


def score(geometry) -> float:
    return mvcs.measure(as_clip(geometry))


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.depth_flicker, scenes.wrong_poses])
def test_falls_strictly_as_the_geometry_gets_worse(spoil, size):
    clip = rendered(3, 5, *size)
    values = [score(spoil(clip, s)) for s in (0, 2, 4, 8, 16)]
    assert values[0] > 0.999
    assert all(a > b for a, b in pairwise(values))


@settings(max_examples=5)
@given(st.floats(0.05, 20))
def test_scale_and_world_origin_change_nothing(scale):
    geometry = prediction()
    assert score(scenes.move_world(geometry, scale)) == pytest.approx(score(geometry), abs=1e-3)


@pytest.mark.parametrize("motion", ["trucks right", "dollies forward", "orbits left", "pans right"])
def test_occlusion_borders_size_and_number_of_frames_cost_nothing(motion):
    shapes = ((2, 48, 48), (5, 48, 48), (10, 48, 48), (5, 96, 128))
    assert min(score(prediction(2, *shape, motion=motion)) for shape in shapes) > 0.999


def test_one_frame_too_deep_is_noticed():
    factor = torch.ones(5)
    factor[2] = 1.03
    assert score(scenes.scale_depth(prediction(), factor)) < score(prediction()) - 1e-4


@pytest.mark.parametrize("spoil", [scenes.frozen, scenes.far_apart, lambda g: scenes.scale_depth(g, 0.0)])
def test_what_proves_nothing_has_no_value(spoil):
    with pytest.raises(CannotJudge):
        score(spoil(prediction()))
