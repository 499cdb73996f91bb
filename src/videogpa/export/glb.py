"""Points and cameras in one scene (binary glTF 2.0), for browsers, Blender and 3D viewers.

glTF has y up and z towards the viewer: the node of the scene turns the prediction's axes (y down, z forward),
and the vertices keep the prediction's own coordinates.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from videogpa.artifact import atomic_path
from videogpa.export.base import FRUSTUM_DEPTH, median_depth, points_of
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cloud import frustums

HALF_TURN = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1]
CAMERA_LINES = (0, 1, 0, 2, 0, 3, 0, 4, 1, 2, 2, 3, 3, 4, 4, 1)
CAMERA_COLOR = [0.9, 0.2, 0.05, 1.0]
# Codes of the specification.
FLOAT, USHORT, POINTS, LINES, ARRAY_BUFFER = 5126, 5123, 0, 1, 34962


def write(folder: Path, name: str, prediction: GeometryPrediction, min_confidence: float | int = 0) -> Path:
    """`<name>.glb`: the points of all frames, unlit, and a frustum of lines for every camera.

    Source of the format: Khronos, "glTF 2.0 Specification"; colours of vertices are linear there, not sRGB.

    Raises:
        CannotJudge: no pixel has a known depth and more than `min_confidence`.
    """
    cloud = points_of(prediction, min_confidence)
    height, width = prediction.images.shape[-2:]
    reach = FRUSTUM_DEPTH * median_depth(prediction)
    corners = frustums(prediction.extrinsics_w2c, prediction.intrinsics, (height, width), reach)
    arrays = [
        cloud.points.numpy().astype("<f4"),
        _linear(cloud.colors),
        corners[:, CAMERA_LINES].flatten(0, 1).numpy().astype("<f4"),
    ]
    path = folder / f"{name}.glb"
    with atomic_path(path) as temporary:
        temporary.write_bytes(_container(_scene(arrays), b"".join(a.tobytes() for a in arrays)))
    return path


def _linear(colors: Float[Tensor, "n 3"]) -> np.ndarray:
    """sRGB to linear light (IEC 61966-2-1) in 16 bits, with an opaque fourth channel that keeps 4-byte steps."""
    srgb = colors.numpy()
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    opaque = np.concatenate([linear, np.ones_like(linear[:, :1])], axis=1)
    return (opaque * 65535).round().astype("<u2")


def _scene(arrays: list[np.ndarray]) -> dict[str, Any]:
    """The JSON part: one buffer of three arrays one after the other."""
    points, colors, lines = arrays
    starts = np.cumsum([0, *(a.nbytes for a in arrays)]).tolist()
    unlit: dict[str, Any] = {"KHR_materials_unlit": {}}
    return {
        "asset": {"version": "2.0", "generator": "videogpa"},
        "extensionsUsed": list(unlit),
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"matrix": HALF_TURN, "children": [1, 2]},
            {"name": "points", "mesh": 0},
            {"name": "cameras", "mesh": 1},
        ],
        "meshes": [
            {"primitives": [{"mode": POINTS, "attributes": {"POSITION": 0, "COLOR_0": 1}, "material": 0}]},
            {"primitives": [{"mode": LINES, "attributes": {"POSITION": 2}, "material": 1}]},
        ],
        "materials": [
            {"extensions": unlit},
            {"extensions": unlit, "pbrMetallicRoughness": {"baseColorFactor": CAMERA_COLOR}},
        ],
        "accessors": [
            _positions(0, points),
            {
                "bufferView": 1,
                "componentType": USHORT,
                "normalized": True,
                "count": len(colors),
                "type": "VEC4",
            },
            _positions(2, lines),
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": a.nbytes, "target": ARRAY_BUFFER}
            for start, a in zip(starts, arrays, strict=False)
        ],
        "buffers": [{"byteLength": starts[-1]}],
    }


def _positions(view: int, points: np.ndarray) -> dict[str, Any]:
    bounds = {"min": points.min(0).tolist(), "max": points.max(0).tolist()}
    return {"bufferView": view, "componentType": FLOAT, "count": len(points), "type": "VEC3", **bounds}


def _container(scene: dict[str, Any], data: bytes) -> bytes:
    """Header, JSON chunk and binary chunk, each padded to four bytes."""
    text = json.dumps(scene, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    data += b"\0" * (-len(data) % 4)
    total = 12 + 8 + len(text) + 8 + len(data)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
    return struct.pack("<4sII", b"glTF", 2, total) + chunks
