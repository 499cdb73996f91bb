"""A small exact prediction with what an export must leave out."""

import dataclasses
from functools import cache

import torch

from tests.metrics.scenes import move_world, prediction
from videogpa.geometry.base import GeometryPrediction


@cache
def small() -> GeometryPrediction:
    """Three frames of 24×32 in a turned world; one pixel of unknown, one of infinite depth, one not to be used."""
    exact = move_world(prediction(frames=3, height=24, width=32))
    depth, confidence = exact.depth.clone(), exact.confidence.clone()
    depth[0, 0, 0], depth[1, 2, 3], confidence[2, 5, 7] = 0, torch.inf, 0
    confidence[0, 1, 1] = 0.25
    return dataclasses.replace(exact, depth=depth, confidence=confidence)


POINTS = 3 * 24 * 32 - 3
"""Of the small prediction."""
