"""The contract of geometry models: frames in, one `GeometryPrediction` out."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from videogpa.artifact import atomic_path, require_as_made
from videogpa.tensors import Depth, Extrinsics, Intrinsics, Mask, Normals, Video


@dataclass(frozen=True, kw_only=True)
class GeometryPrediction:
    """Dense geometry of a clip at the resolution the model worked in.

    depth [t h w] is z-depth (0 = unknown), confidence [t h w] is at least 0 (0 = do not use),
    extrinsics_w2c [t 3 4] are OpenCV world-to-camera, intrinsics [t 3 3] in pixels of `images` with
    pixel centres at integers, images [t 3 h w] in [0, 1].
    `scale` says whether lengths are metres or only relative to each other.
    """

    depth: Depth
    confidence: Depth
    extrinsics_w2c: Extrinsics
    intrinsics: Intrinsics
    images: Video
    scale: Literal["metric", "relative"]
    normals: Normals | None = None
    albedo: Video | None = None
    dynamic_mask: Mask | None = None


@runtime_checkable
class GeometryBackend(Protocol):
    """What `geometry/<name>.py` offers: a class `Backend` with these members.

    `license` names the licence of the weights, `needs` the extra packages, `scale` the unit of depth.
    """

    license: str
    needs: tuple[str, ...]
    scale: Literal["metric", "relative"]

    def predict(self, frames: Video) -> GeometryPrediction:
        """Geometry of all frames of one clip.

        Raises:
            CannotJudge: the clip has no geometry to recover (no texture, no parallax, too few frames).
        """
        ...


def save_prediction(path: Path, prediction: GeometryPrediction) -> None:
    """Write a prediction as safetensors, atomically."""
    values = {f.name: getattr(prediction, f.name) for f in fields(prediction)}
    tensors = {name: v.contiguous() for name, v in values.items() if isinstance(v, Tensor)}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"scale": prediction.scale})


def load_prediction(path: Path) -> GeometryPrediction:
    """Read what `save_prediction` wrote.

    Raises:
        StageStopped: the file was changed since its stage made it.
    """
    with safe_open(require_as_made(path), "pt") as file:
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
        return GeometryPrediction(scale=file.metadata()["scale"], **tensors)
