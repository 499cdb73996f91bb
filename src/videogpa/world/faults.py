"""Faults of known order, put into a clean rendered clip, each at four rising strengths; the weakest can just be seen.

What is random is drawn once from the scene's seed and scaled by the strength, so a stronger fault is the same
fault, only more of it. Strengths are in percent of the image's longer side unless the fault says otherwise.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from kornia.filters import gaussian_blur2d
from torch import Tensor
from torch.nn import functional as F

from videogpa.tensors import Flow, Video
from videogpa.world.render import Render, render
from videogpa.world.scene import Scene

Fault = Callable[[Render, float, np.random.Generator], Video]
KNOTS, FINE_KNOTS = 4, 8
"""Random displacement fields are smooth: drawn on a grid of so many knots a side. The fine ones vary within a body."""
ABSENCE = 1 / 3
"""Share of the clip in which the vanishing body is away."""


def warp_jitter(clip: Render, strength: float, rng: np.random.Generator) -> Video:
    """Every frame bent by a smooth field of its own; the strength is its root mean square."""
    return jittered(clip.rgb, strength, rng)


def jittered(frames: Video, strength: float, rng: np.random.Generator) -> Video:
    """`warp_jitter` of any frames: what it does needs no scene."""
    return warp(frames, _fields(rng, frames) * (strength / 100 * max(frames.shape[-2:])))


def wobble(clip: Render, strength: float, rng: np.random.Generator) -> Video:
    """The body seen largest bends in every frame differently, outline and texture."""
    field = _fields(rng, clip.rgb) * _pixels(clip, strength)
    return _body_warped(clip, field)


def melt(clip: Render, strength: float, rng: np.random.Generator) -> Video:
    """The parts of the body seen largest flow apart more and more, smoothly."""
    field = _fields(rng, clip.rgb, FINE_KNOTS)[:1]
    growth = torch.linspace(0, 1, len(clip.rgb)).view(-1, 1, 1, 1)
    return _body_warped(clip, field * growth * _pixels(clip, strength))


def texture_swim(clip: Render, strength: float, rng: np.random.Generator) -> Video:
    """The patterns of floor, ceiling and walls wander over them, each its own way.

    The strength is the mean step from frame to frame, in percent of the clip's median depth.
    """
    step = strength / 100 * clip.depth.median().item()
    # Floor and ceiling are horizontal; the walls share one pattern, and all of them contain the vertical.
    along = torch.tensor([[1.0, 0, 1], [1, 0, 1], [0, 1, 0]])
    floor, ceiling, walls = (
        replace(texture, drift=_wander(rng, len(clip.rgb), axes) * step)
        for texture, axes in zip(clip.scene.room_textures, along, strict=True)
    )
    return _rendered_like(clip, replace(clip.scene, room_textures=(floor, ceiling, walls))).rgb


def wrong_parallax(clip: Render, strength: float, rng: np.random.Generator) -> Video:
    """What is near, in the middle and far slides apart like three sheets; the strength is reached at the end."""
    angle = rng.uniform(0, 2 * math.pi)
    way = clip.rgb.new_tensor([math.cos(angle), math.sin(angle)]).view(1, 2, 1, 1)
    near, far = clip.depth.quantile(1 / 3), clip.depth.quantile(2 / 3)
    layer = (clip.depth > near).float() + (clip.depth > far).float() - 1
    growth = torch.linspace(0, 1, len(clip.rgb)).view(-1, 1, 1, 1)
    return warp(clip.rgb, way * layer[:, None] * growth * _pixels(clip, strength))


def vanish(clip: Render, strength: float, rng: np.random.Generator) -> Video:
    """The body seen largest fades out and is back again; the strength is how much of it goes, in percent."""
    frames = len(clip.rgb)
    away = max(1, round(frames * ABSENCE))
    first = int(rng.integers(1, frames - away)) if frames - away > 1 else frames - away
    gone = torch.zeros(frames)
    gone[first : first + away] = strength / 100
    without = _rendered_like(clip, _without(clip.scene, largest_body(clip))).rgb
    return torch.lerp(clip.rgb, without, gone.view(-1, 1, 1, 1))


def growing_blur(clip: Render, strength: float, rng: np.random.Generator) -> Video:
    """Sharp at first, then blurred more and more; the strength is the last frame's standard deviation."""
    sigmas = torch.linspace(0, 1, len(clip.rgb)) * _pixels(clip, strength)
    return torch.cat([blurred(f[None], s.item()) for f, s in zip(clip.rgb, sigmas, strict=True)])


