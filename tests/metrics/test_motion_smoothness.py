from itertools import pairwise

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import noise, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import motion_smoothness
from videogpa.metrics.base import Clip

INNER = (..., slice(10, -10), slice(10, -10))


def value(frames) -> float:
    return motion_smoothness.measure(Clip(frames=frames))


def shifted(pixels: list[float], height: int = 48, width: int = 48):
    """One picture moved sideways to these places."""
    frame = rendered(3, 1, height, width).rgb.expand(len(pixels), -1, -1, -1)
    return scenes.shift(frame, torch.tensor([[x, 0.0] for x in pixels]))


@pytest.mark.parametrize("size", [(48, 48), (64, 96)])
@pytest.mark.parametrize("spoil", [scenes.jitter, scenes.wobble])
def test_falls_strictly_with_jitter(spoil, size):
    clip = rendered(3, 5, *size)
    values = [value(spoil(clip, s)) for s in (0, 0.5, 1, 2)]
    assert all(a > b for a, b in pairwise(values))


def test_uneven_motion_is_less_smooth_than_even_motion():
    even, uneven, stepping = ([0, 2, 4, 6, 8], [0, 1, 4, 5, 8], [0, 0, 4, 4, 8])
    values = [value(shifted(places)) for places in (even, uneven, stepping)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 0.95 > values[1] + 0.1


def test_the_middle_is_where_the_motion_puts_it():
    frames = shifted([0, 2, 4])
    middle = motion_smoothness.interpolate(frames[::2])
    torch.testing.assert_close(middle.motion[INNER].mean((0, 2, 3)), torch.tensor([4.0, 0]), atol=0.3, rtol=0)
    assert middle.known[INNER].float().mean() > 0.9
    assert (middle.frames - frames[1:2])[INNER].abs().mean() < 0.01


def test_fading_gains_nothing_and_noise_loses():
    frames = rendered(3).rgb
    grey = torch.lerp(frames, torch.tensor(0.5), 0.5)
    assert value(grey) == pytest.approx(value(frames), abs=0.01)
    assert value((frames + 0.04 * noise(*frames.shape)).clamp(0, 1)) < value(frames) - 0.05


def test_unrelated_frames_are_near_zero():
    assert abs(value(noise(5, 3, 48, 48).sigmoid())) < 0.2


def test_what_rests_is_not_counted():
    """A patch that jumps before a still picture is as uneven as if nothing else were there."""
    picture, body = rendered(3, 1).rgb[0], rendered(4, 1).rgb[0, :, 14:34, 14:34]
    clip = picture.expand(5, -1, -1, -1).clone()
    for frame, x in zip(clip, (4, 4, 8, 8, 12), strict=True):
        frame[:, 14:34, x : x + 20] = body
    assert value(clip) < 0.9


def test_the_last_of_an_even_number_of_frames_is_not_looked_at():
    frames = rendered(3, 6).rgb
    assert value(frames) == pytest.approx(value(frames[:5]), abs=0.01)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (rendered(3, 2).rgb, "three frames"),
        (torch.full((3, 3, 48, 48), 0.5), "texture"),
        (torch.full((3, 3, 48, 48), torch.nan), "not finite"),
        (rendered(3, 1).rgb.expand(5, -1, -1, -1), "next to nothing moves"),
        (torch.cat([rendered(seed).rgb[:1] for seed in range(5)]), "disagrees"),
    ],
)
def test_what_proves_nothing_has_no_value(frames, reason):
    with pytest.raises(CannotJudge, match=reason):
        value(frames)
