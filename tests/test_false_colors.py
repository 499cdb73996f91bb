import torch

from tests.metrics.scenes import rendered
from videogpa.false_colors import UNJUDGED, depth_colors, error_colors, normal_colors

GREY = torch.full((3,), UNJUDGED)


def test_what_is_wrong_is_brighter_than_what_is_right_and_the_unjudged_is_grey():
    errors = torch.tensor([[[0.1, 0.9, 0.9]]])
    right, wrong, unjudged = error_colors(errors, torch.tensor([[[True, True, False]]]))[0, :, 0].T
    assert right.sum() < wrong.sum()
    assert torch.equal(unjudged, GREY)


def test_near_is_brighter_than_far_and_unknown_depth_is_grey():
    near, far, unknown = depth_colors(torch.tensor([[[1.0, 9.0, 0.0]]]))[0, :, 0].T
    assert near.sum() > far.sum()
    assert torch.equal(unknown, GREY)
    assert torch.equal(depth_colors(torch.zeros(1, 1, 1))[0, :, 0, 0], GREY)


def test_normals_that_look_up_are_green_and_those_that_face_the_camera_blue():
    up_and_near = torch.tensor([[0.0, -1, 0], [0, 0, -1]]).T.reshape(1, 3, 1, 2)
    colors = normal_colors(up_and_near)[0, :, 0].T
    assert colors.argmax(1).tolist() == [1, 2]
    drawn = normal_colors(rendered().normals)
    assert 0 <= drawn.min() <= drawn.max() <= 1
