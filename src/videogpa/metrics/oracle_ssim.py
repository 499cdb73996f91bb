"""Structural similarity of a sample and the one true continuation."""

from kornia.metrics import ssim

from videogpa.errors import CannotJudge
from videogpa.metrics.base import Clip, Need, truth_of

HIGHER_IS_BETTER = True
UNIT = "SSIM"
SOURCE = "Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004; Gaussian window of 11 pixels"
NEEDS: frozenset[Need] = frozenset({"truth"})

WINDOW = 11


def measure(clip: Clip) -> float:
    """Mean SSIM of frames 1, 2, ... and their true renderings; frame 0 is given.

    Raises:
        CannotJudge: no truth of this shape, or frames smaller than the window.
    """
    truth = truth_of(clip)
    if min(clip.frames.shape[-2:]) < WINDOW:
        raise CannotJudge(f"SSIM needs frames of at least {WINDOW}×{WINDOW} pixels")
    return ssim(clip.frames[1:], truth.frames[1:], WINDOW).mean().item()
