"""Exact clips of procedural scenes, and ways to spoil their pictures or their geometry by a known amount."""

import dataclasses
import math
from functools import cache

import torch
from kornia.filters import gaussian_blur2d
from torch.nn import functional as F

from videogpa.geometry.alignment import rigid
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import compose
from videogpa.metrics.base import Clip, Truth
from videogpa.world.paths import CameraMove
from videogpa.world.render import Render, forward_flow, render
from videogpa.world.scene import sample_scene


@cache
def rendered(
    seed: int = 0, frames: int = 5, height: int = 48, width: int = 48, motion: str = "trucks right"
) -> Render:
    return render(sample_scene(seed, move=CameraMove(motion, "quickly")), frames, height, width)


def exact(clip: Render) -> GeometryPrediction:
    return GeometryPrediction(
        depth=clip.depth,
        confidence=torch.ones_like(clip.depth),
        extrinsics_w2c=clip.extrinsics_w2c,
        intrinsics=clip.intrinsics,
        images=clip.rgb,
        scale="metric",
        normals=clip.normals,
        albedo=clip.albedo,
    )


def prediction(*args, **kwargs) -> GeometryPrediction:
    return exact(rendered(*args, **kwargs))


def truth(clip: Render) -> Truth:
    flows, masks = zip(*(forward_flow(clip, 0, t) for t in range(len(clip.rgb))), strict=True)
    return Truth(frames=clip.rgb, flow=torch.cat(flows), covisible=torch.cat(masks), geometry=exact(clip))


def as_clip(geometry: GeometryPrediction, frames: torch.Tensor | None = None) -> Clip:
    """A clip whose geometry model looked at these frames, the exact ones if none are given."""
    if frames is not None:
        geometry = dataclasses.replace(geometry, images=frames)
    return Clip(frames=geometry.images, geometry=geometry)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shift(frames: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Every frame moved by its own (dx, dy), reflected at the border."""
    theta = torch.eye(2, 3).repeat(len(frames), 1, 1)
    theta[:, :, 2] = -2 * pixels / torch.tensor([frames.shape[-1], frames.shape[-2]])
    grid = F.affine_grid(theta, list(frames.shape), align_corners=False)
    moved = F.grid_sample(frames, grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return moved.clamp(0, 1)


def jitter(clip: Render, strength: float) -> torch.Tensor:
    """Each frame shifted at random by about `strength` percent of its width."""
    pixels = noise(len(clip.rgb), 2) * strength / 100 * clip.rgb.shape[-1]
    return shift(clip.rgb, pixels)


def wobble(clip: Render, strength: float) -> torch.Tensor:
    """The first object alone shifted at random, frame by frame."""
    return torch.where((clip.object_ids == 1)[:, None], jitter(clip, strength), clip.rgb)


def scale_depth(geometry: GeometryPrediction, factor: torch.Tensor | float) -> GeometryPrediction:
    factor = torch.as_tensor(factor).reshape(-1, 1, 1)
    return dataclasses.replace(geometry, depth=geometry.depth * factor)


def depth_flicker(clip: Render, strength: float) -> GeometryPrediction:
    """Each frame's depth scaled at random by about `strength` percent."""
    return scale_depth(exact(clip), (noise(len(clip.rgb)) * strength / 100).exp())


def wrong_poses(clip: Render, strength: float) -> GeometryPrediction:
    """Each camera shifted at random by about `strength` percent of the median depth."""
    geometry = exact(clip)
    poses = geometry.extrinsics_w2c.clone()
    poses[:, :, 3] += noise(len(poses), 3) * strength / 100 * geometry.depth.median()
    return dataclasses.replace(geometry, extrinsics_w2c=poses)


def move_world(geometry: GeometryPrediction, scale: float = 1.0) -> GeometryPrediction:
    """The same clip in a world with another origin, orientation and unit of length."""
    turn = torch.linalg.qr(noise(3, 3))[0]
    turn = turn * torch.linalg.det(turn)
    origin = torch.cat([turn, torch.tensor([[5.0], [-3.0], [2.0]])], -1)
    moved = compose(geometry.extrinsics_w2c, origin.expand(len(geometry.depth), 3, 4))
    moved = torch.cat([moved[..., :3], moved[..., 3:] * scale], -1)
    return dataclasses.replace(geometry, extrinsics_w2c=moved, depth=geometry.depth * scale)


def wrong_normals(clip: Render, strength: float) -> GeometryPrediction:
    """Each frame's normals turned at random by about `strength` degrees."""
    twists = F.pad(noise(len(clip.depth), 3) * math.radians(strength), (3, 0))
    turns = rigid(twists)[..., :3]
    return dataclasses.replace(exact(clip), normals=torch.einsum("tij,tjhw->tihw", turns, clip.normals))


def light(clip: Render, strength: float) -> torch.Tensor:
    """Each frame's brightness changed at random by about `strength` percent."""
    return (clip.rgb * 0.8 * (1 + noise(len(clip.rgb), 1, 1, 1) * strength / 100)).clamp(0, 1)


def frozen(geometry: GeometryPrediction) -> GeometryPrediction:
    """The first frame and its geometry, again and again."""
    names = ("depth", "images", "extrinsics_w2c", "normals", "albedo")
    return dataclasses.replace(
        geometry, **{n: getattr(geometry, n)[:1].expand_as(getattr(geometry, n)) for n in names}
    )


def far_apart(geometry: GeometryPrediction) -> GeometryPrediction:
    """Cameras that look at different places: no frame sees what another one saw."""
    apart = geometry.extrinsics_w2c.clone()
    apart[:, 0, 3] += 100 * torch.arange(len(apart))
    return dataclasses.replace(geometry, extrinsics_w2c=apart)


def blur(frames: torch.Tensor, sigma: float) -> torch.Tensor:
    return gaussian_blur2d(frames, (9, 9), (sigma, sigma))
