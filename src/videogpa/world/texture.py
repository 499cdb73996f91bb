"""Procedural textures: albedo as a function of the point on an object, in the object's own frame."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Pattern = Literal["stripes", "checker", "dots", "blotches", "marble"]
N_WAVES = 5


@dataclass(frozen=True, kw_only=True)
class Texture:
    """Two colours mixed by a pattern, with fine mottling so that no surface is without features.

    `frame` [3 3] turns object axes into pattern axes; `waves` [N_WAVES 3] are wave vectors (radians per
    world unit) and `phases` [N_WAVES] their offsets; `contrast` above 3 gives crisp edges. `drift` [t 3] is
    how far the pattern has slid over its surface in each frame of a clip (world units), by default not at all.
    """

    pattern: Pattern
    color_a: Float[Tensor, " 3"]
    color_b: Float[Tensor, " 3"]
    frequency: float
    contrast: float
    frame: Float[Tensor, "3 3"]
    waves: Float[Tensor, "w 3"]
    phases: Float[Tensor, " w"]
    mottling: float
    drift: Float[Tensor, "t 3"] | None = None


def sample_texture(rng: np.random.Generator, *, wavelength: tuple[float, float]) -> Texture:
    """A random texture whose main pattern repeats within the given range of wavelengths (world units)."""
    hue = rng.uniform(0, 1)
    other = (hue + rng.uniform(0.2, 0.8)) % 1
    light, dark = rng.uniform(0.65, 0.95), rng.uniform(0.15, 0.5)
    frequency = 2 * np.pi / rng.uniform(*wavelength)
    directions = rng.normal(size=(N_WAVES, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    octaves = 2 * np.pi / rng.uniform(0.5, 1.5, size=(N_WAVES, 1))
    frame, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pattern = str(rng.choice(get_args(Pattern)))
    return Texture(
        pattern=pattern,  # type: ignore[arg-type]
        color_a=_color(hue, rng.uniform(0.2, 0.7), light),
        color_b=_color(other, rng.uniform(0.2, 0.8), dark),
        frequency=float(frequency),
        contrast=float(rng.uniform(1.5, 6)),
        frame=torch.tensor(frame if pattern == "stripes" else np.eye(3), dtype=torch.float32),
        waves=torch.tensor(directions * octaves, dtype=torch.float32),
        phases=torch.tensor(rng.uniform(0, 2 * np.pi, N_WAVES), dtype=torch.float32),
        mottling=float(rng.uniform(0.08, 0.2)),
    )


def albedo(texture: Texture, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
    """Colour in [0, 1] at points in the object's frame (world units)."""
    noise = torch.sin(points @ texture.waves.T + texture.phases).mean(-1) * 1.6
    phase = (points @ texture.frame.T) * texture.frequency + texture.phases[:3]
    match texture.pattern:
        case "stripes":
            value = torch.sin(phase[:, 0])
        case "checker":
            value = torch.sin(phase).prod(-1) * 2.5
        case "dots":
            value = torch.cos(phase).sum(-1) - 1.0
        case "blotches":
            value = noise * 1.5
        case "marble":
            value = torch.sin(phase[:, 0] + 2 * noise)
    mix = torch.sigmoid(texture.contrast * value)[:, None]
    color = torch.lerp(texture.color_a, texture.color_b, mix)
    return (color * (1 + texture.mottling * noise[:, None])).clamp(0, 1)


def _color(hue: float, saturation: float, value: float) -> Float[Tensor, " 3"]:
    k = (np.array([5.0, 3.0, 1.0]) + hue * 6) % 6
    rgb = value - value * saturation * np.clip(np.minimum(k, 4 - k), 0, 1)
    return torch.tensor(rgb, dtype=torch.float32)
