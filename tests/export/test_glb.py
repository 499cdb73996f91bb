import json
import struct

import numpy as np
import torch

from tests.export.clips import POINTS, small
from videogpa.export import glb
from videogpa.geometry.cameras import camera_centers, project, transform
from videogpa.geometry.cloud import cloud_of

TYPES, WIDTHS = {5126: "<f4", 5123: "<u2"}, {"VEC3": 3, "VEC4": 4}


def read(path) -> tuple[dict, list[np.ndarray]]:
    """The scene and its accessors."""
    data = path.read_bytes()
    magic, version, total = struct.unpack_from("<4sII", data)
    assert (magic, version, total) == (b"glTF", 2, len(data))
    length, kind = struct.unpack_from("<I4s", data, 12)
    scene = json.loads(data[20 : 20 + length])
    binary_length, binary_kind = struct.unpack_from("<I4s", data, 20 + length)
    assert (kind, binary_kind) == (b"JSON", b"BIN\0")
    assert length % 4 == binary_length % 4 == 0
    binary = data[28 + length :]
    assert len(binary) == binary_length
    arrays = []
    for accessor in scene["accessors"]:
        view = scene["bufferViews"][accessor["bufferView"]]
        assert view["byteOffset"] % 4 == 0
        piece = binary[view["byteOffset"] :][: view["byteLength"]]
        arrays.append(
            np.frombuffer(piece, TYPES[accessor["componentType"]]).reshape(-1, WIDTHS[accessor["type"]])
        )
        assert len(arrays[-1]) == accessor["count"]
    return scene, arrays


def test_points_come_back_and_their_colours_are_linear_light(tmp_path):
    scene, (points, colors, _) = read(glb.write(tmp_path, "clip", small()))
    cloud = cloud_of(small())
    assert len(points) == POINTS
    assert np.array_equal(points, cloud.points.numpy())
    bounds = scene["accessors"][0]
    assert np.allclose(bounds["min"], points.min(0))
    assert np.allclose(bounds["max"], points.max(0))
    light = colors[:, :3] / 65535
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(srgb - cloud.colors.numpy()).max() < 1e-3
    assert (colors[:, 3] == 65535).all()


def test_every_camera_is_drawn_as_what_it_sees(tmp_path):
    _, (_, _, lines) = read(glb.write(tmp_path, "clip", small()))
    drawn = torch.from_numpy(lines.copy()).view(3, 16, 3)
    assert torch.equal(drawn[:, 0], drawn[:, 2])
    torch.testing.assert_close(drawn[:, 0], camera_centers(small().extrinsics_w2c), atol=1e-5, rtol=1e-5)
    ends = transform(small().extrinsics_w2c, drawn[:, 1:8:2])
    pixels, depth = project(ends, small().intrinsics)
    edges = torch.tensor([[-0.5, -0.5], [31.5, -0.5], [31.5, 23.5], [-0.5, 23.5]]).expand(3, 4, 2)
    torch.testing.assert_close(pixels, edges, atol=1e-3, rtol=0)
    assert (depth > 0).all()
    torch.testing.assert_close(depth, depth[0, 0].expand(3, 4))


def test_the_scene_is_upright_for_gltf(tmp_path):
    scene, _ = read(glb.write(tmp_path, "clip", small()))
    turn = torch.tensor(scene["nodes"][0]["matrix"]).view(4, 4).T
    assert torch.linalg.det(turn[:3, :3].float()) == 1
    assert (turn.float() @ torch.tensor([0.0, 1, 0, 0])).tolist() == [0, -1, 0, 0]
    assert scene["nodes"][0]["children"] == [1, 2]
