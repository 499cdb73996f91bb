"""Structure from motion: geometry of real videos without any weights.

Dense flow is followed between all frames, an essential matrix and resections give first poses, bundle adjustment
refines them together with the focal length, and every pixel is triangulated from the flows into the other frames.
"""

from dataclasses import replace
from typing import Literal

import cv2
import numpy as np
import torch
from jaxtyping import Float

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.bootstrap import (
    INLIER_PX,
    bootstrap,
    explained_share,
    triangulate_tracks,
    turning_camera,
)
from videogpa.geometry.bundle import Reconstruction, adjust, bearings, relative_poses
from videogpa.geometry.matching import (
    Correspondences,
    Gray,
    Tracks,
    anchor_pixels,
    follow_corners,
    likeness,
    match_all,
    pixel_grid,
)
from videogpa.geometry.triangulation import complete, triangulate
from videogpa.opencv import deterministic_opencv
from videogpa.tensors import Video

LICENSE = "no weights"
SCALE = "relative"
PREDICTS = ("depth", "poses", "confidence")
NEEDS = ()

MIN_FRAMES = 3
MIN_SIDE = 16
MAX_ENLARGEMENT = 4
SMALL_SIDE = 256
MAX_TRACKS = 900
BOOTSTRAP_TRACKS = 300
MIN_CORNERS = 25
MIN_OVERLAP = 0.15
MIN_LIKENESS = 0.6
STILL_PX = 0.75
MAX_STILL_SHARE = 0.5
PARALLAX_PX = 1.0
MAX_TURNING_SHARE = 0.9
MIN_RIGID_SHARE = 0.7
MIN_SOURCES = 2
MIN_KNOWN_SHARE = 0.6
FARTHEST = 50.0
PRIOR_SPREAD = 0.1
AGREEMENT_PX = 2.0


class Backend:
    """Structure from motion by flow; poses, a shared focal length and dense depth, median depth 1.

    Args:
        field_of_view_deg: horizontal field of view to start from; the focal length is refined around it.
        working_side: longer side in pixels of the images that are matched and returned; small clips are enlarged,
            at most MAX_ENLARGEMENT times, towards SMALL_SIDE.
    """

    license = LICENSE
    needs: tuple[str, ...] = NEEDS
    scale: Literal["metric", "relative"] = "relative"

    def __init__(self, field_of_view_deg: float = 55.0, working_side: int = 480):
        self.field_of_view_deg = field_of_view_deg
        self.working_side = working_side

    def predict(self, frames: Video) -> GeometryPrediction:
        """Geometry of all frames [t 3 h w] in [0, 1], at the working resolution.

        Confidence is in [0, 1]: 0 where fewer than two other frames show the point; small, but not 0, where what they
        show fits no rigid scene, so that a consistency metric sees it.

        Raises:
            CannotJudge: too few or too small frames, no texture, a scene cut, a camera that stands still or only
                turns, or motion that no rigid scene explains.
        """
        if len(frames) < MIN_FRAMES:
            raise CannotJudge(f"{len(frames)} frames; structure from motion needs at least {MIN_FRAMES}")
        if min(frames.shape[-2:]) < MIN_SIDE:
            raise CannotJudge(
                f"frames of {frames.shape[-1]}x{frames.shape[-2]} pixels are too small to match"
            )
        with deterministic_opencv():
            images = _resized(frames, self.working_side)
            grays = [_gray(image) for image in images]
            tracks, matches = _tracks(grays)
            height, width = grays[0].shape
            focal = width / 2 / np.tan(np.radians(self.field_of_view_deg) / 2)
            scene = _reconstruct(tracks, float(focal), np.array([(width - 1) / 2, (height - 1) / 2]))
            maps = [_depth_map(scene, matches, i) for i in range(len(grays))]
        known = float(np.mean([confidence > 0 for _, confidence in maps]))
        if known < MIN_KNOWN_SHARE:
            raise CannotJudge(f"only {known:.0%} of the picture can be followed into two other frames")
        return _prediction(scene, images, maps)


def _resized(frames: Video, working_side: int) -> list[Float[np.ndarray, "height width 3"]]:
    height, width = frames.shape[-2:]
    longest = max(height, width)
    factor = min(working_side / longest, max(1.0, min(MAX_ENLARGEMENT, SMALL_SIDE / longest)))
    size = (round(width * factor), round(height * factor))
    kind = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    arrays = frames.detach().float().cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return [np.clip(cv2.resize(array, size, interpolation=kind), 0, 1) for array in arrays]


def _gray(image: Float[np.ndarray, "h w 3"]) -> Gray:
    """Luma in 8 bits, the only depth that OpenCV's features and flow take."""
    return np.round(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) * 255).astype(np.uint8)


