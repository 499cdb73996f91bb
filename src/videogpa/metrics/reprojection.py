"""The paper's reprojection: one coloured cloud of all pixels of all frames, drawn into every camera."""

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.splat import nearest_pixels, paint
from videogpa.tensors import Video


def paper_reprojection(prediction: GeometryPrediction) -> Video:
    """Each frame redrawn from the cloud of all frames, its own pixels included; holes are 0.

    No confidence filter, no mask; a point covers the one pixel nearest to it and the nearest depth wins.
    Pixels of unknown depth (0 or not finite) have no place in space and are no points.

    Source: VideoGPA, arXiv 2601.23286. Its known weaknesses (a frame explains itself, holes count as black)
    are kept on purpose; `cross_view` is the measure without them.
    """
    seen = nearest_pixels(prediction.depth, prediction.extrinsics_w2c, prediction.intrinsics)
    colors = prediction.images.permute(0, 2, 3, 1).flatten(0, 2)
    return paint(seen, colors).permute(0, 3, 1, 2).contiguous()
