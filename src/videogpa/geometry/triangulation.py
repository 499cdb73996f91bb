"""Inverse depth of pixels from where they are seen in other frames with known poses, and its dense completion."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from videogpa.geometry.bundle import NEAREST_RATIO

MATCH_STD_PX = 0.5
OUTLIER_SCALES_PX = (4.0, 1.5, 1.0)


class Triangulated(NamedTuple):
    """Inverse depth, its standard deviation (inf where nothing is known), and the robust misfit in pixels."""

    inverse_depth: Float[np.ndarray, "*n"]
    deviation: Float[np.ndarray, "*n"]
    misfit_px: Float[np.ndarray, "*n"]


def triangulate(
    turned: Float[np.ndarray, "s *n 3"],
    seen_rays: Float[np.ndarray, "s *n 2"],
    translation: Float[np.ndarray, "s *#n 3"],
    focal: float,
) -> Triangulated:
    """Best inverse depth of points given where `s` sources see them, NaN where they do not.

    `turned` are the points' own rays (x, y, 1) turned into each source, `translation` the position of their camera
    there, `seen_rays` the normalised image coordinates (x, y). Each source gives two equations linear in the
    inverse depth, c + rho d = 0, divided by the depth in the source to be a distance in the image; solved by
    reweighted least squares with Cauchy weights of shrinking scale (Hartley and Zisserman 2004, section 12.2).
    """
    seen = ~np.isnan(seen_rays[..., 0])
    (x, y), (turned_x, turned_y, turned_z) = np.moveaxis(seen_rays, -1, 0), np.moveaxis(turned, -1, 0)
    moved_x, moved_y, moved_z = np.moveaxis(translation, -1, 0)
    c_x, c_y = np.where(seen, turned_x - x * turned_z, 0), np.where(seen, turned_y - y * turned_z, 0)
    d_x, d_y = np.where(seen, moved_x - x * moved_z, 0), np.where(seen, moved_y - y * moved_z, 0)
    cc, cd, dd = c_x**2 + c_y**2, c_x * d_x + c_y * d_y, d_x**2 + d_y**2
    weight = seen / np.maximum(turned_z, NEAREST_RATIO) ** 2
    for scale in OUTLIER_SCALES_PX:
        rho = -(weight * cd).sum(0) / np.maximum((weight * dd).sum(0), 1e-12)
        depth = np.maximum(turned_z + rho * moved_z, NEAREST_RATIO)
        squared = np.maximum(cc + rho * (2 * cd + rho * dd), 0) * (focal / depth) ** 2
        robust = seen / (1 + squared / scale**2)
        weight = robust / depth**2
    information = (weight * dd).sum(0) * (focal / MATCH_STD_PX) ** 2
    misfit = np.sqrt((robust * squared).sum(0) / np.maximum(robust.sum(0), 1e-6))
    return Triangulated(rho, 1 / np.sqrt(np.maximum(information, 1e-12)), misfit)


def complete(points: Triangulated, prior_deviation: float) -> Float[np.ndarray, "h w"]:
    """Inverse depth everywhere: measured where it is certain, smooth between (push-pull, Gortler et al. 1996).

    At every scale the coarser solution is a prior with standard deviation `prior_deviation`; misfit counts as
    uncertainty.
    """
    deviation = points.deviation * np.maximum(1, points.misfit_px / MATCH_STD_PX)
    return _pull(points.inverse_depth, (prior_deviation / deviation) ** 2)


def _pull(value: Float[np.ndarray, "h w"], weight: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    if min(value.shape) <= 2:
        return np.full_like(value, (value * weight).sum() / max(weight.sum(), 1e-12))
    # A saturated weight lets no single pixel outvote its neighbourhood.
    capped = np.minimum(weight, 10)
    coarse_weight = cv2.pyrDown(capped)
    coarse = cv2.pyrDown(value * capped) / np.maximum(coarse_weight, 1e-12)
    prior = cv2.pyrUp(_pull(coarse, coarse_weight), dstsize=value.shape[::-1])
    return (value * weight + prior) / (weight + 1)
