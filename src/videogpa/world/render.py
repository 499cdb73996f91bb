"""Vectorised ray casting of a `Scene`: colours and every exact quantity that a geometry model has to guess.

Rays have unit z in the camera frame, so a ray's parameter is the z-depth itself.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from videogpa.tensors import Depth, Extrinsics, Flow, Intrinsics, Mask, Normals, Video
from videogpa.world.paths import camera_path
from videogpa.world.scene import Body, Scene
from videogpa.world.texture import albedo as texture_albedo

FIELD_OF_VIEW_DEGREES = 58.0
"""Of the longer image side; the embedded models know no other camera."""
NEAR = 1e-3
SHININESS = 24.0
CURTAIN_WAVES, CURTAIN_STEPS = 2.5, 6
# Four rays a quarter of a pixel off the centre, for colour; the centre ray carries the exact geometry.
SUBPIXELS = ((-0.25, -0.25), (0.25, -0.25), (-0.25, 0.25), (0.25, 0.25))


@dataclass(frozen=True, kw_only=True)
class Render:
    """A clip of a scene with its exact geometry. `object_ids` is 0 on the room and i + 1 on body i."""

    scene: Scene
    rgb: Video
    depth: Depth
    normals: Normals
    albedo: Video
    object_ids: Int[Tensor, "t h w"]
    dynamic_mask: Mask
    intrinsics: Intrinsics
    extrinsics_w2c: Extrinsics


def world_intrinsics(height: int, width: int, frames: int) -> Intrinsics:
    """Pinhole intrinsics [t 3 3] of the world's camera at a given image size."""
    focal = max(height, width) / (2 * math.tan(math.radians(FIELD_OF_VIEW_DEGREES) / 2))
    k = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    return k.expand(frames, 3, 3).contiguous()


def scene_path(scene: Scene, frames: int) -> Extrinsics:
    """World-to-camera extrinsics of the scene's own camera move, starting at its pitched first camera."""
    c, s = math.cos(scene.camera_pitch), math.sin(scene.camera_pitch)
    first = torch.tensor([[1.0, 0, 0], [0, c, -s], [0, s, c]])
    relative = camera_path(scene.move, frames)
    return torch.cat([relative[:, :, :3] @ first, relative[:, :, 3:]], -1)


def render(scene: Scene, frames: int, height: int, width: int) -> Render:
    """Render the scene along its own camera path."""
    intrinsics = world_intrinsics(height, width, frames)
    return render_from(
        scene, scene_path(scene, frames), intrinsics, torch.linspace(0, 1, frames), height, width
    )


def render_from(
    scene: Scene,
    extrinsics: Extrinsics,
    intrinsics: Intrinsics,
    progress: Float[Tensor, " t"],
    height: int,
    width: int,
) -> Render:
    """Render the scene from any cameras; `progress` in [0, 1] is how far along its way each moving body is.

    Intrinsics whose principal point is moved give a part of a larger picture.
    """
    frames = len(extrinsics)
    offsets = torch.tensor([(0.0, 0.0), *SUBPIXELS])
    pixels = (_pixel_grid(height, width) + offsets[:, None]).reshape(-1, 2)
    rays = _rays(pixels, extrinsics, intrinsics)
    hit = _cast(scene, *rays, progress)
    color = _shade(scene, hit, rays[1]).view(frames, len(offsets), height * width, 3)[:, 1:].mean(1)
    hit = _Hit(*(x[:, : height * width] for x in vars(hit).values()))
    facing = hit.normal @ extrinsics[:, :, :3].mT
    moving = torch.tensor([False] + [bool(b.slide.any()) or b.waved != 0 for b in scene.bodies])

    def image(x: Tensor) -> Tensor:
        return x.view(frames, height, width, -1).permute(0, 3, 1, 2).contiguous()

    ids = hit.object_id.view(frames, height, width)
    return Render(
        scene=scene,
        rgb=image(color.clamp(0, 1)),
        depth=hit.depth.view(frames, height, width),
        normals=image(facing),
        albedo=image(hit.albedo),
        object_ids=ids,
        dynamic_mask=moving[ids],
        intrinsics=intrinsics,
        extrinsics_w2c=extrinsics,
    )


