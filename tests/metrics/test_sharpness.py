import pytest
import torch

from tests.metrics.scenes import blur, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import sharpness
from videogpa.metrics.base import Clip


def value(frames) -> float:
    return sharpness.measure(Clip(frames=frames))


def test_falls_with_blur_and_fade_and_ignores_brightness():
    frames = rendered().rgb * 0.5
    values = [value(frames), *(value(blur(frames, s)) for s in (0.5, 1.0, 2.0))]
    assert values == sorted(values, reverse=True)
    assert value(frames * 0.5) == pytest.approx(values[0] / 2)
    assert value(frames + 0.3) == pytest.approx(values[0], rel=1e-4)


def test_is_the_mean_absolute_laplacian_of_the_later_frames():
    frames = torch.zeros(2, 3, 3, 3)
    frames[0] = torch.rand(3, 3, 3)
    frames[1, :, 1, 1] = 1
    assert value(frames) == pytest.approx(4)


def test_needs_a_second_frame():
    with pytest.raises(CannotJudge):
        value(torch.rand(1, 3, 8, 8))
