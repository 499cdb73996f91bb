import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videogpa.world.texture import albedo, sample_texture

seeds = st.integers(0, 10**6)


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_albedo_is_a_color_and_no_surface_is_without_features(seed: int):
    rng = np.random.default_rng(seed)
    texture = sample_texture(rng, wavelength=(0.5, 1.2))
    points = torch.from_numpy(rng.uniform(-2, 2, (2000, 3))).float()
    color = albedo(texture, points)
    assert color.min() >= 0
    assert color.max() <= 1
    assert color.std(0).max() > 0.01


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_a_seed_gives_one_texture(seed: int):
    first, second = (sample_texture(np.random.default_rng(seed), wavelength=(0.5, 1.2)) for _ in range(2))
    points = torch.linspace(-1, 1, 30).view(10, 3)
    assert torch.equal(albedo(first, points), albedo(second, points))
    torch.testing.assert_close(first.frame @ first.frame.T, torch.eye(3), atol=1e-5, rtol=0)
