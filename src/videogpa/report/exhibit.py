"""What is shown of one scored video, written beside the page by the process that scored it."""

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor
from torch.nn import functional as F

from videogpa.artifact import write_text_atomic
from videogpa.errors import CannotJudge
from videogpa.false_colors import UNJUDGED, depth_colors, error_colors, inconsistency, normal_colors
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import camera_centers, compose, invert
from videogpa.geometry.cloud import Cloud, cloud_of, frustums, thinned
from videogpa.report.redrawn import redrawn_from_others
from videogpa.tensors import Mask, Video
from videogpa.video_io import to_uint8, write_image, write_preview

DESCRIPTION, CLOUD = "exhibit.json", "cloud.js"
PICTURE, ERRORS = "picture.png", "errors.png"
PACE = 4
"""Frames a second: slow enough to see which frame breaks."""
MOST_POINTS = 150_000
THUMBNAIL = 320
"""Longer side in pixels."""
FRUSTUM = 0.07
"""Drawn depth of a camera, as a share of its distance to the middle of the points."""
PANELS = {
    "frames": ("Frames", "as they were scored"),
    "redrawn": ("Redrawn", "from the points of the other frames; grey: none of them saw it"),
    "errors": ("Error", "dark: the others confirm it; bright: they do not; grey: none sees it"),
    "depth": ("Depth", "bright is near"),
    "normals": ("Normals", "red right, green up, blue towards the camera"),
}
"""Title and note of every video, in the order of the page."""


class Exhibit(BaseModel):
    """One video as shown. Without geometry there are only its frames.

    panels: names of the videos (`<name>.mp4`) that play together. errors: mean of each frame's error map over
    its judged pixels, in [0, 1]; None where none was judged. worst: the frame with the largest. coverage:
    share of all pixels that were judged. centers, forward [t][3]: where each camera is and looks, in the axes of
    the first one (x right, y down, z forward). points: how many the cloud shows; there is none without.
    """

    model_config = ConfigDict(frozen=True)

    frames: int
    height: int
    width: int
    panels: list[str]
    scale: Literal["metric", "relative"] | None = None
    errors: list[float | None] = []
    worst: int | None = None
    coverage: float | None = None
    centers: list[list[float]] = []
    forward: list[list[float]] = []
    points: int = 0


def write_exhibit(folder: Path, frames: Video, geometry: GeometryPrediction | None) -> None:
    """Write videos, thumbnails, the point cloud and `exhibit.json` of one video into `folder`.

    A geometry whose cameras are not finite is shown as none.
    """
    videos = {"frames": frames}
    count, _, height, width = frames.shape
    exhibit = Exhibit(frames=count, height=height, width=width, panels=[])
    if geometry is not None and _has_cameras(geometry):
        geometry = _in_first_camera(geometry)
        errors, judged = _error_maps(geometry)
        videos |= _geometry_videos(geometry, error_colors(errors, judged))
        cloud = cloud_of(geometry)
        if len(cloud.points):
            _write_cloud(folder / CLOUD, geometry, cloud, videos)
        exhibit = exhibit.model_copy(
            update=_findings(geometry, errors, judged) | {"points": min(len(cloud.points), MOST_POINTS)}
        )
    for name, video in videos.items():
        write_preview(folder / f"{name}.mp4", video, fps=PACE)
    shown = count // 2 if exhibit.worst is None else exhibit.worst
    write_image(folder / PICTURE, _thumbnail(frames[shown]))
    if "errors" in videos:
        write_image(folder / ERRORS, _thumbnail(videos["errors"][shown]))
    exhibit = exhibit.model_copy(update={"panels": [name for name in PANELS if name in videos]})
    write_text_atomic(folder / DESCRIPTION, exhibit.model_dump_json(indent=2) + "\n")


def read_exhibit(folder: Path) -> Exhibit:
    """What `write_exhibit` described."""
    return Exhibit.model_validate_json((folder / DESCRIPTION).read_bytes())


