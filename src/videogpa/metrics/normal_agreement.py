"""Whether a surface faces the same way in all frames that see it; lengths play no part in it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.metrics.base import Clip, Need, geometry_of
from videogpa.metrics.cross_view import OCCLUSION, SMALLEST_COVERAGE, coverage, moved
from videogpa.metrics.warping import Field, field_of, see, sources_of
from videogpa.tensors import Normals

HIGHER_IS_BETTER = True
UNIT = "share"
SOURCE = "normals warped between pairs of frames, as VideoGPA's summary words its reward; this project"
NEEDS: frozenset[Need] = frozenset({"geometry", "normals"})

TOLERANCE_DEGREES = 15.0
"""Normals this far apart count half."""
KNOWN_LENGTH = 0.5
"""A normal sampled between pixels is shorter where they disagree; below this it says nothing."""


def measure(clip: Clip) -> float:
    """Mean of 1 / (1 + angle / 15°) over all pixels that two frames see, in [0, 1].

    The angle is between the normals of the two frames, both turned into the world. Pairs of frames between
    which nothing moved are not judged: their normals agree whatever they are.

    Raises:
        CannotJudge: no geometry or normals, fewer than two frames, no camera motion, or too little overlap.
    """
    prediction = geometry_of(clip)
    field = field_of(prediction, world_normals(prediction))
    frames = len(prediction.depth)
    pairs = [_agreement(field, t, sources_of(t, frames)) for t in range(frames)]
    covered = coverage(torch.stack([judged.any(0) for _, judged in pairs]))
    if covered < SMALLEST_COVERAGE:
        raise CannotJudge(f"only {covered:.0%} of the pixels are seen by another frame after some motion")
    return torch.cat([agreement[judged] for agreement, judged in pairs]).mean().item()


def world_normals(prediction: GeometryPrediction) -> Normals:
    """The normals turned from every camera's axes to the world's; 0 where they are unknown.

    Raises:
        CannotJudge: the geometry has none.
    """
    if prediction.normals is None:
        raise CannotJudge("the geometry model gives no normals")
    turned = torch.einsum("tji,tjhw->tihw", prediction.extrinsics_w2c[..., :3], prediction.normals)
    return F.normalize(turned.nan_to_num(0, 0, 0), dim=1)


def _agreement(
    field: Field, target: int, sources: list[int]
) -> tuple[Float[Tensor, "s h w"], Bool[Tensor, "s h w"]]:
    """Agreement in [0, 1] at the pixels of a target, and where it may be judged."""
    views = see(field, target, sources)
    own = field.maps[target].expand_as(views.values)
    sine = torch.linalg.cross(own, views.values, dim=1).square().sum(1).sqrt()
    angle = torch.atan2(sine, (own * views.values).sum(1)).rad2deg()
    known = (own.square().sum(1) > KNOWN_LENGTH**2) & (views.values.square().sum(1) > KNOWN_LENGTH**2)
    judged = views.inside & (views.depth_gap < OCCLUSION) & known & moved(views)[:, None, None]
    return 1 / (1 + angle / TOLERANCE_DEGREES), judged
