import pytest
import torch
from torch.testing import assert_close

from tests.geometry.stand_ins import exact_clip
from videogpa.geometry.multi_view import PATCH, MultiViewOutput, fitted, to_prediction


@pytest.mark.parametrize(("height", "width"), [(480, 854), (854, 480), (64, 64), (30, 400)])
def test_frames_are_fitted_to_multiples_of_the_patch(height, width):
    found = fitted(torch.rand(1, 3, height, width), 224)
    assert max(found.shape[-2:]) == 224
    assert all(side % PATCH == 0 for side in found.shape[-2:])
    assert abs(found.shape[-2] - 224 * height / max(height, width)) <= max(PATCH / 2, 14)
    assert 0 <= found.min() <= found.max() <= 1


def test_frames_that_fit_are_left_alone():
    frames = torch.rand(2, 3, 42, 56)
    assert fitted(frames, 56) is frames


def test_depth_that_is_none_is_unknown():
    clip = exact_clip()
    depth = clip.depth.clone()
    depth[0, 0, :3] = torch.tensor([torch.nan, torch.inf, -1.0])
    output = MultiViewOutput(
        depth=depth,
        confidence=torch.full_like(depth, 2.0),
        extrinsics_w2c=clip.extrinsics_w2c,
        intrinsics=clip.intrinsics,
    )
    found = to_prediction(output, clip.rgb, "learned")
    assert_close(found.depth[0, 0, :3], torch.zeros(3))
    assert_close(found.confidence[0, 0, :4], torch.tensor([0, 0, 0, 0.5]))
    assert_close(found.depth[0, 0, 3:], clip.depth[0, 0, 3:])
