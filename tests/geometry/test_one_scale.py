import math

import pytest
import torch
from torch.testing import assert_close

from tests.geometry.stand_ins import exact_clip
from videogpa.errors import CannotJudge
from videogpa.geometry.cameras import relative_pose
from videogpa.geometry.one_scale import (
    FARTHEST,
    TYPICAL_SHIFT,
    brought_to_first,
    first_inverse_depth,
    in_front,
)


def depth_ratio(inverse: torch.Tensor) -> float:
    far, near = inverse.flatten().quantile(torch.tensor([0.02, 0.98]))
    return (near / far).item()


def first_camera_is_the_world(clip) -> torch.Tensor:
    return relative_pose(clip.extrinsics_w2c[:1].expand_as(clip.extrinsics_w2c), clip.extrinsics_w2c)


@pytest.mark.parametrize("motion", ["trucks right", "dollies backward"])
def test_the_images_tell_the_shift_of_the_first_frame(motion):
    clip = exact_clip(motion)
    inverse = 1 / clip.depth[0]
    found = first_inverse_depth(clip.rgb, 5 * inverse - 0.7, clip.intrinsics)
    assert abs(math.log(depth_ratio(found) / depth_ratio(inverse))) < 0.06
    assert found.median() == pytest.approx(1)
    assert torch.corrcoef(torch.stack([found.flatten(), inverse.flatten()]))[0, 1] > 0.999


def test_a_camera_that_only_turns_leaves_the_typical_ratio():
    clip = exact_clip("pans left")
    found = first_inverse_depth(clip.rgb, 1 / clip.depth[0], clip.intrinsics)
    assert depth_ratio(found) == pytest.approx(1 / TYPICAL_SHIFT, rel=1e-3)


def test_an_answer_without_relief_is_not_judged():
    clip = exact_clip()
    with pytest.raises(CannotJudge, match="no relief"):
        first_inverse_depth(clip.rgb, torch.full_like(clip.depth[0], 3), clip.intrinsics)


def test_the_other_frames_come_to_the_first_ones_scale():
    clip = exact_clip("orbits left")
    change = torch.tensor([0.5, 1, 2, 4])[:, None, None]
    answers = change / clip.depth[1:] - change
    found = brought_to_first(1 / clip.depth[0], answers, first_camera_is_the_world(clip), clip.intrinsics)
    assert (found * clip.depth[1:] - 1).abs().median() < 0.003
    assert (found * clip.depth[1:] - 1).abs().mean() < 0.02


def test_something_that_enters_the_view_does_not_change_the_scale():
    clip = exact_clip("orbits left")
    answers = 1 / clip.depth[1:]
    answers[:, 15:35, 20:40] = 2.0
    found = brought_to_first(1 / clip.depth[0], answers, first_camera_is_the_world(clip), clip.intrinsics)
    assert (found * clip.depth[1:] - 1).abs().median() < 0.02


@pytest.mark.parametrize("answer", ["turned round", "unrelated", "flat"])
def test_answers_that_no_scale_brings_together_are_not_judged(answer):
    clip = exact_clip("orbits left")
    noise = torch.rand(4, 56, 70, generator=torch.Generator().manual_seed(0))
    answers = {"turned round": clip.depth[1:], "unrelated": noise, "flat": torch.ones_like(noise)}[answer]
    with pytest.raises(CannotJudge, match=r"no scale brings the depth of frame \d"):
        brought_to_first(1 / clip.depth[0], answers, first_camera_is_the_world(clip), clip.intrinsics)


def test_nothing_lies_behind_infinity():
    inverse = torch.tensor([[[1.0, 1, 1], [-5, 0, 2]]])
    assert in_front(inverse).min() == pytest.approx(1 / FARTHEST)
    assert_close(in_front(inverse)[inverse >= 1], inverse[inverse >= 1])
