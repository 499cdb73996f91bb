"""First camera poses of a clip: one pair of frames by its essential matrix, the others by their known points."""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float

from videogpa.geometry.bundle import Reconstruction, adjust, bearings, relative_poses, residuals
from videogpa.geometry.matching import Tracks, anchor_pixels
from videogpa.geometry.triangulation import Triangulated, triangulate

FIRST_PAIRS = 3
MIN_PAIR_POINTS = 30
MIN_RESECTION_POINTS = 12
ENOUGH_PARALLAX_PX = 30.0
INLIER_PX = 2.0
GOOD_SHARE = 0.8


def bootstrap(tracks: Tracks, focal: float, centre: Float[np.ndarray, "2"]) -> Reconstruction | None:
    """A first reconstruction, or None if no start places all frames.

    It grows from the most promising pair; where that explains little, from the next, and the one with the
    most observations within INLIER_PX wins.
    """
    best, best_share = None, 0.0
    for pair in _first_pairs(tracks, focal, centre):
        scene = _grow(tracks, pair, focal, centre)
        share = 0.0 if scene is None else explained_share(scene, tracks, INLIER_PX)
        if share > best_share:
            best, best_share = scene, share
        if best_share > GOOD_SHARE:
            break
    return best


def explained_share(scene: Reconstruction, tracks: Tracks, tolerance_px: float) -> float:
    """Share of the observations that the reconstruction explains to within `tolerance_px`."""
    distance = residuals(scene, tracks)
    return float((distance < tolerance_px).sum() / max(1, (~np.isnan(distance)).sum()))


def triangulate_tracks(scene: Reconstruction, tracks: Tracks) -> Triangulated:
    """Inverse depth of every track in its anchor frame, from all its other observations."""
    rotation, translation = (np.moveaxis(each[tracks.anchor], 1, 0) for each in relative_poses(scene))
    rays = bearings(anchor_pixels(tracks), scene.focal, scene.centre)
    observed = np.moveaxis(tracks.observed, 1, 0).copy()
    observed[tracks.anchor, np.arange(len(tracks.anchor))] = np.nan
    turned = np.einsum("tnij,nj->tni", rotation, rays)
    return triangulate(turned, (observed - scene.centre) / scene.focal, translation, scene.focal)


def turning_camera(tracks: Tracks, focal: float, centre: Float[np.ndarray, "2"]) -> Reconstruction:
    """The camera that turns and zooms, but does not move, with the smallest robust reprojection error."""
    frames = tracks.observed.shape[1]
    rotation = [np.eye(3)]
    for i in range(1, frames):
        both = _seen(tracks, i - 1) & _seen(tracks, i)
        rays = bearings(tracks.observed[both], focal, centre)
        rotation.append(_best_rotation(rays[:, i - 1], rays[:, i])[0] @ rotation[-1])
    still = np.zeros((frames, 3))
    scene = Reconstruction(np.stack(rotation), still, focal, centre, np.zeros(len(tracks.anchor)))
    return adjust(scene, tracks, prior_focal=focal, iterations=10, parallax=False)


def _best_rotation(first: Float[np.ndarray, "n 3"], second: Float[np.ndarray, "n 3"]):
    """Robust rotation [3 3] from one set of rays to another (Kabsch), and the angles [n] in radians that it leaves."""
    first = first / np.linalg.norm(first, axis=-1, keepdims=True)
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    weight = np.ones(len(first))
    for _ in range(5):
        u, _, vt = np.linalg.svd(np.einsum("n,ni,nj->ij", weight, second, first))
        rotation = u @ np.diag([1, 1, np.linalg.det(u @ vt)]) @ vt
        angle = np.linalg.norm(second - first @ rotation.T, axis=-1)
        weight = 1 / np.maximum(angle, 1e-4)
    return rotation, angle


def _first_pairs(tracks: Tracks, focal: float, centre: Float[np.ndarray, "2"]) -> list[tuple[int, int]]:
    """Pairs of frames with many common points and much parallax, best first."""
    worth = {}
    frames = tracks.observed.shape[1]
    for i in range(frames):
        for j in range(i + 1, frames):
            both = _seen(tracks, i) & _seen(tracks, j)
            if both.sum() >= MIN_PAIR_POINTS:
                rays = bearings(tracks.observed[both], focal, centre)
                parallax_px = focal * float(np.median(_best_rotation(rays[:, i], rays[:, j])[1]))
                worth[i, j] = both.sum() * min(parallax_px, ENOUGH_PARALLAX_PX)
    return sorted(worth, key=worth.__getitem__, reverse=True)[:FIRST_PAIRS]


