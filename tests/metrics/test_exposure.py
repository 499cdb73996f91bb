import math
from dataclasses import replace

import pytest
import torch

from tests.metrics.scenes import noise, prediction
from videogpa.metrics.exposure import MOST, exposed_alike, log_exposure


def brightened(log_gain: torch.Tensor):
    geometry = prediction(frames=len(log_gain))
    return replace(geometry, images=geometry.images * log_gain.exp().view(-1, 1, 1, 1))


@pytest.mark.parametrize("trend", [torch.linspace(0, -0.3, 7), -0.25 * torch.linspace(-1, 1, 7) ** 2])
def test_a_smooth_trend_is_found_and_taken_out(trend):
    geometry = brightened(trend)
    assert torch.allclose(log_exposure(geometry), trend - trend.mean(), atol=0.02)
    steady = exposed_alike(geometry).images * trend.mean().neg().exp()
    assert (steady - prediction(frames=7).images).abs().mean() < 0.01


def test_a_steady_clip_stays_as_it_is():
    assert log_exposure(prediction(frames=7)).abs().max() < 0.01


def test_flicker_is_no_trend():
    flicker = 0.2 * torch.tensor([1.0, -1, 1, -1, 1, -1, 1])
    found = log_exposure(brightened(flicker))
    assert found.abs().mean() < 0.35 * flicker.abs().mean()


def test_only_so_much_is_taken_out():
    found = log_exposure(brightened(torch.linspace(0, -2.0, 7)))
    assert (found.max() - found.min()).item() == pytest.approx(math.log(MOST), abs=1e-5)


def test_black_frames_have_no_exposure():
    geometry = prediction(frames=3)
    assert (log_exposure(replace(geometry, images=torch.zeros_like(geometry.images))) == 0).all()
    assert log_exposure(replace(geometry, images=noise(*geometry.images.shape).sigmoid())).isfinite().all()
