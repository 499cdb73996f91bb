"""VGGT (Wang et al., CVPR 2025): depth and cameras of all frames in one pass of a large transformer.

The world is the first camera and lengths are relative: VGGT scales every scene by the mean distance of its points.
"""

import importlib
import sys
from contextlib import redirect_stdout
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from videogpa.errors import UNREADABLE, InputError
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.multi_view import MultiViewOutput, Poses, fitted, to_prediction
from videogpa.geometry.poses import require_video
from videogpa.licenses import UNKNOWN, folder_license
from videogpa.tensors import Extrinsics, Intrinsics, Video

LICENSE = "CC-BY-NC-4.0 unless its card differs"
RESEARCH_LICENSE = "CC-BY-NC-4.0"
SCALE = "relative"
PREDICTS = ("depth", "poses", "confidence")
NEEDS = ("vggt", "einops")
INSTALL = "pip install einops && pip install --no-deps git+https://github.com/facebookresearch/vggt"
WEIGHT_OPTIONS = ("weights",)


def licenses(weights: Path, **_: object) -> dict[str, str]:
    """What the folder's model card says; without one, the licence of the research weights (VGGT-1B)."""
    found = folder_license(weights)
    return {"vggt": RESEARCH_LICENSE if found == UNKNOWN else found}


class Backend:
    """VGGT with the weights of a folder (`config.json`, `model.safetensors`).

    Args:
        weights: the folder.
        longer_side: pixels; 518 is what the network was trained at, less is faster.
        poses: `learned` from its camera head, or found by `alignment` of the images at its depth.
        device: where it runs; on a GPU the transformer runs in bfloat16.

    Raises:
        InputError: the package or the folder is missing, or its weights are not all of this network's.
    """

    license = LICENSE
    needs: tuple[str, ...] = NEEDS
    scale = "relative"

    def __init__(self, weights: Path, longer_side: int = 518, poses: Poses = "learned", device: str = "cpu"):
        self.network = load_network(weights).to(device)
        self.longer_side = longer_side
        self.poses: Poses = poses
        self.device = torch.device(device)

    @torch.inference_mode()
    def predict(self, frames: Video) -> GeometryPrediction:
        """Geometry at the network's own size.

        Raises:
            CannotJudge: fewer than two frames, no texture, no motion, or no pose explains the frames.
        """
        require_video(frames)
        images = fitted(frames, self.longer_side)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
            answer = self.network(images[None].to(self.device))
        height, width = images.shape[-2:]
        extrinsics, intrinsics = decode_cameras(answer["pose_enc"][0].float().cpu(), height, width)
        output = MultiViewOutput(
            depth=answer["depth"][0, ..., 0].float().cpu(),
            confidence=answer["depth_conf"][0].float().cpu(),
            extrinsics_w2c=extrinsics,
            intrinsics=intrinsics,
        )
        return to_prediction(output, images, self.poses)


def load_network(folder: Path) -> nn.Module:
    """VGGT from a local folder, without its point and track heads, which nothing here reads.

    Raises:
        InputError: the package or the folder is missing, or its weights are not all of this network's.
    """
    if not (folder / "model.safetensors").exists():
        raise InputError(
            f"{folder} has no model.safetensors: give the folder of a VGGT download (weights=FOLDER)"
        )
    try:
        network_type = importlib.import_module("vggt.models.vggt").VGGT
    except ImportError as error:
        raise InputError(f"geometry 'vggt' needs packages: {INSTALL} ({error})") from error
    try:
        # It reports on standard output, where results go.
        with redirect_stdout(sys.stderr):
            network = network_type.from_pretrained(folder, local_files_only=True, strict=True)
    except UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{folder} does not hold the weights of VGGT: {reason}") from error
    network.point_head = network.track_head = None
    return network.eval()


def decode_cameras(encoding: Float[Tensor, "t 9"], height: int, width: int) -> tuple[Extrinsics, Intrinsics]:
    """VGGT's pose encoding "absT_quaR_FoV" as world-to-camera extrinsics and intrinsics with cx = w/2.

    Translation, quaternion (x, y, z, w), vertical and horizontal field of view in radians.
    """
    rotation = rotation_matrix(encoding[:, 3:7])
    extrinsics = torch.cat([rotation, encoding[:, :3, None]], -1)
    half = encoding.new_tensor([height / 2, width / 2])
    fy, fx = (half / (encoding[:, 7:] / 2).tan()).unbind(-1)
    intrinsics = torch.eye(3).repeat(len(encoding), 1, 1)
    intrinsics[:, 0, 0], intrinsics[:, 1, 1] = fx, fy
    intrinsics[:, 0, 2], intrinsics[:, 1, 2] = width / 2, height / 2
    return extrinsics, intrinsics


def rotation_matrix(quaternion: Float[Tensor, "t 4"]) -> Float[Tensor, "t 3 3"]:
    """Rotation of a quaternion (x, y, z, w) of any length: R = I + 2 (w [v] + [v]²) / |q|², [v] the cross product."""
    vector, real = quaternion[:, :3], quaternion[:, 3, None, None]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).view(-1, 3, 3)
    scale = 2 / quaternion.square().sum(-1)[:, None, None]
    return torch.eye(3) + scale * (real * cross + cross @ cross)
