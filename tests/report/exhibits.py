"""Exact clips, small, as the score stage would show them."""

import dataclasses
from functools import cache

from tests.metrics.scenes import exact, rendered, wobble
from videogpa.geometry.base import GeometryPrediction


@cache
def geometry(strength: float = 0.0) -> GeometryPrediction:
    """Five frames of 48×48 with normals; the first object jumps about by `strength` percent of the width."""
    clip = rendered()
    images = wobble(clip, strength) if strength else clip.rgb
    return dataclasses.replace(exact(clip), images=images, normals=clip.normals)
