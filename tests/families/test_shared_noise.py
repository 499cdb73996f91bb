import pytest
import torch
from diffusers.utils.torch_utils import randn_tensor
from hypothesis import given
from hypothesis import strategies as st

from videogpa.families.shared_noise import SharedNoise


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def drawn(share: float, *seeds: int, seed: int = 9) -> torch.Tensor:
    with SharedNoise(share, seed):
        return randn_tensor((len(seeds), 50_000), generator=generators(*seeds))


@given(st.floats(0, 0.99), st.integers(3, 2**31))
def test_noise_stays_standard_normal_and_is_correlated_by_the_share(share: float, seed: int) -> None:
    noise = drawn(share, 1, 2, seed=seed)
    assert noise.mean().abs() < 0.02
    assert noise.std().item() == pytest.approx(1, abs=0.025)
    assert torch.corrcoef(noise)[0, 1].item() == pytest.approx(share, abs=0.025)


def test_without_a_share_it_is_the_generators_own() -> None:
    assert torch.equal(drawn(0.0, 1, 2), randn_tensor((2, 50_000), generator=generators(1, 2)))


def test_a_generator_gives_the_same_in_any_company() -> None:
    assert torch.equal(drawn(0.5, 1, 2)[1:], drawn(0.5, 2))


def test_later_draws_share_other_noise() -> None:
    own = generators(1, 2)
    with SharedNoise(0.9, 0):
        first, second = (randn_tensor((2, 50_000), generator=own) for _ in range(2))
    assert torch.corrcoef(second)[0, 1].item() == pytest.approx(0.9, abs=0.025)
    assert torch.corrcoef(torch.stack([first[0], second[0]]))[0, 1].abs() < 0.02


def test_nothing_else_is_touched() -> None:
    torch.manual_seed(0)
    plain = torch.randn(5)
    torch.manual_seed(0)
    with SharedNoise(0.5, 0):
        assert torch.equal(torch.randn(5), plain)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share of common noise"):
        SharedNoise(share, 0)
