import dataclasses
import math
from itertools import pairwise

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, exact, noise, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import cross_view
from videogpa.metrics.base import Clip

SIZES = [(32, 32), (48, 48), (64, 96)]


def score(geometry, frames=None) -> float:
    return cross_view.measure(as_clip(geometry, frames))


def strictly_falls(values: list[float]) -> bool:
    return all(a > b for a, b in pairwise(values))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("spoil", [scenes.wrong_poses, scenes.depth_flicker])
def test_falls_strictly_as_the_geometry_gets_worse(spoil, size):
    clip = rendered(3, 5, *size)
    steps = (0, 1, 2, 4, 8) if spoil is scenes.wrong_poses else (0, 3, 6, 12, 24)
    assert strictly_falls([score(spoil(clip, s)) for s in steps])


def test_failed_geometry_has_no_score():
    geometry = prediction()
    apart = geometry.extrinsics_w2c.clone()
    apart[:, 0, 3] += 100 * torch.arange(5)
    with pytest.raises(CannotJudge):
        score(dataclasses.replace(geometry, extrinsics_w2c=apart))
    with pytest.raises(CannotJudge):
        score(dataclasses.replace(geometry, extrinsics_w2c=torch.full_like(apart, math.nan)))
    with pytest.raises(CannotJudge):
        score(scenes.scale_depth(geometry, 0.0))


def test_collapsed_depth_never_scores_better_than_the_truth():
    geometry = prediction()
    try:
        collapsed = score(scenes.scale_depth(geometry, 0.01))
    except CannotJudge:
        return
    assert collapsed < score(geometry) - 0.1


def test_one_frame_a_little_too_deep_is_noticed():
    geometry = prediction()
    factor = torch.ones(5)
    factor[2] = 1.03
    assert score(scenes.scale_depth(geometry, factor)) < score(geometry)


def test_hardly_depends_on_the_number_of_frames():
    values = [score(prediction(2, frames=t)) for t in (2, 3, 5, 10)]
    assert max(values) - min(values) < 0.03


def test_hardly_depends_on_the_size():
    values = [score(prediction(2, 5, *size)) for size in ((48, 48), (64, 64), (96, 128), (160, 160))]
    assert max(values) - min(values) < 0.06


def test_a_clean_scene_scores_high_and_is_mostly_seen():
    geometry = prediction()
    assert score(geometry) > 0.75
    maps, judged = cross_view.error_maps(cross_view.clip_errors(geometry))
    assert cross_view.coverage(judged) > 0.9
    assert maps[judged].median() < 0.25


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("motion", ["trucks right", "dollies forward", "orbits left"])
def test_blur_does_not_pay(seed, motion):
    geometry = prediction(seed, motion=motion)
    blurred = [scenes.blur(geometry.images, sigma) for sigma in (0.5, 1.0, 2.0)]
    assert strictly_falls([score(geometry), *(score(geometry, frames) for frames in blurred)])


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fading_to_grey_does_not_pay(seed):
    geometry = prediction(seed)
    faded = [0.5 + (geometry.images - 0.5) * contrast for contrast in (1, 0.75, 0.5, 0.25, 0.05)]
    assert strictly_falls([score(geometry, frames) for frames in faded])
    fading = torch.linspace(1, 0.2, 5).view(-1, 1, 1, 1)
    assert score(geometry, 0.5 + (geometry.images - 0.5) * fading) < score(geometry) - 0.1


def test_a_frozen_clip_cannot_be_judged():
    geometry = prediction()
    still = {
        name: getattr(geometry, name)[:1].expand_as(getattr(geometry, name))
        for name in ("depth", "images", "extrinsics_w2c")
    }
    with pytest.raises(CannotJudge, match="motion"):
        score(dataclasses.replace(geometry, **still))


def test_freezing_the_second_half_does_not_pay():
    geometry = prediction(frames=6)
    stops = torch.tensor([0, 1, 2, 3, 3, 3])
    frozen = dataclasses.replace(
        geometry,
        depth=geometry.depth[stops],
        images=geometry.images[stops],
        extrinsics_w2c=geometry.extrinsics_w2c[stops],
    )
    assert score(frozen) < score(geometry) + 0.01


def test_noise_and_grey_do_not_score_like_a_scene():
    geometry = prediction()
    clean = score(geometry)
    assert score(geometry, noise(*geometry.images.shape).sigmoid()) < clean - 0.2
    assert score(geometry, torch.full_like(geometry.images, 0.5)) < 0.1


@pytest.mark.parametrize(("gain", "offset"), [(0.1, 0.9), (0.1, 0.0), (1 / 255, 0.0)])
def test_bright_and_nearly_black_clips_are_taken_as_they_are(gain, offset):
    geometry = prediction()
    values = [score(geometry, geometry.images * g + offset) for g in (gain, gain * 0.9)]
    assert 0 < values[1] < values[0] < score(geometry)
    assert values[0] - values[1] < 0.05


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_scale_and_world_origin_change_nothing(scale):
    geometry = prediction()
    assert score(scenes.move_world(geometry, scale)) == pytest.approx(score(geometry), abs=2e-3)


def test_pixels_without_confidence_are_not_judged():
    clip = rendered(3)
    geometry = exact(clip)
    spoiled = scenes.wobble(clip, 4)
    body = clip.object_ids == 1
    sure = dataclasses.replace(geometry, confidence=(~body).float())
    moving = dataclasses.replace(geometry, dynamic_mask=body)
    assert score(sure, spoiled) > score(geometry, spoiled)
    assert score(moving, spoiled) == pytest.approx(score(sure, spoiled))
    assert not cross_view.error_maps(cross_view.clip_errors(moving))[1][body].any()


def test_frames_of_which_nothing_counts_are_not_judged():
    geometry = prediction()
    with pytest.raises(CannotJudge):
        cross_view.measure(
            as_clip(dataclasses.replace(geometry, confidence=torch.full_like(geometry.depth, 1e-30)))
        )


def test_error_maps_point_at_what_is_wrong():
    clip = rendered(3)
    maps, judged = cross_view.error_maps(
        cross_view.clip_errors(dataclasses.replace(exact(clip), images=scenes.wobble(clip, 4)))
    )
    body = clip.object_ids == 1
    assert maps[body & judged].mean() > 1.5 * maps[~body & judged].mean()
    assert (maps >= 0).all()
    assert (maps < 1).all()
    assert (maps[~judged] == 0).all()


def test_a_single_frame_or_no_geometry_cannot_be_judged():
    geometry = prediction()
    with pytest.raises(CannotJudge):
        cross_view.measure(Clip(frames=geometry.images))
    with pytest.raises(CannotJudge):
        score(prediction(frames=1))


def test_long_clips_are_thinned_evenly():
    sources = cross_view.sources_of(70, 200)
    assert 70 not in sources
    assert 20 <= len(sources) <= 24
    assert min(sources) < 10
    assert max(sources) > 190
