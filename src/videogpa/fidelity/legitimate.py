"""Changes of a scene that are as consistent as the scene itself: a fair metric does not punish them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from videogpa.tensors import Video
from videogpa.world.faults import largest_body
from videogpa.world.render import Render, render
from videogpa.world.scene import CAMERA_HEIGHT, SLIDE_LENGTH, Body, Scene
from videogpa.world.texture import sample_texture

Change = Callable[[Render, np.random.Generator], Video]
FAST = 3.0
"""How many times the usual way a fast mover goes."""
GLOSS = 0.6
EXPOSURE = 0.75
"""The last frame's exposure relative to the first one's, or the other way round."""
SHORTER = 0.5


def mover(clip: Render, rng: np.random.Generator) -> Video:
    """The body seen largest slides over the floor at constant speed."""
    return _slid(clip, rng, SLIDE_LENGTH)


def fast_mover(clip: Render, rng: np.random.Generator) -> Video:
    """The same, three times as fast."""
    return _slid(clip, rng, SLIDE_LENGTH * FAST)


def waving_surface(clip: Render, rng: np.random.Generator) -> Video:
    """A curtain hangs in the scene, and waves run along it."""
    return _like(clip, with_curtain(clip.scene, rng, waved=0.75)).rgb


def still_curtain(clip: Render, rng: np.random.Generator) -> Video:
    """The same curtain at rest: what the waving one is compared with."""
    return _like(clip, with_curtain(clip.scene, rng, waved=0.0)).rgb


def glossy(clip: Render, rng: np.random.Generator) -> Video:
    """Bodies and floor are glossy (`specular`)."""
    return specular(clip, GLOSS)


def specular(clip: Render, gloss: float) -> Video:
    """Bodies and floor are glossy: their highlights move with the camera, not with the surface."""
    bodies = tuple(replace(b, gloss=gloss) for b in clip.scene.bodies)
    return _like(clip, replace(clip.scene, bodies=bodies, floor_gloss=gloss)).rgb


def exposure(clip: Render, rng: np.random.Generator) -> Video:
    """The exposure changes steadily by a quarter, up or down."""
    gains = torch.linspace(1, EXPOSURE, len(clip.rgb)).view(-1, 1, 1, 1)
    return clip.rgb * (gains if rng.random() < 0.5 else gains.flip(0))


def shorter_path(clip: Render, rng: np.random.Generator) -> Video:
    """The camera goes half the way in as many frames."""
    count = len(clip.rgb)
    longer = render(clip.scene, round((count - 1) / SHORTER) + 1, *clip.rgb.shape[-2:])
    return longer.rgb[:count]


LEGITIMATE: dict[str, Change] = {
    "mover": mover,
    "fast_mover": fast_mover,
    "waving_surface": waving_surface,
    "specular": glossy,
    "exposure": exposure,
    "shorter_path": shorter_path,
}


def with_curtain(scene: Scene, rng: np.random.Generator, *, waved: float) -> Scene:
    """The scene with a curtain somewhere among its bodies, turned towards the camera within half a radian."""
    x, z = rng.uniform(-1.2, 1.2), rng.uniform(2.6, 4.0)
    size = torch.tensor([rng.uniform(0.5, 0.8), rng.uniform(0.5, 0.8), 0.06])
    curtain = Body(
        kind="curtain",
        center=torch.tensor([x, CAMERA_HEIGHT - 0.3 - size[1].item(), z]),
        size=size,
        yaw=float(rng.uniform(-0.5, 0.5)),
        texture=sample_texture(rng, wavelength=(0.5, 1.2)),
        slide=torch.zeros(3),
        waved=waved,
    )
    return replace(scene, bodies=(*scene.bodies, curtain))


def _slid(clip: Render, rng: np.random.Generator, length: float) -> Video:
    moved = largest_body(clip)
    angle = rng.uniform(0, 2 * np.pi)
    way = torch.tensor([np.cos(angle), 0, np.sin(angle)], dtype=torch.float32) * length
    # Half of the way before and half after the place where it stands, so that it stays in the picture.
    bodies = [
        replace(b, slide=way, center=b.center - way / 2) if i == moved else b
        for i, b in enumerate(clip.scene.bodies)
    ]
    return _like(clip, replace(clip.scene, bodies=tuple(bodies))).rgb


def _like(clip: Render, scene: Scene) -> Render:
    return render(scene, len(clip.rgb), *clip.rgb.shape[-2:])
