import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import normal_agreement


def score(geometry) -> float:
    return normal_agreement.measure(as_clip(geometry))


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.wrong_normals, scenes.wrong_poses, scenes.depth_flicker])
def test_falls_strictly_as_the_geometry_gets_worse(spoil, size):
    clip = rendered(3, 5, *size)
    values = [score(spoil(clip, s)) for s in (0, 2, 4, 8, 16)]
    assert values[0] > 0.97
    assert all(a > b for a, b in pairwise(values))


@settings(max_examples=5)
@given(st.floats(0.05, 20))
def test_scale_and_world_origin_change_nothing(scale):
    geometry = prediction()
    assert score(scenes.move_world(geometry, scale)) == pytest.approx(score(geometry), abs=2e-3)


def test_an_angle_counts_as_stated():
    """Two frames whose normals differ by the tolerance everywhere agree by half."""
    clip = rendered(frames=2)
    turned = scenes.exact(clip)
    angle = math.radians(normal_agreement.TOLERANCE_DEGREES)
    up = torch.tensor(
        [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    )
    right = torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand_as(turned.normals)
    normals = right.clone()
    normals[1] = torch.einsum("ij,jhw->ihw", up, right[1])
    assert score(dataclasses.replace(turned, normals=normals)) == pytest.approx(0.5, abs=1e-3)


def test_hardly_depends_on_size_and_number_of_frames():
    values = [score(prediction(2, *shape)) for shape in ((3, 48, 48), (5, 48, 48), (9, 48, 48), (5, 96, 128))]
    assert max(values) - min(values) < 0.01


def test_unknown_normals_are_not_judged():
    geometry = prediction()
    holes = geometry.normals.clone()
    holes[:, :, :10] = math.nan
    holes[:, :, 10:14] = 0
    assert score(dataclasses.replace(geometry, normals=holes)) == pytest.approx(score(geometry), abs=0.02)


@pytest.mark.parametrize("spoil", [scenes.frozen, scenes.far_apart, lambda g: scenes.scale_depth(g, 0.0)])
def test_what_proves_nothing_has_no_value(spoil):
    with pytest.raises(CannotJudge):
        score(spoil(prediction()))


def test_a_single_frame_has_no_value():
    with pytest.raises(CannotJudge):
        score(prediction(frames=1))
