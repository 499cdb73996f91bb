"""Single-image networks in local transformers folders: loading without surprises, and the input they expect."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videogpa.artifact import read_json
from videogpa.errors import UNREADABLE, InputError
from videogpa.tensors import Video

PREPROCESSOR = "preprocessor_config.json"


@dataclass(frozen=True)
class InputFormat:
    """What `preprocessor_config.json` says: size (height, width) to aim at, sides' common divisor, whether the
    aspect ratio is kept, mean and standard deviation of the input.
    """

    size: tuple[int, int] | None
    multiple: int
    keep_aspect: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load(model_type: Any, folder: Path) -> nn.Module:
    """A network by its transformers auto class; safetensors only, no remote code, nothing downloaded.

    Raises:
        InputError: the folder is missing, holds another kind of network, or does not hold all of its weights.
    """
    try:
        network, report = model_type.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"cannot load a network from '{folder}': {reason}") from error
    if missing := report["missing_keys"]:
        raise InputError(
            f"'{folder}' lacks {len(missing)} tensors of {type(network).__name__}, such as {min(missing)}: "
            "download the folder again"
        )
    return network.eval()


def input_format(folder: Path) -> InputFormat:
    """The folder's own input format.

    Raises:
        InputError: there is no `preprocessor_config.json` or it cannot be read.
    """
    try:
        says = read_json(folder / PREPROCESSOR)
        size = says.get("size") if says.get("do_resize", True) else None
        normalized = says.get("do_normalize", "image_mean" in says)
        return InputFormat(
            size=None if size is None else _height_and_width(size),
            multiple=says.get("ensure_multiple_of") or says.get("size_divisor") or 1,
            keep_aspect=says.get("keep_aspect_ratio", False),
            mean=tuple(says["image_mean"]) if normalized else (0.0, 0.0, 0.0),
            std=tuple(says["image_std"]) if normalized else (1.0, 1.0, 1.0),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"cannot read the input format of the network from '{folder / PREPROCESSOR}': {error!r}"
        ) from error


def prepared(frames: Video, form: InputFormat) -> Float[Tensor, "t 3 height width"]:
    """Frames [t 3 h w] in [0, 1] as the network wants them.

    With the aspect ratio kept, the side that needs less change comes to its size (Ranftl et al., MiDaS).
    """
    sides = tuple(frames.shape[-2:])
    goal: tuple[float, ...] = sides if form.size is None else form.size
    if form.keep_aspect:
        ratio = min((g / s for g, s in zip(goal, sides, strict=True)), key=lambda r: abs(1 - r))
        goal = tuple(ratio * side for side in sides)
    size = [max(1, round(side / form.multiple)) * form.multiple for side in goal]
    if tuple(size) != sides:
        frames = F.interpolate(frames, size, mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (frames.new_tensor(x)[:, None, None] for x in (form.mean, form.std))
    return (frames - mean) / std


def at_size(maps: Float[Tensor, "t c h w"], size: tuple[int, int]) -> Float[Tensor, "t c height width"]:
    """The network's answer at the size of the frames, pixel edges on pixel edges."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _height_and_width(size: int | dict[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "shortest_edge" in size:
        return size["shortest_edge"], size["shortest_edge"]
    return size["height"], size["width"]
