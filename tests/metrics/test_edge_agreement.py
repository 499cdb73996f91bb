from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics import scenes
from tests.metrics.scenes import as_clip, exact, prediction, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import consistency, edge_agreement
from videogpa.metrics.edge_agreement import pair_weights


def score(geometry, frames=None) -> float:
    return edge_agreement.measure(as_clip(geometry, frames))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_noise_loses(seed):
    geometry = prediction(seed)
    noisy = (geometry.images + 0.03 * scenes.noise(*geometry.images.shape)).clamp(0, 1)
    assert score(geometry, noisy) < score(geometry) - 0.05


@pytest.mark.parametrize("contrast", [0.5, 0.9])
def test_contrast_changes_nothing(contrast):
    geometry = prediction(1)
    flat = torch.lerp(torch.tensor(0.5), geometry.images, contrast)
    # What is taken for exposure depends on the brightness itself, a little.
    assert score(geometry, flat) == pytest.approx(score(geometry), abs=0.01)


def test_a_change_of_exposure_costs_next_to_nothing():
    geometry = prediction(frames=7)
    exposed = geometry.images * torch.linspace(1, 0.75, 7).view(-1, 1, 1, 1)
    assert score(geometry, exposed) == pytest.approx(score(geometry), abs=0.01)


@settings(max_examples=5)
@given(st.floats(0.05, 20))
def test_scale_and_world_origin_change_nothing(scale):
    geometry = prediction()
    assert score(scenes.move_world(geometry, scale)) == pytest.approx(score(geometry), abs=5e-3)


def test_the_size_of_a_clip_hardly_matters():
    values = [score(prediction(2, 5, side, side)) for side in (48, 96, 192)]
    assert max(values) - min(values) < 0.1


@given(st.integers(5, 30))
def test_pairs_with_the_first_frame_weigh_as_much_as_all_others(frames):
    others = first = 0.0
    for target in range(frames):
        sources = [s for s in range(frames) if s != target]
        for source, weight in zip(sources, pair_weights(target, sources, frames), strict=True):
            if 0 in (source, target):
                first += weight
            else:
                others += weight
    assert first == pytest.approx(others)


def test_a_wrong_first_frame_costs_more_than_another_wrong_one():
    geometry = prediction(3, 7)
    moved = scenes.shift(geometry.images, torch.full((7, 2), 1.5))

    def with_wrong(frame: int) -> float:
        images = geometry.images.clone()
        images[frame] = moved[frame]
        return score(geometry, images)

    assert with_wrong(0) < min(with_wrong(3), with_wrong(6)) < score(geometry)


def test_bodies_that_move_do_not_count():
    clip = rendered(3)
    spoiled = replace(exact(clip), images=scenes.wobble(clip, 4))
    masked = replace(spoiled, dynamic_mask=clip.object_ids == 1)
    assert score(masked) > score(spoiled) + 0.02


def test_repeated_frames_cost_half_their_share():
    geometry = prediction(frames=6)
    held = torch.tensor([0, 0, 2, 2, 4, 4])
    parts = ("depth", "images", "extrinsics_w2c")
    slow = replace(geometry, **{name: getattr(geometry, name)[held] for name in parts})
    assert consistency.repeated_share(slow.images) == pytest.approx(3 / 5)
    assert score(slow) < score(geometry) - 0.15


def test_a_frozen_clip_cannot_be_judged():
    geometry = prediction()
    parts = ("depth", "images", "extrinsics_w2c")
    still = {name: getattr(geometry, name)[:1].expand_as(getattr(geometry, name)) for name in parts}
    with pytest.raises(CannotJudge, match="after some motion"):
        score(replace(geometry, **still))


def test_a_clip_without_edges_cannot_be_judged():
    geometry = prediction()
    with pytest.raises(CannotJudge, match="no edges"):
        score(geometry, torch.full_like(geometry.images, 0.5))


def test_unknown_depth_is_not_judged():
    geometry = prediction(3)
    depth = geometry.depth.clone()
    depth[:, :10] = 0
    depth[:, 10:14] = torch.nan
    assert score(replace(geometry, depth=depth)) == pytest.approx(score(geometry), abs=0.03)


def test_edges_that_contradict_each_other_are_worth_nothing():
    geometry = prediction(3, 2)
    assert score(geometry) > 0.8
    inverted = torch.stack([geometry.images[0], 1 - geometry.images[1]])
    assert score(geometry, inverted) == 0
