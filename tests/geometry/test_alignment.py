import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from videogpa.geometry.alignment import align, rigid
from videogpa.geometry.cameras import camera_centers, compose, relative_pose, rotation_angle
from videogpa.world.paths import CameraMove
from videogpa.world.render import Render, render
from videogpa.world.scene import sample_scene

FRAMES = 5
twists = st.lists(st.floats(-1, 1), min_size=6, max_size=6).map(torch.tensor)


@settings(max_examples=25, deadline=None)
@given(twists)
def test_the_opposite_twist_is_the_inverse_motion(twist):
    assert_close(compose(rigid(twist), rigid(-twist)), torch.eye(3, 4), atol=1e-5, rtol=0)


@settings(max_examples=25, deadline=None)
@given(twists)
def test_the_length_of_the_rotation_vector_is_the_angle(twist):
    assert_close(rotation_angle(rigid(twist)[:, :3]), twist[3:].norm(), atol=1e-5, rtol=1e-4)


def clip_of(motion: str, seed: int = 6_000_003, size: int = 48) -> Render:
    return render(sample_scene(seed, move=CameraMove(motion, "steadily")), FRAMES, size, size)


def aligned(clip: Render, images: torch.Tensor):
    return align(images, clip.depth[0], torch.ones_like(clip.depth[0]), clip.intrinsics)


def true_poses(clip: Render) -> torch.Tensor:
    return relative_pose(clip.extrinsics_w2c[:1].expand(FRAMES, 3, 4), clip.extrinsics_w2c)


MOTIONS = ["orbits left", "dollies forward", "dollies backward", "trucks right", "pans left", "tilts up"]


@pytest.mark.parametrize("motion", MOTIONS)
def test_true_depth_gives_the_true_poses(motion):
    clip = clip_of(motion)
    found, true = aligned(clip, clip.rgb).extrinsics_w2c, true_poses(clip)
    assert rotation_angle(found[:, :, :3] @ true[:, :, :3].mT).rad2deg().max() < 0.7
    assert (camera_centers(found) - camera_centers(true)).norm(dim=-1).max() < 0.04


def test_something_that_covers_the_view_does_not_turn_the_camera():
    clip = clip_of("trucks left")
    images = clip.rgb.clone()
    images[1:, :, 10:22, 15:30] = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    found, true = aligned(clip, images).extrinsics_w2c, true_poses(clip)
    assert rotation_angle(found[:, :, :3] @ true[:, :, :3].mT).rad2deg().max() < 1


def test_lengths_follow_the_scale_of_the_depth():
    clip = clip_of("dollies forward")
    once = aligned(clip, clip.rgb).extrinsics_w2c
    tenfold = align(
        clip.rgb, 10 * clip.depth[0], torch.ones_like(clip.depth[0]), clip.intrinsics
    ).extrinsics_w2c
    assert_close(tenfold[:, :, 3], 10 * once[:, :, 3], atol=1e-2, rtol=1e-2)


def test_a_frozen_clip_has_no_motion_and_no_residual():
    clip = clip_of("pans left")
    found = aligned(clip, clip.rgb[:1].expand(FRAMES, 3, -1, -1))
    assert found.displacement.max() < 1e-2
    assert found.residual.max() < 1e-3
    assert found.overlap.min() > 0.95


def test_the_residual_is_far_below_chance_where_the_scene_is_one():
    clip = clip_of("orbits right")
    found = aligned(clip, clip.rgb)
    assert (found.residual[1:] < 0.2 * found.chance[1:]).all()
    other = clip_of("orbits right", seed=6_000_004)
    cut = aligned(clip, torch.cat([clip.rgb[:1], other.rgb[1:]]))
    assert not (cut.residual[1:] < 0.6 * cut.chance[1:]).any()