def _tracks(grays: list[Gray]) -> tuple[Tracks, Correspondences]:
    matches = match_all(grays)
    tracks = follow_corners(grays, matches, MAX_TRACKS // len(grays))
    counts = np.bincount(tracks.anchor, minlength=len(grays))
    if counts.min() < MIN_CORNERS:
        raise CannotJudge(f"too little texture: frame {counts.argmin()} has {counts.min()} corners to follow")
    _require_overlap(grays, matches, tracks)
    shift = np.linalg.norm(tracks.observed - anchor_pixels(tracks)[:, None], axis=-1)
    still = np.nanmedian(shift, axis=1) < STILL_PX
    if still.mean() > MAX_STILL_SHARE:
        raise CannotJudge(f"the camera stands still: {still.mean():.0%} of the corners never move")
    return tracks, matches


def _require_overlap(grays: list[Gray], matches: Correspondences, tracks: Tracks) -> None:
    for i in range(len(grays) - 1):
        columns, rows = anchor_pixels(tracks)[tracks.anchor == i].astype(int).T
        match = matches[i, i + 1]
        alike = likeness(grays[i], grays[i + 1], match) > MIN_LIKENESS
        overlap = (match.seen & alike)[rows, columns].mean()
        if overlap < MIN_OVERLAP:
            raise CannotJudge(
                f"scene cut between frames {i} and {i + 1}: {overlap:.0%} of the corners are found again"
            )


def _reconstruct(tracks: Tracks, focal: float, centre: Float[np.ndarray, "2"]) -> Reconstruction:
    few = _subset(tracks, np.arange(len(tracks.anchor)) % max(1, len(tracks.anchor) // BOOTSTRAP_TRACKS) == 0)
    turning = explained_share(turning_camera(few, focal, centre), few, PARALLAX_PX)
    if turning > MAX_TURNING_SHARE:
        raise CannotJudge(f"no parallax: a camera that only turns explains {turning:.0%} of the motion")
    start = bootstrap(few, focal, centre)
    if start is None:
        raise CannotJudge("the frames do not share enough points of one rigid scene to place every camera")
    scene = replace(start, inverse_depth=triangulate_tracks(start, tracks).inverse_depth)
    scene = adjust(scene, tracks, prior_focal=focal)
    rigid = explained_share(scene, tracks, INLIER_PX)
    if rigid < MIN_RIGID_SHARE:
        raise CannotJudge(f"no rigid scene: one camera path explains only {rigid:.0%} of the point tracks")
    if turning > MAX_TURNING_SHARE * explained_share(scene, tracks, PARALLAX_PX):
        raise CannotJudge(
            "no parallax: a moving camera explains the motion no better than one that only turns"
        )
    return scene


def _subset(tracks: Tracks, keep) -> Tracks:
    return Tracks(tracks.anchor[keep], tracks.observed[keep])


def _depth_map(scene: Reconstruction, matches: Correspondences, frame: int):
    """Inverse depth, and its confidence in [0, 1], of all pixels of one frame."""
    sources = [j for i, j in matches if i == frame]
    seen = np.stack(
        [np.where(matches[frame, j].seen[..., None], matches[frame, j].target, np.nan) for j in sources]
    )
    rotation, translation = (each[frame, sources].astype(np.float32) for each in relative_poses(scene))
    centre = scene.centre.astype(np.float32)
    rays = bearings(pixel_grid(*seen.shape[1:3]), scene.focal, centre)
    turned = np.stack([rays @ each.T for each in rotation])
    points = triangulate(turned, (seen - centre) / scene.focal, translation[:, None, None], scene.focal)
    support = (~np.isnan(seen[..., 0])).sum(0)
    known = support >= MIN_SOURCES
    points = points._replace(deviation=np.where(known, points.deviation, np.float32(1e6)))
    typical = float(np.median(points.inverse_depth[known])) if known.any() else 1.0
    inverse_depth = np.maximum(complete(points, PRIOR_SPREAD * typical), typical / FARTHEST)
    agreement = 1 / (1 + (points.misfit_px / AGREEMENT_PX) ** 2)
    precision = 1 / (1 + (points.deviation / (2 * PRIOR_SPREAD * inverse_depth)) ** 2)
    return inverse_depth, known * agreement * precision


def _prediction(scene: Reconstruction, images, maps) -> GeometryPrediction:
    """Frame 0 becomes the world, the median depth 1."""
    depth = 1 / np.stack([inverse_depth for inverse_depth, _ in maps])
    unit = float(np.median(depth))
    first_r, first_t = scene.rotation[0], scene.translation[0]
    rotation = scene.rotation @ first_r.T
    translation = (scene.translation - rotation @ first_t) / unit
    intrinsics = np.array([[scene.focal, 0, scene.centre[0]], [0, scene.focal, scene.centre[1]], [0, 0, 1]])
    return GeometryPrediction(
        depth=torch.from_numpy(depth / unit).float(),
        confidence=torch.from_numpy(np.stack([confidence for _, confidence in maps])).float(),
        extrinsics_w2c=torch.from_numpy(np.concatenate([rotation, translation[..., None]], axis=-1)).float(),
        intrinsics=torch.from_numpy(intrinsics).float().repeat(len(images), 1, 1),
        images=torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(),
        scale="relative",
    )