def forward_flow(clip: Render, source: int, target: int) -> tuple[Flow, Bool[Tensor, "1 h w"]]:
    """Exact flow [1 2 h w] of every pixel of frame `source` to frame `target`, and where it stays visible.

    Curtains that wave are taken to hang still. Visibility is decided by casting a ray from the target camera at the
    moved point, not by comparing sampled depths.
    """
    frames, height, width = clip.depth.shape
    pixels = _pixel_grid(height, width)
    extrinsics, intrinsics = clip.extrinsics_w2c, clip.intrinsics
    origin, direction = _rays(pixels, extrinsics[source, None], intrinsics[source, None])
    points = origin + direction * clip.depth[source].reshape(1, -1, 1)
    steps = torch.linspace(0, 1, frames)
    slides = torch.stack([torch.zeros(3)] + [b.slide for b in clip.scene.bodies])
    moved = points + slides[clip.object_ids[source].reshape(1, -1)] * (steps[target] - steps[source])
    seen = torch.einsum("ij,tnj->tni", extrinsics[target, :, :3], moved) + extrinsics[target, :, 3]
    projected = torch.einsum("ij,tnj->tni", intrinsics[target], seen / seen[..., 2:].clamp_min(NEAR))[..., :2]
    hit = _cast(
        clip.scene,
        *_rays(projected[0], extrinsics[target, None], intrinsics[target, None]),
        steps[target, None],
    )
    inside = ((projected >= -0.5) & (projected <= torch.tensor([width - 0.5, height - 0.5]))).all(-1)
    unoccluded = (hit.depth - seen[..., 2]).abs() < 1e-3 * seen[..., 2].abs()
    visible = inside & unoccluded & (seen[..., 2] > NEAR)
    flow = (projected - pixels).view(1, height, width, 2).permute(0, 3, 1, 2)
    return flow.contiguous(), visible.view(1, height, width)


@dataclass(frozen=True)
class _Hit:
    depth: Float[Tensor, "t n"]
    normal: Float[Tensor, "t n 3"]
    albedo: Float[Tensor, "t n 3"]
    object_id: Int[Tensor, "t n"]


def _pixel_grid(height: int, width: int) -> Float[Tensor, "n 2"]:
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([u, v], -1).reshape(-1, 2).float()


def _rays(
    pixels: Float[Tensor, "n 2"], extrinsics: Extrinsics, intrinsics: Intrinsics
) -> tuple[Float[Tensor, "t 1 3"], Float[Tensor, "t n 3"]]:
    rotation = extrinsics[:, :, :3]
    center = -(rotation.mT @ extrinsics[:, :, 3:]).mT
    xy = (pixels - intrinsics[:, None, :2, 2]) / intrinsics[:, None, [0, 1], [0, 1]]
    direction = torch.cat([xy, torch.ones_like(xy[..., :1])], -1) @ rotation
    return center, direction


