"""Distance of a sample to its one true continuation in decibels. Rewards blur: read it beside `sharpness`."""

from videogpa.metrics.base import Clip, Need, truth_of

HIGHER_IS_BETTER = True
UNIT = "dB"
SOURCE = "peak signal-to-noise ratio against the true rendering"
NEEDS: frozenset[Need] = frozenset({"truth"})

SMALLEST_MSE = 1e-6
"""Errors below a quarter of an 8-bit step cannot be told apart: 60 dB is the best value."""


def measure(clip: Clip) -> float:
    """Mean over frames 1, 2, ... of the PSNR of each frame, at most 60 dB; frame 0 is given.

    Raises:
        CannotJudge: no truth of this shape.
    """
    truth = truth_of(clip)
    mse = (clip.frames[1:] - truth.frames[1:]).square().mean((1, 2, 3))
    return -10 * mse.clamp_min(SMALLEST_MSE).log10().mean().item()
