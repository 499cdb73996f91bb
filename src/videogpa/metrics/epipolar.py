"""Whether the pictures alone obey the geometry of two views: matched points against their epipolar lines."""

from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float

from videogpa.errors import CannotJudge
from videogpa.geometry.flow import Gray, gray_frames, require_texture
from videogpa.metrics.base import Clip, Need
from videogpa.opencv import deterministic_opencv

HIGHER_IS_BETTER = False
UNIT = "share of the longer image side"
SOURCE = (
    "Sampson distance (Hartley and Zisserman 2004, eq. 11.9) to a MAGSAC++ fundamental matrix; this project"
)
NEEDS: frozenset[Need] = frozenset()

LARGEST_ERROR = 0.02
"""Share of the longer image side; a match that is farther off is wrong, however wrong."""
TOLERANCE = 0.003
"""Share of the longer image side up to which a match fits a fundamental matrix or a homography."""
LARGEST_SIDE = 300
"""Frames with a longer side than this are shrunk: finer features cost four times as much and tell no more."""
FEATURES = 2000
RATIO = 0.75
"""A match counts when the second-best is farther by 1 / this (Lowe, IJCV 2004)."""
FEWEST_MATCHES = 100
"""With fewer feature matches the dense flow on a grid takes their place."""
GRID = 24
"""Points of that grid along the shorter side."""
FARTHEST_FLOW = 0.12
"""Share of the longer image side; dense flow that goes farther (median) has lost the points."""
SMALLEST_MOTION = 0.0025
"""Share of the longer image side (median) by which matches must move."""
MOST_ON_A_PLANE = 0.7
"""Where a homography explains this share of what the fundamental matrix explains, parallax is too small to
tell (turning cameras: .8 to .97; quick moves in rooms: .3 to .6)."""


class Matches(NamedTuple):
    """Pixels (x, y) of the same points in two frames."""

    first: Float[np.ndarray, "n 2"]
    second: Float[np.ndarray, "n 2"]


def measure(clip: Clip) -> float:
    """Mean over pairs of frames of the mean Sampson distance of their matches, as a share of the longer side.

    A distance counts at most `LARGEST_ERROR`, and *all* matches count, those that the fundamental matrix does
    not explain too. Pairs are t and t + g for the smallest gap g of 1, 2, 4, ... at which some pair can be
    judged: pairs that do not move, and those whose matches lie on one homography (a camera that only turns, a
    plane), determine no epipolar geometry. A shift of a whole frame obeys one and is not seen.

    Raises:
        CannotJudge: fewer than two frames, not finite, no texture, no motion, or no parallax.
    """
    require_texture(clip.frames)
    gray = at_working_size(gray_frames(clip.frames))
    gap = 1
    with deterministic_opencv():
        sift = cv2.SIFT_create(FEATURES)
        features = [sift.detectAndCompute(image, None) for image in gray]
        while gap < len(gray):
            pairs = [match(gray, features, t, t + gap) for t in range(len(gray) - gap)]
            errors = [pair_error(m, max(gray.shape[1:])) for m in pairs if m is not None]
            judged = [e for e in errors if e is not None]
            if judged:
                return float(np.mean(judged))
            gap *= 2
    raise CannotJudge("no two frames show a motion with parallax")


def at_working_size(gray: Gray) -> Gray:
    """Frames shrunk by the whole factor that brings their longer side to `LARGEST_SIDE` pixels or below."""
    factor = -(-max(gray.shape[1:]) // LARGEST_SIDE)
    if factor == 1:
        return gray
    scale = {"fx": 1 / factor, "fy": 1 / factor, "interpolation": cv2.INTER_AREA}
    return np.stack([cv2.resize(image, None, **scale) for image in gray])


def match(gray: Gray, features: list[tuple], i: int, j: int) -> Matches | None:
    """Matched features of two frames, or a grid followed by dense flow where there are too few; None where the
    flow goes too far to be trusted.
    """
    (points_1, descriptors_1), (points_2, descriptors_2) = features[i], features[j]
    if min(len(points_1), len(points_2)) >= FEWEST_MATCHES:
        nearest = cv2.BFMatcher().knnMatch(descriptors_1, descriptors_2, k=2)
        good = [a for a, b in nearest if a.distance < RATIO * b.distance]
        if len(good) >= FEWEST_MATCHES:
            return Matches(
                np.array([points_1[m.queryIdx].pt for m in good]),
                np.array([points_2[m.trainIdx].pt for m in good]),
            )
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(gray[i], gray[j], None)
    height, width = gray.shape[1:]
    if np.median(np.linalg.norm(flow, axis=-1)) > FARTHEST_FLOW * max(height, width):
        return None
    step = max(1, min(height, width) // GRID)
    rows, columns = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
    first = np.stack([columns, rows], -1).astype(float)
    return Matches(first, first + flow[rows, columns])


def pair_error(matches: Matches, side: int) -> float | None:
    """Mean capped Sampson distance as a share of `side`, or None where it is not determined."""
    moved = np.linalg.norm(matches.second - matches.first, axis=-1)
    if np.median(moved) < SMALLEST_MOTION * side:
        return None
    matrix, inliers = _fundamental_matrix(matches, TOLERANCE * side)
    _, planar = cv2.findHomography(*matches, cv2.RANSAC, TOLERANCE * side)
    if matrix is None or inliers is None:
        return None
    if planar is not None and planar.sum() > MOST_ON_A_PLANE * inliers.sum():
        return None
    return float(np.minimum(sampson_distance(matrix, matches) / side, LARGEST_ERROR).mean())


def _fundamental_matrix(matches: Matches, tolerance_px: float) -> tuple[np.ndarray | None, np.ndarray | None]:
    settings = {"ransacReprojThreshold": tolerance_px, "confidence": 0.999, "maxIters": 2000}
    try:
        return cv2.findFundamentalMat(*matches, method=cv2.USAC_MAGSAC, **settings)
    except cv2.error:
        # OpenCV 5's MAGSAC++ fails an assertion of its own where a sample gives no model; plain RANSAC goes on.
        return cv2.findFundamentalMat(*matches, method=cv2.FM_RANSAC, **settings)


def sampson_distance(matrix: Float[np.ndarray, "3 3"], matches: Matches) -> Float[np.ndarray, " n"]:
    """First-order distance in pixels of matches to the epipolar geometry x'ᵀ F x = 0."""
    x, y = (np.concatenate([p, np.ones((len(p), 1))], -1) for p in matches)
    lines, back = x @ matrix.T, y @ matrix
    size = (lines[:, :2] ** 2).sum(-1) + (back[:, :2] ** 2).sum(-1)
    return np.abs((y * lines).sum(-1)) / np.sqrt(np.maximum(size, 1e-12))
