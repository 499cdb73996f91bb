import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videogpa.geometry.cameras import (
    backward_warp,
    camera_centers,
    compose,
    invert,
    look_at,
    median_scale,
    project,
    relative_pose,
    resize_intrinsics,
    rotation_angle,
    transform,
    unproject,
    world_points,
)

seeds = st.integers(0, 2**31 - 1)


def pinhole(focal: float = 40.0, height: int = 12, width: int = 16) -> torch.Tensor:
    return torch.tensor(
        [[focal, 0, (width - 1) / 2], [0, focal * 1.1, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64
    )


def random_pose(generator: torch.Generator, *batch: int) -> torch.Tensor:
    rotation = torch.linalg.qr(torch.randn(*batch, 3, 3, generator=generator, dtype=torch.float64))[0]
    rotation = rotation * torch.linalg.det(rotation)[..., None, None]
    return torch.cat([rotation, torch.randn(*batch, 3, 1, generator=generator, dtype=torch.float64)], -1)


@settings(max_examples=20)
@given(seeds)
def test_project_undoes_unproject(seed):
    depth = torch.rand(2, 12, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.1
    k = pinhole().expand(2, 3, 3)
    pixels, z = project(unproject(depth, k).flatten(1, 2), k)
    x, y = torch.arange(16.0), torch.arange(12.0)
    torch.testing.assert_close(pixels.view(2, 12, 16, 2)[..., 0], x.double().expand(2, 12, 16))
    torch.testing.assert_close(pixels.view(2, 12, 16, 2)[..., 1], y.double()[:, None].expand(2, 12, 16))
    torch.testing.assert_close(z.view_as(depth), depth)


def test_points_behind_the_camera_have_no_pixel():
    pixels, z = project(torch.tensor([[0.0, 0, -1], [0, 0, 0], [0, 0, 1]]), pinhole().float())
    assert pixels.isnan().all(-1).tolist() == [True, True, False]
    assert z.tolist() == [-1, 0, 1]


@settings(max_examples=20)
@given(seeds)
def test_rigid_motions_form_a_group(seed):
    g = torch.Generator().manual_seed(seed)
    a, b = random_pose(g, 3), random_pose(g, 3)
    points = torch.randn(3, 5, 3, generator=g, dtype=torch.float64)
    torch.testing.assert_close(transform(compose(a, b), points), transform(a, transform(b, points)))
    torch.testing.assert_close(transform(invert(a), transform(a, points)), points)
    torch.testing.assert_close(transform(relative_pose(a, b), transform(a, points)), transform(b, points))


@settings(max_examples=20)
@given(seeds)
def test_a_camera_sits_at_its_own_origin(seed):
    pose = random_pose(torch.Generator().manual_seed(seed), 4)
    origin = transform(pose, camera_centers(pose)[:, None])
    torch.testing.assert_close(origin, torch.zeros_like(origin))


@settings(max_examples=20)
@given(seeds)
def test_world_points_project_back_into_their_frame(seed):
    g = torch.Generator().manual_seed(seed)
    depth = torch.rand(3, 4, 5, generator=g, dtype=torch.float64) + 0.5
    pose, k = random_pose(g, 3), pinhole(height=4, width=5).expand(3, 3, 3)
    camera = transform(pose, world_points(depth, pose, k).flatten(1, 2))
    torch.testing.assert_close(camera.view(3, 4, 5, 3), unproject(depth, k))


@settings(max_examples=20)
@given(seeds)
def test_look_at_centres_its_target_without_tilting_the_horizon(seed):
    g = torch.Generator().manual_seed(seed)
    eye = torch.randn(3, generator=g, dtype=torch.float64)
    target = eye + torch.tensor([0.3, 0.2, 2.0], dtype=torch.float64)
    down = torch.tensor([0.0, 1, 0], dtype=torch.float64)
    pose = look_at(eye, target, down)
    seen = transform(pose, target[None])[0]
    torch.testing.assert_close(seen[:2], torch.zeros(2, dtype=torch.float64), atol=1e-12, rtol=0)
    assert seen[2] > 0
    torch.testing.assert_close(camera_centers(pose), eye)
    assert torch.linalg.det(pose[:, :3]).item() == pytest.approx(1)
    turned_down = pose[:, :3] @ down
    assert abs(turned_down[0].item()) < 1e-12
    assert turned_down[1] > 0


@given(st.floats(0, math.pi))
def test_rotation_angle_is_exact_at_both_ends(angle):
    c, s = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=torch.float64)
    assert rotation_angle(rotation).item() == pytest.approx(angle, abs=1e-12)


def test_resized_intrinsics_map_pixel_edges_to_pixel_edges():
    k = pinhole(height=12, width=16)
    small = resize_intrinsics(k, (12, 16), (6, 4))
    torch.testing.assert_close(small[:2, 2], torch.tensor([1.5, 2.5], dtype=torch.float64))
    torch.testing.assert_close(small[0, 0], k[0, 0] / 4)
    torch.testing.assert_close(small[1, 1], k[1, 1] / 2)
    torch.testing.assert_close(resize_intrinsics(small, (6, 4), (12, 16)), k)


def test_median_scale_ignores_outliers():
    lengths = torch.tensor([1.0, 2, 3, 4, 5])
    assert median_scale(lengths, lengths * 3 + torch.tensor([0, 0, 0, 0, 100.0])).item() == 3


def warp_of_a_plane(source: torch.Tensor, shift: float, depth: float = 2.0):
    """A fronto-parallel plane seen by a source camera `shift` to the right of the target."""
    k = pinhole(height=12, width=16)[None]
    pose = torch.eye(4, dtype=torch.float64)[None, :3].clone()
    pose[0, 0, 3] = -shift
    return backward_warp(source, k, torch.full((1, 12, 16), depth, dtype=torch.float64), k, pose)


def test_backward_warp_of_a_plane_is_a_shift():
    source = torch.rand(1, 3, 12, 16, dtype=torch.float64)
    warp = warp_of_a_plane(source, shift=0.1)  # 40 px * 0.1 / 2 = 2 px
    torch.testing.assert_close(warp.values[..., 2:], source[..., :-2])
    assert warp.inside[..., 2:].all()
    assert not warp.inside[..., :2].any()


def test_backward_warp_interpolates_between_pixel_centres():
    ramp = torch.arange(16, dtype=torch.float64).expand(1, 1, 12, 16)
    warp = warp_of_a_plane(ramp, shift=0.0125)  # a quarter of a pixel
    torch.testing.assert_close(warp.values[..., 1:], ramp[..., 1:] - 0.25)


@pytest.mark.parametrize("depth", [0.0, -1.0, math.nan, math.inf])
def test_unknown_depth_is_outside_and_never_poisons_the_sample(depth):
    warp = warp_of_a_plane(torch.rand(1, 1, 12, 16, dtype=torch.float64), shift=0.0, depth=depth)
    assert not warp.inside.any()
    assert warp.values.isfinite().all()
