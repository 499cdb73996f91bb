"""A COLMAP text model with its images, for Gaussian splatting and radiance fields.

COLMAP puts the corner of the first pixel at (0, 0), so centres lie at half integers: principal points and observations
are half a pixel more than here. Axes and world-to-camera poses are the same.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from torch import Tensor

from videogpa.artifact import atomic_path
from videogpa.export.base import HALF_PIXEL, points_of
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cloud import Cloud
from videogpa.video_io import write_image

MOST_POINTS = 100_000
"""Points are lines of text here, and start positions there: more would not help."""


def write(folder: Path, name: str, prediction: GeometryPrediction, min_confidence: float | int = 0) -> Path:
    """`<name>-colmap/`: `images/*.png` and `sparse/0/{cameras,images,points3D}.txt`, one PINHOLE camera an image.

    Every point has one observation: the pixel it comes from.

    Source of the format: COLMAP documentation, "Output Format".

    Raises:
        CannotJudge: no pixel has a known depth and more than `min_confidence`.
    """
    cloud = points_of(prediction, min_confidence, MOST_POINTS)
    out = folder / f"{name}-colmap"
    names = [f"{i:05d}.png" for i in range(len(prediction.images))]
    for image_name, image in zip(names, prediction.images, strict=True):
        write_image(out / "images" / image_name, image)
    sparse = out / "sparse" / "0"
    _write_lines(sparse / "cameras.txt", _cameras(prediction))
    _write_lines(sparse / "images.txt", _images(prediction, names, cloud))
    _write_lines(sparse / "points3D.txt", _points(cloud))
    return out


def quaternions(rotations: Float[Tensor, "t 3 3"]) -> Float[np.ndarray, "t 4"]:
    """Unit quaternions (w, x, y, z) of rotation matrices, with w ≥ 0."""
    return Rotation.from_matrix(rotations.double().numpy()).as_quat(canonical=True, scalar_first=True)


def _cameras(prediction: GeometryPrediction) -> Iterable[str]:
    height, width = prediction.images.shape[-2:]
    for i, k in enumerate(prediction.intrinsics.double(), start=1):
        numbers = k[0, 0], k[1, 1], k[0, 2] + HALF_PIXEL, k[1, 2] + HALF_PIXEL
        yield f"{i} PINHOLE {width} {height} {_text(torch.stack(numbers).tolist())}"


def _images(prediction: GeometryPrediction, names: list[str], cloud: Cloud) -> Iterable[str]:
    """Two lines an image: pose, camera and name; then its observations."""
    turns = quaternions(prediction.extrinsics_w2c[..., :3])
    shifts = prediction.extrinsics_w2c[..., 3].double().numpy()
    observed = (cloud.pixel + HALF_PIXEL).tolist()
    for i, name in enumerate(names):
        yield f"{i + 1} {_text([*turns[i], *shifts[i]])} {i + 1} {name}"
        mine = (cloud.frame == i).nonzero()[:, 0].tolist()
        yield " ".join(f"{_text(observed[j])} {j + 1}" for j in mine)


def _points(cloud: Cloud) -> Iterable[str]:
    """Position, colour, error (none: a point projects onto its own pixel) and the one observation."""
    first = torch.searchsorted(cloud.frame, cloud.frame)
    in_image = (torch.arange(len(cloud.frame)) - first).tolist()
    colors = (cloud.colors * 255).round().int().tolist()
    for j, (point, color, frame) in enumerate(
        zip(cloud.points.tolist(), colors, cloud.frame.tolist(), strict=True)
    ):
        yield f"{j + 1} {_text(point)} {color[0]} {color[1]} {color[2]} 0 {frame + 1} {in_image[j]}"


def _text(numbers: Iterable[float]) -> str:
    return " ".join(f"{x:.9g}" for x in numbers)


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
