"""The embedded single-frame network: depth, normals, albedo and the uncertainty of the depth.

A small convolutional U-Net that is also shown the viewing ray of every pixel, so it knows the camera.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from videogpa.geometry.cameras import unproject
from videogpa.tensors import Depth, Intrinsics, Normals, Video

STRIDE = 8
"""Image sides must be multiples of this."""
LOG_DEPTH_CENTER = 1.2
"""Mean log depth of the world, so that an untrained head already answers in its range."""


@dataclass(frozen=True)
class SingleFrameGeometry:
    """Per-frame answers: depth in the world's unit, unit normals, albedo in [0, 1], and the natural logarithm
    of the expected absolute error of log depth.
    """

    depth: Depth
    normals: Normals
    albedo: Video
    log_error: Depth


class GeometryNetwork(nn.Module):
    """1.2 M parameters at the default widths (channels at 1/2, 1/4 and 1/8 of the resolution)."""

    def __init__(self, widths: tuple[int, int, int] = (24, 64, 128), full: int = 12, depth: int = 3):
        super().__init__()
        half, quarter, eighth = widths
        self.at_full = _conv(5, full)
        self.enter = _conv(20, half)
        self.at_half = Residual(half)
        self.to_quarter = _conv(half, quarter, stride=2)
        self.at_quarter = nn.Sequential(Residual(quarter), Residual(quarter))
        self.to_eighth = _conv(quarter, eighth, stride=2)
        self.at_eighth = nn.Sequential(*(Residual(eighth) for _ in range(depth)))
        self.attention = Attention(eighth)
        self.up_quarter = nn.Conv2d(eighth, quarter, 1)
        self.merge_quarter = Residual(quarter)
        self.up_half = nn.Conv2d(quarter, half, 1)
        self.merge_half = Residual(half)
        self.up_full = nn.Conv2d(half, full * 4, 1)
        self.merge_full = nn.Sequential(_conv(2 * full, 20), _conv(20, 20))
        self.head = nn.Conv2d(20, 8, 1)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Video, intrinsics: Intrinsics) -> SingleFrameGeometry:
        """Geometry of each frame [t 3 h w] in [0, 1] by itself; sides are multiples of `STRIDE`."""
        answer = self.answer(images, intrinsics)
        return SingleFrameGeometry(
            depth=(answer[:, 0] + LOG_DEPTH_CENTER).exp(),
            normals=F.normalize(answer[:, 1:4], dim=1),
            albedo=answer[:, 4:7].sigmoid(),
            log_error=answer[:, 7].clamp(-5, 1),
        )

    def answer(self, images: Video, intrinsics: Intrinsics) -> Float[Tensor, "t 8 h w"]:
        """The head's raw channels: centred log depth, normals, albedo logits, log error."""
        rays = unproject(torch.ones_like(images[:, 0]), intrinsics)[..., :2].permute(0, 3, 1, 2)
        pixels = torch.cat([images * 2 - 1, rays], 1)
        full = self.at_full(pixels)
        half = self.at_half(self.enter(F.pixel_unshuffle(pixels, 2)))
        quarter = self.at_quarter(self.to_quarter(half))
        eighth = self.attention(self.at_eighth(self.to_eighth(quarter)))
        quarter = self.merge_quarter(quarter + _double(self.up_quarter(eighth)))
        half = self.merge_half(half + _double(self.up_half(quarter)))
        fine = torch.cat([full, F.pixel_shuffle(self.up_full(half), 2)], 1)
        return self.head(self.merge_full(fine))


class Residual(nn.Module):
    """Two 3x3 convolutions added to their input."""

    def __init__(self, width: int):
        super().__init__()
        self.first = _conv(width, width)
        norm = nn.BatchNorm2d(width)
        nn.init.zeros_(norm.weight)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), norm)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Same shape out as in."""
        return F.relu(x + self.second(self.first(x)))


class Attention(nn.Module):
    """Every coarse position looks at all others: the room's layout is a global matter."""

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        nn.init.zeros_(self.merge.weight)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Same shape out as in."""
        tokens = x.flatten(2).mT
        parts = self.project(self.norm(tokens)).unflatten(-1, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return x + self.merge(mixed).mT.unflatten(2, x.shape[2:])


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


def _double(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c 2*h 2*w"]:
    return F.interpolate(x, scale_factor=2, mode="nearest")