def _cast(
    scene: Scene,
    origin: Float[Tensor, "t 1 3"],
    direction: Float[Tensor, "t n 3"],
    progress: Float[Tensor, " t"],
) -> _Hit:
    depth, normal, local, surface = (x.flatten(0, 1) for x in _hit_room(scene, origin, direction))
    owner = torch.zeros_like(surface)
    frames, rays = direction.shape[:2]
    squared_length = (direction * direction).sum(-1)
    directions = direction.flatten(0, 1)
    for i, body in enumerate(scene.bodies):
        offset = origin - body.center - body.slide * progress[:, None, None]
        along = (direction @ offset.mT)[..., 0]
        reach = body.size.norm() if body.kind != "sphere" else body.size[0]
        passes_near = (offset * offset).sum(-1) - along.square() / squared_length < reach**2
        index = passes_near.flatten().nonzero()[:, 0]
        turn = _turn(body.yaw)
        o, d = (offset[:, 0] @ turn)[index // rays], directions[index] @ turn
        t, n = _HIT[body.kind](body, o, d, progress[index // rays])
        closer = ((t > NEAR) & (t < depth[index])).nonzero()[:, 0]
        index, t = index[closer], t[closer]
        depth[index] = t
        owner[index] = i + 1
        surface[index] = i + 3
        local[index] = o[closer] + d[closer] * t[:, None]
        normal[index] = n[closer] @ turn.T
    color = torch.empty_like(directions)
    for i, texture in enumerate([*scene.room_textures, *(b.texture for b in scene.bodies)]):
        index = (surface == i).nonzero()[:, 0]
        points = local[index]
        if texture.drift is not None:
            points = points + texture.drift[index // rays]
        color[index] = texture_albedo(texture, points)
    return _Hit(*(x.unflatten(0, (frames, rays)) for x in (depth, normal, color, owner)))


def _shade(scene: Scene, hit: _Hit, direction: Float[Tensor, "t n 3"]) -> Float[Tensor, "t n 3"]:
    """Lambert's law with ambient light; on glossy surfaces also Blinn and Phong's highlights, which move with the
    camera.
    """
    lambert = (hit.normal @ scene.light).clamp_min(0)
    color = hit.albedo * (scene.ambient + (1 - scene.ambient) * lambert)[..., None]
    gloss = torch.tensor([0.0] + [b.gloss for b in scene.bodies])[hit.object_id]
    if scene.floor_gloss:
        is_floor = (hit.object_id == 0) & (hit.normal[..., 1] < -0.9)
        gloss = torch.where(is_floor, scene.floor_gloss, gloss)
    if not gloss.any():
        return color
    halfway = torch.nn.functional.normalize(
        scene.light - torch.nn.functional.normalize(direction, dim=-1), dim=-1
    )
    highlight = (hit.normal * halfway).sum(-1).clamp_min(0) ** SHININESS
    return color + (gloss * highlight)[..., None]


def _turn(yaw: float) -> Float[Tensor, "3 3"]:
    """Matrix M such that `x @ M` are the components of x in axes turned by `yaw` about the vertical."""
    c, s = math.cos(yaw), math.sin(yaw)
    return torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _safe(x: Tensor) -> Tensor:
    """Directions without zeros, sign kept, so that slab tests can divide by them."""
    return x.abs().clamp_min(1e-9).copysign(x)


def _hit_room(scene: Scene, origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Depth, normal, point in the room's frame and surface (0 floor, 1 ceiling, 2 walls) where rays leave it."""
    turn = _turn(scene.room_yaw)
    o, d = (origin - scene.room_center) @ turn, direction @ turn
    depth, axis = ((scene.room_size.copysign(d) - o) / _safe(d)).min(-1)
    side = (d.gather(-1, axis[..., None])[..., 0] < 0).long()
    inward = torch.eye(3).repeat_interleave(2, 0) * torch.tensor([-1.0, 1.0]).repeat(3)[:, None]
    surface_of_face = torch.tensor([2, 2, 0, 1, 2, 2])
    face = 2 * axis + side
    return depth, (inward @ turn.T)[face], o + d * depth[..., None], surface_of_face[face]


Rays = Float[Tensor, "m 3"]
Progress = Float[Tensor, " m"]
"""When each ray is cast, in [0, 1]."""
Hits = tuple[Float[Tensor, " m"], Float[Tensor, "m 3"]]
"""Ray parameters (infinite where missed) and outward normals, in the body's frame."""


def _hit_sphere(body: Body, o: Rays, d: Rays, progress: Progress) -> Hits:
    radius = body.size[0]
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - radius**2
    root = b * b - a * c
    t = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, math.inf)
    return t, (o + d * t[:, None]) / radius


def _hit_box(body: Body, o: Rays, d: Rays, progress: Progress) -> Hits:
    inverse, corner = 1 / _safe(d), body.size.copysign(d)
    near, axis = ((-corner - o) * inverse).max(-1)
    far = ((corner - o) * inverse).amin(-1)
    t = torch.where(near < far, near, math.inf)
    return t, -torch.sign(d) * torch.nn.functional.one_hot(axis, 3)


def _hit_cylinder(body: Body, o: Rays, d: Rays, progress: Progress) -> Hits:
    radius, half = body.size[0], body.size[1]
    flat = torch.tensor([1.0, 0, 1.0])
    a, b, c = (d * d) @ flat, (o * d) @ flat, (o * o) @ flat - radius**2
    root = b * b - a * c
    side = (-b - root.clamp_min(0).sqrt()) / a
    on_side = (root > 0) & ((o[:, 1] + side * d[:, 1]).abs() <= half)
    cap = (-half.copysign(d[:, 1]) - o[:, 1]) / _safe(d[:, 1])
    on_cap = (o + d * cap[:, None]).square() @ flat <= radius**2
    side, cap = torch.where(on_side, side, math.inf), torch.where(on_cap, cap, math.inf)
    t = torch.minimum(side, cap)
    vertical = -torch.sign(d) * torch.tensor([0, 1.0, 0])
    return t, torch.where((cap < side)[:, None], vertical, (o + d * t[:, None]) * flat / radius)


def _hit_curtain(body: Body, o: Rays, d: Rays, progress: Progress) -> Hits:
    """A sheet z = h sin(kx - φ): Newton's method from where the ray meets the sheet's plane. Seen from both sides."""
    height, wave = body.size[2], CURTAIN_WAVES * math.pi / body.size[0]
    phase = 2 * math.pi * body.waved * progress
    t = -o[:, 2] / _safe(d[:, 2])
    for _ in range(CURTAIN_STEPS):
        angle = wave * (o[:, 0] + t * d[:, 0]) - phase
        gap = o[:, 2] + t * d[:, 2] - height * angle.sin()
        t = t - gap / _safe(d[:, 2] - height * wave * angle.cos() * d[:, 0])
    points = o + d * t[:, None]
    angle = wave * points[:, 0] - phase
    on_sheet = (points[:, :2].abs() <= body.size[:2]).all(-1)
    on_sheet &= (points[:, 2] - height * angle.sin()).abs() < 1e-3
    slope = torch.stack([-height * wave * angle.cos(), torch.zeros_like(t), torch.ones_like(t)], -1)
    normal = torch.nn.functional.normalize(slope, dim=-1)
    normal = normal * -torch.sign((normal * d).sum(-1, keepdim=True))
    return torch.where(on_sheet, t, math.inf), normal


_HIT = {"sphere": _hit_sphere, "box": _hit_box, "cylinder": _hit_cylinder, "curtain": _hit_curtain}
