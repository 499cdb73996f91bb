"""Random scenes: a room or a courtyard with textured boxes, spheres and cylinders, one of which may move.

World axes are those of a level camera at the origin: x right, y down, z forward; the unit is a metre.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from videogpa.errors import InputError
from videogpa.world.paths import MOVES, CameraMove, parse_move
from videogpa.world.texture import Texture, sample_texture

Kind = Literal["box", "sphere", "cylinder"]
"""What scenes are drawn from, and captions name."""
Setting = Literal["room", "courtyard"]
Slide = Literal["slides left", "slides right", "slides closer", "slides away"]

CAMERA_HEIGHT = 1.3
SLIDE_LENGTH = 0.8
_COUNTS = {1: "a", 2: "two", 3: "three", 4: "four"}
_PLURALS = {"box": "boxes", "sphere": "spheres", "cylinder": "cylinders"}
_SLIDES: dict[str, tuple[float, float, float]] = {
    "slides left": (-1.0, 0.0, 0.0),
    "slides right": (1.0, 0.0, 0.0),
    "slides closer": (0.0, 0.0, -1.0),
    "slides away": (0.0, 0.0, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class Body:
    """One object standing on the floor. `size` [3] holds half extents; a sphere uses the first, a cylinder
    the first (radius) and second (half height), a curtain the first two (it hangs in its own xy-plane) and as the
    third the height of the two and a half waves that run along it. `slide` [3] is its total displacement over
    the clip; `waved` the share of a wavelength that a curtain's waves travel meanwhile. `gloss` in [0, 1] is the
    strength of its highlights.
    """

    kind: Kind | Literal["curtain"]
    center: Float[Tensor, " 3"]
    size: Float[Tensor, " 3"]
    yaw: float
    texture: Texture
    slide: Float[Tensor, " 3"]
    waved: float = 0.0
    gloss: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Static geometry, light and the first camera. The room is an axis-aligned box turned by `room_yaw`.
    `floor_gloss` in [0, 1] is the strength of the floor's highlights.
    """

    setting: Setting
    room_center: Float[Tensor, " 3"]
    room_size: Float[Tensor, " 3"]
    room_yaw: float
    room_textures: tuple[Texture, Texture, Texture]
    bodies: tuple[Body, ...]
    light: Float[Tensor, " 3"]
    ambient: float
    camera_pitch: float
    move: CameraMove
    slide: Slide | None
    floor_gloss: float = 0.0

    @property
    def caption(self) -> str:
        """The words that say what is there and how it moves; they determine the camera path."""
        counts = {kind: sum(b.kind == kind for b in self.bodies) for kind in get_args(Kind)}
        parts = [f"{_COUNTS[n]} {k if n == 1 else _PLURALS[k]}" for k, n in counts.items() if n]
        listed = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
        mover = f"; the {self.bodies[0].kind} {self.slide}" if self.slide else ""
        return f"a {self.setting} with {listed}{mover}; {self.move.text}"


