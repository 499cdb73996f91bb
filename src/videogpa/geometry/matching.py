"""Where the points of one frame are in the others: dense flow seeded by features and checked both ways."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Gray = UInt8[np.ndarray, "h w"]
Homography = Float[np.ndarray, "3 3"]
PixelMap = Float[np.ndarray, "h w 2"]

ROUND_TRIP_PX = 1.0
MIN_CORNER_STRENGTH = 2e-5
MIN_SEED_MATCHES = 20
HALVED_ABOVE = 300
LIKENESS_PATCH = 15


@dataclass(frozen=True)
class Correspondence:
    """`target` [h w 2] is the pixel (x, y) of frame j that shows what a pixel of frame i shows.

    `seen` [h w] is False where that pixel lies outside frame j or does not lead back to where it came from
    (occlusion, no texture, a wrong match).
    """

    target: PixelMap
    seen: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Tracks:
    """Corners of every frame followed into all others.

    anchor [n] is the frame in which a track starts; observed [n t 2] its pixel (x, y) in each frame, NaN
    where it is not seen.
    """

    anchor: Int[np.ndarray, " n"]
    observed: Float[np.ndarray, "n t 2"]


Correspondences = dict[tuple[int, int], Correspondence]


def match_all(grays: list[Gray]) -> Correspondences:
    """Correspondences of all ordered pairs of frames that are 1, 2, 3, 5, 8, ... apart.

    These gaps give short and long baselines at some n log n pairs. Dense inverse search (Kroeger et al. 2016)
    loses displacements beyond some 30 pixels, so each pair is first aligned by a homography: from SIFT features
    for neighbours, from the two chained narrower flows (a gap is the sum of the two before it) for the others.
    """
    maps: dict[tuple[int, int], PixelMap] = {}
    seeds = _neighbour_seeds(grays)
    for gap, first_part in _fibonacci_gaps(len(grays)):
        for i in range(len(grays) - gap):
            j, k = i + gap, i + first_part
            if first_part:
                seeds[i, j] = _chained_seed(maps[i, k], maps[k, j], seeds[k, j] @ seeds[i, k])
                seeds[j, i] = np.linalg.inv(seeds[i, j])
            maps[i, j] = _seeded_flow(grays[i], grays[j], seeds[i, j])
            maps[j, i] = _seeded_flow(grays[j], grays[i], seeds[j, i])
    return {
        (i, j): Correspondence(target, _round_trip(target, maps[j, i])) for (i, j), target in maps.items()
    }


def follow_corners(grays: list[Gray], matches: Correspondences, max_corners: int) -> Tracks:
    """Tracks of at most `max_corners` well-spread corners of each frame; corners too weak to locate are left out."""
    anchors, observations = [], []
    for i, gray in enumerate(grays):
        points = corners(gray, max_corners)
        columns, rows = points.round().astype(int).T
        observed = np.full((len(points), len(grays), 2), np.nan)
        observed[:, i] = points
        for j in range(len(grays)):
            if (i, j) in matches:
                match = matches[i, j]
                observed[:, j] = np.where(
                    match.seen[rows, columns, None], match.target[rows, columns], np.nan
                )
        anchors.append(np.full(len(points), i))
        observations.append(observed)
    return Tracks(np.concatenate(anchors), np.concatenate(observations))


def corners(gray: Gray, max_corners: int) -> Float[np.ndarray, "n 2"]:
    """Pixels (x, y) of at most `max_corners` corners (Shi and Tomasi 1994), strong ones first, on whole pixels."""
    strength = cv2.cornerMinEigenVal(gray, blockSize=7)
    strongest = float(strength.max())
    if strongest <= MIN_CORNER_STRENGTH:
        return np.zeros((0, 2))
    spacing = 0.5 * float(np.sqrt(gray.size / max_corners))
    quality = max(MIN_CORNER_STRENGTH / strongest, 1e-3)
    found = cv2.goodFeaturesToTrack(gray, max_corners, quality, spacing, blockSize=7)
    return found.reshape(-1, 2).astype(float)


def anchor_pixels(tracks: Tracks) -> Float[np.ndarray, "n 2"]:
    """Where each track is in the frame that it starts in."""
    return tracks.observed[np.arange(len(tracks.anchor)), tracks.anchor]


def likeness(first: Gray, second: Gray, match: Correspondence) -> Float[np.ndarray, "h w"]:
    """Normalised correlation in [-1, 1] of the patch around each pixel with the patch that it is matched to."""
    a = first.astype(np.float32)
    b = cv2.remap(second, match.target, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).astype(
        np.float32
    )

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(image, -1, (LIKENESS_PATCH, LIKENESS_PATCH))

    mean_a, mean_b = mean(a), mean(b)
    variance = (mean(a * a) - mean_a**2).clip(0) * (mean(b * b) - mean_b**2).clip(0)
    # One grey level of noise counts as variance, so that two flat patches are not alike by chance.
    return (mean(a * b) - mean_a * mean_b) / np.sqrt(variance + 1)


def pixel_grid(height: int, width: int) -> PixelMap:
    """Every pixel's own coordinates (x, y) [h w 2]."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).astype(np.float32)


