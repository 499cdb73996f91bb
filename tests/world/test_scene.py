import json
from collections import Counter
from dataclasses import fields, replace
from itertools import combinations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.world import closed_forms
from videogpa.world.paths import MOVES, CameraMove, camera_path, parse_move
from videogpa.world.render import scene_path
from videogpa.world.scene import (
    CAMERA_HEIGHT,
    SLIDE_LENGTH,
    Body,
    caption_words,
    sample_scene,
    scene_from_spec,
    scene_spec,
)

seeds, moves, dynamics = st.integers(0, 10**6), st.sampled_from(MOVES), st.booleans()
some = settings(max_examples=25, deadline=None)


def footprint(body: Body, points: int = 64) -> np.ndarray:
    """Points [n 2] on the outline of a body on the floor (x, z)."""
    around = np.linspace(0, 2 * np.pi, points, endpoint=False)
    local = np.stack([np.cos(around), np.sin(around)], -1) * body.size.numpy()[0]
    if body.kind == "box":
        local = np.array([[-1, -1], [-1, 1], [1, 1], [1, -1]]) * body.size.numpy()[[0, 2]]
        c, s = np.cos(body.yaw), np.sin(body.yaw)
        local = local @ np.array([[c, -s], [s, c]])
    return local + body.center.numpy()[[0, 2]]


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)  # type: ignore[arg-type]
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))  # type: ignore[arg-type]
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))  # type: ignore[arg-type]
    return a == b


@some
@given(seeds, moves, dynamics)
def test_the_spec_in_a_prompt_row_finds_the_same_scene_again(seed: int, move: CameraMove, dynamic: bool):
    spec = json.loads(json.dumps(scene_spec(seed, move=move, dynamic=dynamic)))
    assert same(scene_from_spec(spec), sample_scene(seed, move=move, dynamic=dynamic))


@some
@given(seeds, moves, dynamics)
def test_the_move_changes_nothing_else(seed: int, move: CameraMove, dynamic: bool):
    plain, moved = sample_scene(seed, dynamic=dynamic), sample_scene(seed, move=move, dynamic=dynamic)
    assert moved.move == move
    assert same(replace(plain, move=move), moved)


@some
@given(seeds, dynamics)
def test_captions_are_made_of_the_vocabulary_and_determine_the_path(seed: int, dynamic: bool):
    scene = sample_scene(seed, dynamic=dynamic)
    words = scene.caption.replace(",", " ,").replace(";", " ;").split()
    assert set(words) <= set(caption_words())
    assert parse_move(scene.caption) == scene.move
    relative = camera_path(parse_move(scene.caption), 5)
    path = scene_path(scene, 5)
    torch.testing.assert_close(path[:, :, :3], relative[:, :, :3] @ path[0, :, :3], atol=1e-6, rtol=0)
    torch.testing.assert_close(path[:, :, 3], relative[:, :, 3])


@some
@given(seeds)
def test_captions_count_what_is_there(seed: int):
    scene = sample_scene(seed)
    listed = scene.caption.split(" with ")[1].split(";")[0].replace(" and ", ", ").split(", ")
    numbers = {"a": 1, "two": 2, "three": 3, "four": 4}
    kinds = {"boxes": "box", "spheres": "sphere", "cylinders": "cylinder"}
    told = {kinds.get(noun, noun): numbers[number] for number, noun in map(str.split, listed)}
    assert told == Counter(body.kind for body in scene.bodies)
    assert sum(told.values()) == len(scene.bodies)


@some
@given(seeds)
def test_bodies_stand_on_the_floor_inside_the_room_and_apart(seed: int):
    scene = sample_scene(seed)
    floor = float(scene.room_center[1] + scene.room_size[1])
    assert abs(floor - CAMERA_HEIGHT) < 1e-5
    for body in scene.bodies:
        height = body.size[0] if body.kind == "sphere" else body.size[1]
        assert abs(float(body.center[1] + height) - floor) < 1e-5
        outline = footprint(body)
        points = np.stack([outline[:, 0], np.full(len(outline), 0.5), outline[:, 1]], -1)
        assert closed_forms.distances(scene, 0, points, 0.0).max() < 0
    for (i, first), (j, second) in combinations(enumerate(scene.bodies), 2):
        for surface, other in ((i, second), (j, first)):
            points = np.insert(footprint(other), 1, float(scene.bodies[surface].center[1]), axis=1)
            assert closed_forms.distances(scene, surface + 1, points, 0.0).max(1).min() > 0


@some
@given(seeds, moves, dynamics)
def test_the_camera_never_enters_a_body_or_leaves_the_room(seed: int, move: CameraMove, dynamic: bool):
    scene = sample_scene(seed, move=move, dynamic=dynamic)
    path = scene_path(scene, 9).double()
    centers = -(path[:, :, :3].mT @ path[:, :, 3:])[..., 0].numpy()
    assert closed_forms.distances(scene, 0, centers, 0.0).max() < -0.05
    for frame, center in enumerate(centers):
        for surface in range(1, len(scene.bodies) + 1):
            assert closed_forms.distances(scene, surface, center[None], frame / 8).max() > 0.05


@some
@given(seeds)
def test_a_moving_scene_has_one_mover_that_its_caption_names(seed: int):
    scene = sample_scene(seed, dynamic=True)
    movers = [body for body in scene.bodies if body.slide.any()]
    assert len(movers) == 1
    assert sum(body.kind == movers[0].kind for body in scene.bodies) == 1
    assert f"the {movers[0].kind} {scene.slide}" in scene.caption
    assert abs(float(movers[0].slide.norm()) - SLIDE_LENGTH) < 1e-6
    assert float(movers[0].slide[1]) == 0
    axis, sign = {"left": (0, -1), "right": (0, 1), "closer": (2, -1), "away": (2, 1)}[scene.slide.split()[1]]
    assert sign * float(movers[0].slide[axis]) > 0
    assert not any(body.slide.any() for body in sample_scene(seed).bodies)