def sample_scene(seed: int, *, move: CameraMove | None = None, dynamic: bool = False) -> Scene:
    """The scene of a seed. The move does not change what is drawn for the rest of the scene."""
    rng = np.random.default_rng(seed)
    chosen_move = MOVES[rng.integers(len(MOVES))]
    setting = get_args(Setting)[rng.integers(2)]
    wide = setting == "courtyard"
    room_size = np.array(
        [rng.uniform(2.8, 3.6), rng.uniform(1.25, 1.6), rng.uniform(4.2, 5.2)] if not wide
        else [rng.uniform(4.5, 6.0), rng.uniform(2.5, 3.5), rng.uniform(6.0, 8.0)]
    )  # fmt: skip
    room_center = np.array([rng.uniform(-0.4, 0.4), CAMERA_HEIGHT - room_size[1], 1.5])
    room_yaw = rng.uniform(-0.45, 0.45)
    wall, floor = ((0.9, 2.4), (0.8, 2.0)) if not wide else ((1.5, 3.5), (1.0, 2.6))
    textures = (
        sample_texture(rng, wavelength=floor),
        sample_texture(rng, wavelength=wall),
        sample_texture(rng, wavelength=wall),
    )
    bodies = _place_bodies(rng, int(rng.integers(2, 5)), room_center, room_size, room_yaw)
    light = rng.normal(size=3) * [0.6, 0.3, 0.6] + [0, -1, -0.5]
    slide = str(rng.choice(get_args(Slide))) if dynamic else None
    if slide:
        # The mover must be the only one of its kind, so that the caption names it.
        kept = [b for b in bodies[1:] if b.kind != bodies[0].kind]
        mover = Body(**{**vars(bodies[0]), "slide": SLIDE_LENGTH * torch.tensor(_SLIDES[slide])})
        bodies = [mover, *kept]
    return Scene(
        setting=setting,
        room_center=torch.tensor(room_center, dtype=torch.float32),
        room_size=torch.tensor(room_size, dtype=torch.float32),
        room_yaw=float(room_yaw),
        room_textures=textures,
        bodies=tuple(bodies),
        light=torch.tensor(light / np.linalg.norm(light), dtype=torch.float32),
        ambient=float(rng.uniform(0.4, 0.6)),
        camera_pitch=float(rng.uniform(0.06, 0.22)),
        move=move or chosen_move,
        slide=slide,  # type: ignore[arg-type]
    )


def caption_words() -> list[str]:
    """Every word and mark that a caption can contain, sorted."""
    phrases = [*(m.text for m in MOVES), *_SLIDES, *_PLURALS, *_PLURALS.values(), *_COUNTS.values()]
    return sorted({*" ".join(phrases).split(), *get_args(Setting), "a", "with", "and", "the", ",", ";"})


def scene_spec(seed: int, *, move: CameraMove, dynamic: bool = False) -> dict[str, Any]:
    """What a prompt row stores, so that `scene_from_spec` finds the same scene again."""
    return {"seed": seed, "move": move.text, "dynamic": dynamic}


def scene_from_spec(spec: dict[str, Any]) -> Scene:
    """The scene that `scene_spec` described.

    Raises:
        InputError: it is none.
    """
    try:
        seed, move, dynamic = int(spec["seed"]), parse_move(spec["move"]), bool(spec["dynamic"])
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"no scene is described by {str(spec)[:200]}: make the prompts again") from error
    if seed < 0:
        raise InputError(f"a scene has no seed below 0, such as {seed}: make the prompts again")
    return sample_scene(seed, move=move, dynamic=dynamic)


def _place_bodies(
    rng: np.random.Generator, count: int, room_center: np.ndarray, room_size: np.ndarray, room_yaw: float
) -> list[Body]:
    bodies: list[Body] = []
    placed: list[tuple[float, float, float]] = []
    c, s = math.cos(room_yaw), math.sin(room_yaw)
    while len(bodies) < count:
        kind = get_args(Kind)[rng.integers(3)]
        x, z = rng.uniform(-1.7, 1.7), rng.uniform(2.7, 5.2)
        size = np.array([rng.uniform(0.3, 0.6), rng.uniform(0.3, 0.85), rng.uniform(0.3, 0.6)])
        if kind == "sphere":
            size[:] = size[0] * 1.1
        reach = math.hypot(size[0], size[2]) if kind == "box" else size[0]
        dx, dz = x - room_center[0], z - room_center[2]
        local = abs(c * dx - s * dz), abs(s * dx + c * dz)
        inside = local[0] + reach < room_size[0] and local[1] + reach < room_size[2]
        apart = all(math.hypot(x - px, z - pz) > reach + pr + 0.05 for px, pz, pr in placed)
        yaw, texture = rng.uniform(0, math.pi), sample_texture(rng, wavelength=(0.5, 1.2))
        if not (inside and apart):
            continue
        placed.append((x, z, reach))
        bodies.append(
            Body(
                kind=kind,
                center=torch.tensor([x, CAMERA_HEIGHT - size[1], z], dtype=torch.float32),
                size=torch.tensor(size, dtype=torch.float32),
                yaw=float(yaw),
                texture=texture,
                slide=torch.zeros(3),
            )
        )
    return bodies
