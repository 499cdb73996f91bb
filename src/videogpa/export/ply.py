"""One coloured point cloud (binary PLY), for MeshLab, CloudCompare, Blender and Open3D.

World axes are those of the prediction: x right, y down, z forward of the camera that defines the world.
"""

from pathlib import Path

import numpy as np

from videogpa.artifact import atomic_path
from videogpa.export.base import points_of
from videogpa.geometry.base import GeometryPrediction

VERTEX = np.dtype(
    [(axis, "<f4") for axis in "xyz"]
    + [(c, "u1") for c in ("red", "green", "blue")]
    + [("confidence", "<f4")]
)
TYPES = {"<f4": "float", "|u1": "uchar"}


def write(folder: Path, name: str, prediction: GeometryPrediction, min_confidence: float | int = 0) -> Path:
    """`<name>.ply`: every point of every frame with its colour (8 bits) and confidence.

    Source of the format: Turk, "The PLY Polygon File Format", 1994.

    Raises:
        CannotJudge: no pixel has a known depth and more than `min_confidence`.
    """
    cloud = points_of(prediction, min_confidence)
    vertices = np.empty(len(cloud.points), VERTEX)
    for i, axis in enumerate("xyz"):
        vertices[axis] = cloud.points[:, i].numpy()
    for i, color in enumerate(("red", "green", "blue")):
        vertices[color] = (cloud.colors[:, i] * 255).round().numpy()
    vertices["confidence"] = cloud.confidence.numpy()
    properties = [f"property {TYPES[VERTEX[field].str]} {field}" for field in VERTEX.names or ()]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *properties,
        "end_header",
    ]
    path = folder / f"{name}.ply"
    with atomic_path(path) as temporary:
        temporary.write_bytes("\n".join([*header, ""]).encode("ascii") + vertices.tobytes())
    return path
