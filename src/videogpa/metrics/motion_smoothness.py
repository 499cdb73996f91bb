"""Whether things move evenly: every second frame predicted as the middle of its two neighbours.

The idea is VBench's motion smoothness; the numbers are not. There a network (AMT) interpolates the frames left out
and every pixel counts; here DIS flow does it, without weights, and only what moves counts.
"""

from itertools import pairwise
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.cameras import pixel_grid
from videogpa.geometry.flow import QUICK_SIDE, flow_between, require_texture
from videogpa.metrics.base import Clip, Need
from videogpa.tensors import Flow, Mask, Video

HIGHER_IS_BETTER = True
UNIT = "share of the contrast, taken from 1"
SOURCE = "after VBench's motion smoothness (Huang et al., CVPR 2024), interpolated along DIS flow instead of by AMT"
NEEDS: frozenset[Need] = frozenset()

AGREEMENT = 0.01
"""Share of the longer side by which flow there and flow back may differ where both see the same point."""
SMALLEST_MOTION = 0.0025
"""Share of the longer side that a pixel must move between the two neighbours: what rests is smooth for free."""
SMALLEST_SHARE = 0.05
"""Share of all pixels that must be judged."""


Maps = Float[Tensor, "t c h w"]


class Middle(NamedTuple):
    """What lies half-way between two frames: its colours, its motion from one to the other in pixels, and the pixels
    whose way there and back is the same and inside the picture.
    """

    frames: Video
    motion: Flow
    known: Mask


def measure(clip: Clip) -> float:
    """1 - mean |frame - middle of its neighbours| / contrast, over moving pixels of frames 1, 3, 5, ...

    1 is even motion; unrelated frames are near 0, and it can be below. The contrast is the standard deviation of
    the clip's colours, so fading gains nothing; blur does. Of an even number of frames the last is not looked at.

    Pixels at rest are left out: a frozen clip would predict itself perfectly, and has no value here.

    Raises:
        CannotJudge: fewer than three frames, not finite, no texture, nothing moves, or the flow finds no way back.
    """
    if len(clip.frames) < 3:
        raise CannotJudge("smoothness needs three frames")
    require_texture(clip.frames)
    kept = clip.frames[::2]
    left_out = clip.frames[1::2][: len(kept) - 1]
    middle = interpolate(kept)
    moving = middle.motion.square().sum(1).sqrt() > SMALLEST_MOTION * max(left_out.shape[-2:])
    if moving.float().mean() < SMALLEST_SHARE:
        raise CannotJudge("next to nothing moves")
    judged = moving & middle.known
    if judged.float().mean() < SMALLEST_SHARE:
        raise CannotJudge("the optical flow there and back disagrees nearly everywhere")
    contrast = clip.frames.transpose(0, 1).flatten(1).var(1).mean().sqrt()
    error = (middle.frames - left_out).abs().mean(1)[judged].mean()
    return 1 - (error / contrast).item()


def interpolate(frames: Video) -> Middle:
    """The middle between each frame and the next, by moving both half the way along the flow and averaging.

    The flow through a pixel of the middle is that of the two frames at the places where it starts and ends, which
    are found by one step from the flow at the pixel itself (cf. Jiang et al., Super SloMo, CVPR 2018, eq. 4).
    """
    forth = list(pairwise(range(len(frames))))
    there, back = flow_between(frames, [*forth, *((j, i) for i, j in forth)], QUICK_SIDE).chunk(2)
    half = (there - back) / 4
    there, back = _sample(there, -half, "bilinear"), _sample(back, half, "bilinear")
    half = (there - back) / 4
    same = (there + back).square().sum(1).sqrt() < AGREEMENT * max(frames.shape[-2:])
    return Middle(
        frames=(_sample(frames[:-1], -half, "bicubic") + _sample(frames[1:], half, "bicubic")) / 2,
        motion=2 * half,
        known=same & _inside(-half) & _inside(half),
    )


def _sample(values: Maps, displacement: Flow, mode: str) -> Maps:
    """At every pixel what lies `displacement` pixels away; at the border the nearest pixel."""
    size = values.new_tensor([values.shape[-1], values.shape[-2]])
    grid = (_places(displacement) * 2 + 1) / size - 1
    return F.grid_sample(values, grid, mode=mode, padding_mode="border", align_corners=False)


def _inside(displacement: Flow) -> Mask:
    places = _places(displacement)
    last = places.new_tensor([displacement.shape[-1] - 1, displacement.shape[-2] - 1])
    return ((places >= 0) & (places <= last)).all(-1)


def _places(displacement: Flow) -> Float[Tensor, "t h w 2"]:
    """The (x, y) that lie `displacement` pixels away."""
    height, width = displacement.shape[-2:]
    return pixel_grid(height, width, like=displacement) + displacement.permute(0, 2, 3, 1)
