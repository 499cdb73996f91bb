"""Networks that answer with the exact geometry of a rendered clip, in the native output of the real ones."""

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from videogpa.geometry.depth_anything_3 import IMAGENET_MEAN, IMAGENET_STD
from videogpa.geometry.depth_network import Kind, MonocularDepth
from videogpa.world.paths import CameraMove
from videogpa.world.render import Render, render
from videogpa.world.scene import sample_scene

HEIGHT, WIDTH, FRAMES = 56, 70, 5
"""Multiples of 14, so that the networks look at the frames as they are."""
CONFIDENCE = 4.0


def exact_clip(motion: str = "trucks right", seed: int = 12) -> Render:
    return render(sample_scene(seed, move=CameraMove(motion, "steadily")), FRAMES, HEIGHT, WIDTH)


class ExactVGGT(nn.Module):
    """Translation, quaternion (x, y, z, w) and field of view; depth with a channel axis."""

    def __init__(self, clip: Render):
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        torch.testing.assert_close(images, self.clip.rgb[None])
        quaternion = torch.from_numpy(
            Rotation.from_matrix(self.clip.extrinsics_w2c[:, :, :3].numpy()).as_quat()
        )
        focal = torch.stack([self.clip.intrinsics[:, 1, 1], self.clip.intrinsics[:, 0, 0]], -1)
        view = 2 * (torch.tensor([HEIGHT, WIDTH]) / 2 / focal).atan()
        pose = torch.cat([self.clip.extrinsics_w2c[:, :, 3], quaternion.float(), view], -1)
        depth = self.clip.depth[None]
        return {
            "pose_enc": pose[None],
            "depth": depth[..., None],
            "depth_conf": torch.full_like(depth, CONFIDENCE),
        }


class ExactDepthAnything3(nn.Module):
    """ImageNet-normalised input; intrinsics with the principal point at half the image size."""

    def __init__(self, clip: Render):
        super().__init__()
        self.clip = clip

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
        torch.testing.assert_close(images * std + mean, self.clip.rgb[None])
        intrinsics = self.clip.intrinsics.clone()
        intrinsics[:, :2, 2] = torch.tensor([WIDTH / 2, HEIGHT / 2])
        depth = self.clip.depth[None]
        return {
            "depth": depth,
            "depth_conf": torch.full_like(depth, CONFIDENCE),
            "extrinsics": self.clip.extrinsics_w2c[None],
            "intrinsics": intrinsics[None],
        }


class ExactMonocular:
    """Every frame by itself: inverse depth of a scale and shift of its own, or depth in metres times a flicker."""

    def __init__(self, clip: Render, kind: Kind):
        self.clip, self.kind = clip, kind

    def __call__(self, frames: Tensor) -> MonocularDepth:
        torch.testing.assert_close(frames, self.clip.rgb)
        depth, change = self.clip.depth, torch.linspace(1, 1.3, FRAMES)[:, None, None]
        focal = self.clip.intrinsics[0, 0, 0]
        if self.kind == "relative":
            return MonocularDepth(answer=2 * change / depth + change - 1.2, field_of_view=None)
        if self.kind == "metric":
            return MonocularDepth(answer=depth * change, field_of_view=None)
        view = torch.rad2deg(2 * (WIDTH / 2 / focal).atan()) + torch.tensor([0.0, 2, -2, 1, -1])
        return MonocularDepth(answer=focal / WIDTH / depth * change, field_of_view=view)
