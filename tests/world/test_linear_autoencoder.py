import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videogpa.world.linear_autoencoder import LinearVideoAutoencoder, fit_linear_autoencoder
from videogpa.world.render import render
from videogpa.world.scene import sample_scene

SIZE = 48


def videos(seeds: range) -> torch.Tensor:
    """Clips [n 3 9 48 48] in [-1, 1]."""
    rgb = torch.stack([render(sample_scene(seed), 9, SIZE, SIZE).rgb for seed in seeds])
    return rgb.transpose(1, 2) * 2 - 1


@pytest.fixture(scope="module")
def vae() -> LinearVideoAutoencoder:
    return fit_linear_autoencoder(videos(range(16)), z_dim=32)


@pytest.fixture(scope="module")
def held_out() -> torch.Tensor:
    return videos(range(1000, 1003))


def test_clips_it_was_not_fitted_to_come_back_above_28_db(vae, held_out):
    codes = vae.encode(held_out).latent_dist.mode()
    decoded = vae.decode(codes).sample
    assert codes.shape == (3, 32, 5, SIZE // 4, SIZE // 4)
    assert decoded.shape == held_out.shape
    # Of pixels in [-1, 1], so the peak is 2.
    for error in ((decoded - held_out)[:, :, :1], (decoded - held_out)[:, :, 1:]):
        assert 10 * math.log10(4 / float(error.square().mean())) > 28


def test_the_first_frame_alone_has_the_first_code_of_the_whole_clip(vae, held_out):
    whole = vae.encode(held_out).latent_dist.mode()
    for frames in (1, 3):
        start = vae.encode(held_out[:, :, :frames]).latent_dist.mode()
        torch.testing.assert_close(start, whole[:, :, : start.shape[2]], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(vae.decode(whole[:, :, :1]).sample, vae.decode(whole).sample[:, :, :1])


def test_a_still_clip_has_nearly_the_same_code_in_every_frame(vae, held_out):
    still = held_out[:, :, :1].expand(-1, -1, 9, -1, -1)
    codes = vae.encode(still).latent_dist.mode()
    change = (codes[:, :, 1] - codes[:, :, 0]).square().mean() / codes[:, :, 0].square().mean()
    assert change < 0.05
    torch.testing.assert_close(codes[:, :, 1], codes[:, :, 4], atol=1e-4, rtol=1e-4)


def test_the_distribution_has_no_spread(vae, held_out):
    posterior = vae.encode(held_out).latent_dist
    assert torch.equal(posterior.sample(), posterior.mode())
    assert torch.equal(vae.encode(held_out, return_dict=False)[0].mode(), posterior.mode())
    codes = posterior.mode()
    assert torch.equal(vae.decode(codes, return_dict=False)[0], vae.decode(codes).sample)


def test_saved_and_loaded_it_is_the_same(vae, held_out, tmp_path):
    vae.save_pretrained(tmp_path)
    loaded = LinearVideoAutoencoder.from_pretrained(tmp_path)
    assert (tmp_path / "diffusion_pytorch_model.safetensors").exists()
    assert torch.equal(loaded.encode(held_out).latent_dist.mode(), vae.encode(held_out).latent_dist.mode())
    assert tuple(loaded.config.latents_std) == tuple(vae.config.latents_std)


def test_normalised_codes_keep_half_of_the_contrast_between_channels(vae):
    codes = vae.encode(videos(range(4))).latent_dist.mode()[:, :, 1:]
    normalised = codes / torch.tensor(vae.config.latents_std).view(-1, 1, 1, 1)
    before, after = codes.std((0, 2, 3, 4)).log(), normalised.std((0, 2, 3, 4)).log()
    assert float((after[0] - after[-1]) / (before[0] - before[-1])) == pytest.approx(0.5, abs=0.1)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_frames_and_sides_that_do_not_fit_are_refused(frames: int, height: int, width: int):
    model = LinearVideoAutoencoder(z_dim=2, latents_mean=(0.0, 0.0), latents_std=(1.0, 1.0))
    video = torch.zeros(1, 3, frames, height, width)
    if (frames - 1) % 2 == 0 and height % 4 == 0 and width % 4 == 0:
        expected = (1, 2, 1 + (frames - 1) // 2, height // 4, width // 4)
        assert model.encode(video).latent_dist.mode().shape == expected
        assert model.decode(torch.zeros(expected)).sample.shape == video.shape
    else:
        with pytest.raises(ValueError, match=f"{frames} frames of {width}x{height}"):
            model.encode(video)
