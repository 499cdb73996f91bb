"""Camera paths from a finite vocabulary: the words determine the path, so a caption has one true continuation.

A path is relative to the first camera: `camera_path(...)[0]` is the identity and lengths are world units.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from videogpa.errors import InputError
from videogpa.tensors import Extrinsics

Motion = Literal[
    "orbits left",
    "orbits right",
    "dollies forward",
    "dollies backward",
    "trucks left",
    "trucks right",
    "pans left",
    "pans right",
    "tilts up",
    "tilts down",
]
Speed = Literal["slowly", "steadily", "quickly"]

ORBIT_PIVOT_DISTANCE = 4.0
EXTENT: dict[str, tuple[float, float, float]] = {
    "orbits": (8.0, 14.0, 20.0),
    "dollies": (0.4, 0.8, 1.2),
    "trucks": (0.3, 0.6, 0.9),
    "pans": (4.0, 8.0, 12.0),
    "tilts": (3.0, 6.0, 9.0),
}
"""Total extent of each motion at the three speeds: degrees for orbits, pans and tilts, world units otherwise."""


@dataclass(frozen=True)
class CameraMove:
    """One entry of the vocabulary, for instance `CameraMove("orbits left", "slowly")`."""

    motion: Motion
    speed: Speed

    @property
    def text(self) -> str:
        """The words that stand for this move in a caption."""
        return f"the camera {self.motion} {self.speed}"

    @property
    def mirrored(self) -> "CameraMove":
        """The move seen in a mirror: left and right swapped."""
        swap = {"left": "right", "right": "left"}
        verb, direction = self.motion.split()
        return CameraMove(f"{verb} {swap.get(direction, direction)}", self.speed)  # type: ignore[arg-type]


MOVES = tuple(CameraMove(m, s) for m, s in itertools.product(get_args(Motion), get_args(Speed)))


def parse_move(text: str) -> CameraMove:
    """The move that a caption names.

    Raises:
        InputError: the caption contains no move of the vocabulary.
    """
    for move in MOVES:
        if move.text in text:
            return move
    raise InputError(f"caption '{text}' names no known camera move; for instance: '{MOVES[0].text}'")


def camera_path(move: CameraMove, frames: int) -> Extrinsics:
    """World-to-camera extrinsics [t 3 4] at constant speed, relative to the first camera.

    The full extent is reached at the last frame, whatever the number of frames.
    """
    verb, direction = move.motion.split()
    total = EXTENT[verb][("slowly", "steadily", "quickly").index(move.speed)]
    progress = torch.linspace(0, 1, frames, dtype=torch.float64)
    sign = -1.0 if direction in ("left", "backward", "up") else 1.0
    eye = torch.eye(3, dtype=torch.float64).expand(frames, 3, 3)
    zero = torch.zeros(frames, dtype=torch.float64)
    if verb in ("dollies", "trucks"):
        along = sign * total * progress
        center = torch.stack([zero, zero, along] if verb == "dollies" else [along, zero, zero], -1)
        rotation = eye
    else:
        angle = math.radians(total) * progress * sign
        if verb == "tilts":
            rotation = _rotation_x(angle)
            center = torch.stack([zero, zero, zero], -1)
        elif verb == "pans":
            rotation = _rotation_y(-angle)
            center = torch.stack([zero, zero, zero], -1)
        else:
            # The camera moves sideways on a circle and keeps looking at the pivot.
            rotation = _rotation_y(angle)
            offset = torch.stack([torch.sin(angle), zero, 1 - torch.cos(angle)], -1)
            center = ORBIT_PIVOT_DISTANCE * offset
    translation = -(rotation @ center[..., None])
    return torch.cat([rotation, translation], -1).float()


def _rotation_y(angle: torch.Tensor) -> torch.Tensor:
    """World-to-camera rotation; a positive angle makes the scene turn towards +x."""
    c, s, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).view(-1, 3, 3)


def _rotation_x(angle: torch.Tensor) -> torch.Tensor:
    """World-to-camera rotation; a positive angle turns the view towards +y (down)."""
    c, s, zero, one = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
    return torch.stack([one, zero, zero, zero, c, -s, zero, s, c], -1).view(-1, 3, 3)