def _grow(
    tracks: Tracks, pair: tuple[int, int], focal: float, centre: Float[np.ndarray, "2"]
) -> Reconstruction | None:
    first, second = pair
    pose = _relative_pose(tracks, first, second, focal, centre)
    if pose is None:
        return None
    frames = tracks.observed.shape[1]
    scene = Reconstruction(
        np.tile(np.eye(3), (frames, 1, 1)), np.zeros((frames, 3)), focal, centre, np.zeros(len(tracks.anchor))
    )
    scene.rotation[second], scene.translation[second] = pose
    placed = np.zeros(frames, dtype=bool)
    placed[[first, second]] = True
    while not placed.all():
        scene = _settle(scene, tracks, placed, focal)
        known = _known_points(scene, tracks, placed)
        counts = np.where(placed, -1, (~np.isnan(tracks.observed[known][..., 0])).sum(0))
        frame = int(counts.argmax())
        pose = _resection(scene, tracks, known & _seen(tracks, frame), frame)
        if pose is None:
            return None
        scene.rotation[frame], scene.translation[frame] = pose
        placed[frame] = True
    return _settle(scene, tracks, placed, focal, iterations=10)


def _settle(
    scene: Reconstruction,
    tracks: Tracks,
    placed: Bool[np.ndarray, " t"],
    prior_focal: float,
    iterations: int = 2,
) -> Reconstruction:
    """Triangulate and adjust what the placed frames see."""
    visible = _restricted(tracks, placed)
    scene = replace(scene, inverse_depth=triangulate_tracks(scene, visible).inverse_depth)
    return adjust(scene, visible, prior_focal=prior_focal, iterations=iterations)


def _restricted(tracks: Tracks, placed: Bool[np.ndarray, " t"]) -> Tracks:
    """The same tracks with only the observations that placed frames make of tracks that start in placed frames."""
    keep = placed[None, :] & placed[tracks.anchor][:, None]
    keep[np.arange(len(tracks.anchor)), tracks.anchor] = True
    return Tracks(tracks.anchor, np.where(keep[..., None], tracks.observed, np.nan))


def _known_points(
    scene: Reconstruction, tracks: Tracks, placed: Bool[np.ndarray, " t"]
) -> Bool[np.ndarray, " n"]:
    points = triangulate_tracks(scene, _restricted(tracks, placed))
    certain = points.deviation < 0.3 * np.abs(points.inverse_depth)
    return certain & (points.inverse_depth > 0) & (points.misfit_px < INLIER_PX) & placed[tracks.anchor]


def _relative_pose(tracks: Tracks, first: int, second: int, focal: float, centre: Float[np.ndarray, "2"]):
    both = _seen(tracks, first) & _seen(tracks, second)
    a, b = tracks.observed[both, first], tracks.observed[both, second]
    camera = _camera_matrix(focal, centre)
    essential, inliers = cv2.findEssentialMat(a, b, camera, method=cv2.USAC_MAGSAC, prob=0.999, threshold=1.0)
    if essential is None or essential.shape != (3, 3):
        return None
    count, rotation, translation, _ = cv2.recoverPose(essential, a, b, camera, mask=inliers.copy())
    return (rotation, translation[:, 0]) if count >= MIN_RESECTION_POINTS else None


def _resection(scene: Reconstruction, tracks: Tracks, usable: Bool[np.ndarray, " n"], frame: int):
    """Pose of one more frame from the known points that it sees."""
    if usable.sum() < MIN_RESECTION_POINTS:
        return None
    anchor = tracks.anchor[usable]
    local = bearings(anchor_pixels(tracks)[usable], scene.focal, scene.centre)
    local = local / scene.inverse_depth[usable][:, None] - scene.translation[anchor]
    world = np.einsum("nji,nj->ni", scene.rotation[anchor], local)
    found, turn, translation, inliers = cv2.solvePnPRansac(
        world,
        tracks.observed[usable, frame],
        _camera_matrix(scene.focal, scene.centre),
        None,
        iterationsCount=300,
        reprojectionError=2 * INLIER_PX,
        confidence=0.999,
        flags=cv2.SOLVEPNP_EPNP,
    )
    if not found or len(inliers) < MIN_RESECTION_POINTS:
        return None
    return cv2.Rodrigues(turn)[0], translation[:, 0]


def _camera_matrix(focal: float, centre: Float[np.ndarray, "2"]) -> Float[np.ndarray, "3 3"]:
    return np.array([[focal, 0, centre[0]], [0, focal, centre[1]], [0, 0, 1]])


def _seen(tracks: Tracks, frame: int) -> Bool[np.ndarray, " n"]:
    return ~np.isnan(tracks.observed[:, frame, 0])
