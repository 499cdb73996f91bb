"""Every frame redrawn from the points of the *other* frames only: what they know of it."""

import torch

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cloud import cloud_of
from videogpa.geometry.splat import nearest_points
from videogpa.metrics.warping import sources_of
from videogpa.tensors import Mask, Video


def redrawn_from_others(prediction: GeometryPrediction) -> tuple[Video, Mask]:
    """Each frame [t 3 h w] drawn from the other frames' points, and which pixels got one; the rest is 0.

    As in the paper's reprojection a point covers one pixel and the nearest wins (VideoGPA, arXiv 2601.23286), but a
    frame does not explain itself. Points without confidence are left out. In long clips the sources are
    thinned as for the metrics.
    """
    cloud = cloud_of(prediction)
    count, _, height, width = prediction.images.shape
    drawn, seen = [], []
    for target in range(count):
        kept = torch.isin(cloud.frame, torch.tensor(sources_of(target, count)))
        points, colors = cloud.points[kept], cloud.colors[kept]
        index = nearest_points(
            points, prediction.extrinsics_w2c[target], prediction.intrinsics[target], (height, width)
        )
        hit = index >= 0
        image = torch.zeros(height, width, 3)
        image[hit] = colors[index[hit]]
        drawn.append(image.permute(2, 0, 1))
        seen.append(hit)
    return torch.stack(drawn), torch.stack(seen)
