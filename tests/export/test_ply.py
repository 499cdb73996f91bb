import numpy as np
import torch

from tests.export.clips import POINTS, small
from videogpa.export import ply
from videogpa.geometry.cloud import cloud_of

TYPES = {"float": "<f4", "uchar": "u1"}


def read(path) -> np.ndarray:
    """The vertices, by the file's own header."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = [line.split() for line in head.decode("ascii").splitlines()]
    assert lines[:2] == [["ply"], ["format", "binary_little_endian", "1.0"]]
    (count,) = [int(n) for _, element, n in lines[2:3] if element == "vertex"]
    fields = np.dtype([(name, TYPES[kind]) for word, kind, name in lines[3:] if word == "property"])
    assert len(body) == count * fields.itemsize
    return np.frombuffer(body, fields)


def test_points_colours_and_confidence_come_back(tmp_path):
    path = ply.write(tmp_path, "clip", small())
    vertices, cloud = read(path), cloud_of(small())
    assert path.name == "clip.ply"
    assert len(vertices) == POINTS
    points = np.stack([vertices[axis] for axis in "xyz"], -1)
    assert np.array_equal(points, cloud.points.numpy())
    colors = np.stack([vertices[c] for c in ("red", "green", "blue")], -1)
    assert np.abs(colors / 255 - cloud.colors.numpy()).max() <= 0.5 / 255 + 1e-6
    assert np.array_equal(vertices["confidence"], cloud.confidence.numpy())


def test_the_filter_reaches_the_file_and_the_file_is_always_the_same(tmp_path):
    kept = read(ply.write(tmp_path, "sure", small(), min_confidence=0.25))
    assert len(kept) == POINTS - 1
    again = ply.write(tmp_path, "again", small(), min_confidence=0.25)
    assert again.read_bytes() == (tmp_path / "sure.ply").read_bytes()
    assert torch.isfinite(torch.from_numpy(kept["x"].copy())).all()
