"""One surface from the depths of all frames: what a frame's depth would be if every other frame had its say."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from videogpa.geometry.base import GeometryPrediction
from videogpa.metrics.warping import Field, field_of, see, sources_of

SAME_SURFACE = 0.2
"""Depths that differ by more (natural logarithm) belong to different surfaces and are not mixed."""
PASSES = 2
"""Where the frames see each other's surfaces depends on the depths, so what moved them is asked again."""


def with_fused_depth(prediction: GeometryPrediction) -> GeometryPrediction:
    """The prediction with every depth moved to the mean, in log depth, of what it and the other frames say there.

    Frames count by their confidence. A single frame's depth is uncertain by some percent; colours compared
    through it differ for no fault of the video. Disagreement of the depths themselves is `depth_agreement`'s matter.

    Raises:
        CannotJudge: fewer than two frames.
    """
    confidence = prediction.confidence.nan_to_num(0, 0, 0)
    for _ in range(PASSES):
        field = field_of(prediction, confidence[:, None])
        correction = torch.stack([_correction(field, t) for t in range(len(confidence))])
        prediction = replace(prediction, depth=prediction.depth * correction.exp())
    return prediction


def _correction(field: Field, target: int) -> Float[Tensor, "h w"]:
    own = field.maps[target, 0]
    views = see(field, target, sources_of(target, len(field.maps)))
    weight = views.values[:, 0] * (views.inside & (views.depth_gap.abs() < SAME_SURFACE))
    # A point that lies behind the other frame's surface there is that much too deep.
    return -(weight * views.depth_gap).sum(0) / (weight.sum(0) + own).clamp_min(1e-6)
