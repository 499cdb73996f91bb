import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics import scenes
from tests.metrics.scenes import noise, rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import epipolar
from videogpa.metrics.base import Clip
from videogpa.metrics.epipolar import LARGEST_ERROR, Matches, pair_error, sampson_distance


def value(frames) -> float:
    return epipolar.measure(Clip(frames=frames))


def two_views(seed: int, count: int = 200) -> tuple[Matches, np.ndarray]:
    """Exact matches of a random cloud in two cameras, about 300 pixels wide, and their fundamental matrix."""
    g = np.random.default_rng(seed)
    points = g.uniform([-2, -2, 3], [2, 2, 7], (count, 3))
    focal = np.diag([200.0, 200.0, 1.0])
    shift = np.array([0.5, *g.uniform(-0.2, 0.2, 2)])
    first, second = ((p @ focal)[:, :2] / p[:, 2:] for p in (points, points + shift))
    x, y, z = shift
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    inverse = np.linalg.inv(focal)
    return Matches(first, second), inverse.T @ cross @ inverse


@settings(max_examples=10)
@given(st.integers(0, 2**31 - 1), st.floats(0.01, 1), st.floats(0.1, 10))
def test_sampson_distance_is_the_distance_to_the_epipolar_geometry(seed, off, factor):
    matches, matrix = two_views(seed)
    assert sampson_distance(matrix, matches).max() < 1e-6
    lines = np.concatenate([matches.first, np.ones((200, 1))], -1) @ matrix.T
    aside = lines[:, :2] / np.linalg.norm(lines[:, :2], axis=-1, keepdims=True)
    wrong = Matches(matches.first, matches.second + off * aside)
    # Moved by `off` in one image, the nearest exact match is reached by moving in both.
    distance = sampson_distance(factor * matrix, wrong)
    assert (distance <= off * (1 + 1e-6)).all()
    assert (distance > 0.4 * off).all()


def test_wrong_matches_count_as_much_as_stated_and_no_more():
    """24 wrong ones of 1,200 raise the error by their share of the cap, and do not bend the geometry."""
    matches, _ = two_views(0, 1200)
    clean = pair_error(matches, 300)
    wrong = matches.second.copy()
    wrong[:24] += np.random.default_rng(1).choice([-60, 60], (24, 2))
    spoiled = pair_error(Matches(matches.first, wrong), 300)
    assert clean < 1e-5
    assert 0.5 * 24 / 1200 * LARGEST_ERROR < spoiled <= 24 / 1200 * LARGEST_ERROR + clean


def test_leaving_out_good_matches_does_not_pay():
    matches, _ = two_views(0, 400)
    noisy = matches.second + np.random.default_rng(1).normal(0, 0.3, (400, 2))
    noisy[:40, 1] += 30
    fewer = Matches(matches.first[:200], noisy[:200])
    assert pair_error(fewer, 300) > pair_error(Matches(matches.first, noisy), 300)


def test_a_plane_a_turn_and_a_standstill_determine_nothing():
    matches, _ = two_views(0)
    turn = np.array([[1, 0.02, 8], [-0.02, 1, 3], [1e-5, 0, 1]])
    turned = np.concatenate([matches.first, np.ones((200, 1))], -1) @ turn.T
    assert pair_error(Matches(matches.first, turned[:, :2] / turned[:, 2:]), 300) is None
    assert pair_error(Matches(matches.first, matches.first + 0.1), 300) is None


@pytest.mark.parametrize("seed", [1, 3])
def test_rises_as_an_object_wobbles(seed):
    clip = rendered(seed, 5, 64, 96)
    values = [value(scenes.wobble(clip, s)) for s in (0, 1, 2)]
    assert all(a < b for a, b in pairwise(values))


def test_noise_is_worse_than_every_scene():
    clean = max(value(rendered(seed, 4).rgb) for seed in range(3))
    assert value(noise(4, 3, 48, 48).sigmoid()) > 1.5 * clean


def test_hardly_depends_on_the_size():
    values = [value(rendered(2, 4, *size).rgb) for size in ((48, 48), (64, 64), (96, 128))]
    assert max(values) - min(values) < 5e-4


@pytest.mark.parametrize("motion", ["pans right", "tilts up"])
def test_turning_cameras_have_no_value(motion):
    with pytest.raises(CannotJudge, match="parallax"):
        value(rendered(1, 4, motion=motion).rgb)


def test_what_proves_nothing_has_no_value():
    frames = rendered().rgb
    still = frames[:1].expand_as(frames)
    for spoiled in (still, torch.full_like(frames, 0.5), torch.full_like(frames, math.nan), frames[:1]):
        with pytest.raises(CannotJudge):
            value(spoiled)
