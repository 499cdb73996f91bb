import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.export.clips import POINTS, small
from videogpa.export import colmap
from videogpa.export.colmap import quaternions
from videogpa.geometry.cloud import cloud_of
from videogpa.video_io import read_image


def matrix(quaternion: np.ndarray) -> np.ndarray:
    """COLMAP's documented reading of (w, x, y, z)."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return colmap.write(tmp_path_factory.mktemp("colmap"), "clip", small())


def lines(model, name: str) -> list[list[str]]:
    return [line.split() for line in (model / "sparse" / "0" / name).read_text().splitlines()]


@given(arrays(np.float64, 4, elements=st.floats(-1, 1)).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_quaternions_are_unit_canonical_and_mean_their_rotation(q):
    q = q / np.linalg.norm(q)
    (found,) = quaternions(torch.from_numpy(matrix(q))[None].float())
    assert np.linalg.norm(found) == pytest.approx(1)
    assert found[0] >= 0
    assert np.abs(matrix(found) - matrix(q)).max() < 1e-5
    assert min(np.abs(found - q).max(), np.abs(found + q).max()) < 1e-5


def test_poses_and_images_come_back(model):
    rows = lines(model, "images.txt")[::2]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    for i, (_, *numbers, camera, name) in enumerate(rows):
        values = np.array(numbers, dtype=float)
        assert np.abs(matrix(values[:4]) - small().extrinsics_w2c[i, :, :3].numpy()).max() < 1e-6
        assert np.abs(values[4:] - small().extrinsics_w2c[i, :, 3].numpy()).max() < 1e-5
        assert camera == str(i + 1)
        picture = read_image(model / "images" / name)
        torch.testing.assert_close(picture, small().images[i], atol=0.5 / 255 + 1e-6, rtol=0)


def test_the_cameras_have_colmaps_pixels(model):
    for i, (camera, kind, width, height, fx, fy, cx, cy) in enumerate(lines(model, "cameras.txt")):
        assert (camera, kind, width, height) == (str(i + 1), "PINHOLE", "32", "24")
        k = small().intrinsics[i]
        assert [float(x) for x in (fx, fy)] == pytest.approx([k[0, 0].item(), k[1, 1].item()])
        # The world's camera looks through the middle of its image.
        assert [float(x) for x in (cx, cy)] == pytest.approx([16, 12])


def test_points_fall_on_the_pixels_that_observe_them(model):
    """Everything from the files, by COLMAP's own rules."""
    cameras = [[float(x) for x in row[4:]] for row in lines(model, "cameras.txt")]
    images = lines(model, "images.txt")
    poses = [np.array(row[1:8], dtype=float) for row in images[::2]]
    observations = [np.array(row, dtype=float).reshape(-1, 3) for row in images[1::2]]
    points = lines(model, "points3D.txt")
    assert len(points) == sum(map(len, observations)) == POINTS
    pixels = small().images.permute(0, 2, 3, 1)
    for point, *rest in points[::7]:
        position, color = np.array(rest[:3], dtype=float), np.array(rest[3:6], dtype=float)
        image, index = int(rest[7]) - 1, int(rest[8])
        x, y, back = observations[image][index]
        assert int(back) == int(point)
        fx, fy, cx, cy = cameras[image]
        camera = matrix(poses[image][:4]) @ position + poses[image][4:]
        assert camera[2] > 0
        assert camera[0] / camera[2] * fx + cx == pytest.approx(x, abs=1e-3)
        assert camera[1] / camera[2] * fy + cy == pytest.approx(y, abs=1e-3)
        seen = pixels[image, int(y), int(x)].numpy() * 255
        assert np.abs(color - seen).max() <= 0.5 + 1e-4


def test_large_clouds_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(colmap, "MOST_POINTS", 50)
    assert len(lines(colmap.write(tmp_path, "few", small()), "points3D.txt")) == 50


def test_colmap_reads_it(model):
    pycolmap = pytest.importorskip("pycolmap")
    found = pycolmap.Reconstruction(model / "sparse" / "0")
    assert (found.num_images(), found.num_points3D()) == (3, POINTS)
    cloud = cloud_of(small())
    for j in (1, POINTS // 2, POINTS):
        point = found.points3D[j]
        image = found.images[point.track.elements[0].image_id]
        assert np.allclose(point.xyz, cloud.points[j - 1].numpy(), atol=1e-5)
        assert np.allclose(image.project_point(point.xyz), cloud.pixel[j - 1].numpy() + 0.5, atol=1e-3)
