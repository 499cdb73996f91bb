import pytest
import torch
from torch.nn import functional as F

from tests.metrics import scenes
from videogpa.errors import CannotJudge
from videogpa.metrics.between_seeds import bias2, flow_bias2, gradient_bias2, unexplained, variance

MANY = 64


@pytest.fixture(scope="module")
def truth():
    return scenes.truth(scenes.rendered())


def around(frames, spread, count=MANY, seed=0):
    """Videos that are all wrong by independent noise."""
    return frames + spread * scenes.noise(count, *frames.shape, seed=seed)


def test_spread_between_seeds_is_no_bias(truth):
    videos = around(truth.frames, 0.1)
    assert bias2(videos, truth) == pytest.approx(0, abs=2e-5)
    assert variance(videos, truth) == pytest.approx(0.01, rel=0.02)


def test_a_common_error_is_bias_whatever_the_spread(truth):
    for spread in (0.0, 0.1):
        videos = around(truth.frames + 0.05, spread)
        assert bias2(videos, truth) == pytest.approx(0.0025, rel=0.05)


def test_the_given_first_frame_is_left_out(truth):
    videos = truth.frames.repeat(2, 1, 1, 1, 1)
    videos[:, 0] = 0
    assert bias2(videos, truth) == variance(videos, truth) == 0


def test_losing_spread_is_no_gain(truth):
    """Half way to the mean over seeds: single videos get better, together they are as far off as before."""
    videos = around(truth.frames + 0.05, 0.1)
    shrunk = (videos + videos.mean(0)) / 2
    assert variance(shrunk, truth) < 0.3 * variance(videos, truth)
    assert bias2(shrunk, truth) > 0.99 * bias2(videos, truth)


def test_edges_in_the_wrong_place_are_gradient_bias_and_other_light_is_not(truth):
    brighter = (truth.frames + 0.05).repeat(2, 1, 1, 1, 1)
    assert gradient_bias2(brighter, truth) == pytest.approx(0, abs=1e-9)
    off = [
        gradient_bias2(scenes.jitter(scenes.rendered(), strength).repeat(2, 1, 1, 1, 1), truth)
        for strength in (0, 2, 4)
    ]
    assert off[0] < 1e-9 < off[1] < off[2]
    noisy = around(truth.frames, 0.1)
    assert abs(gradient_bias2(noisy, truth)) < 0.02 * (noisy[0] - truth.frames)[1:].square().mean()


def soft(videos):
    return torch.stack([F.avg_pool2d(F.pad(v, (1, 1, 1, 1), mode="replicate"), 3, stride=1) for v in videos])


def neighbours(videos):
    later = torch.cat([videos[:, 2:], videos[:, -2:-1]], 1)
    return torch.cat([videos[:, :1], (videos[:, :-1] + later) / 2], 1)


FILTERS = {
    "more contrast": lambda v: 1.1 * v,
    "less light": lambda v: 0.8 * v + 0.1,
    "a light blur": lambda v: 0.9 * v + 0.1 * soft(v),
    "sharpened": lambda v: 1.1 * v - 0.1 * soft(v),
    "smoothed in time": lambda v: 0.9 * v + 0.1 * neighbours(v),
}


@pytest.mark.parametrize("name", FILTERS)
def test_what_a_filter_does_explains_no_more(truth, name):
    videos = around(scenes.jitter(scenes.rendered(), 1), 0.02, count=2)
    filtered = FILTERS[name](videos)
    plain, ours = (m(filtered, truth) / m(videos, truth) - 1 for m in (gradient_bias2, unexplained))
    assert abs(plain) > 0.04
    assert abs(ours) < 0.05 * abs(plain)


def test_nothing_common_explains_nothing_and_the_truth_all(truth):
    assert unexplained(truth.frames.repeat(2, 1, 1, 1, 1), truth) == pytest.approx(0, abs=1e-9)
    assert unexplained(around(truth.frames, 0.1), truth) == pytest.approx(0, abs=0.01)
    assert unexplained(scenes.noise(MANY, *truth.frames.shape), truth) > 0.98
    assert unexplained(torch.zeros(2, *truth.frames.shape), truth) == 1


def test_what_stands_still_is_judged(truth):
    """Frames before and after are then the frame itself."""
    still = truth.frames[:1].expand_as(truth.frames).repeat(2, 1, 1, 1, 1)
    assert 0 < unexplained(still, truth) < 1


def test_losing_spread_explains_no_more(truth):
    wrong = scenes.jitter(scenes.rendered(), 3)
    wide, narrow = (unexplained(around(wrong, spread), truth) for spread in (0.1, 0.05))
    assert wide == pytest.approx(narrow, rel=0.01)


def test_a_truth_that_shows_nothing_is_not_judged(truth):
    blank = scenes.dataclasses.replace(truth, frames=torch.full_like(truth.frames, 0.5))
    with pytest.raises(CannotJudge, match="shows nothing"):
        unexplained(truth.frames.repeat(2, 1, 1, 1, 1), blank)


def test_flow_bias_is_in_squared_pixels(truth):
    shifts = torch.tensor([[0.0, 0], [2, 0], [2, 0], [2, 0], [2, 0]])
    off = scenes.shift(truth.frames, shifts)
    assert flow_bias2(torch.stack([off, off]), truth) == pytest.approx(4, rel=0.5)
    # Two seeds that are off to opposite sides are right together.
    other = scenes.shift(truth.frames, -shifts)
    assert flow_bias2(torch.stack([off, other]), truth) < 0


@pytest.mark.parametrize("measure", [bias2, gradient_bias2, unexplained, flow_bias2, variance])
def test_one_seed_or_another_shape_is_not_judged(truth, measure):
    with pytest.raises(CannotJudge, match="two seeds"):
        measure(truth.frames[None], truth)
    with pytest.raises(CannotJudge, match="cannot be compared"):
        measure(truth.frames.repeat(2, 1, 1, 1, 1)[..., :24], truth)


def test_flow_that_sees_nothing_is_not_judged(truth):
    blind = scenes.dataclasses.replace(truth, covisible=torch.zeros_like(truth.covisible))
    with pytest.raises(CannotJudge, match="nothing of the first frame"):
        flow_bias2(truth.frames.repeat(2, 1, 1, 1, 1), blind)
