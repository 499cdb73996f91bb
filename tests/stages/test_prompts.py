import itertools
import json

import pytest
import torch

from videogpa.artifact import read_rows
from videogpa.errors import InputError
from videogpa.stages import prompts
from videogpa.stages.prompts import SEED_RANGES, FilePrompts, WorldPrompts
from videogpa.types import Prompt
from videogpa.video_io import read_image, write_image
from videogpa.world.paths import MOVES, parse_move
from videogpa.world.truth import true_continuation


def test_world_prompts_carry_their_one_continuation(tmp_path):
    out = prompts.run_world(WorldPrompts(split="development", count=3), tmp_path / "p")
    rows = read_rows(out, Prompt)
    assert [parse_move(r.text) for r in rows] == list(MOVES[:3])
    for row in rows:
        truth = true_continuation(row.world, 5, 48, 48)
        assert (read_image(out / row.image) - truth.frames[0]).abs().max() <= 0.5 / 255 + 1e-6


def test_splits_share_no_scene():
    starts = sorted(SEED_RANGES.values())
    assert starts[0] >= 1_000_000  # the generator's training scenes
    assert min(b - a for a, b in itertools.pairwise(starts)) >= 100_000


def test_same_prompts_again(tmp_path):
    cfg = WorldPrompts(split="train", count=2, offset=5)
    first = prompts.run_world(cfg, tmp_path / "a")
    second = prompts.run_world(cfg, tmp_path / "b")
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()


def test_captions_alone_have_no_first_frame_and_no_truth(tmp_path):
    whole = read_rows(prompts.run_world(WorldPrompts(count=2), tmp_path / "whole"), Prompt)
    alone = read_rows(prompts.run_world(WorldPrompts(count=2, text_only=True), tmp_path / "alone"), Prompt)
    assert [p.text for p in alone] == [p.text for p in whole]
    assert all(p.image is None and p.world is None for p in alone)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "one\n\n two \n", ["one", "two"]),
        ("a.json", '["one", {"prompt": "two"}]', ["one", "two"]),
        ("a.json", '{"scene1": "one", "scene2": {"caption": "two"}}', ["one", "two"]),
        ("a.jsonl", '{"text": "one"}\n{"caption": "two"}\n', ["one", "two"]),
        ("a.csv", "text,other\none,1\ntwo,2\n", ["one", "two"]),
    ],
)
def test_file_formats(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content)
    out = prompts.run_files(FilePrompts(), tmp_path / name, tmp_path / "out")
    assert [r.text for r in read_rows(out, Prompt)] == expected


def test_images_come_along(tmp_path):
    image = torch.rand(3, 16, 24)
    write_image(tmp_path / "first.png", image)
    (tmp_path / "p.json").write_text(json.dumps([{"text": "a room", "image": "first.png"}]))
    out = prompts.run_files(FilePrompts(), tmp_path / "p.json", tmp_path / "out")
    (row,) = read_rows(out, Prompt)
    assert (read_image(out / row.image) - image).abs().max() <= 0.5 / 255 + 1e-6


def test_a_folder_of_images_is_prompts(tmp_path):
    source = tmp_path / "images"
    source.mkdir()
    write_image(source / "b.png", torch.rand(3, 16, 16))
    write_image(source / "a.png", torch.rand(3, 16, 16))
    (source / "a.txt").write_text("a room\n")
    out = prompts.run_files(FilePrompts(), source, tmp_path / "out")
    assert [r.text for r in read_rows(out, Prompt)] == ["a room", ""]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "no prompts"),
        ("a.json", "{", "not valid JSON"),
        ("a.json", '[{"words": "x"}]', "entry 1"),
        ("a.jsonl", '{"text": ""}', "entry 1"),
        ("a.json", '["a room", " "]', "entry 2"),
        ("a.json", "7", "neither a list of prompts"),
        ("a.json", "[" * 100_000, "not valid JSON"),
        ("a.json", '["\\ud800"]', "half of a character"),
        ("a.json", '[{"text": "a room", "image": 7}]', "its image is no path"),
        ("a.csv", "text\n" + "x" * 200_000, "is no table"),
    ],
)
def test_unusable_files(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        prompts.run_files(FilePrompts(), tmp_path / name, tmp_path / "out")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        prompts.run_files(FilePrompts(), tmp_path / "no.txt", tmp_path / "out")


def test_a_mark_in_front_of_the_text_is_no_part_of_it(tmp_path):
    (tmp_path / "a.txt").write_text("a room\n", encoding="utf-8-sig")
    out = prompts.run_files(FilePrompts(), tmp_path / "a.txt", tmp_path / "out")
    assert [r.text for r in read_rows(out, Prompt)] == ["a room"]
