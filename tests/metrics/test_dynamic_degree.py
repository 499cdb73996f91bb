import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import dynamic_degree
from videogpa.metrics.base import Clip


def value(frames) -> float:
    return dynamic_degree.measure(Clip(frames=frames))


@pytest.mark.parametrize("size", [(48, 48), (64, 96), (200, 220)])
def test_a_shift_is_its_share_of_the_longer_side(size):
    frame = rendered(3, 1, *size).rgb.expand(4, -1, -1, -1)
    step = 0.03 * max(size)
    frames = scenes.shift(frame, torch.tensor([[step * t, 0.0] for t in range(4)]))
    assert value(frames) == pytest.approx(0.03, rel=0.35)


def test_more_motion_in_as_many_frames_is_more():
    frames = rendered(1, 9).rgb
    assert value(frames[::2]) > 1.5 * value(frames[:5]) > 0


def test_a_small_body_that_moves_counts():
    frames = rendered(3, 1).rgb.expand(4, -1, -1, -1).clone()
    body = rendered(4, 1).rgb[0, :, 16:32, 16:32]
    for t, frame in enumerate(frames):
        frame[:, 16:32, 6 + 2 * t : 22 + 2 * t] = body
    assert value(frames) > 0.02


def test_a_frozen_clip_does_not_move():
    assert value(rendered(3, 1).rgb.expand(4, -1, -1, -1)) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (rendered(3, 1).rgb, "single frame"),
        (torch.full((3, 3, 48, 48), 0.5), "texture"),
        (torch.full((3, 3, 48, 48), torch.nan), "not finite"),
    ],
)
def test_what_proves_nothing_has_no_value(frames, reason):
    with pytest.raises(CannotJudge, match=reason):
        value(frames)
