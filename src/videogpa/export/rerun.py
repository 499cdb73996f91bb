"""Frames, depth, cameras and points on one timeline (.rrd), for the Rerun viewer; needs the extra `rerun`.

Rerun puts the corner of the first pixel at (0, 0): principal points are half a pixel more than here.
"""

import hashlib
from pathlib import Path

from videogpa.artifact import atomic_path
from videogpa.errors import InputError
from videogpa.export.base import FRUSTUM_DEPTH, HALF_PIXEL, median_depth, points_of
from videogpa.geometry.base import GeometryPrediction
from videogpa.video_io import to_uint8


def write(folder: Path, name: str, prediction: GeometryPrediction, min_confidence: float | int = 0) -> Path:
    """`<name>.rrd`: the cloud of all frames, and on the timeline `frame` the picture and depth of each camera.

    Source of the format: Rerun documentation, "Pinhole", "Transform3D", "DepthImage".

    Raises:
        InputError: rerun-sdk is not installed.
        CannotJudge: no pixel has a known depth and more than `min_confidence`.
    """
    try:
        import rerun
    except ImportError as error:
        raise InputError("the format rerun needs rerun-sdk; pip install 'videogpa[rerun]'") from error
    cloud = points_of(prediction, min_confidence)
    height, width = prediction.images.shape[-2:]
    plane = FRUSTUM_DEPTH * median_depth(prediction)
    pictures = to_uint8(prediction.images).numpy()
    path = folder / f"{name}.rrd"
    # Recordings with the same identity are shown as one: two clips must differ, one clip must not.
    identity = hashlib.sha256(cloud.points.numpy().tobytes()).hexdigest()[:32]
    with atomic_path(path) as temporary:
        recording = rerun.RecordingStream("videogpa", recording_id=identity)
        recording.save(temporary)
        recording.log("world", rerun.ViewCoordinates.RDF, static=True)
        recording.log(
            "world/points", rerun.Points3D(cloud.points.numpy(), colors=cloud.colors.numpy()), static=True
        )
        for i, (w2c, k) in enumerate(zip(prediction.extrinsics_w2c, prediction.intrinsics, strict=True)):
            recording.set_time("frame", sequence=i)
            centre = (k[:2, 2] + HALF_PIXEL).tolist()
            focal = k.diagonal()[:2].tolist()
            recording.log(
                "world/camera",
                rerun.Transform3D(translation=w2c[:, 3].numpy(), mat3x3=w2c[:, :3].numpy(), from_parent=True),
                rerun.Pinhole(
                    focal_length=focal,
                    principal_point=centre,
                    width=width,
                    height=height,
                    image_plane_distance=plane,
                ),
            )
            recording.log("world/camera/picture", rerun.Image(pictures[i]))
            recording.log("world/camera/depth", rerun.DepthImage(prediction.depth[i].numpy(), meter=1.0))
        recording.flush()
        recording.disconnect()
    return path
