import dataclasses
from itertools import pairwise

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import depth_agreement


def score(geometry) -> float:
    return depth_agreement.measure(as_clip(geometry))


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("motion", ["trucks right", "dollies forward"])
def test_scale_and_world_origin_change_nothing(scale, motion):
    geometry = prediction(motion=motion)
    assert score(scenes.move_world(geometry, scale)) == pytest.approx(score(geometry), abs=1e-3)


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.depth_flicker, scenes.wrong_poses])
def test_falls_strictly_as_the_geometry_gets_worse(spoil, size):
    clip = rendered(3, 5, *size)
    values = [score(spoil(clip, s)) for s in (0, 1, 2, 4, 8)]
    assert values[0] > 0.95
    assert all(a > b for a, b in pairwise(values))


def test_occlusion_costs_nothing():
    """A scene with near objects in front of far walls agrees with itself as well as an empty one would."""
    assert min(score(prediction(seed)) for seed in range(4)) > 0.95


def test_no_overlap_has_no_value():
    geometry = prediction()
    apart = geometry.extrinsics_w2c.clone()
    apart[:, 0, 3] += 100 * torch.arange(5)
    with pytest.raises(CannotJudge):
        score(dataclasses.replace(geometry, extrinsics_w2c=apart))
    with pytest.raises(CannotJudge):
        score(prediction(frames=1))


def test_one_frame_too_deep_is_noticed():
    geometry = prediction()
    factor = torch.ones(5)
    factor[2] = 1.03
    assert score(scenes.scale_depth(geometry, factor)) < score(geometry) - 0.05