FAULTS: dict[str, tuple[Fault, tuple[float, float, float, float]]] = {
    "warp_jitter": (warp_jitter, (0.5, 1.0, 2.0, 4.0)),
    "wobble": (wobble, (1.0, 2.0, 4.0, 8.0)),
    "melt": (melt, (4.0, 8.0, 16.0, 32.0)),
    "texture_swim": (texture_swim, (0.75, 1.5, 3.0, 6.0)),
    "wrong_parallax": (wrong_parallax, (1.0, 2.0, 4.0, 8.0)),
    "vanish": (vanish, (25.0, 50.0, 75.0, 100.0)),
    "growing_blur": (growing_blur, (2.0, 4.0, 8.0, 16.0)),
}


def largest_body(clip: Render) -> int:
    """Index of the body that covers most pixels of the clip."""
    return int(torch.bincount(clip.object_ids.flatten(), minlength=len(clip.scene.bodies) + 1)[1:].argmax())


def warp(images: Float[Tensor, "t c h w"], displacement: Flow) -> Float[Tensor, "t c h w"]:
    """Each pixel shows what was `displacement` (dx, dy) pixels away; beyond the border the image is mirrored."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([x, y]).float() + displacement
    grid = (at.permute(0, 2, 3, 1) * 2 + 1) / torch.tensor([width, height]) - 1
    moved = F.grid_sample(images, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return moved.clamp(0, 1)


def blurred(images: Video, sigma: float) -> Video:
    """Gaussian blur by `sigma` pixels; 0 changes nothing."""
    if sigma == 0:
        return images
    size = 2 * math.ceil(3 * sigma) + 1
    return gaussian_blur2d(images, (size, size), (sigma, sigma), border_type="replicate")


def _pixels(clip: Render, percent: float) -> float:
    return percent / 100 * max(clip.rgb.shape[-2:])


def _fields(rng: np.random.Generator, like: Video, knots: int = KNOTS) -> Flow:
    """A smooth displacement for every frame, of root mean square 1."""
    drawn = torch.from_numpy(rng.normal(size=(len(like), 2, knots, knots))).float()
    field = F.interpolate(drawn, like.shape[-2:], mode="bicubic", align_corners=True)
    return field / field.square().sum(1).mean().sqrt()


def _wander(rng: np.random.Generator, frames: int, axes: Float[Tensor, " 3"]) -> Float[Tensor, "t 3"]:
    """A random walk along the `axes` (0 or 1 each) with mean step 1 that starts at the origin."""
    steps = torch.from_numpy(rng.normal(size=(frames, 3))).float() * axes
    steps[0] = 0
    return steps.cumsum(0) / steps[1:].norm(dim=1).mean()


def _body_warped(clip: Render, field: Flow) -> Video:
    """The largest body's outline and colours warped, put before a picture of the scene without it."""
    body = largest_body(clip)
    without = _rendered_like(clip, _without(clip.scene, body)).rgb
    mask = (clip.object_ids == body + 1)[:, None].float()
    layer = warp(torch.cat([clip.rgb, mask], 1), field)
    # The mask has no soft edges: what it does to the body at rest is taken off again.
    change = torch.lerp(without, layer[:, :3], layer[:, 3:]) - torch.lerp(without, clip.rgb, mask)
    return (clip.rgb + change).clamp(0, 1)


def _without(scene: Scene, body: int) -> Scene:
    return replace(scene, bodies=tuple(b for i, b in enumerate(scene.bodies) if i != body))


def _rendered_like(clip: Render, scene: Scene) -> Render:
    return render(scene, len(clip.rgb), *clip.rgb.shape[-2:])
