from dataclasses import replace

import torch
from torch.nn import functional as F

from tests.metrics.scenes import prediction
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import resize_intrinsics
from videogpa.geometry.enlargement import enlarged

SMALL, LARGE = (12, 16), (48, 64)


def two_planes(size, edge=0.45):
    """A red plane at depth 1 beside a green one at depth 3, each pixel the mean of what it covers."""
    x = (torch.arange(LARGE[1]) + 0.5) / LARGE[1]
    near = (x < edge).float().expand(1, 1, *LARGE)
    images = torch.cat([near, 1 - near, torch.zeros_like(near)], 1)
    depth = torch.where(near[:, 0] > 0, 1.0, 3.0)
    k = torch.tensor([[[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]]])
    if size != LARGE:
        images = F.interpolate(images, size, mode="area")
        depth = 1 / F.interpolate(1 / depth[:, None], size, mode="nearest-exact")[:, 0]
    return GeometryPrediction(
        depth=depth,
        confidence=torch.ones_like(depth),
        extrinsics_w2c=torch.eye(3, 4)[None],
        intrinsics=resize_intrinsics(k, LARGE, size),
        images=images,
        scale="relative",
    )


def test_the_same_size_gives_the_same_geometry():
    geometry = prediction(frames=2)
    same = enlarged(geometry, geometry.images)
    torch.testing.assert_close(same.depth, geometry.depth)
    torch.testing.assert_close(same.intrinsics, geometry.intrinsics)
    torch.testing.assert_close(same.confidence, geometry.confidence)


def test_depth_follows_the_edges_of_the_picture():
    small, large = two_planes(SMALL), two_planes(LARGE)
    fine = enlarged(small, large.images)
    plain = 1 / F.interpolate(1 / small.depth[:, None], LARGE, mode="bilinear")[:, 0]
    error = (fine.depth / large.depth).log().abs().mean()
    assert error < 0.2 * (plain / large.depth).log().abs().mean()
    torch.testing.assert_close(fine.intrinsics, large.intrinsics)


def test_unknown_depth_stays_unknown_and_spreads_nowhere():
    small, large = two_planes(SMALL), two_planes(LARGE)
    depth = small.depth.clone()
    depth[:, :6] = 0
    fine = enlarged(replace(small, depth=depth), large.images)
    assert (fine.depth[:, :20] == 0).all()
    assert (fine.depth[:, 24:] > 0.99).all()


def test_moving_bodies_are_enlarged():
    small, large = two_planes(SMALL), two_planes(LARGE)
    mask = torch.zeros(1, *SMALL, dtype=torch.bool)
    mask[0, 3, 5] = True
    found = enlarged(replace(small, dynamic_mask=mask), large.images).dynamic_mask
    assert found.sum() == 16
    assert found[0, 12:16, 20:24].all()
