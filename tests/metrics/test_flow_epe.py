import dataclasses
import math
from itertools import pairwise

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, exact, noise, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import flow_epe
from videogpa.world.render import forward_flow


def value(geometry, frames=None) -> float:
    return flow_epe.measure(as_clip(geometry, frames))


@pytest.mark.parametrize("size", [(48, 48), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.jitter, scenes.wobble])
def test_rises_strictly_as_the_pictures_disagree_more(spoil, size):
    clip = rendered(3, 5, *size)
    values = [value(exact(clip), spoil(clip, s)) for s in (0, 0.5, 1, 2)]
    assert all(a < b for a, b in pairwise(values))


@pytest.mark.parametrize("size", [(48, 48), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.wrong_poses, scenes.depth_flicker])
def test_rises_strictly_as_the_geometry_gets_worse(spoil, size):
    clip = rendered(3, 5, *size)
    values = [value(spoil(clip, s)) for s in (0, 2, 4, 8)]
    assert all(a < b for a, b in pairwise(values))


def test_induced_flow_is_the_true_flow_where_it_is_seen():
    clip = rendered(1)
    geometry = exact(clip)
    induced, visible = flow_epe.induced_flow(geometry), flow_epe.visible_in_next(geometry)
    for t in range(4):
        true, truly = forward_flow(clip, t, t + 1)
        torch.testing.assert_close(induced[t][:, visible[t]], true[0][:, visible[t]], atol=1e-3, rtol=0)
        assert (truly[0] | ~visible[t]).float().mean() > 0.98


def test_scale_and_world_origin_change_nothing():
    geometry = prediction()
    for scale in (0.1, 10.0):
        assert value(scenes.move_world(geometry, scale)) == pytest.approx(value(geometry), rel=0.1)


def test_true_clips_are_within_half_a_percent_at_any_size_and_number_of_frames():
    shapes = ((3, 48, 48), (5, 48, 48), (10, 48, 48), (5, 64, 64), (5, 96, 128))
    assert max(value(prediction(2, *shape)) for shape in shapes) < 0.005


def test_what_moves_by_itself_is_left_out():
    clip = rendered(3)
    body = clip.object_ids == 1
    spoiled = scenes.wobble(clip, 4)
    assert value(dataclasses.replace(exact(clip), dynamic_mask=body), spoiled) < value(exact(clip), spoiled)


def test_frozen_pictures_and_noise_are_worse_than_a_scene():
    geometry = prediction()
    assert value(geometry, geometry.images[:1].expand_as(geometry.images)) > 10 * value(geometry)
    assert value(geometry, noise(*geometry.images.shape).sigmoid()) > 10 * value(geometry)


def test_what_proves_nothing_has_no_value():
    geometry = prediction()
    for images in (torch.full_like(geometry.images, 0.5), torch.full_like(geometry.images, math.nan)):
        with pytest.raises(CannotJudge):
            value(geometry, images)
    for spoiled in (scenes.frozen(geometry), scenes.far_apart(geometry), scenes.scale_depth(geometry, 0.0)):
        with pytest.raises(CannotJudge):
            value(spoiled)
    with pytest.raises(CannotJudge):
        value(prediction(frames=1))
