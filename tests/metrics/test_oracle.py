import dataclasses

import pytest
import torch

from tests.metrics import scenes
from tests.metrics.scenes import rendered
from videogpa.errors import CannotJudge
from videogpa.metrics import oracle_flow_epe, oracle_psnr, oracle_ssim, oracle_warp
from videogpa.metrics.base import Clip

ORACLES = [oracle_flow_epe, oracle_psnr, oracle_ssim, oracle_warp]


def clip_of(render, frames=None) -> Clip:
    return Clip(frames=render.rgb if frames is None else frames, truth=scenes.truth(render))


@pytest.mark.parametrize("oracle", ORACLES)
def test_jitter_is_worse_the_stronger_it_is(oracle):
    render = rendered(3)
    values = [oracle.measure(clip_of(render, scenes.jitter(render, s))) for s in (0, 2, 4, 8)]
    assert values == sorted(values, reverse=oracle.HIGHER_IS_BETTER)


def test_the_true_video_is_at_the_limit():
    clip = clip_of(rendered())
    assert oracle_psnr.measure(clip) == pytest.approx(60)
    assert oracle_ssim.measure(clip) == pytest.approx(1)
    assert oracle_warp.measure(clip) < 0.02


@pytest.mark.parametrize("move", ["orbits left", "dollies forward", "trucks right", "pans left", "tilts up"])
def test_estimated_flow_of_the_true_video_is_close_to_the_true_flow(move):
    assert oracle_flow_epe.measure(clip_of(rendered(1, 9, motion=move))) < 0.6


def test_flow_error_is_in_pixels_of_the_frames():
    render = rendered(3)
    shifted = scenes.shift(render.rgb, torch.tensor([[0.0, 0], [2, 0], [2, 0], [2, 0], [2, 0]]))
    assert oracle_flow_epe.measure(clip_of(render, shifted)) == pytest.approx(2, abs=0.5)


def test_psnr_leaves_out_the_given_first_frame():
    render = rendered()
    spoiled = render.rgb.clone()
    spoiled[0] = 0
    assert oracle_psnr.measure(clip_of(render, spoiled)) == pytest.approx(60)
    off = render.rgb.clone()
    off[1:] = off[1:] * 0 + render.rgb[1:] + 0.1
    assert oracle_psnr.measure(clip_of(render, off)) == pytest.approx(20, abs=1e-3)


@pytest.mark.parametrize("oracle", ORACLES)
def test_no_truth_no_value(oracle):
    render = rendered()
    with pytest.raises(CannotJudge):
        oracle.measure(Clip(frames=render.rgb))
    with pytest.raises(CannotJudge):
        oracle.measure(dataclasses.replace(clip_of(render), frames=render.rgb[:3]))
