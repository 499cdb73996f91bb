"""Monocular depth networks of transformers: which of them see inverse depth, which depth, and in which unit."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoModelForDepthEstimation

from videogpa.errors import InputError
from videogpa.geometry.network_folder import at_size, input_format, load, prepared
from videogpa.tensors import Video

Kind = Literal["relative", "metric", "canonical"]
"""What a network answers with: s/z + b with unknown s and b; z in metres; or f/(w z), w the image's width (Depth
Pro, Bochkovskii et al., ICLR 2025, eq. 1, whose C is its inverse)."""
KINDS: dict[str, Kind] = {"dpt": "relative", "glpn": "metric", "zoedepth": "metric", "depth_pro": "canonical"}
"""By model type. Depth Anything says it in its configuration."""
NEAREST, FARTHEST = 1e-3, 1e4
"""Metres between which metric depth is believed."""


@dataclass(frozen=True, kw_only=True)
class MonocularDepth:
    """Per frame: `answer` [t h w] in the sense of `Kind`, and the horizontal field of view in degrees [t] where the
    network sees it.
    """

    answer: Float[Tensor, "t h w"]
    field_of_view: Float[Tensor, " t"] | None


class DepthNetwork:
    """A depth network from a local folder.

    Raises:
        InputError: the folder cannot be loaded, or what its network answers with is not known and not given.
    """

    def __init__(self, folder: Path, kind: Kind | Literal["auto"] = "auto", device: str = "cpu"):
        self.network = load(AutoModelForDepthEstimation, folder).to(device)
        self.kind = kind_of(self.network.config, folder) if kind == "auto" else kind
        self.format = input_format(folder)
        self.device = device

    @torch.inference_mode()
    def __call__(self, frames: Video) -> MonocularDepth:
        """Depth of every frame [t 3 h w] in [0, 1] by itself, at its size; memory stays that of one frame."""
        size = (frames.shape[-2], frames.shape[-1])
        outputs = [self.network(pixel_values=x[None].to(self.device)) for x in prepared(frames, self.format)]
        answer = torch.cat([at_size(o.predicted_depth[:, None].float(), size)[:, 0] for o in outputs])
        views = [o.field_of_view.flatten().float() for o in outputs if o.get("field_of_view") is not None]
        return MonocularDepth(answer=answer.cpu(), field_of_view=torch.cat(views).cpu() if views else None)


def kind_of(config, folder: Path) -> Kind:
    """What the network of a transformers configuration answers with.

    Raises:
        InputError: the model type is unknown, or stands for networks of both kinds.
    """
    if config.model_type == "depth_anything":
        return config.depth_estimation_type
    # Networks that put a DPT head on DINOv2 were trained on metric data sets, all others as MiDaS was.
    ambiguous = config.model_type == "dpt" and "dinov2" in str(getattr(config, "backbone_config", ""))
    if config.model_type not in KINDS or ambiguous:
        raise InputError(
            f"'{folder}' holds a {config.model_type} network, which may answer with depth or with inverse depth: "
            "say which with the option kind=metric or kind=relative"
        )
    return KINDS[config.model_type]


def metric_depth(
    answer: Float[Tensor, "t h w"], kind: Kind, focal_over_width: float
) -> Float[Tensor, "t h w"]:
    """z-depth in metres of a `metric` or `canonical` answer; 0 where it is not believed."""
    depth = answer if kind == "metric" else focal_over_width / answer.clamp_min(1e-9)
    return torch.where((depth > NEAREST) & (depth < FARTHEST), depth, 0)


def focal_over_side(field_of_view_degrees: float) -> float:
    """Focal length over the image side that the field of view belongs to."""
    return 0.5 / math.tan(math.radians(field_of_view_degrees) / 2)
