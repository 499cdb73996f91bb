"""How much the pictures move, camera and bodies alike: the largest optical flow between neighbouring frames.

The idea is VBench's dynamic degree; the numbers are not. There RAFT finds the flow, and a clip counts as dynamic
or not; here it is DIS and the length of the flow itself.
"""

from itertools import pairwise

from videogpa.errors import CannotJudge
from videogpa.geometry.flow import QUICK_SIDE, flow_between, require_texture
from videogpa.metrics.base import Clip, Need

HIGHER_IS_BETTER = True
"""As for `motion`: a guard that should stay where the base model had it, never a reward."""
UNIT = "share of the longer image side per frame"
SOURCE = (
    "after VBench's dynamic degree (Huang et al., CVPR 2024) with DIS flow instead of RAFT, not thresholded"
)
NEEDS: frozenset[Need] = frozenset()

LARGEST = 0.05
"""Share of the pixels, those that move most, whose motion is averaged."""


def measure(clip: Clip) -> float:
    """Mean length of the largest 5 % of the flow from each frame to the next, as a share of the longer side.

    A frozen clip has a value, 0: that nothing moves is what this measures. Noise and flicker move, too.

    Raises:
        CannotJudge: fewer than two frames, not finite, or no texture.
    """
    if len(clip.frames) < 2:
        raise CannotJudge("a single frame has no motion")
    require_texture(clip.frames)
    flow = flow_between(clip.frames, pairwise(range(len(clip.frames))), QUICK_SIDE)
    lengths = flow.square().sum(1).sqrt().flatten(1)
    largest = lengths.topk(max(1, round(LARGEST * lengths.shape[1])), dim=1).values
    return largest.mean().item() / max(clip.frames.shape[-2:])
