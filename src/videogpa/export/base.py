"""What the formats share: their contract, their points and the size of a drawn camera."""

from pathlib import Path
from typing import Protocol

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cloud import Cloud, cloud_of, placed, thinned

HALF_PIXEL = 0.5
"""What to add to pixel coordinates where the corner of the first pixel, not its centre, is (0, 0)."""
FRUSTUM_DEPTH = 0.1
"""Drawn depth of a camera, as a share of the median depth."""


class Format(Protocol):
    """What `export/<name>.py` offers."""

    def write(
        self, folder: Path, name: str, prediction: GeometryPrediction, min_confidence: float | int = 0
    ) -> Path:
        """Write the prediction into `folder` under `name`; returns the file or folder that was made.

        Raises:
            CannotJudge: no pixel has a known depth and more than `min_confidence`.
        """
        ...


def points_of(prediction: GeometryPrediction, min_confidence: float | int, most: int | None = None) -> Cloud:
    """The prediction's points, thinned evenly where there are more than `most`.

    Raises:
        CannotJudge: it has none, or its cameras are not finite.
    """
    if not (prediction.extrinsics_w2c.isfinite().all() and prediction.intrinsics.isfinite().all()):
        raise CannotJudge("the cameras are not finite")
    cloud = cloud_of(prediction, min_confidence)
    if not len(cloud.points):
        raise CannotJudge(f"no pixel has a known depth and a confidence above {min_confidence:g}")
    return cloud if most is None else thinned(cloud, most)


def median_depth(prediction: GeometryPrediction) -> float:
    """Median of the known depths."""
    return prediction.depth[placed(prediction)].median().item()
