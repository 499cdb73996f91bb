import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videogpa.dpo.dense import ErrorMap, cells, pair_weights, read_map, shuffled_in_space
from videogpa.errors import InputError
from videogpa.families.base import save_tensors


def error_map(frames=9, height=8, width=8, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return ErrorMap(
        torch.rand(frames, height, width, generator=rng), torch.ones(frames, height, width).bool()
    )


def test_cells_average_the_frames_of_one_latent_frame_and_the_pixels_of_one_cell():
    error = torch.zeros(9, 8, 8)
    error[0, :2, :2] = 1.0
    error[5:, 4:6, 6:] = torch.tensor([0.0, 0.4, 0.8, 0.8]).view(4, 1, 1)
    found = cells(ErrorMap(error, torch.ones(9, 8, 8).bool()), (3, 4, 4))
    expected = torch.zeros(3, 4, 4)
    expected[0, 0, 0] = 1.0
    expected[2, 2, 3] = 0.5
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("frames", "latent", "padding"), [(9, 3, 0), (9, 4, 1), (49, 13, 0), (81, 22, 1), (1, 1, 0)]
)
def test_padded_latent_frames_get_the_mean(frames, latent, padding):
    given_map = error_map(frames)
    found = cells(given_map, (latent, 4, 4))
    assert found.shape == (latent, 4, 4)
    torch.testing.assert_close(found[:padding], given_map.error.mean().expand(padding, 4, 4))


def test_what_nobody_could_judge_gets_the_mean_of_the_rest():
    judged = torch.ones(9, 8, 8).bool()
    judged[:, :4] = False
    error = error_map().error
    found = cells(ErrorMap(error, judged), (3, 4, 4))
    torch.testing.assert_close(found[:, :2], error[:, 4:].mean().expand(3, 2, 4))


@given(st.integers(0, 100), st.sampled_from(["own", "contrast"]))
def test_weights_are_one_on_average_and_never_negative(seed, how):
    for weights in pair_weights(error_map(seed=seed), error_map(seed=seed + 1), (3, 4, 4), how):
        assert weights.mean().item() == pytest.approx(1, abs=1e-5)
        assert weights.min() >= 0


def test_own_weights_follow_each_map_and_contrast_is_one_for_both():
    good, bad = error_map(seed=0), error_map(seed=1)
    chosen, rejected = pair_weights(good, bad, (3, 4, 4), "own")
    assert torch.corrcoef(torch.stack([chosen.flatten(), cells(good, (3, 4, 4)).flatten()]))[0, 1] < -0.99
    assert torch.corrcoef(torch.stack([rejected.flatten(), cells(bad, (3, 4, 4)).flatten()]))[0, 1] > 0.99
    chosen, rejected = pair_weights(good, bad, (3, 4, 4), "contrast")
    assert torch.equal(chosen, rejected)
    worse = cells(bad, (3, 4, 4)) > cells(good, (3, 4, 4))
    assert torch.equal(chosen > 0, worse)


def test_a_flawless_pair_is_weighted_evenly():
    flawless = ErrorMap(torch.zeros(9, 8, 8), torch.ones(9, 8, 8).bool())
    for how in ("own", "contrast"):
        for weights in pair_weights(flawless, flawless, (3, 4, 4), how):
            assert torch.equal(weights, torch.ones(3, 4, 4))


def test_shuffling_moves_weights_within_their_frame():
    weights = pair_weights(error_map(seed=0), error_map(seed=1), (3, 4, 4), "own")[1]
    moved = shuffled_in_space(weights, torch.Generator().manual_seed(0))
    assert not torch.equal(moved, weights)
    assert torch.equal(moved.flatten(1).sort().values, weights.flatten(1).sort().values)
    assert torch.equal(moved, shuffled_in_space(weights, torch.Generator().manual_seed(0)))


def test_unfitting_maps_are_refused(tmp_path):
    with pytest.raises(InputError, match="maps of 10 frames do not fit 3 latent frames"):
        cells(error_map(10), (3, 4, 4))
    save_tensors(tmp_path / "a.safetensors", {"latents": torch.zeros(1)})
    with pytest.raises(InputError, match="no map of inconsistency"):
        read_map(tmp_path / "a.safetensors")
