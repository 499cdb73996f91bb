"""Any monocular depth network of transformers (Depth Anything, DPT, ZoeDepth, Depth Pro, ...), poses by alignment.

Each frame is seen by itself, so nothing in the depth was made to agree between frames. One camera for all frames:
its field of view is the network's (median over the frames) where it sees one, else an option.
"""

from pathlib import Path
from typing import Literal

import torch

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.depth_network import DepthNetwork, Kind, MonocularDepth, focal_over_side, metric_depth
from videogpa.geometry.embedded import to_one_scale
from videogpa.geometry.normals import Axes, load_normals, normals_from_depth
from videogpa.geometry.one_scale import brought_to_first, first_inverse_depth
from videogpa.geometry.poses import aligned_poses, require_video
from videogpa.licenses import folder_license
from videogpa.tensors import Depth, Extrinsics, Intrinsics, Video

LICENSE = "that of the folder's model card"
SCALE = "either"
PREDICTS = ("depth", "poses", "normals")
NEEDS = ()
WEIGHT_OPTIONS = ("weights", "normals")

SMALLEST_VIEW = 2.0
"""Degrees by which a field of view stays away from 0 and 180."""
SMALLEST_KNOWN_SHARE = 0.5
"""Of the pixels of every frame: those with a depth between `NEAREST` and `FARTHEST`."""


def licenses(weights: Path, normals: Path | None = None, **_: object) -> dict[str, str]:
    """What the model cards of the folders say."""
    found = {f"monocular {weights.name}": folder_license(weights)}
    return found if normals is None else found | {f"monocular {normals.name}": folder_license(normals)}


class Backend:
    """Depth and normals frame by frame, and the poses that make the frames agree.

    Args:
        weights: folder of a transformers depth network (`config.json`, `preprocessor_config.json`, safetensors).
        kind: what it answers with, where its configuration does not tell (`depth_network.Kind`).
        normals: folder of a transformers normal network or a Marigold normals pipeline; None derives them from
            depth.
        normal_axes: axes of a transformers normal network.
        field_of_view_degrees: of the longer image side, for networks that do not see it themselves.
        device: where the networks run.

    Raises:
        InputError: a folder cannot be loaded, or what the network answers with is not known.
    """

    license = LICENSE
    needs: tuple[str, ...] = NEEDS
    scale: Literal["metric", "relative"]

    def __init__(
        self,
        weights: Path,
        kind: Kind | Literal["auto"] = "auto",
        normals: Path | None = None,
        normal_axes: Axes = "right_up_back",
        field_of_view_degrees: float = 55.0,
        device: str = "cpu",
    ):
        self.network = DepthNetwork(weights, kind, device)
        self.scale = "relative" if self.network.kind == "relative" else "metric"
        self.normals = None if normals is None else load_normals(normals, normal_axes, device=device)
        self.field_of_view_degrees = field_of_view_degrees

    def predict(self, frames: Video) -> GeometryPrediction:
        """Geometry at the size of the frames [t 3 h w]; confidence is 1, and 0 where depth is unknown.

        Metric networks keep their own unit, that of the first frame for the whole clip.

        Raises:
            CannotJudge: fewer than two frames, no texture or relief, nothing moves, no pose explains the frames, or
                no scale brings their depths together.
        """
        require_video(frames)
        seen = self.network(frames)
        intrinsics = pinhole(frames, seen, self.field_of_view_degrees)
        place = relative_scene if self.network.kind == "relative" else self._metric_scene
        depth, extrinsics = place(frames, seen.answer, intrinsics)
        known = depth > 0
        filled = torch.where(known, depth, depth[known].median())
        return GeometryPrediction(
            depth=depth,
            confidence=known.float(),
            extrinsics_w2c=extrinsics,
            intrinsics=intrinsics,
            images=frames,
            scale=self.scale,
            normals=self.normals(frames) if self.normals else normals_from_depth(filled, intrinsics),
        )

    def _metric_scene(self, frames: Video, answer: Depth, intrinsics: Intrinsics) -> tuple[Depth, Extrinsics]:
        focal = intrinsics[0, 0, 0].item() / frames.shape[-1]
        depth = metric_depth(answer, self.network.kind, focal)
        if (depth > 0).float().mean((1, 2)).min() < SMALLEST_KNOWN_SHARE:
            raise CannotJudge("the depth network's answer for a frame is mostly out of the range of metres")
        extrinsics = aligned_poses(frames, depth[0], torch.ones_like(depth[0]), intrinsics)
        return to_one_scale(depth, extrinsics, intrinsics), extrinsics


def relative_scene(frames: Video, answer: Depth, intrinsics: Intrinsics) -> tuple[Depth, Extrinsics]:
    """Depth [t h w] of one scale, the first frame's median being 1, and poses, from affine-invariant inverse depth.

    Raises:
        CannotJudge: no relief, nothing moves, no pose explains the frames, or no scale brings them together.
    """
    first = first_inverse_depth(frames, answer[0], intrinsics)
    extrinsics = aligned_poses(frames, 1 / first, torch.ones_like(first), intrinsics)
    others = brought_to_first(first, answer[1:], extrinsics, intrinsics)
    return 1 / torch.cat([first[None], others]), extrinsics


def pinhole(frames: Video, seen: MonocularDepth, field_of_view_degrees: float) -> Intrinsics:
    """One camera for all frames: of the horizontal field of view that the network saw, else of the longer side's.

    Raises:
        CannotJudge: the network saw a field of view that no pinhole camera has.
    """
    count, _, height, width = frames.shape
    if seen.field_of_view is None:
        focal = focal_over_side(field_of_view_degrees) * max(height, width)
    else:
        view = seen.field_of_view.median().item()
        if not SMALLEST_VIEW < view < 180 - SMALLEST_VIEW:
            raise CannotJudge(f"the depth network sees a field of view of {view:.1f} degrees")
        focal = focal_over_side(view) * width
    k = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return k.repeat(count, 1, 1)
