"""How far the videos of one prompt are from the truth *together*: what spread between seeds can neither hide nor fake.

An error against one true video is bias² plus variance. Blur, fewer sampler steps and any training on own samples lower
the variance and so "gain" (`benchmarks/primary_oracle.py`). The product of two seeds' errors has the bias² as its mean
and the variance not at all, because their noises are independent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.flow import flow_from_first, luma
from videogpa.metrics.base import Truth
from videogpa.tensors import Video

Videos = Float[Tensor, "s t 3 h w"]
SMALLEST_EIGENVALUE = 1e-4
"""Share of the largest, below which a mix of filters cannot be told from the others; with videos it is some .003."""


def bias2(videos: Videos, truth: Truth) -> float:
    """Squared error of the mean video, intensity²; frame 0, which image-to-video is given, left out.

    Unbiased, so it may be below 0.

    Raises:
        CannotJudge: fewer than two seeds, or the truth has another shape.
    """
    _require(videos, truth)
    return _product([(video - truth.frames)[1:] for video in videos])


def gradient_bias2(videos: Videos, truth: Truth) -> float:
    """The same of the luma's differences to the right and lower neighbour: edges in the wrong place count, large flat
    areas do not. More contrast lowers it where a model draws too little.

    Raises:
        CannotJudge: as `bias2`.
    """
    _require(videos, truth)
    true = gradients(truth.frames)
    return _product([(gradients(video) - true)[1:] for video in videos])


def unexplained(videos: Videos, truth: Truth) -> float:
    """Share of the energy of the truth's gradients that what the seeds have in common does not explain, in [0, 1].

    Explained is the best mix, by least squares, of the common gradients as they are, blurred over 3×3 pixels and
    averaged over the frames before and after. So little is gained by what a filter could do to any video (contrast,
    sharpening, a light blur, smoothing in time) and, as all products are of two seeds, nothing by less spread. It is
    one less the multiple coherence (Bendat and Piersol, Random Data, chapter 7). Of all measures tried the one by which
    cheats gain least (`benchmarks/primary_oracle.py`), hence the primary one.

    Raises:
        CannotJudge: as `bias2`, or the truth has no gradients.
    """
    _require(videos, truth)
    true = gradients(truth.frames)[1:].flatten().double()
    if not true.any():
        raise CannotJudge("the true continuation shows nothing")
    drawn = [filtered(gradients(video)) for video in videos]
    pairs = list(combinations([(x, x @ true) for x in drawn], 2))
    gram = torch.stack([a @ b.T + b @ a.T for (a, _), (b, _) in pairs]).mean(0)
    along = torch.stack([torch.outer(a, b) + torch.outer(b, a) for (_, a), (_, b) in pairs]).mean(0)
    return unexplained_share(gram, along, (true @ true).item())


def flow_bias2(videos: Videos, truth: Truth) -> float:
    """Squared error of the mean optical flow from frame 0, pixels², on truly co-visible pixels.

    Raises:
        CannotJudge: as `bias2`, or nothing of frame 0 stays visible.
    """
    _require(videos, truth)
    seen = truth.covisible[1:]
    if not seen.any():
        raise CannotJudge("nothing of the first frame stays visible")
    errors = [(flow_from_first(video) - truth.flow)[1:].permute(0, 2, 3, 1)[seen] for video in videos]
    # Two components a pixel.
    return 2 * _product(errors)


def variance(videos: Videos, truth: Truth) -> float:
    """Spread between seeds, intensity²; no error, but what errors of single videos have on top of bias².

    Raises:
        CannotJudge: as `bias2`.
    """
    _require(videos, truth)
    return videos[:, 1:].var(0).mean().item()


@dataclass(frozen=True, kw_only=True)
class Together:
    """A measure of all videos of a prompt. `higher_is_better` is None where neither is."""

    measure: Callable[[Videos, Truth], float]
    unit: str
    higher_is_better: bool | None = False


BETWEEN_SEEDS = {
    "oracle_bias2": Together(measure=bias2, unit="intensity²"),
    "oracle_unexplained": Together(measure=unexplained, unit="share"),
    "oracle_gradient_bias2": Together(measure=gradient_bias2, unit="intensity²"),
    "oracle_flow_bias2": Together(measure=flow_bias2, unit="pixels²"),
    "oracle_variance": Together(measure=variance, unit="intensity²", higher_is_better=None),
}
"""By the names under which an evaluation reports them."""


def gradients(video: Video) -> Float[Tensor, "t 2 h w"]:
    """The luma's differences to the right and the lower neighbour; 0 beyond the border."""
    gray = F.pad(luma(video), (0, 1, 0, 1), mode="replicate")
    corner = gray[:, :-1, :-1]
    return torch.stack([gray[:, :-1, 1:] - corner, gray[:, 1:, :-1] - corner], 1)


def filtered(gradient: Float[Tensor, "t 2 h w"]) -> Float[Tensor, "3 n"]:
    """Of all frames but the first: as they are, blurred, and averaged over the frames before and after (of the last
    there is none after it).
    """
    later = torch.cat([gradient[2:], gradient[-2:-1]])
    blurred = F.avg_pool2d(F.pad(gradient, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    seen = [gradient[1:], blurred[1:], (gradient[:-1] + later) / 2]
    return torch.stack([x.flatten() for x in seen]).double()


def unexplained_share(gram: Float[Tensor, "3 3"], along: Float[Tensor, "3 3"], energy: float) -> float:
    """1 - trace(gram⁻¹ along) / energy, within [0, 1]: what the best mix of three filters leaves.

    Args:
        gram: mean product of what two seeds drew, filtered, symmetric.
        along: mean outer product of their products with the truth; of the same scale.
        energy: the truth's product with itself.
    """
    values, axes = torch.linalg.eigh(gram)
    # Where nothing moves, the frames before and after add nothing to the frame itself.
    kept = values > SMALLEST_EIGENVALUE * values[-1].clamp(min=0)
    axes = axes[:, kept]
    explained = ((axes.T @ along @ axes).diagonal() / values[kept]).sum().item() / energy
    return 1 - min(1.0, max(0.0, explained))


def _require(videos: Videos, truth: Truth) -> None:
    if len(videos) < 2:
        raise CannotJudge("bias and variance need two seeds of the same prompt")
    if videos[0].shape != truth.frames.shape or videos.shape[1] < 2:
        raise CannotJudge(
            f"videos {tuple(videos.shape[1:])} cannot be compared with a true continuation {tuple(truth.frames.shape)}"
        )


def _product(errors: Sequence[Tensor]) -> float:
    """Mean over pairs of seeds and over elements."""
    return torch.stack([(a * b).mean() for a, b in combinations(errors, 2)]).mean().item()
