import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from tests.geometry.stand_ins import exact_clip
from videogpa.errors import CannotJudge
from videogpa.geometry.cameras import camera_centers, relative_pose, resize_intrinsics, rotation_angle
from videogpa.geometry.poses import aligned_poses, alignment, require_motion, require_video


def test_large_frames_are_aligned_at_a_limited_size():
    clip = exact_clip("orbits left")
    large = (224, 280)
    images = F.interpolate(clip.rgb, large, mode="bicubic").clamp(0, 1)
    inverse = F.interpolate(1 / clip.depth[:1, None], large, mode="bilinear")[0, 0]
    intrinsics = resize_intrinsics(clip.intrinsics, (56, 70), large)
    found = aligned_poses(images, 1 / inverse, torch.ones_like(inverse), intrinsics)
    true = relative_pose(clip.extrinsics_w2c[:1].expand_as(found), clip.extrinsics_w2c)
    assert rotation_angle(found[:, :, :3] @ true[:, :, :3].mT).rad2deg().max() < 0.5
    assert (camera_centers(found) - camera_centers(true)).norm(dim=-1).max() < 0.03


def test_unknown_depth_has_no_say():
    clip = exact_clip()
    confidence = torch.ones_like(clip.depth[0])
    hole = clip.depth[0].clone()
    hole[10:20, 10:30] = 0
    masked = confidence.clone()
    masked[10:20, 10:30] = 0
    wrong = clip.depth[0].clone()
    wrong[10:20, 10:30] = hole[hole > 0].reciprocal().median().reciprocal()
    found = alignment(clip.rgb, hole, confidence, clip.intrinsics).extrinsics_w2c
    assert_close(found, alignment(clip.rgb, wrong, masked, clip.intrinsics).extrinsics_w2c)


def test_still_cameras_and_empty_frames_are_not_judged():
    clip = exact_clip()
    still = clip.extrinsics_w2c[:1].expand_as(clip.extrinsics_w2c)
    with pytest.raises(CannotJudge, match="not move"):
        require_motion(clip.depth[0], still, clip.intrinsics)
    require_motion(clip.depth[0], clip.extrinsics_w2c, clip.intrinsics)
    with pytest.raises(CannotJudge, match="at least two"):
        require_video(clip.rgb[:1])
    with pytest.raises(CannotJudge, match="no texture"):
        require_video(torch.full((3, 3, 20, 20), 0.5))
