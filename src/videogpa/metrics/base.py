"""The contract of metrics: a clip and what is known about it in, one number (or the reason for none) out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.tensors import Flow, Mask, Video

Need = Literal["geometry", "normals", "albedo", "truth"]
"""`normals` and `albedo` are those of the geometry, which not every model gives."""


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The one true continuation of a procedural prompt, for oracle metrics only.

    frames [t 3 h w] in [0, 1]; flow [t 2 h w] from frame 0 to frame t in pixels of frame 0;
    covisible [t h w]: pixels of frame 0 still seen in frame t.
    """

    frames: Video
    flow: Flow
    covisible: Mask
    geometry: GeometryPrediction


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Everything a metric may look at. Frames [t 3 h w] in [0, 1]."""

    frames: Video
    geometry: GeometryPrediction | None = None
    truth: Truth | None = None


class Metric(Protocol):
    """What `metrics/<name>.py` offers, as module attributes and one function."""

    HIGHER_IS_BETTER: bool
    UNIT: str
    SOURCE: str
    NEEDS: frozenset[Need]

    def measure(self, clip: Clip) -> float:
        """The value for one clip.

        Raises:
            CannotJudge: this clip has no answer (the value is then null, with the reason).
        """
        ...


def has(clip: Clip, need: Need) -> bool:
    """Whether the clip comes with what a metric needs; without it the metric does not apply."""
    if need == "truth":
        return clip.truth is not None
    if need == "geometry":
        return clip.geometry is not None
    return clip.geometry is not None and getattr(clip.geometry, need) is not None


def geometry_of(clip: Clip) -> GeometryPrediction:
    """The clip's geometry.

    Raises:
        CannotJudge: it has none, or its cameras are not finite.
    """
    geometry = clip.geometry
    if geometry is None:
        raise CannotJudge("no geometry was recovered")
    if not (geometry.extrinsics_w2c.isfinite().all() and geometry.intrinsics.isfinite().all()):
        raise CannotJudge("the cameras are not finite")
    return geometry


def truth_of(clip: Clip) -> Truth:
    """The clip's true continuation, of the same shape as its frames.

    Raises:
        CannotJudge: there is none, it has another shape, or there is no frame after the given first one.
    """
    if clip.truth is None:
        raise CannotJudge("no true continuation is known")
    if clip.truth.frames.shape != clip.frames.shape or len(clip.frames) < 2:
        given, true = tuple(clip.frames.shape), tuple(clip.truth.frames.shape)
        raise CannotJudge(f"frames {given} cannot be compared with a true continuation {true}")
    return clip.truth


def measure_clip(metrics: Mapping[str, Any], clip: Clip) -> tuple[dict[str, float | None], list[str]]:
    """The values of all metrics, None where one does not apply or cannot judge, and the reasons of the latter."""
    values: dict[str, float | None] = {}
    reasons = []
    for name, metric in metrics.items():
        values[name] = None
        if not all(has(clip, need) for need in metric.NEEDS):
            continue
        try:
            value = metric.measure(clip)
        except CannotJudge as unknown:
            reasons.append(f"{name}: {unknown}")
            continue
        if math.isfinite(value):
            values[name] = value
        else:
            reasons.append(f"{name}: its value is {value}")
    return values, reasons
