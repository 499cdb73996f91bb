import math
from itertools import pairwise

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, exact, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import appearance_flicker


def value(geometry, frames=None) -> float:
    return appearance_flicker.measure(as_clip(geometry, frames))


@pytest.mark.parametrize("size", [(32, 32), (48, 48), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.light, scenes.jitter, scenes.wobble])
def test_rises_strictly_as_the_pictures_flicker_more(spoil, size):
    clip = rendered(3, 5, *size)
    values = [value(exact(clip), spoil(clip, s)) for s in (0, 0.5, 1, 2, 4)]
    assert all(a < b for a, b in pairwise(values))


def test_a_light_that_changes_smoothly_is_no_flicker():
    clip = rendered(3, 9)
    ramp = torch.linspace(0.5, 1, 9).view(-1, 1, 1, 1)
    assert value(exact(clip), clip.rgb * ramp) < 1.6 * value(exact(clip))
    flickering = torch.tensor([1, 0.95] * 4 + [1]).view(-1, 1, 1, 1)
    assert value(exact(clip), clip.rgb * flickering) > 5 * value(exact(clip))


@pytest.mark.parametrize("contrast", [0.5, 0.1])
def test_fading_and_blur_do_not_hide_it(contrast):
    clip = rendered(3)
    bright = scenes.light(clip, 4)
    assert value(exact(clip), 0.5 + (bright - 0.5) * contrast) == pytest.approx(
        value(exact(clip), bright), rel=1e-3
    )
    assert value(exact(clip), bright * contrast) == pytest.approx(value(exact(clip), bright), rel=1e-3)
    assert value(exact(clip), scenes.blur(bright, 1)) > 0.95 * value(exact(clip), bright)


def test_scale_origin_size_and_number_of_frames_hardly_matter():
    clip = rendered(3)
    spoiled = scenes.light(clip, 4)
    moved = scenes.move_world(exact(clip), 10)
    assert value(moved, spoiled) == pytest.approx(value(exact(clip), spoiled), rel=1e-2)
    clips = [rendered(3, 5, *size) for size in ((32, 32), (48, 48), (96, 128))]
    values = [value(exact(c), scenes.light(c, 4)) for c in clips]
    assert max(values) < 1.1 * min(values)


def test_what_proves_nothing_has_no_value():
    geometry = prediction()
    for images in (torch.full_like(geometry.images, 0.5), torch.full_like(geometry.images, math.nan)):
        with pytest.raises(CannotJudge):
            value(geometry, images)
    for spoiled in (scenes.frozen(geometry), scenes.far_apart(geometry), scenes.scale_depth(geometry, 0.0)):
        with pytest.raises(CannotJudge):
            value(spoiled)
    with pytest.raises(CannotJudge):
        value(prediction(frames=2))
