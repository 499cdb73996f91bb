"""Bundle adjustment of a short clip: camera poses, one focal length and one inverse depth per track."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from videogpa.geometry.matching import Tracks, anchor_pixels

OUTLIER_SCALE_PX = 1.0
# Tighter than real lenses differ: neighbouring flows share their errors, so many residuals say less than they seem
# to, and a focal length that is free drifts wherever little parallax leaves it to trade with rotation.
FOCAL_PRIOR_STD = 0.05
NEAREST_RATIO = 0.05


@dataclass(frozen=True)
class Reconstruction:
    """Cameras and points of a clip.

    rotation [t 3 3] and translation [t 3] are world to camera (OpenCV axes), focal is in pixels, centre
    [2] the principal point; inverse_depth [n] is 1 / z of each track in its anchor frame.
    """

    rotation: Float[np.ndarray, "t 3 3"]
    translation: Float[np.ndarray, "t 3"]
    focal: float
    centre: Float[np.ndarray, "2"]
    inverse_depth: Float[np.ndarray, " n"]


def bearings(pixels: Float[np.ndarray, "*n 2"], focal: float, centre: Float[np.ndarray, "2"]):
    """Rays (x, y, 1) [*n 3] through pixels (x, y)."""
    rays = (pixels - centre) / focal
    return np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1)


def relative_poses(scene: Reconstruction) -> tuple[Float[np.ndarray, "t t 3 3"], Float[np.ndarray, "t t 3"]]:
    """[i, j] leads from the camera of frame i into that of frame j."""
    rotation = np.einsum("jab,icb->ijac", scene.rotation, scene.rotation)
    return rotation, scene.translation[None] - np.einsum("ijac,ic->ija", rotation, scene.translation)


def project(scene: Reconstruction, tracks: Tracks) -> Float[np.ndarray, "n t 2"]:
    """Pixels of all tracks in all frames as the reconstruction predicts them; NaN behind a camera."""
    points = _homogeneous(scene, tracks)[0]
    depth = np.where(points[..., 2] > NEAREST_RATIO, points[..., 2], np.nan)
    return scene.focal * points[..., :2] / depth[..., None] + scene.centre


def residuals(scene: Reconstruction, tracks: Tracks) -> Float[np.ndarray, "n t"]:
    """Distance in pixels between observation and prediction; NaN where there is no observation.

    A point that comes to lie behind a camera that sees it is infinitely wrong.
    """
    distance = np.linalg.norm(project(scene, tracks) - tracks.observed, axis=-1)
    seen = ~np.isnan(tracks.observed[..., 0])
    distance = np.where(seen & np.isnan(distance), np.inf, distance)
    distance[np.arange(len(tracks.anchor)), tracks.anchor] = np.nan
    return distance


def adjust(
    scene: Reconstruction, tracks: Tracks, *, prior_focal: float, iterations: int = 20, parallax: bool = True
) -> Reconstruction:
    """The reconstruction with the smallest robust reprojection error near `scene` (Levenberg-Marquardt).

    The loss is Cauchy's on the distance in pixels; the focal length keeps to `prior_focal` with a relative standard
    deviation of FOCAL_PRIOR_STD. Frame 0 stays where it is. `parallax=False` keeps the inverse depths fixed:
    with all of them 0 that is the best purely turning camera.
    """
    damping = 1e-4
    cost = _cost(scene, tracks, prior_focal)
    for _ in range(iterations):
        system = _normal_equations(scene, tracks, prior_focal, parallax)
        candidate = _step(scene, system, damping)
        candidate_cost = _cost(candidate, tracks, prior_focal)
        if candidate_cost < cost:
            converged = cost - candidate_cost < 1e-5 * cost
            scene, cost, damping = candidate, candidate_cost, max(damping / 10, 1e-9)
            if converged:
                break
        else:
            damping *= 10
            if damping > 1e4:
                break
    return scene


def _homogeneous(scene: Reconstruction, tracks: Tracks):
    """Track points times their inverse depth in every camera [n t 3], with the parts that the Jacobian needs."""
    rays = bearings(anchor_pixels(tracks), scene.focal, scene.centre)
    relative_r, relative_t = relative_poses(scene)
    relative_r, relative_t = relative_r[tracks.anchor], relative_t[tracks.anchor]
    points = np.einsum("ntik,nk->nti", relative_r, rays) + scene.inverse_depth[:, None, None] * relative_t
    return points, rays, relative_r, relative_t


def _focal_residual(scene: Reconstruction, prior_focal: float) -> float:
    return float(np.log(scene.focal / prior_focal)) / FOCAL_PRIOR_STD


def _cost(scene: Reconstruction, tracks: Tracks, prior_focal: float) -> float:
    distance = np.minimum(residuals(scene, tracks), 1e6)
    return (
        float(np.nansum(np.log1p((distance / OUTLIER_SCALE_PX) ** 2)))
        + _focal_residual(scene, prior_focal) ** 2
    )


def _normal_equations(scene: Reconstruction, tracks: Tracks, prior_focal: float, parallax: bool):
    """Weighted normal equations with the parameters (6 per frame, log focal | inverse depths).

    Returns the camera block [p p], its gradient [p], the coupling [n p], and the diagonal and gradient [n] of the
    inverse depths.
    """
    n, t = tracks.observed.shape[:2]
    points, rays, relative_r, relative_t = _homogeneous(scene, tracks)
    depth = np.maximum(points[..., 2], NEAREST_RATIO)
    predicted = scene.focal * points[..., :2] / depth[..., None]
    error = predicted + scene.centre - tracks.observed
    seen = ~np.isnan(error[..., 0]) & (points[..., 2] > NEAREST_RATIO)
    error = np.where(seen[..., None], error, 0)
    weight = seen / (OUTLIER_SCALE_PX**2 + (error**2).sum(-1))

    # pixel by point, then point by parameter: twists act from the left on each world-to-camera pose.
    to_pixel = np.zeros((n, t, 2, 3))
    to_pixel[..., 0, 0] = to_pixel[..., 1, 1] = scene.focal / depth
    to_pixel[..., :, 2] = -predicted / depth[..., None]
    to_pixel *= np.sqrt(weight)[..., None, None]
    error = error * np.sqrt(weight)[..., None]

    camera = np.zeros((n, t, 2, 6 * t + 1))
    rho = scene.inverse_depth
    own = to_pixel @ _twist(points, rho[:, None])
    for j in range(t):
        camera[:, j, :, 6 * j : 6 * j + 6] += own[:, j]
    by_anchor = -(to_pixel @ relative_r) @ _twist(rays, rho)[:, None]
    for i in range(t):
        starts = tracks.anchor == i
        camera[starts, :, :, 6 * i : 6 * i + 6] += by_anchor[starts]
    flat_rays = rays * np.array([-1.0, -1.0, 0.0])
    camera[..., -1] = np.einsum("ntij,ntjk,nk->nti", to_pixel, relative_r, flat_rays)
    camera[..., -1] += predicted * np.sqrt(weight)[..., None]
    camera[..., :6] = 0

    point = np.einsum("ntij,ntj->nti", to_pixel, relative_t) * parallax
    point, error, camera = point.reshape(n, -1), error.reshape(n, -1), camera.reshape(n, 2 * t, -1)
    stacked = camera.reshape(-1, camera.shape[-1])
    block, gradient = stacked.T @ stacked, stacked.T @ error.ravel()
    block[-1, -1] += 1 / FOCAL_PRIOR_STD**2
    gradient[-1] += _focal_residual(scene, prior_focal) / FOCAL_PRIOR_STD
    coupling = np.einsum("nk,nkp->np", point, camera)
    return block, gradient, coupling, (point**2).sum(-1), (point * error).sum(-1)


def _twist(points: Float[np.ndarray, "*n 3"], rho: Float[np.ndarray, "*#n"]) -> Float[np.ndarray, "*n 3 6"]:
    """How a homogeneous point moves with a small rotation (first three) and translation of its frame."""
    x, y, z = np.moveaxis(points, -1, 0)
    zero, rho = np.zeros_like(x), np.broadcast_to(rho, x.shape)
    rows = [[zero, z, -y, rho, zero, zero], [-z, zero, x, zero, rho, zero], [y, -x, zero, zero, zero, rho]]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def _step(scene: Reconstruction, system, damping: float):
    """One damped step, the inverse depths eliminated (Schur complement)."""
    block, gradient, coupling, diagonal, point_gradient = system
    diagonal = diagonal * (1 + damping) + 1e-9
    reduced = block - coupling.T @ (coupling / diagonal[:, None])
    reduced[np.diag_indices_from(reduced)] += damping * np.diag(block) + 1e-9
    camera = -np.linalg.solve(reduced, gradient - coupling.T @ (point_gradient / diagonal))
    points = -(point_gradient + coupling @ camera) / diagonal
    twist = camera[:-1].reshape(-1, 6)
    turn = Rotation.from_rotvec(twist[:, :3]).as_matrix()
    return replace(
        scene,
        rotation=turn @ scene.rotation,
        translation=np.einsum("tij,tj->ti", turn, scene.translation) + twist[:, 3:],
        focal=scene.focal * float(np.exp(np.clip(camera[-1], -0.3, 0.3))),
        inverse_depth=scene.inverse_depth + points,
    )
