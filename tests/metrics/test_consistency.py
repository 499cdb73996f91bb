import gc
from dataclasses import replace
from weakref import ref

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, exact, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import consistency, cross_view
from videogpa.metrics.base import Clip


def score(geometry, frames=None) -> float:
    return consistency.measure(as_clip(geometry, frames))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_loses(seed, sigma):
    geometry = prediction(seed)
    assert score(geometry, scenes.blur(geometry.images, sigma)) < score(geometry)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_loses(seed):
    geometry = prediction(seed)
    noisy = (geometry.images + 0.03 * scenes.noise(*geometry.images.shape)).clamp(0, 1)
    assert score(geometry, noisy) < score(geometry) - 0.01


@pytest.mark.parametrize("gain", [0.75, 1 / 0.75])
def test_a_change_of_exposure_costs_next_to_nothing(gain):
    geometry = prediction(frames=7)
    exposed = geometry.images * torch.linspace(1, gain, 7).view(-1, 1, 1, 1) * min(1, 1 / gain)
    lost = score(geometry) - score(geometry, exposed)
    assert abs(lost) < 0.02
    assert cross_view.measure(as_clip(geometry)) - cross_view.measure(as_clip(geometry, exposed)) > 5 * abs(
        lost
    )


def test_a_fade_to_grey_is_no_exposure():
    geometry = prediction(frames=7)
    share = torch.linspace(0, 0.5, 7).view(-1, 1, 1, 1)
    assert score(geometry, torch.lerp(geometry.images, torch.tensor(0.5), share)) < score(geometry) - 0.1


def test_repeated_frames_cost_half_their_share():
    geometry = prediction(frames=6)
    held = torch.tensor([0, 0, 2, 2, 4, 4])
    parts = ("depth", "images", "extrinsics_w2c")
    slow = replace(geometry, **{name: getattr(geometry, name)[held] for name in parts})
    assert consistency.repeated_share(slow.images) == pytest.approx(3 / 5)
    assert score(slow) == pytest.approx(
        0.7 * consistency.measure(replace_frames(slow, geometry.images)), abs=1e-6
    )
    assert score(slow) < score(geometry) - 0.15


def replace_frames(geometry, frames) -> Clip:
    """The geometry judged as it is, with frames in which none is repeated."""
    return Clip(frames=frames, geometry=geometry)


def test_slow_motion_is_no_repetition():
    assert consistency.repeated_share(prediction(frames=9, motion="pans left").images) == 0


def test_a_frozen_clip_cannot_be_judged():
    geometry = prediction()
    parts = ("depth", "images", "extrinsics_w2c")
    still = replace(
        geometry, **{name: getattr(geometry, name)[:1].expand_as(getattr(geometry, name)) for name in parts}
    )
    assert consistency.repeated_share(still.images) == 1
    with pytest.raises(CannotJudge):
        score(still)


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_scale_and_world_origin_change_nothing(scale):
    geometry = prediction()
    assert score(scenes.move_world(geometry, scale)) == pytest.approx(score(geometry), abs=2e-3)


def test_a_prepared_clip_is_kept_as_long_as_its_geometry():
    geometry = prediction()
    first = consistency.prepared(geometry)
    assert consistency.prepared(geometry) is first
    assert consistency.prepared(replace(geometry, depth=geometry.depth.clone())) is not first
    kept = ref(first)
    del first, geometry
    gc.collect()
    assert kept() is None


def test_error_maps_leave_moving_bodies_out():
    clip = rendered(3)
    body = clip.object_ids == 1
    spoiled = replace(exact(clip), images=scenes.wobble(clip, 4))
    maps, judged = consistency.error_maps(spoiled)
    assert maps[body & judged].mean() > 1.5 * maps[~body & judged].mean()
    assert not consistency.error_maps(replace(spoiled, dynamic_mask=body))[1][body].any()
