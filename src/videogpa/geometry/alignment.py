"""Camera poses by direct image alignment: move the camera until the first frame, placed at its depth, looks
like every other frame.

Inverse compositional Gauss-Newton (Baker and Matthews, IJCV 2004) with robust weights, coarse to fine. The
camera is first taken to move at constant velocity, from several starts; each frame's pose is then freed against a
prior that keeps it near that path, so that one rigid motion explains the clip and does not bend after each frame.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.geometry.blur import slightly_blurred
from videogpa.geometry.cameras import pixel_grid, project, resize_intrinsics, transform, unproject
from videogpa.tensors import Extrinsics, Intrinsics, Video

COARSEST = 12
"""Shorter image side, in pixels, at which the starts are tried."""
START_ANGLES = (0.15, 0.3)
"""Total rotations of the starts (radians); their translations are these shares of the median depth."""
STARTS_KEPT = 2
ITERATIONS = {"starts": 5, "path": 5, "frames": 3}
STIFFNESS = 1.0
"""Weight of the constant-velocity prior, as a share of what the images say themselves."""
DAMPING = 1e-3
CUTOFF = 2.0
"""Colour differences beyond this many robust standard deviations count little (Cauchy weights)."""
NOISE = 0.02
"""Smallest standard deviation of a colour difference that is believed."""
MOST_NOISE = 0.03
"""Largest one: what differs more does not belong to the scene, however much of it there is."""

MOST_EXPOSURE = 1.6
"""Frames may be this much brighter or darker than the first one without the difference counting."""

Twists = Float[Tensor, "*b 6"]
"""Translation and rotation vector of a rigid motion in the first camera's frame; `rigid` exponentiates."""


@dataclass(frozen=True)
class Alignment:
    """World-to-camera extrinsics [t 3 4] with the first camera as the world, and how well they explain the clip.

    residual [t]: median colour difference (Euclidean, in [0, √3]) to the first frame over what both see.
    chance [t]: the same for pixels half an image apart, that is, of unrelated content. overlap [t]: share of
    the first frame's pixels that are still in view. displacement [t]: median motion in pixels. Residual and
    displacement are NaN without overlap.
    """

    extrinsics_w2c: Extrinsics
    residual: Float[Tensor, " t"]
    chance: Float[Tensor, " t"]
    overlap: Float[Tensor, " t"]
    displacement: Float[Tensor, " t"]


def align(
    images: Video, depth: Float[Tensor, "h w"], confidence: Float[Tensor, "h w"], intrinsics: Intrinsics
) -> Alignment:
    """Poses of all frames from the depth [h w] of the first one, weighted by its confidence [h w].

    Depth is positive and confidence at least 0 everywhere.
    """
    levels = _pyramid(images, depth, confidence, intrinsics)
    share = torch.linspace(0, 1, len(images))[1:, None]
    paths = _starts(depth)
    for i, level in enumerate(levels):
        paths = _fit_paths(level, paths, share, ITERATIONS["path" if i else "starts"])
        cost = _cost(level, paths[:, None] * share)
        paths = paths[cost.argsort()[: 1 if i == len(levels) - 2 else STARTS_KEPT]]
    twists = _fit_frames(levels[-1], paths[0] * share, share, ITERATIONS["frames"])
    return _summary(levels[-1], twists)


def rigid(twists: Twists) -> Float[Tensor, "*b 3 4"]:
    """The rigid motion exp(ξ) of twists ξ = (v, ω), as [R | t]."""
    x, y, z = twists[..., 3:].unbind(-1)
    zero = torch.zeros_like(x)
    generator = torch.stack(
        [zero, -z, y, twists[..., 0], z, zero, -x, twists[..., 1], -y, x, zero, twists[..., 2], *[zero] * 4],
        -1,
    )
    return torch.linalg.matrix_exp(generator.unflatten(-1, (4, 4)))[..., :3, :]


@dataclass(frozen=True)
class _Level:
    """One pyramid level: the first frame's pixels as points with colours and Jacobians, the other frames to sample.

    jacobian [3*n 6]: change of the first frame's colours, channel by channel, when the camera moves by a twist.
    """

    images: Float[Tensor, "t 3 h w"]
    intrinsics: Float[Tensor, "3 3"]
    points: Float[Tensor, "n 3"]
    colors: Float[Tensor, "3 n"]
    weights: Float[Tensor, " n"]
    jacobian: Float[Tensor, "3*n 6"]


