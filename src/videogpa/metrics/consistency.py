"""The overall score: do the frames show one scene that holds together in 3D?

Every frame is explained by the others as in `cross_view`, with what else a video legitimately does taken out, and what
it may cheat with put in:

- exposure that changes smoothly does not count (`metrics/exposure.py`), nor do bodies that move by themselves
  (`geometry/movers.py`, left out by the geometry's mask);
- surfaces are where all frames together say they are (`metrics/fusion.py`): one frame's uncertain depth is no fault;
- colours are compared after a slight blur of their own, so that resampling costs a sharp clip nothing;
- differences are set against the contrast of the clip's *sharpest* frame: a frame that loses contrast buys nothing
  with it, and a blurred clip loses;
- the further two frames are apart, the more they prove, and the more they count; confidence counts by its root, for
  where geometry is uncertain a video errs, too;
- a frame that only repeats the one before proves nothing and costs half its share.
"""

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from jaxtyping import Float
from torch import Tensor

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.blur import slightly_blurred
from videogpa.metrics import cross_view
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.cross_view import PairErrors
from videogpa.metrics.exposure import exposed_alike
from videogpa.metrics.fusion import with_fused_depth
from videogpa.metrics.warping import field_of, sources_of
from videogpa.tensors import Mask, Video

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "leave-one-out backward warping against the contrast of the sharpest frame; this project"
NEEDS: frozenset[Need] = frozenset({"geometry"})

REPEATED = 0.05
"""A frame repeats the one before if it differs from it by less than this share of the clip's median step."""
COST_OF_REPEATING = 0.5
_PREPARED: WeakKeyDictionary[GeometryPrediction, GeometryPrediction] = WeakKeyDictionary()


def measure(clip: Clip) -> float:
    """Agreement of the frames (`cross_view.agreement`), less half the share of repeated frames; in [0, 1].

    Independent of the scene's scale and origin.

    Raises:
        CannotJudge: no geometry, fewer than two frames, no camera motion, or too little of the clip is seen by two
            frames.
    """
    return less_repeats(agreement(geometry_of(clip)), clip.frames)


def agreement(prediction: GeometryPrediction) -> float:
    """What `measure` returns for a clip that repeats no frame.

    Raises:
        CannotJudge: as `measure`.
    """
    return cross_view.agreement([cross_view.sums_of(errors) for errors in clip_errors(prediction)])


def error_maps(prediction: GeometryPrediction) -> tuple[Float[Tensor, "t h w"], Mask]:
    """Per pixel of every frame: the share in [0, 1) that is inconsistent with the other frames, and where any of them
    could tell. Pixels that none could judge, and those of moving bodies, are 0.

    Raises:
        CannotJudge: fewer than two frames.
    """
    return cross_view.error_maps(clip_errors(prediction))


def clip_errors(prediction: GeometryPrediction) -> list[PairErrors]:
    """Every frame of the clip against its sources, each weighted by the number of frames that it is away.

    Raises:
        CannotJudge: fewer than two frames.
    """
    prediction = prepared(prediction)
    images = prediction.images
    field = field_of(prediction, compared_maps(prediction, contrasts(images).amax()))
    frames = []
    for target in range(len(images)):
        sources = sources_of(target, len(images))
        errors = cross_view.pair_errors(field.only([target]), field.only(sources))
        frames.append(weighted(errors, [abs(source - target) for source in sources]))
    return frames


def prepared(prediction: GeometryPrediction) -> GeometryPrediction:
    """The prediction with surfaces fused over the frames, one exposure, and the root of its confidence.

    It is kept as long as the prediction is: `edge_agreement` and maps of inconsistency start from it, too.

    Raises:
        CannotJudge: fewer than two frames.
    """
    if prediction not in _PREPARED:
        fused = exposed_alike(with_fused_depth(prediction))
        confidence = fused.confidence.nan_to_num(0, 0, 0).clamp_min(0).sqrt()
        _PREPARED[prediction] = replace(fused, confidence=confidence)
    return _PREPARED[prediction]


def contrasts(images: Video) -> Float[Tensor, " t"]:
    """The mean contrast (`cross_view.local_contrast`) of every frame."""
    return cross_view.local_contrast(images).mean((1, 2, 3))


def compared_maps(prediction: GeometryPrediction, contrast: Float[Tensor, ""]) -> Float[Tensor, "t 5 h w"]:
    """What of every frame is compared, one contrast for all."""
    images = prediction.images
    everywhere = contrast.expand(len(images), 1, *images.shape[-2:])
    return cross_view.compared_maps(prediction, slightly_blurred(images), everywhere)


def weighted(errors: PairErrors, apart: Sequence[int]) -> PairErrors:
    """The errors of pairs that are so many frames apart, the further the heavier."""
    return replace(errors, weight=errors.weight * errors.weight.new_tensor(apart)[:, None, None])


def less_repeats(agreed: float, frames: Video) -> float:
    """The agreement of a clip less what its repeated frames cost."""
    return agreed * (1 - COST_OF_REPEATING * repeated_share(frames))


def repeated_share(frames: Video) -> float:
    """Share of the steps from frame to frame in which nothing changes while the clip as a whole does."""
    steps = frames.diff(dim=0).abs().mean((1, 2, 3))
    changing = steps[steps > 0]
    if not len(changing):
        return 1.0
    return (steps < REPEATED * changing.median()).float().mean().item()
