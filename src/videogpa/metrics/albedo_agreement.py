"""Whether the surfaces' own colours agree between frames: `cross_view` without the light.

The geometry model's albedo is compared instead of the frames, so a light that changes counts as little as the
model can tell light from surface.
"""

import dataclasses

from videogpa.errors import CannotJudge
from videogpa.metrics import cross_view
from videogpa.metrics.base import Clip, Need, geometry_of

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "cross_view on the albedo that the geometry model gives; this project"
NEEDS: frozenset[Need] = frozenset({"geometry", "albedo"})


def measure(clip: Clip) -> float:
    """`cross_view` of the albedo, in [0, 1].

    Raises:
        CannotJudge: no geometry or albedo, no camera motion, or too little of the clip is seen by two frames.
    """
    prediction = geometry_of(clip)
    if prediction.albedo is None:
        raise CannotJudge("the geometry model gives no albedo")
    return cross_view.measure(
        dataclasses.replace(clip, geometry=dataclasses.replace(prediction, images=prediction.albedo))
    )
