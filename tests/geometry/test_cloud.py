import dataclasses

import torch

from tests.export.clips import POINTS, small
from videogpa.geometry.cameras import project, transform
from videogpa.geometry.cloud import cloud_of, frustums, thinned


def test_every_point_projects_onto_the_pixel_it_comes_from_with_its_colour():
    cloud = cloud_of(small())
    assert len(cloud.points) == POINTS
    for i in range(3):
        mine = cloud.frame == i
        camera = transform(small().extrinsics_w2c[i].double(), cloud.points[mine].double())
        pixel, depth = project(camera, small().intrinsics[i].double())
        torch.testing.assert_close(pixel.float(), cloud.pixel[mine], atol=1e-3, rtol=0)
        x, y = cloud.pixel[mine].long().unbind(-1)
        torch.testing.assert_close(depth.float(), small().depth[i, y, x], atol=1e-4, rtol=1e-5)
        assert torch.equal(cloud.colors[mine], small().images[i, :, y, x].T)
        assert torch.equal(cloud.confidence[mine], small().confidence[i, y, x])


def test_unknown_depth_and_low_confidence_are_left_out():
    assert len(cloud_of(small(), 0.25).points) == POINTS - 1
    empty = dataclasses.replace(small(), depth=torch.full_like(small().depth, torch.nan))
    assert cloud_of(empty).points.shape == (0, 3)


def test_thinning_keeps_whole_points_in_order_and_always_the_same():
    cloud = cloud_of(small())
    few = thinned(cloud, 100)
    assert len(few.points) == len(few.frame) == 100
    assert torch.equal(few.points, thinned(cloud, 100).points)
    assert (few.frame.diff() >= 0).all()
    whole = torch.cat([cloud.points, cloud.colors], 1).tolist()
    assert all(row in whole for row in torch.cat([few.points, few.colors], 1).tolist())
    assert thinned(cloud, POINTS) is cloud


def test_the_corners_of_a_frustum_are_the_corners_of_the_picture():
    corners = frustums(small().extrinsics_w2c, small().intrinsics, (24, 32), 2.0)
    pixel, depth = project(transform(small().extrinsics_w2c, corners), small().intrinsics)
    torch.testing.assert_close(depth[:, 1:], torch.full((3, 4), 2.0))
    torch.testing.assert_close(depth[:, 0], torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(pixel[0, 1], torch.tensor([-0.5, -0.5]), atol=1e-3, rtol=0)
    torch.testing.assert_close(pixel[0, 3], torch.tensor([31.5, 23.5]), atol=1e-3, rtol=0)