def _fibonacci_gaps(frames: int) -> Iterator[tuple[int, int]]:
    """Gaps 1, 2, 3, 5, ... below `frames`, each with the narrower gap that it starts with (0 for the first)."""
    first_part, gap = 0, 1
    while gap < frames:
        yield gap, first_part
        first_part, gap = gap, gap + max(first_part, 1)


def _neighbour_seeds(grays: list[Gray]) -> dict[tuple[int, int], Homography]:
    # A seed need not be exact: half the resolution finds the same large motion in a quarter of the time.
    shrink = 0.5 if max(grays[0].shape) > HALVED_ABOVE else 1.0
    sift = cv2.SIFT_create(500)
    small = [cv2.resize(gray, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA) for gray in grays]
    features = [sift.detectAndCompute(gray, None) for gray in small]
    enlarge = np.diag([1 / shrink, 1 / shrink, 1.0])
    seeds = {}
    for i in range(len(grays) - 1):
        seed = enlarge @ _feature_homography(features[i], features[i + 1]) @ np.linalg.inv(enlarge)
        seeds[i, i + 1], seeds[i + 1, i] = seed, np.linalg.inv(seed)
    return seeds


def _feature_homography(first: tuple, second: tuple) -> Homography:
    """The dominant homography between two sets of SIFT features; the identity where they do not tell."""
    (points_1, descriptors_1), (points_2, descriptors_2) = first, second
    if min(len(points_1), len(points_2)) < MIN_SEED_MATCHES:
        return np.eye(3)
    nearest = cv2.BFMatcher().knnMatch(descriptors_1, descriptors_2, k=2)
    good = [a for a, b in nearest if a.distance < 0.75 * b.distance]
    source = np.array([points_1[m.queryIdx].pt for m in good]).reshape(-1, 2)
    target = np.array([points_2[m.trainIdx].pt for m in good]).reshape(-1, 2)
    return _homography(source, target, 3.0, np.eye(3))


def _chained_seed(first: PixelMap, second: PixelMap, fallback: Homography) -> Homography:
    height, width = first.shape[:2]
    step = max(1, min(height, width) // 24)
    source = pixel_grid(height, width)[::step, ::step].reshape(-1, 2)
    middle = first[::step, ::step].reshape(-1, 2)
    target = _sample(second, middle)
    inside = ~np.isnan(target[:, 0])
    return _homography(source[inside], target[inside], 8.0, fallback)


def _homography(
    source: Float[np.ndarray, "n 2"],
    target: Float[np.ndarray, "n 2"],
    tolerance_px: float,
    fallback: Homography,
) -> Homography:
    if len(source) < MIN_SEED_MATCHES:
        return fallback
    found, inliers = cv2.findHomography(source, target, cv2.USAC_MAGSAC, tolerance_px)
    if found is None or inliers.sum() < MIN_SEED_MATCHES or abs(np.linalg.det(found[:2, :2])) < 0.05:
        return fallback
    return found


def _seeded_flow(first: Gray, second: Gray, seed: Homography) -> PixelMap:
    height, width = first.shape
    aligned = cv2.warpPerspective(
        second,
        seed,
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    search = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    search.setFinestScale(1)
    search.setGradientDescentIterations(12)
    search.setVariationalRefinementIterations(3)
    residual = search.calc(first, aligned, None)
    moved = pixel_grid(height, width) + residual
    return cv2.perspectiveTransform(moved, seed)


def _sample(field: PixelMap, points: Float[np.ndarray, "*shape 2"]) -> Float[np.ndarray, "*shape 2"]:
    """`field` at `points`, bilinear, NaN outside."""
    flat = points.astype(np.float32).reshape(-1, 1, 2) if points.ndim == 2 else points.astype(np.float32)
    sampled = cv2.remap(
        field, flat, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(np.nan,) * 4
    )
    return sampled.reshape(points.shape)


def _round_trip(there: PixelMap, back: PixelMap) -> Bool[np.ndarray, "h w"]:
    height, width = there.shape[:2]
    error = np.linalg.norm(_sample(back, there) - pixel_grid(height, width), axis=-1)
    return error < ROUND_TRIP_PX
