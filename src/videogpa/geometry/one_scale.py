"""Relative inverse depth, known per frame only up to a scale and a shift, brought to one scale for a whole clip.

Networks trained with an affine-invariant loss (Ranftl et al., MiDaS, TPAMI 2022, eq. 2 to 6) see each frame's
inverse depth as s/z + b with s and b unknown. The first frame's shift is the one under which one rigid camera
explains the images best; it is sought on a line, since the scale is free. The other frames' scales and shifts are
those that bring them to the first frame, seen through the poses. What then still differs between frames is shape.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.cameras import project, transform, unproject
from videogpa.geometry.embedded import SHORT_SIDE, SMALLEST_OVERLAP
from videogpa.geometry.poses import alignment
from videogpa.tensors import Depth, Intrinsics, Video

SHIFTS = (0.8, 0.6, 0.45, 0.32, 0.22, 0.14, 0.07, 0.03)
"""Candidates for the first frame's shift: inverse depth at the far end (2nd percentile) over the near end (98th)."""
TYPICAL_SHIFT = 0.25
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
    shift = _best_shift(lambda shift: _unexplained(images, _shifted(share, shift), intrinsics))
    return _shifted(share, shift)


def brought_to_first(
    inverse: Float[Tensor, "h w"],
    answers: Float[Tensor, "t h w"],
    extrinsics: Float[Tensor, "all 3 4"],
    intrinsics: Float[Tensor, "all 3 3"],
) -> Depth:
    """Inverse depth of frames 1 to t [t h w] from their affine-invariant `answers`, the scale being that of frame 0.

    `extrinsics` [1+t 3 4] and `intrinsics` [1+t 3 3] are those of all frames. Scale and shift minimise the
    Geman-McClure loss over the pixels of frame 0, moved into each frame: what one of the two hides counts little.

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


def _shifted(share: Float[Tensor, "h w"], shift: float) -> Float[Tensor, "h w"]:
    """Inverse depth, median 1, that is `shift` times as large where `share` is 0 as where it is 1."""
    inverse = shift + (1 - shift) * share
    return in_front(inverse / inverse.median())


def _unexplained(images: Video, inverse: Float[Tensor, "h w"], intrinsics: Intrinsics) -> float:
    """Colour difference after alignment as a share of chance; 1 for a camera that leaves the scene."""
    found = alignment(images, 1 / inverse, torch.ones_like(inverse), intrinsics, SHORT_SIDE)
    share = torch.where(found.overlap < SMALLEST_OVERLAP, 1, found.residual / found.chance)
    return share[1:].nan_to_num(1).mean().item()


def _best_shift(unexplained: Callable[[float], float]) -> float:
    """The shift that leaves least unexplained: the best candidate, looked at closer on both sides, then a parabola."""
    costs = {shift: unexplained(shift) for shift in SHIFTS}
    if max(costs.values()) <= (1 + INDIFFERENCE) * min(costs.values()):
        return TYPICAL_SHIFT
    low, middle, high = _around_lowest(costs)
    costs |= {shift: unexplained(shift) for shift in ((low + middle) / 2, (middle + high) / 2)}
    nodes = _around_lowest(costs)
    curvature, slope, _ = np.polyfit(nodes, [costs[shift] for shift in nodes], 2)
    lowest = -slope / (2 * curvature) if curvature > 0 else nodes[1]
    return float(np.clip(lowest, nodes[0], nodes[2]))


def _around_lowest(costs: Mapping[float, float]) -> list[float]:
    """The shift of the lowest cost between its neighbours; the outermost three where it lies at an end."""
    shifts = sorted(costs)
    best = min(range(len(shifts)), key=lambda i: costs[shifts[i]])
    middle = min(max(best, 1), len(shifts) - 2)
    return shifts[middle - 1 : middle + 2]


def _affine_fit(
    x: Float[Tensor, "t n"], y: Float[Tensor, "t n"], weight: Float[Tensor, "t n"]
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"], Float[Tensor, " t"]]:
    """Scale a and shift b of y = a x + b by iteratively reweighted least squares, and the median of |misfit| / y.

    They start where medians and median deviations agree, which something near that only one frame shows, large in x
    and small in y, cannot pull away as it would a least-squares start.
    """
    (middle_x, spread_x), (middle_y, spread_y) = (_middle_and_spread(v, weight > 0) for v in (x, y))
    a = spread_y / spread_x.clamp_min(1e-9)
    b = middle_y - a * middle_x
    for _ in range(ITERATIONS):
        error = torch.where(weight > 0, (y - a * x - b).abs(), torch.nan)
        size = 1.4826 * error.nanmedian(1, keepdim=True).values.nan_to_num(1).clamp_min(1e-6)
        robust = weight / (1 + (error.nan_to_num(0) / (2 * size)).square()).square()
        total = robust.sum(1, keepdim=True).clamp_min(1e-9)
        mean_x, mean_y = ((robust * v).sum(1, keepdim=True) / total for v in (x, y))
        variance = (robust * (x - mean_x).square()).sum(1, keepdim=True).clamp_min(1e-12)
        a = (robust * (x - mean_x) * (y - mean_y)).sum(1, keepdim=True) / variance
        b = mean_y - a * mean_x
    misfit = torch.where(weight > 0, (y - a * x - b).abs() / y, torch.nan)
    return a[:, 0], b[:, 0], misfit.nanmedian(1).values.nan_to_num(torch.inf)


def _middle_and_spread(
    values: Float[Tensor, "t n"], valid: Bool[Tensor, "t n"]
) -> tuple[Float[Tensor, "t 1"], Float[Tensor, "t 1"]]:
    """Median and median absolute deviation."""
    known = torch.where(valid, values, torch.nan)
    middle = known.nanmedian(1, keepdim=True).values
    return middle, (known - middle).abs().nanmedian(1, keepdim=True).values
