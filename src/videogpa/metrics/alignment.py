"""Do the depth and normal fields of pairs of frames agree, warped onto each other? The alignment reward."""

from videogpa.metrics import depth_agreement, normal_agreement
from videogpa.metrics.base import Clip, Need

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "VideoGPA, arXiv 2601.23286, as its summary words the reward: depth and normals aligned over time"
NEEDS: frozenset[Need] = frozenset({"geometry", "normals"})


def measure(clip: Clip) -> float:
    """Mean of `depth_agreement` and `normal_agreement`, in [0, 1]. Colours play no part but for the geometry model.

    Raises:
        CannotJudge: either of the two cannot judge.
    """
    return (depth_agreement.measure(clip) + normal_agreement.measure(clip)) / 2
