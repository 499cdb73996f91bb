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

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.blur import slightly_blurred
from videogpa.metrics import cross_view
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.cross_view import PairErrors
from videogpa.metrics.exposure import exposed_alike
from videogpa.metrics.fusion import with_fused_depth
from videogpa.metrics.warping import sources_of
from videogpa.tensors import Mask, Video

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "leave-one-out backward warping against the contrast of the sharpest frame; this project"
NEEDS: frozenset[Need] = frozenset({"geometry"})

REPEATED = 0.05
"""A frame repeats the one before if it differs from it by less than this share of the clip's median step."""
COST_OF_REPEATING = 0.5


def measure(clip: Clip) -> float:
    """Agreement of the frames (`cross_view.agreement`), less half the share of repeated frames; in [0, 1].

    Independent of the scene's scale and origin.

    Raises:
        CannotJudge: no geometry, fewer than two frames, no camera motion, or too little of the clip is seen by two
            frames.
    """
    agreed = cross_view.agreement(clip_errors(geometry_of(clip)))
    return agreed * (1 - COST_OF_REPEATING * repeated_share(clip.frames))


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
    prediction = exposed_alike(with_fused_depth(prediction))
    prediction = replace(prediction, confidence=prediction.confidence.nan_to_num(0, 0, 0).clamp_min(0).sqrt())
    images = prediction.images
    sharpest = cross_view.local_contrast(images).mean((1, 2, 3)).amax()
    contrast = sharpest.expand(len(images), 1, *images.shape[-2:])
    field = cross_view.compared_field(prediction, slightly_blurred(images), contrast)
    frames = []
    for target in range(len(images)):
        sources = sources_of(target, len(images))
        errors = cross_view.pair_errors(field, target, sources)
        apart = images.new_tensor([abs(source - target) for source in sources])
        frames.append(replace(errors, weight=errors.weight * apart[:, None, None]))
    return frames


def repeated_share(frames: Video) -> float:
    """Share of the steps from frame to frame in which nothing changes while the clip as a whole does."""
    steps = frames.diff(dim=0).abs().mean((1, 2, 3))
    changing = steps[steps > 0]
    if not len(changing):
        return 1.0
    return (steps < REPEATED * changing.median()).float().mean().item()
