"""The paper's reprojection: one coloured cloud of all pixels of all frames, drawn into every camera."""

import torch

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import world_points
from videogpa.geometry.splat import splat
from videogpa.tensors import Video


def paper_reprojection(prediction: GeometryPrediction) -> Video:
    """Each frame redrawn from the cloud of all frames, its own pixels included; holes are 0.

    No confidence filter, no mask; a point covers the one pixel nearest to it and the nearest depth wins.
    Pixels of unknown depth (0 or not finite) have no place in space and are no points.

    Source: VideoGPA, arXiv 2601.23286. Its known weaknesses (a frame explains itself, holes count as black)
    are kept on purpose; `cross_view` is the measure without them.
    """
    depth = prediction.depth.double()
    known = (depth > 0) & depth.isfinite()
    points = world_points(depth, prediction.extrinsics_w2c.double(), prediction.intrinsics.double())[known]
    colors = prediction.images.permute(0, 2, 3, 1)[known]
    size = prediction.images.shape[-2:]
    cameras = zip(prediction.extrinsics_w2c, prediction.intrinsics, strict=True)
    return torch.stack([splat(points, colors, w2c, k, (size[0], size[1])) for w2c, k in cameras])
