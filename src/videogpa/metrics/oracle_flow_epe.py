"""Whether a sample moves as its one true continuation does: estimated against true optical flow."""

import torch

from videogpa.errors import CannotJudge
from videogpa.geometry.flow import flow_from_first
from videogpa.metrics.base import Clip, Need, truth_of

HIGHER_IS_BETTER = False
UNIT = "pixels"
SOURCE = "end-point error of DIS flow (Kroeger et al., ECCV 2016) from frame 0, against the true flow"
NEEDS: frozenset[Need] = frozenset({"truth"})


def measure(clip: Clip) -> float:
    """Mean over frames 1, 2, ... of the end-point error, in pixels, on frame 0's truly co-visible pixels.

    Raises:
        CannotJudge: no truth of this shape, or nothing of frame 0 stays visible.
    """
    truth = truth_of(clip)
    error = (flow_from_first(clip.frames) - truth.flow).square().sum(1).sqrt()
    seen = [e[m].mean() for e, m in zip(error[1:], truth.covisible[1:], strict=True) if m.any()]
    if not seen:
        raise CannotJudge("nothing of the first frame stays visible")
    return torch.stack(seen).mean().item()
