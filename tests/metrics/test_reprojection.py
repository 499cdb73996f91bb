import dataclasses
import math

import pytest
import torch

from tests.metrics.scenes import prediction, scale_depth
from videogpa.metrics.reprojection import paper_reprojection


def reprojected_slowly(geometry) -> torch.Tensor:
    """The definition once more, from the pinhole equations alone: no code of the package."""
    t, h, w = geometry.depth.shape
    images = torch.zeros(t, 3, h, w)
    nearest = torch.full((t, h, w), math.inf, dtype=torch.float64)
    poses, ks = geometry.extrinsics_w2c.double(), geometry.intrinsics.double()
    for i in range(t):
        rotation, translation = poses[i, :, :3], poses[i, :, 3]
        for y in range(h):
            for x in range(w):
                ray = torch.linalg.solve(ks[i], torch.tensor([x, y, 1.0], dtype=torch.float64))
                world = rotation.T @ (ray * geometry.depth[i, y, x].double() - translation)
                for j in range(t):
                    u, v, z = (ks[j] @ (poses[j, :, :3] @ world + poses[j, :, 3])).tolist()
                    if z <= 0:
                        continue
                    column, row = round(u / z), round(v / z)
                    if 0 <= row < h and 0 <= column < w and z < nearest[j, row, column] * (1 - 1e-9):
                        nearest[j, row, column] = z
                        images[j, :, row, column] = geometry.images[i, :, y, x]
    return images


def test_equals_an_independent_slow_loop():
    geometry = prediction(seed=1, frames=3, height=10, width=12)
    torch.testing.assert_close(paper_reprojection(geometry), reprojected_slowly(geometry))


def test_own_points_are_in_the_cloud():
    geometry = prediction(frames=2)
    apart = geometry.extrinsics_w2c.clone()
    apart[1, 0, 3] += 1000
    redrawn = paper_reprojection(dataclasses.replace(geometry, extrinsics_w2c=apart))
    torch.testing.assert_close(redrawn, geometry.images)


@pytest.mark.parametrize("gain", [0.5, 1 / 255, 1e-4])
def test_dark_clips_are_taken_as_they_are(gain):
    geometry = prediction(frames=3)
    darker = dataclasses.replace(geometry, images=geometry.images * gain)
    assert torch.equal(paper_reprojection(darker), paper_reprojection(geometry) * gain)


def test_unknown_depth_leaves_holes_of_zero():
    geometry = scale_depth(prediction(frames=2), torch.tensor([1.0, math.nan]))
    geometry.depth[0, :4] = 0
    redrawn = paper_reprojection(geometry)
    assert (redrawn[0, :, :4] == 0).all()
    torch.testing.assert_close(redrawn[0, :, 4:], geometry.images[0, :, 4:])
    assert redrawn.isfinite().all()


def test_does_not_depend_on_threads():
    geometry = prediction(seed=2, frames=4, height=96, width=96)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = paper_reprojection(geometry)
        torch.set_num_threads(4)
        assert torch.equal(one, paper_reprojection(geometry))
    finally:
        torch.set_num_threads(before)
