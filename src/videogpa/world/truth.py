"""The one true continuation of a procedural prompt, for oracles and exact geometry."""

import json
from functools import lru_cache
from typing import Any

import torch

from videogpa.geometry.base import GeometryPrediction
from videogpa.metrics.base import Truth
from videogpa.tensors import Video
from videogpa.world.render import Render, forward_flow, render
from videogpa.world.scene import scene_from_spec


def true_continuation(spec: dict[str, Any], frames: int, height: int, width: int) -> Truth:
    """Render what the caption and the first frame determine; `spec` is a prompt row's `world`.

    The same scenes are asked for again and again, once for each of their videos: the last one is kept, so what is
    returned is not to be written to.
    """
    return _true_continuation(json.dumps(spec), frames, height, width)


@lru_cache(maxsize=1)
def _true_continuation(spec: str, frames: int, height: int, width: int) -> Truth:
    clip = render(scene_from_spec(json.loads(spec)), frames, height, width)
    flows, visible = zip(*(forward_flow(clip, 0, t) for t in range(frames)), strict=True)
    return Truth(
        frames=clip.rgb,
        flow=torch.cat(flows),
        covisible=torch.cat(visible),
        geometry=exact_geometry(clip, clip.rgb),
    )


def exact_geometry(clip: Render, images: Video) -> GeometryPrediction:
    """The renderer's own geometry around any frames of the same size (a sample judged by the truth)."""
    return GeometryPrediction(
        depth=clip.depth,
        confidence=torch.ones_like(clip.depth),
        extrinsics_w2c=clip.extrinsics_w2c,
        intrinsics=clip.intrinsics,
        images=images,
        scale="metric",
        normals=clip.normals,
        albedo=clip.albedo,
        dynamic_mask=clip.dynamic_mask,
    )
