"""How much consecutive frames differ to the eye. Rewards stillness: read it beside `motion`."""

from videogpa.errors import CannotJudge
from videogpa.metrics.base import Clip, Need
from videogpa.metrics.perceptual import perceptual_distance

HIGHER_IS_BETTER = False
UNIT = "perceptual distance"
SOURCE = "LPIPS across consecutive frames, as VideoGPA's summary reports it; MS-SSIM where LPIPS is missing"
NEEDS: frozenset[Need] = frozenset()


def measure(clip: Clip) -> float:
    """Mean perceptual distance of frames t and t + 1.

    Raises:
        CannotJudge: fewer than two frames.
    """
    if len(clip.frames) < 2:
        raise CannotJudge("a single frame has no drift")
    return perceptual_distance(clip.frames[:-1], clip.frames[1:]).mean().item()
