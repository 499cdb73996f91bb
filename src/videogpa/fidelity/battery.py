"""The battery: every scene clean, with every fault and degradation at every strength, and legitimately changed."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from videogpa.fidelity.degradations import DEGRADATIONS
from videogpa.fidelity.legitimate import LEGITIMATE, still_curtain
from videogpa.tensors import Video
from videogpa.world.faults import FAULTS
from videogpa.world.paths import MOVES
from videogpa.world.render import Render, render
from videogpa.world.scene import Scene, sample_scene
from videogpa.world.texture import Pattern, Texture

Split = Literal["development", "held_out"]
FIRST_SEED = {"development": 2_700_000, "held_out": 3_200_000}
"""The embedded models were trained on other seeds."""
PATTERNS: dict[str, tuple[Pattern, ...]] = {
    "development": ("stripes", "checker", "blotches"),
    "held_out": ("dots", "marble"),
}


@dataclass(frozen=True)
class Case:
    """One clip of the battery. `strength` counts from 1; 0 is the clean clip."""

    scene: int
    kind: Literal["clean", "fault", "degradation", "legitimate"]
    change: str
    strength: int

    @property
    def id(self) -> str:
        """For instance `s003/wobble/2`."""
        return f"s{self.scene:03d}/{self.change}/{self.strength}"


def cases(scene: int) -> Iterator[Case]:
    """All cases of one scene, clean ones first."""
    yield Case(scene, "clean", "clean", 0)
    yield Case(scene, "clean", "still_curtain", 0)
    for name, (_, strengths) in FAULTS.items():
        yield from (Case(scene, "fault", name, i + 1) for i in range(len(strengths)))
    for name, (_, levels) in DEGRADATIONS.items():
        yield from (Case(scene, "degradation", name, i + 1) for i in range(len(levels)))
    yield from (Case(scene, "legitimate", name, 1) for name in LEGITIMATE)


def battery_scene(split: Split, number: int) -> Scene:
    """The split's scene of a number. The two splits share no scene, no kind of pattern and no camera path."""
    moves = MOVES[split == "held_out" :: 2]
    scene = sample_scene(FIRST_SEED[split] + number, move=moves[number % len(moves)])
    allowed = PATTERNS[split]

    def repainted(texture: Texture, place: int) -> Texture:
        return replace(texture, pattern=allowed[(number + place) % len(allowed)])

    floor, ceiling, walls = (repainted(t, i) for i, t in enumerate(scene.room_textures))
    return replace(
        scene,
        room_textures=(floor, ceiling, walls),
        bodies=tuple(replace(b, texture=repainted(b.texture, i)) for i, b in enumerate(scene.bodies)),
    )


def clean_clip(split: Split, number: int, frames: int, height: int, width: int) -> Render:
    """The clean clip that every case of a scene is made from."""
    return render(battery_scene(split, number), frames, height, width)


def frames_of(case: Case, clean: Render) -> Video:
    """The case's frames; whatever is random in them follows from the scene and the kind of change alone."""
    rng = np.random.default_rng(case.scene)
    match case.kind:
        case "fault":
            fault, strengths = FAULTS[case.change]
            return fault(clean, strengths[case.strength - 1], rng)
        case "degradation":
            degradation, levels = DEGRADATIONS[case.change]
            return degradation(clean.rgb, levels[case.strength - 1], rng)
        case "legitimate":
            return LEGITIMATE[case.change](clean, rng)
    return clean.rgb if case.change == "clean" else still_curtain(clean, rng)
