"""Whether the edges that one frame shows lie where the other frames say they do: what preferences are made of.

Where a video breaks, edges are in the wrong place; flat areas agree whatever happens. What a prompt's videos have in
common comes nearer to the truth when they are chosen by this than by any comparison of colours that was tried; single
videos' squared errors fall a little more by `consistency` (`docs/log.md`). The first frame counts as much as all others
together: where it is given, as in image-to-video, it alone is known to be right. As a judge of single clips
`consistency` is the better one: blur raises a correlation.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.flow import luma
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.consistency import less_repeats, prepared
from videogpa.metrics.cross_view import OCCLUSION, SMALLEST_COVERAGE, coverage, moved
from videogpa.metrics.warping import field_of, see, sources_of

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = (
    "gradient correlation (Penney et al., IEEE TMI 1998) of frames warped by depth and poses; this project"
)
NEEDS: frozenset[Need] = frozenset({"geometry"})

FINEST_SIDE = 48
"""Edges are compared over √(side / FINEST_SIDE) pixels of a larger clip: as fine as resampling and the usual errors of
geometry allow, as with `cross_view.SHIFT`."""


def measure(clip: Clip) -> float:
    """Correlation of the luma's gradients in all pairs of frames, one warped onto the other, less what repeated frames
    cost (`consistency`), in [0, 1]; below 0 is 0.

    Pairs weigh the more, the further they are apart, and those with the first frame as much as all others together.
    Moving bodies, hidden surfaces and pairs between which nothing moves are left out; surfaces are fused over all
    frames and smooth changes of exposure taken out first. Independent of contrast, scale and origin.

    Raises:
        CannotJudge: no geometry, fewer than two frames, no camera motion, no edges, or too little of the clip is seen
            by two frames.
    """
    return less_repeats(max(0.0, _correlation(prepared(geometry_of(clip)))), clip.frames)


def _correlation(prediction: GeometryPrediction) -> float:
    frames = len(prediction.images)
    gray = luma(prediction.images).reshape(frames, *prediction.images.shape[-2:])
    field = field_of(prediction, torch.stack([gray, prediction.confidence], 1))
    reach = max(1, round((max(gray.shape[-2:]) / FINEST_SIDE) ** 0.5))
    products, judged = gray.new_zeros(3, dtype=torch.float64), []
    for target in range(frames):
        sources = sources_of(target, frames)
        views = see(field, target, sources)
        seen = views.inside & (views.depth_gap < OCCLUSION) & moved(views)[:, None, None]
        judged.append(seen.any(0))
        confidence = (views.values[:, 1] * field.maps[target, 1]).clamp_min(0).sqrt()
        weight = confidence.new_tensor(pair_weights(target, sources, frames))
        edges, known = _gradients(views.values[:, 0], seen, reach)
        own, _ = _gradients(field.maps[target : target + 1, 0], seen[:1], reach)
        weight = _pooled(confidence * weight[:, None, None], reach)[..., :-1, :-1] * known
        products += torch.stack(
            [
                (weight * (a * b).sum(1)).sum(dtype=torch.float64)
                for a, b in ((edges, own), (edges, edges), (own, own))
            ]
        )
    covered = coverage(torch.stack(judged))
    if covered < SMALLEST_COVERAGE:
        raise CannotJudge(f"only {covered:.0%} of the pixels are seen by another frame after some motion")
    both, warped, seen_there = products.tolist()
    if not warped * seen_there:
        raise CannotJudge("the clip shows no edges")
    return both / (warped * seen_there) ** 0.5


def pair_weights(target: int, sources: Sequence[int], frames: int) -> list[float]:
    """What a target frame and its sources count as pairs: the frames between them, and those with the first frame so
    much more that they weigh as much as all others (more in clips of three or four frames; nearly, where a long clip's
    sources are thinned).
    """
    first = max(1.0, (frames - 2) / 3)
    return [abs(source - target) * (first if 0 in (source, target) else 1.0) for source in sources]


def _gradients(
    images: Float[Tensor, "s h w"], seen: Bool[Tensor, "s h w"], reach: int
) -> tuple[Float[Tensor, "s 2 rows columns"], Bool[Tensor, "s rows columns"]]:
    """Differences to the right and lower neighbour of cells of so many pixels, and where all three were seen."""
    cells, known = _pooled(images, reach), _pooled(seen.float(), reach) > 1 - 1e-6
    corner = cells[:, :-1, :-1]
    edges = torch.stack([cells[:, :-1, 1:] - corner, cells[:, 1:, :-1] - corner], 1)
    return edges, known[:, :-1, :-1] & known[:, :-1, 1:] & known[:, 1:, :-1]


def _pooled(maps: Float[Tensor, "s h w"], reach: int) -> Float[Tensor, "s rows columns"]:
    return F.avg_pool2d(maps[:, None], reach)[:, 0]
