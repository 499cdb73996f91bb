import pytest
import torch
from torch.testing import assert_close

from videogpa.errors import InputError
from videogpa.geometry.cameras import backward_warp, relative_pose
from videogpa.geometry.exact import Backend, from_render
from videogpa.world.paths import CameraMove
from videogpa.world.render import render
from videogpa.world.scene import sample_scene


@pytest.fixture(scope="module")
def clip():
    return render(sample_scene(6_000_001, move=CameraMove("orbits left", "slowly")), 3, 32, 40)


def test_depth_of_one_frame_seen_from_another_is_its_own(clip):
    g = from_render(clip)
    source, target = torch.tensor([0, 1]), torch.tensor([2, 2])
    warp = backward_warp(
        (1 / g.depth)[source, None],
        g.intrinsics[source],
        g.depth[target],
        g.intrinsics[target],
        relative_pose(g.extrinsics_w2c[target], g.extrinsics_w2c[source]),
    )
    agreement = (warp.values[:, 0] * warp.depth - 1).abs()[warp.inside]
    assert agreement.median() < 1e-3


def test_other_frames_are_judged_under_the_same_geometry(clip):
    other = torch.rand_like(clip.rgb)
    prediction = Backend(clip).predict(other)
    assert_close(prediction.images, other)
    assert_close(prediction.depth, clip.depth)
    assert (prediction.confidence == 1).all()
    assert prediction.scale == Backend.scale == "metric"


def test_frames_of_another_shape_are_refused(clip):
    with pytest.raises(InputError, match="do not fit"):
        Backend(clip).predict(clip.rgb[:2])
