import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import rendered
from videogpa.geometry.flow import flow_to_next
from videogpa.metrics.quick_flow import quick_flow
from videogpa.world.render import forward_flow


@pytest.mark.parametrize("size", [(48, 48), (200, 220)])
def test_a_shift_is_found_there_and_back(size):
    frame = rendered(3, 1, *size).rgb
    frames = scenes.shift(frame.expand(2, -1, -1, -1), torch.tensor([[0.0, 0], [2, 1]]))
    there, back = quick_flow(frames, [(0, 1), (1, 0)])
    inner = (slice(None), slice(8, -8), slice(8, -8))
    torch.testing.assert_close(there[inner].mean((1, 2)), torch.tensor([2.0, 1]), atol=0.25, rtol=0)
    torch.testing.assert_close(back[inner].mean((1, 2)), torch.tensor([-2.0, -1]), atol=0.25, rtol=0)


def test_follows_a_rendered_clip():
    clip = rendered(1)
    true, visible = forward_flow(clip, 0, 1)
    assert (quick_flow(clip.rgb, [(0, 1)]) - true).square().sum(1).sqrt()[visible].mean() < 0.4


def test_large_frames_have_the_flow_of_the_slow_one():
    frames = rendered(1, 2, 200, 220).rgb
    assert torch.equal(quick_flow(frames, [(0, 1)]), flow_to_next(frames))
