import math

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import noise, rendered
from videogpa.errors import CannotJudge
from videogpa.geometry.flow import QUICK_SIDE, flow_between, flow_from_first, flow_to_next, require_texture
from videogpa.world.render import forward_flow


@pytest.mark.parametrize("size", [(48, 48), (200, 220)])
def test_a_shift_is_found_in_pixels_of_the_frames(size):
    frame = rendered(3, 1, *size).rgb
    frames = scenes.shift(frame.expand(3, -1, -1, -1), torch.tensor([[0.0, 0], [2, 1], [4, 2]]))
    inner = (..., slice(8, -8), slice(8, -8))
    for flow in (flow_from_first(frames)[1:2], flow_to_next(frames)[1:]):
        assert flow.shape[-2:] == size
        torch.testing.assert_close(flow[inner].mean((0, 2, 3)), torch.tensor([2.0, 1]), atol=0.2, rtol=0)


@pytest.mark.parametrize("size", [(48, 48), (200, 220)])
def test_a_shift_is_found_there_and_back_on_smaller_frames(size):
    frame = rendered(3, 1, *size).rgb
    frames = scenes.shift(frame.expand(2, -1, -1, -1), torch.tensor([[0.0, 0], [2, 1]]))
    there, back = flow_between(frames, [(0, 1), (1, 0)], QUICK_SIDE)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    torch.testing.assert_close(there[inner].mean((1, 2)), torch.tensor([2.0, 1]), atol=0.25, rtol=0)
    torch.testing.assert_close(back[inner].mean((1, 2)), torch.tensor([-2.0, -1]), atol=0.25, rtol=0)


def test_follows_a_rendered_clip():
    clip = rendered(1)
    true, visible = forward_flow(clip, 0, 1)
    assert (flow_to_next(clip.rgb)[:1] - true).square().sum(1).sqrt()[visible].mean() < 0.3


@pytest.mark.parametrize(
    "frames",
    [torch.rand(1, 3, 16, 16), torch.full((3, 3, 16, 16), 0.5), torch.full((3, 3, 16, 16), math.nan)],
)
def test_nothing_to_follow_has_a_reason(frames):
    with pytest.raises(CannotJudge):
        require_texture(frames)
    require_texture(noise(2, 3, 16, 16).sigmoid())
