"""The light of a clip: how exposure changes over time, and the clip as if it had not."""

import math
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.flow import luma
from videogpa.metrics.cross_view import OCCLUSION
from videogpa.metrics.warping import field_of, see

DEGREE = 2
"""Exposure may follow a parabola over the clip; what changes faster is flicker and stays."""
MOST = 1.6
"""Largest ratio of the brightest to the darkest frame that is taken out. A fade goes further."""
DARKEST = 0.02
"""Luma below which a ratio of brightnesses says nothing."""
FEWEST_PIXELS = 16


def exposed_alike(prediction: GeometryPrediction) -> GeometryPrediction:
    """The prediction with images as bright as if exposure had not changed over the clip, smoothly and within `MOST`.

    Only a factor for each frame is taken out, which a camera's automatic exposure is. Contrast that is lost (a
    fade to grey), colour casts and flicker stay.
    """
    gain = (-log_exposure(prediction)).exp()
    return replace(prediction, images=prediction.images * gain.view(-1, 1, 1, 1))


def log_exposure(prediction: GeometryPrediction) -> Float[Tensor, " t"]:
    """Logarithm of each frame's exposure, mean 0: the smooth part of what the ratios of neighbouring frames say.

    A ratio is the median over the pixels that both frames see, by the geometry.
    """
    images = prediction.images
    count = len(images)
    gray = luma(images)[:, None]
    field = field_of(prediction, gray)
    steps, ratios = [], []
    for t in range(count):
        for s in (t - 1, t + 1):
            if not 0 <= s < count:
                continue
            views = see(field, t, [s])
            other, own = views.values[0, 0], gray[t, 0]
            usable = views.inside[0] & (views.depth_gap[0] < OCCLUSION) & (other > DARKEST) & (own > DARKEST)
            if usable.sum() >= FEWEST_PIXELS:
                steps.append((t, s))
                ratios.append((other[usable] / own[usable]).log().median().item())
    if not steps:
        return images.new_zeros(count)
    first, second = np.array(steps).T
    frame = np.eye(count)
    exposure = np.linalg.lstsq(frame[second] - frame[first], np.array(ratios), rcond=None)[0]
    powers = np.linspace(-1, 1, count)[:, None] ** np.arange(DEGREE + 1)
    trend = powers @ np.linalg.lstsq(powers, exposure, rcond=None)[0]
    trend -= trend.mean()
    span = np.ptp(trend)
    return images.new_tensor(trend * min(1, math.log(MOST) / span) if span else trend)
