import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from videogpa.errors import InputError
from videogpa.world.paths import (
    EXTENT,
    MOVES,
    ORBIT_PIVOT_DISTANCE,
    CameraMove,
    camera_path,
    parse_move,
)

moves = st.sampled_from(MOVES)
frame_counts = st.integers(2, 17)
SPEEDS = ("slowly", "steadily", "quickly")
MIRROR = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))


def centers(path: torch.Tensor) -> torch.Tensor:
    return -(path[:, :, :3].mT @ path[:, :, 3:])[..., 0]


def angle(rotation: torch.Tensor) -> float:
    return math.degrees(math.acos(min(1.0, (float(rotation.double().trace()) - 1) / 2)))


def test_the_vocabulary_has_thirty_moves_with_texts_of_their_own():
    assert len(MOVES) == 30
    assert len({move.text for move in MOVES}) == 30


@pytest.mark.parametrize("move", MOVES, ids=lambda m: m.text)
def test_a_move_is_read_back_from_its_text(move: CameraMove):
    assert parse_move(move.text) == move
    assert parse_move(f"a room with a box; {move.text}") == move


@given(st.text())
def test_a_text_without_a_move_is_refused(text: str):
    if not any(move.text in text for move in MOVES):
        with pytest.raises(InputError, match="camera move"):
            parse_move(text)


@given(moves, frame_counts)
def test_paths_start_at_the_identity_and_stay_rigid(move: CameraMove, frames: int):
    path = camera_path(move, frames)
    rotation = path[:, :, :3]
    torch.testing.assert_close(path[0], torch.eye(3, 4))
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation))
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(frames))


@given(moves, frame_counts)
def test_the_last_frame_is_the_full_extent_away(move: CameraMove, frames: int):
    last = camera_path(move, frames)[-1]
    extent = EXTENT[move.motion.split()[0]][SPEEDS.index(move.speed)]
    if move.motion.startswith(("dollies", "trucks")):
        assert float(last[:, 3].norm()) == pytest.approx(extent, rel=1e-5)
        torch.testing.assert_close(last[:, :3], torch.eye(3))
    else:
        assert angle(last[:, :3]) == pytest.approx(extent, abs=1e-2)


@given(moves, frame_counts)
def test_speed_is_constant(move: CameraMove, frames: int):
    path = camera_path(move, frames)
    square = torch.cat([path, torch.tensor([0.0, 0, 0, 1]).expand(frames, 1, 4)], 1).double()
    steps = square[1:] @ torch.linalg.inv(square[:-1])
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=2e-5, rtol=0)


@given(moves, st.integers(2, 9))
def test_more_frames_only_refine_the_path(move: CameraMove, frames: int):
    torch.testing.assert_close(camera_path(move, 2 * frames - 1)[::2], camera_path(move, frames))


@given(moves, frame_counts)
def test_the_mirrored_move_is_the_path_in_a_mirror(move: CameraMove, frames: int):
    path, reflection = camera_path(move, frames), camera_path(move.mirrored, frames)
    expected = torch.cat([MIRROR @ path[:, :, :3] @ MIRROR, MIRROR @ path[:, :, 3:]], -1)
    torch.testing.assert_close(reflection, expected)
    assert move.mirrored.mirrored == move


@pytest.mark.parametrize("speed", SPEEDS)
@pytest.mark.parametrize("direction", ["left", "right"])
def test_orbits_keep_the_pivot_in_the_middle_at_constant_distance(direction: str, speed: str):
    path = camera_path(parse_move(f"the camera orbits {direction} {speed}"), 9)
    pivot = torch.tensor([0.0, 0.0, ORBIT_PIVOT_DISTANCE])
    seen = path[:, :, :3] @ pivot + path[:, :, 3]
    torch.testing.assert_close(seen, pivot.expand(9, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [
        ("orbits left", 0, -1),
        ("orbits right", 0, 1),
        ("trucks left", 0, -1),
        ("trucks right", 0, 1),
        ("dollies forward", 2, 1),
        ("dollies backward", 2, -1),
    ],
)
def test_the_camera_goes_where_the_words_say(motion: str, axis: int, sign: int):
    for speed in SPEEDS:
        last = centers(camera_path(parse_move(f"the camera {motion} {speed}"), 5))[-1]
        assert sign * float(last[axis]) > 0
        assert last.abs().argmax() == axis


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [("pans left", 0, 1), ("pans right", 0, -1), ("tilts up", 1, 1), ("tilts down", 1, -1)],
)
def test_what_is_ahead_leaves_the_view_against_the_turn(motion: str, axis: int, sign: int):
    for speed in SPEEDS:
        path = camera_path(parse_move(f"the camera {motion} {speed}"), 5)
        assert centers(path).abs().max() == 0
        ahead = path[-1, :, :3] @ torch.tensor([0.0, 0.0, 1.0])
        assert sign * float(ahead[axis]) > 0
