import dataclasses
from itertools import pairwise

import pytest

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, exact, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import albedo_agreement, cross_view


def score(geometry) -> float:
    return albedo_agreement.measure(as_clip(geometry))


@pytest.mark.parametrize("size", [(32, 32), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.wrong_poses, scenes.depth_flicker])
def test_falls_strictly_as_the_geometry_gets_worse(spoil, size):
    clip = rendered(3, 5, *size)
    values = [score(spoil(clip, s)) for s in (0, 3, 6, 12, 24)]
    assert all(a > b for a, b in pairwise(values))


def test_falls_strictly_as_the_surfaces_swim():
    clip = rendered(3)
    albedos = [scenes.jitter(dataclasses.replace(clip, rgb=clip.albedo), s) for s in (0, 0.5, 1, 2, 4)]
    values = [score(dataclasses.replace(exact(clip), albedo=albedo)) for albedo in albedos]
    assert all(a > b for a, b in pairwise(values))


def test_light_that_changes_counts_for_nothing():
    clip = rendered(3)
    dark = dataclasses.replace(exact(clip), images=scenes.light(clip, 20))
    steady = dataclasses.replace(exact(clip), images=scenes.light(clip, 0))
    assert score(dark) == score(steady)
    assert cross_view.measure(as_clip(dark)) < cross_view.measure(as_clip(steady)) - 0.05


def test_scale_origin_size_and_number_of_frames_hardly_matter():
    geometry = prediction()
    assert score(scenes.move_world(geometry, 10)) == pytest.approx(score(geometry), abs=2e-3)
    values = [
        score(prediction(2, *shape)) for shape in ((2, 48, 48), (5, 48, 48), (10, 48, 48), (5, 96, 128))
    ]
    assert max(values) - min(values) < 0.04


@pytest.mark.parametrize("spoil", [scenes.frozen, scenes.far_apart, lambda g: scenes.scale_depth(g, 0.0)])
def test_what_proves_nothing_has_no_value(spoil):
    with pytest.raises(CannotJudge):
        score(spoil(prediction()))