def _pyramid(images: Video, depth: Tensor, confidence: Tensor, intrinsics: Intrinsics) -> list[_Level]:
    """Levels from coarse to fine, each half the size of the next."""
    inverse, maps, k = 1 / depth[None, None], confidence[None, None], intrinsics[0]
    images = slightly_blurred(images)
    levels = [_level(images, inverse, maps, k)]
    while min(images.shape[-2:]) >= 2 * COARSEST:
        images, inverse, maps = (F.avg_pool2d(x, 2) for x in (slightly_blurred(images), inverse, maps))
        k = resize_intrinsics(k, (2, 2), (1, 1))
        levels.append(_level(images, inverse, maps, k))
    return levels[::-1]


def _level(images: Tensor, inverse: Tensor, confidence: Tensor, k: Float[Tensor, "3 3"]) -> _Level:
    points = unproject(1 / inverse[0, 0], k).flatten(0, 1)
    padded = F.pad(images[:1], (1, 1, 1, 1), mode="replicate")[0]
    gradient = torch.stack(
        [padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]], -1
    )
    gradient = gradient.div(2).flatten(1, 2)
    x, y = (points[:, :2] / points[:, 2:]).unbind(-1)
    q, zero = 1 / points[:, 2], torch.zeros_like(x)
    du = torch.stack([q, zero, -x * q, -x * y, 1 + x * x, -y], -1) * k[0, 0]
    dv = torch.stack([zero, q, -y * q, -1 - y * y, x * y, x], -1) * k[1, 1]
    jacobian = (gradient[:, :, None] @ torch.stack([du, dv], 1)).flatten(0, 2)
    return _Level(images[1:], k, points, images[0].flatten(1), confidence.flatten(), jacobian)


def _starts(depth: Float[Tensor, "h w"]) -> Float[Tensor, "p 6"]:
    """Standing still, sideways and forward motion, pans, tilts, and orbits around the median depth."""
    reach = depth.median()
    sideways, forward = torch.eye(6)[0] * reach, torch.eye(6)[2] * reach
    tilt, pan = torch.eye(6)[3], torch.eye(6)[4]
    moves = torch.stack([sideways, forward, tilt, pan, 2 * (pan - sideways)])
    return torch.cat(
        [torch.zeros(1, 6), *(sign * angle * moves for angle in START_ANGLES for sign in (1, -1))]
    )


def _residuals(
    level: _Level, twists: Float[Tensor, "p t 6"]
) -> tuple[Float[Tensor, "p t 3 n"], Bool[Tensor, "p t n"], Float[Tensor, "p t n 2"]]:
    """Colour of every other frame where it sees the first frame's pixels, exposed alike, minus the colour there;
    whether it does; where.
    """
    batch = twists.shape[:2]
    moved = transform(rigid(twists), level.points.expand(*batch, -1, -1))
    pixels, _ = project(moved, level.intrinsics.expand(*batch, -1, -1))
    height, width = level.images.shape[-2:]
    last = pixels.new_tensor([width - 1, height - 1])
    inside = ((pixels >= 0) & (pixels <= last)).all(-1)
    grid = torch.where(inside[..., None], pixels, 0) / last * 2 - 1
    sampled = F.grid_sample(level.images, grid.transpose(0, 1), align_corners=True, padding_mode="border")
    sampled = sampled.permute(2, 0, 1, 3)
    return sampled * _exposure(level.colors, sampled, inside) - level.colors, inside, pixels


def _exposure(
    colors: Float[Tensor, "3 n"], sampled: Float[Tensor, "*b 3 n"], inside: Bool[Tensor, "*b n"]
) -> Float[Tensor, "*b 1 1"]:
    """What brings `sampled` to the brightness of `colors`: the median ratio over what is `inside`, within limits."""
    ratio = colors.sum(-2) / sampled.sum(-2).clamp_min(1e-3)
    gain = torch.where(inside, ratio, torch.nan).nanmedian(-1).values.nan_to_num(1)
    return gain.clamp(1 / MOST_EXPOSURE, MOST_EXPOSURE)[..., None, None]


def _size(difference: Float[Tensor, "*b 3 n"]) -> Float[Tensor, "*b n"]:
    # Written out: torch's vector norm over a short axis takes longer than the rest of the alignment.
    return difference.square().sum(-2).sqrt()


