"""Relative inverse depth, known per frame only up to a scale and a shift, brought to one scale for a whole clip.

Networks trained with an affine-invariant loss (Ranftl et al., MiDaS, TPAMI 2022, eq. 2 to 6) see each frame's
inverse depth as s/z + b with s and b unknown. The first frame's shift is the one under which one rigid camera
explains the images best; it is sought on a line, since the scale is free. The other frames' scales and shifts are
those that bring them to the first frame, seen through the poses. What then still differs between frames is shape.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.cameras import project, transform, unproject
from videogpa.geometry.embedded import SHORT_SIDE, SMALLEST_OVERLAP
from videogpa.geometry.poses import alignment
from videogpa.tensors import Depth, Intrinsics, Video

DEPTH_RATIOS = (1.2, 1.5, 2.0, 2.8, 4.0, 5.6, 8.0, 11.0, 16.0, 32.0)
"""Candidates for how many times farther the far end (2nd percentile of inverse depth) is than the near end (98th)."""
TYPICAL_RATIO = 4.0
"""Taken where the images cannot tell: a camera that only turns looks the same whatever the depth."""
INDIFFERENCE = 0.05
"""The images cannot tell where the worst candidate leaves at most this share more unexplained than the best."""
FARTHEST = 50.0
"""Inverse depth is kept above its median over this: the sky of a relative network may come out behind infinity."""
SMALLEST_RELIEF = 1e-4
"""Spread of the network's answer, as a share of its size, below which it says nothing."""
ITERATIONS = 10
LARGEST_MISFIT = 0.15
"""Median difference to the first frame's inverse depth, as a share of it, beyond which no fit is believed."""


def first_inverse_depth(
    images: Video, answer: Float[Tensor, "h w"], intrinsics: Intrinsics
) -> Float[Tensor, "h w"]:
    """The first frame's inverse depth, median 1, from its affine-invariant `answer` (larger = nearer).

    Raises:
        CannotJudge: the network sees no relief.
    """
    far, near = answer.flatten().quantile(answer.new_tensor([0.02, 0.98]))
    if near - far <= SMALLEST_RELIEF * answer.abs().amax():
        raise CannotJudge("the depth network sees no relief in the first frame")
    share = (answer - far) / (near - far)
    return _shifted(
        share, _depth_ratio([_unexplained(images, _shifted(share, r), intrinsics) for r in DEPTH_RATIOS])
    )


def brought_to_first(
    inverse: Float[Tensor, "h w"],
    answers: Float[Tensor, "t h w"],
    extrinsics: Float[Tensor, "all 3 4"],
    intrinsics: Float[Tensor, "all 3 3"],
) -> Depth:
    """Inverse depth of frames 1 to t [t h w] from their affine-invariant `answers`, the scale being that of frame 0.

    `extrinsics` [1+t 3 4] and `intrinsics` [1+t 3 3] are those of all frames. Scale and shift minimise the Cauchy
    loss over the pixels of frame 0, moved into each frame: what one of the two hides counts little.

    Raises:
        CannotJudge: no positive scale brings a frame to the first one.
    """
    count, height, width = answers.shape
    points = unproject(1 / inverse, intrinsics[0]).flatten(0, 1)
    pixels, z = project(transform(extrinsics[1:], points.expand(count, -1, -1)), intrinsics[1:])
    last = pixels.new_tensor([width - 1, height - 1])
    inside = ((pixels >= 0) & (pixels <= last)).all(-1)
    grid = torch.where(inside[..., None], pixels, 0) / last * 2 - 1
    seen = F.grid_sample(answers[:, None], grid[:, None], align_corners=True)[:, 0, 0]
    scale, shift, misfit = _affine_fit(seen, torch.where(inside, 1 / z, 0), inside.float())
    for frame in range(count):
        if not (scale[frame] > 0 and misfit[frame] <= LARGEST_MISFIT):
            raise CannotJudge(f"no scale brings the depth of frame {frame + 1} to that of the first frame")
    return in_front(answers * scale[:, None, None] + shift[:, None, None])


def in_front(inverse: Float[Tensor, "*t h w"]) -> Float[Tensor, "*t h w"]:
    """Inverse depth no smaller than a frame's median over `FARTHEST`."""
    floor = inverse.flatten(-2).median(-1).values.clamp_min(1e-6) / FARTHEST
    return inverse.maximum(floor[..., None, None])


def _shifted(share: Float[Tensor, "h w"], ratio: float) -> Float[Tensor, "h w"]:
    """Inverse depth, median 1, in which 0 and 1 of `share` are `ratio` apart."""
    inverse = share + 1 / (ratio - 1)
    return in_front(inverse / inverse.median())


def _unexplained(images: Video, inverse: Float[Tensor, "h w"], intrinsics: Intrinsics) -> float:
    """Colour difference after alignment as a share of chance; 1 for a camera that leaves the scene."""
    found = alignment(images, 1 / inverse, torch.ones_like(inverse), intrinsics, SHORT_SIDE)
    share = torch.where(found.overlap < SMALLEST_OVERLAP, 1, found.residual / found.chance)
    return share[1:].nan_to_num(1).mean().item()


def _depth_ratio(unexplained: Sequence[float]) -> float:
    """The lowest point of the parabola through the best candidate and its neighbours, over the log of the ratio."""
    best = min(range(len(unexplained)), key=lambda i: unexplained[i])
    if max(unexplained) <= (1 + INDIFFERENCE) * unexplained[best]:
        return TYPICAL_RATIO
    if best in (0, len(unexplained) - 1):
        return DEPTH_RATIOS[best]
    nodes = np.log(DEPTH_RATIOS[best - 1 : best + 2])
    curvature, slope, _ = np.polyfit(nodes, unexplained[best - 1 : best + 2], 2)
    return float(np.exp(-slope / (2 * curvature))) if curvature > 0 else DEPTH_RATIOS[best]


def _affine_fit(
    x: Float[Tensor, "t n"], y: Float[Tensor, "t n"], weight: Float[Tensor, "t n"]
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"], Float[Tensor, " t"]]:
    """Scale a and shift b of y = a x + b by iteratively reweighted least squares, and the median of |misfit| / y."""
    robust = weight
    for _ in range(ITERATIONS):
        total = robust.sum(1, keepdim=True).clamp_min(1e-9)
        mean_x, mean_y = ((robust * v).sum(1, keepdim=True) / total for v in (x, y))
        spread = (robust * (x - mean_x).square()).sum(1, keepdim=True).clamp_min(1e-12)
        a = (robust * (x - mean_x) * (y - mean_y)).sum(1, keepdim=True) / spread
        b = mean_y - a * mean_x
        error = torch.where(weight > 0, (y - a * x - b).abs(), torch.nan)
        size = 1.4826 * error.nanmedian(1, keepdim=True).values.nan_to_num(1).clamp_min(1e-6)
        robust = weight / (1 + (error.nan_to_num(0) / (2 * size)).square())
    misfit = (error / y).nanmedian(1).values.nan_to_num(torch.inf)
    return a[:, 0], b[:, 0], misfit
