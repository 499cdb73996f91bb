import base64
import dataclasses
import json

import numpy as np
import pytest
import torch

from tests.metrics.scenes import move_world, rendered
from tests.report.exhibits import geometry
from videogpa.report import exhibit
from videogpa.report.exhibit import CLOUD, ERRORS, PICTURE, read_exhibit, write_exhibit
from videogpa.video_io import probe


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A clip whose first object wobbles, in a world turned away from its first camera."""
    folder = tmp_path_factory.mktemp("exhibit")
    moved = dataclasses.replace(move_world(geometry(8.0)), normals=geometry().normals)
    write_exhibit(folder, moved.images, moved)
    return folder


def cloud(folder) -> dict:
    text = (folder / CLOUD).read_text()
    assert text.startswith("const cloud = ")
    return json.loads(text.removeprefix("const cloud = ").rstrip(";\n"))


def test_all_panels_are_videos_of_as_many_frames(shown):
    found = read_exhibit(shown)
    assert found.panels == ["frames", "redrawn", "errors", "depth", "normals"]
    assert {probe(shown / f"{name}.mp4").frames for name in found.panels} == {5}
    assert (shown / PICTURE).exists()
    assert (shown / ERRORS).exists()


def test_what_wobbles_has_more_error_and_the_worst_frame_is_the_worst(shown, tmp_path):
    write_exhibit(tmp_path, geometry().images, geometry())
    still, wobbling = read_exhibit(tmp_path), read_exhibit(shown)
    assert np.mean(wobbling.errors) > np.mean(still.errors)
    assert wobbling.errors[wobbling.worst] == max(wobbling.errors)
    assert 0.5 < wobbling.coverage <= 1


def test_the_path_starts_at_the_first_camera_and_goes_where_the_camera_went(shown):
    found = read_exhibit(shown)
    assert found.centers[0] == pytest.approx([0, 0, 0], abs=1e-5)
    assert found.forward[0] == pytest.approx([0, 0, 1], abs=1e-5)
    right = [x for x, _, _ in found.centers]
    assert right == sorted(right)
    assert right[-1] > 0.5


def test_the_cloud_on_the_page_is_the_scene(shown):
    data = cloud(shown)
    points = np.frombuffer(base64.b64decode(data["positions"]), "<f4").reshape(-1, 3)
    assert len(points) == data["points"] == read_exhibit(shown).points == 5 * 48 * 48
    first = points[: 48 * 48]
    assert np.allclose(first[:, 2].reshape(48, 48), rendered().depth[0], atol=1e-3)
    colors = {name: np.frombuffer(base64.b64decode(c), "u1") for name, c in data["colors"].items()}
    assert {name: len(c) for name, c in colors.items()} == dict.fromkeys(
        ("picture", "errors", "depth"), points.size
    )
    picture = colors["picture"][: 3 * 48 * 48].reshape(48, 48, 3) / 255
    assert np.abs(picture - geometry(8.0).images[0].permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    assert len(data["frustums"]) == len(data["extrinsics"]) == len(data["intrinsics"]) == 5
    assert all(len(f) == 15 for f in data["frustums"])


def test_large_clouds_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(exhibit, "MOST_POINTS", 100)
    write_exhibit(tmp_path, geometry().images, geometry())
    assert cloud(tmp_path)["points"] == read_exhibit(tmp_path).points == 100
    assert cloud(tmp_path)["thinning"] == pytest.approx(5 * 48 * 48 / 100)


LOST = dataclasses.replace(geometry(), extrinsics_w2c=geometry().extrinsics_w2c * torch.nan)


@pytest.mark.parametrize("none", [None, LOST], ids=["no geometry", "no cameras"])
def test_without_geometry_there_are_only_frames(tmp_path, none):
    write_exhibit(tmp_path, geometry().images, none)
    found = read_exhibit(tmp_path)
    assert (found.panels, found.errors, found.worst, found.coverage) == (["frames"], [], None, None)
    assert {p.name for p in tmp_path.iterdir()} == {"frames.mp4", "picture.png", "exhibit.json"}


def test_a_clip_that_nobody_could_judge_has_no_errors_and_no_worst_frame(tmp_path):
    nothing = dataclasses.replace(geometry(), confidence=torch.zeros_like(geometry().confidence))
    write_exhibit(tmp_path, nothing.images, nothing)
    found = read_exhibit(tmp_path)
    assert (found.errors, found.worst, found.coverage, found.points) == ([None] * 5, None, 0, 0)
    assert not (tmp_path / CLOUD).exists()
