"""The paper's reward: how far each frame is from the reprojection of the whole clip's point cloud."""

from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.perceptual import perceptual_distance
from videogpa.metrics.reprojection import paper_reprojection

HIGHER_IS_BETTER = False
UNIT = "MSE + perceptual distance"
SOURCE = "VideoGPA, arXiv 2601.23286: E = mean_t(MSE + lambda * LPIPS), lambda = 1 as in the published code"
NEEDS: frozenset[Need] = frozenset({"geometry"})

PERCEPTUAL_WEIGHT = 1.0


def measure(clip: Clip) -> float:
    """Mean over frames of MSE + λ·perceptual distance between each frame and its reprojection.

    Raises:
        CannotJudge: no geometry.
    """
    prediction = geometry_of(clip)
    redrawn = paper_reprojection(prediction)
    mse = (redrawn - prediction.images).square().mean((1, 2, 3))
    perceptual = perceptual_distance(redrawn, prediction.images)
    return (mse + PERCEPTUAL_WEIGHT * perceptual).mean().item()
