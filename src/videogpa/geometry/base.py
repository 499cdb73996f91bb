"""The contract of geometry models: frames in, one `GeometryPrediction` out."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videogpa.artifact import atomic_path, require_as_made, require_file
from videogpa.errors import InputError
from videogpa.tensors import Depth, Extrinsics, Intrinsics, Mask, Normals, Video


@dataclass(frozen=True, kw_only=True)
class GeometryPrediction:
    """Dense geometry of a clip at the resolution the model worked in.

    depth [t h w] is z-depth (0 = unknown), confidence [t h w] is at least 0 (0 = do not use),
    extrinsics_w2c [t 3 4] are OpenCV world-to-camera, intrinsics [t 3 3] in pixels of `images` with
    pixel centres at integers, images [t 3 h w] in [0, 1].
    `scale` says whether lengths are metres or only relative to each other. Tensors are never changed in place: what
    metrics find is kept for the prediction that they found it for.
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
        InputError: the file is missing, or something else.
        StageStopped: it was changed since its stage made it.
    """
    try:
        require_file(require_as_made(path))
        with safe_open(path, "pt") as file:
            scale: Any = (file.metadata() or {}).get("scale")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} holds no geometry prediction: {error}") from error
    problem = _problem(tensors, scale)
    if problem is not None:
        raise InputError(f"{path} holds no geometry prediction: {problem}")
    return GeometryPrediction(scale=scale, **tensors)


def _problem(tensors: Mapping[str, Tensor], scale: str | None) -> str | None:
    """What does not fit in a stored prediction."""
    if scale not in ("metric", "relative"):
        return f"its scale is {scale}"
    t, _, h, w = (
        tensors["images"].shape if "images" in tensors and tensors["images"].ndim == 4 else (0, 0, 0, 0)
    )
    shapes: dict[str, tuple[int, ...]] = {
        "depth": (t, h, w),
        "confidence": (t, h, w),
        "extrinsics_w2c": (t, 3, 4),
        "intrinsics": (t, 3, 3),
        "images": (t, 3, h, w),
    }
    further = {"normals": (t, 3, h, w), "albedo": (t, 3, h, w), "dynamic_mask": (t, h, w)}
    for name in shapes.keys() - tensors.keys():
        return f"it has no {name}"
    for name, tensor in tensors.items():
        if name not in shapes | further:
            return f"nothing there is called '{name}'"
        if tensor.shape != (shapes | further)[name] or not tensor.numel():
            return f"{name} has the shape {tuple(tensor.shape)}"
        if tensor.is_floating_point() == (name == "dynamic_mask"):
            return f"{name} is of {tensor.dtype}"
        # Depth and what goes with it may be unknown in places.
        if name in ("images", "extrinsics_w2c", "intrinsics") and not torch.isfinite(tensor).all():
            return f"{name} has values that are not finite"
    low, high = torch.aminmax(tensors["images"])
    return None if low > -1e-3 and high < 1 + 1e-3 else f"images has values in [{low:.3g}, {high:.3g}]"
