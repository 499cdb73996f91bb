"""The overall score: do the frames show one scene that holds together in 3D?

`cross_view` with what else a video legitimately does taken out, and what it may cheat with put in:

- exposure that changes smoothly does not count (`metrics/exposure.py`), nor do bodies that move by themselves
  (`geometry/movers.py`, left out by the geometry's mask);
- colours are compared after a slight blur of their own, while contrast is that of the frames as they are: resampling
  costs a sharp clip nothing, and a blurred clip loses;
- surfaces are where all frames together say they are (`metrics/fusion.py`): one frame's uncertain depth is no fault;
- a frame that only repeats the one before proves nothing and costs half its share.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.geometry.base import GeometryPrediction
from videogpa.metrics import cross_view
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.exposure import exposed_alike
from videogpa.metrics.fusion import with_fused_depth
from videogpa.tensors import Mask, Video

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "cross_view with exposure, resampling and repeated frames accounted for; this project"
NEEDS: frozenset[Need] = frozenset({"geometry"})

REPEATED = 0.05
"""A frame repeats the one before if it differs from it by less than this share of the clip's median step."""
COST_OF_REPEATING = 0.5


def measure(clip: Clip) -> float:
    """Agreement of the frames (as `cross_view.agreement`), less half the share of repeated frames; in [0, 1].

    Independent of the scene's scale and origin.

    Raises:
        CannotJudge: no geometry, fewer than two frames, no camera motion, or too little of the clip is seen by two
            frames.
    """
    prediction = prepared(geometry_of(clip))
    return less_repeats(cross_view.agreement(prediction, slightly_blurred(prediction.images)), clip.frames)


def error_maps(prediction: GeometryPrediction) -> tuple[Float[Tensor, "t h w"], Mask]:
    """Per pixel of every frame: the share in [0, 1) that is inconsistent with the other frames, and where any of them
    could tell. Pixels that none could judge, and those of moving bodies, are 0.

    Raises:
        CannotJudge: fewer than two frames.
    """
    prediction = prepared(prediction)
    return cross_view.error_maps(prediction, slightly_blurred(prediction.images))


def prepared(prediction: GeometryPrediction) -> GeometryPrediction:
    """The prediction with surfaces fused over the frames and one exposure.

    Raises:
        CannotJudge: fewer than two frames.
    """
    return exposed_alike(with_fused_depth(prediction))


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


def slightly_blurred(images: Video) -> Video:
    """Every pixel averaged with its neighbours by the weights 1 2 1 in both directions."""
    weights = images.new_tensor([0.25, 0.5, 0.25])
    kernel = weights.outer(weights).expand(images.shape[1], 1, 3, 3)
    return F.conv2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), kernel, groups=images.shape[1])