def _has_cameras(geometry: GeometryPrediction) -> bool:
    return bool(geometry.extrinsics_w2c.isfinite().all() and geometry.intrinsics.isfinite().all())


def _in_first_camera(geometry: GeometryPrediction) -> GeometryPrediction:
    """The same scene in the axes of its first camera, so that up is up on the page."""
    first = invert(geometry.extrinsics_w2c[:1]).expand_as(geometry.extrinsics_w2c)
    return replace(geometry, extrinsics_w2c=compose(geometry.extrinsics_w2c, first))


def _error_maps(geometry: GeometryPrediction) -> tuple[Float[Tensor, "t h w"], Mask]:
    try:
        return inconsistency(geometry)
    except CannotJudge:
        return torch.zeros_like(geometry.depth), torch.zeros_like(geometry.depth, dtype=torch.bool)


def _geometry_videos(geometry: GeometryPrediction, errors: Video) -> dict[str, Video]:
    redrawn, seen = redrawn_from_others(geometry)
    videos = {
        "redrawn": torch.where(seen[:, None], redrawn, UNJUDGED),
        "errors": errors,
        "depth": depth_colors(geometry.depth),
    }
    return videos if geometry.normals is None else videos | {"normals": normal_colors(geometry.normals)}


def _findings(
    geometry: GeometryPrediction, errors: Float[Tensor, "t h w"], judged: Mask
) -> dict[str, object]:
    """The fields of the exhibit that are numbers."""
    means = [e[j].mean().item() if j.any() else None for e, j in zip(errors, judged, strict=True)]
    known = {i: value for i, value in enumerate(means) if value is not None}
    return {
        "scale": geometry.scale,
        "errors": means,
        "worst": max(known, key=known.__getitem__, default=None),
        "coverage": judged.float().mean().item(),
        "centers": camera_centers(geometry.extrinsics_w2c).tolist(),
        "forward": geometry.extrinsics_w2c[:, 2, :3].tolist(),
    }


def _write_cloud(path: Path, geometry: GeometryPrediction, cloud: Cloud, videos: dict[str, Video]) -> None:
    """The points and cameras as a script: a page opened as a file may load scripts, but not data."""
    shown = thinned(cloud, MOST_POINTS)
    column, row = shown.pixel.long().unbind(-1)
    middle = cloud.points.median(0).values
    distance = (middle - camera_centers(geometry.extrinsics_w2c)).norm(dim=-1).median().item()
    height, width = geometry.images.shape[2:]
    drawn = frustums(geometry.extrinsics_w2c, geometry.intrinsics, (height, width), FRUSTUM * distance)
    colors = {
        "picture": shown.colors,
        **{name: videos[name][shown.frame, :, row, column] for name in ("errors", "depth")},
    }
    described = {
        "points": len(shown.points),
        "thinning": len(cloud.points) / len(shown.points),
        "middle": middle.tolist(),
        "distance": distance,
        "size": [height, width],
        "intrinsics": geometry.intrinsics.tolist(),
        "extrinsics": geometry.extrinsics_w2c.tolist(),
        "frustums": drawn.flatten(1).tolist(),
        "positions": _base64(shown.points.numpy().astype("<f4").tobytes()),
        "colors": {name: _base64(_bytes(values)) for name, values in colors.items()},
    }
    write_text_atomic(path, f"const cloud = {json.dumps(described, allow_nan=False)};\n")


def _bytes(colors: Float[Tensor, "n 3"]) -> bytes:
    return to_uint8(colors.T[None, :, :, None])[0].numpy().tobytes()


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _thumbnail(picture: Float[Tensor, "3 h w"]) -> Float[Tensor, "3 height width"]:
    longest = max(picture.shape[1:])
    if longest <= THUMBNAIL:
        return picture
    size = [max(1, round(side * THUMBNAIL / longest)) for side in picture.shape[1:]]
    return F.interpolate(picture[None], size, mode="bilinear", antialias=True)[0].clamp(0, 1)