def _robust_scale(size: Float[Tensor, "p t n"], inside: Bool[Tensor, "p t n"]) -> Float[Tensor, "p t 1"]:
    """Robust standard deviation of a frame's colour differences."""
    median = torch.where(inside, size, torch.nan).nanmedian(-1, keepdim=True).values
    return 1.4826 * median.nan_to_num(1).clamp(NOISE, MOST_NOISE)


def _normal_equations(
    level: _Level, twists: Float[Tensor, "p t 6"]
) -> tuple[Float[Tensor, "p t 6 6"], Float[Tensor, "p t 6"]]:
    difference, inside, _ = _residuals(level, twists)
    size = _size(difference)
    scale = _robust_scale(size, inside)
    weights = level.weights * inside / (1 + (size / (CUTOFF * scale)).square()).square() / scale.square()
    weighted = level.jacobian * weights.repeat(1, 1, 3)[..., None]
    hessian = weighted.mT @ level.jacobian
    gradient = (weighted.mT @ difference.flatten(-2)[..., None])[..., 0]
    return hessian, gradient


def _solve(hessian: Float[Tensor, "*b 6 6"], gradient: Twists) -> Twists:
    diagonal = hessian.diagonal(dim1=-2, dim2=-1)
    damped = hessian + torch.diag_embed(DAMPING * diagonal + 1e-9)
    return torch.linalg.solve(damped, gradient)


def _fit_paths(
    level: _Level, paths: Float[Tensor, "p 6"], share: Float[Tensor, "t 1"], iterations: int
) -> Float[Tensor, "p 6"]:
    """Constant velocity: frame k has gone the share s_k of one twist."""
    for _ in range(iterations):
        hessian, gradient = _normal_equations(level, paths[:, None] * share)
        paths = paths - _solve((hessian * share.square()[..., None]).sum(1), (gradient * share).sum(1))
    return paths


def _fit_frames(
    level: _Level, twists: Float[Tensor, "t 6"], share: Float[Tensor, "t 1"], iterations: int
) -> Float[Tensor, "t 6"]:
    """Every frame by itself, held near the constant velocity that fits all of them best."""
    for _ in range(iterations):
        hessian, gradient = (x[0] for x in _normal_equations(level, twists[None]))
        path = (twists * share).sum(0) / share.square().sum()
        stiffness = STIFFNESS * hessian.diagonal(dim1=-2, dim2=-1).mean(0)
        pull = stiffness * (twists - path * share)
        twists = twists - _solve(hessian + torch.diag(stiffness), gradient + pull)
    return twists


def _cost(level: _Level, twists: Float[Tensor, "p t 6"]) -> Float[Tensor, " p"]:
    """Robust colour difference, pixels out of view counted like those of a camera that stood still."""
    difference, inside, _ = _residuals(level, torch.cat([torch.zeros_like(twists[:1]), twists]))
    size = _size(difference)
    scale = CUTOFF * _robust_scale(size[:1], inside[:1])
    cost = 1 - 1 / (1 + (size / scale).square())
    unseen = (cost[:1] * level.weights).mean(-1, keepdim=True)
    return torch.where(inside, cost * level.weights, unseen)[1:].mean((1, 2))


def _summary(level: _Level, twists: Float[Tensor, "t 6"]) -> Alignment:
    difference, inside, pixels = (x[0] for x in _residuals(level, twists[None]))
    residual = torch.where(inside, _size(difference), torch.nan).nanmedian(-1).values
    half = [side // 2 for side in level.images.shape[-2:]]
    elsewhere = level.images.roll(half, (-2, -1)).flatten(2)
    everywhere = torch.ones_like(elsewhere[:, 0], dtype=torch.bool)
    unrelated = elsewhere * _exposure(level.colors, elsewhere, everywhere) - level.colors
    height, width = level.images.shape[-2:]
    home = pixel_grid(height, width, like=pixels).flatten(0, 1)
    moved = torch.where(inside, (pixels - home).norm(dim=-1), torch.nan).nanmedian(-1).values
    still = torch.zeros(1)
    return Alignment(
        extrinsics_w2c=torch.cat([torch.eye(3, 4)[None], rigid(twists)]),
        residual=torch.cat([still, residual]),
        chance=torch.cat([still, _size(unrelated).median(-1).values]),
        overlap=torch.cat([still + 1, inside.float().mean(-1)]),
        displacement=torch.cat([still, moved]),
    )
