import dataclasses

import pytest
import torch
from kornia.metrics import ssim

from tests.metrics.scenes import as_clip, exact, noise, rendered, wrong_poses
from videogpa.errors import CannotJudge
from videogpa.metrics import paper_reward, perceptual_drift
from videogpa.metrics.base import Clip
from videogpa.metrics.perceptual import ms_ssim, ms_ssim_scales, perceptual_distance, perceptual_name


@pytest.mark.parametrize(("side", "scales"), [(8, 1), (16, 1), (22, 2), (48, 3), (96, 4), (176, 5), (720, 5)])
def test_as_many_scales_as_windows_fit(side, scales):
    assert ms_ssim_scales(side, 2 * side) == scales


@pytest.mark.parametrize("size", [(5, 9), (16, 16), (48, 48), (180, 200)])
def test_ms_ssim_is_one_for_equal_images_and_falls_with_noise(size):
    image = torch.rand(2, 3, *size)
    torch.testing.assert_close(ms_ssim(image, image), torch.ones(2))
    little = ms_ssim(image, (image + 0.05 * noise(2, 3, *size)).clamp(0, 1))
    much = ms_ssim(image, (image + 0.3 * noise(2, 3, *size)).clamp(0, 1))
    assert (much < little).all()
    assert (little < 1).all()


def test_one_scale_is_plain_ssim():
    a = torch.rand(1, 3, 16, 16)
    b = (a + 0.1 * noise(1, 3, 16, 16)).clamp(0, 1)
    inner = ssim(a, b, 11)[..., 5:-5, 5:-5].mean((1, 2, 3))
    torch.testing.assert_close(ms_ssim(a, b), inner, atol=1e-4, rtol=1e-4)


def test_the_distance_in_use_has_a_name_for_the_protocol():
    assert perceptual_name() in {"1-ms-ssim", "lpips-alex"}
    image = rendered().rgb
    assert perceptual_distance(image, image).abs().max() < 1e-5


def test_drift_counts_change_between_consecutive_frames():
    frames = rendered().rgb
    still = frames[:1].expand(5, -1, -1, -1)
    assert perceptual_drift.measure(Clip(frames=still)) == pytest.approx(0, abs=1e-5)
    assert perceptual_drift.measure(Clip(frames=frames)) > 0.01
    with pytest.raises(CannotJudge):
        perceptual_drift.measure(Clip(frames=frames[:1]))


def test_paper_reward_rises_with_wrong_poses():
    clip = rendered()
    values = [paper_reward.measure(as_clip(wrong_poses(clip, s))) for s in (0, 1, 2, 4)]
    assert values == sorted(values)
    assert values[0] < 0.1


def test_paper_reward_falls_as_a_clip_gets_darker():
    """Whatever its values are, they are shares of full brightness: the range is never guessed from them."""
    geometry = exact(rendered())
    dark = [dataclasses.replace(geometry, images=geometry.images * gain) for gain in (1, 0.1, 1 / 255, 1e-4)]
    values = [paper_reward.measure(as_clip(clip)) for clip in dark]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-4


def test_paper_reward_keeps_the_published_weakness():
    """Poses so wrong that no frame sees another one: every frame explains itself and scores best."""
    geometry = exact(rendered())
    apart = geometry.extrinsics_w2c.clone()
    apart[:, 0, 3] += 100 * torch.arange(5)
    value = paper_reward.measure(as_clip(dataclasses.replace(geometry, extrinsics_w2c=apart)))
    assert value == pytest.approx(0, abs=1e-5)
