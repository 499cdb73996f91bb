"""The world's surfaces and cameras once more, as formulas in numpy: nothing here calls the renderer."""

import numpy as np

from videogpa.world.render import Render
from videogpa.world.scene import Scene


def world_points(clip: Render, frame: int) -> np.ndarray:
    """World point [n 3] of every pixel of a frame, from its depth and the pinhole equation."""
    height, width = clip.depth.shape[1:]
    v, u = np.mgrid[:height, :width]
    k, depth = clip.intrinsics[frame].double().numpy(), clip.depth[frame].double().numpy()
    camera = np.stack([(u - k[0, 2]) / k[0, 0] * depth, (v - k[1, 2]) / k[1, 1] * depth, depth], -1)
    w2c = clip.extrinsics_w2c[frame].double().numpy()
    return (camera.reshape(-1, 3) - w2c[:, 3]) @ w2c[:, :3]


def project(clip: Render, frame: int, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [n 2] and z-depths [n] of world points."""
    k, w2c = clip.intrinsics[frame].double().numpy(), clip.extrinsics_w2c[frame].double().numpy()
    x, y, z = (points @ w2c[:, :3].T + w2c[:, 3]).T
    return np.stack([k[0, 0] * x / z + k[0, 2], k[1, 1] * y / z + k[1, 2]], -1), z


def distances(scene: Scene, surface: int, points: np.ndarray, progress: float) -> np.ndarray:
    """Distances [n d] beyond each bounding surface of an object, outward positive; the solid is where all
    are negative. Surface 0 is the room, i + 1 is body i at `progress` in [0, 1] of its slide.
    """
    if surface == 0:
        local = _turned(points - scene.room_center.numpy(), scene.room_yaw)
        return _box(local, scene.room_size.numpy())
    body = scene.bodies[surface - 1]
    local = _turned(points - body.center.numpy() - progress * body.slide.numpy(), body.yaw)
    size = body.size.numpy()
    match body.kind:
        case "sphere":
            return np.linalg.norm(local, axis=1, keepdims=True) - size[0]
        case "box":
            return _box(local, size)
        case "cylinder":
            x, y, z = local.T
            return np.stack([np.hypot(x, z) - size[0], y - size[1], -y - size[1]], -1)


def outward_normals(scene: Scene, surface: int, points: np.ndarray, progress: float) -> np.ndarray:
    """Gradient [n 3] of the distance to the nearest bounding surface, by central differences."""
    step = 1e-4
    nearest = distances(scene, surface, points, progress).argmax(1)[:, None]

    def distance(offset: np.ndarray) -> np.ndarray:
        return np.take_along_axis(distances(scene, surface, points + offset, progress), nearest, 1)[:, 0]

    return np.stack([(distance(step * e) - distance(-step * e)) / (2 * step) for e in np.eye(3)], -1)


def _turned(points: np.ndarray, yaw: float) -> np.ndarray:
    """Components along x and z axes that are turned about the vertical, z towards x."""
    right, ahead = np.array([np.cos(yaw), 0, -np.sin(yaw)]), np.array([np.sin(yaw), 0, np.cos(yaw)])
    return np.stack([points @ right, points[:, 1], points @ ahead], -1)


def _box(local: np.ndarray, half: np.ndarray) -> np.ndarray:
    return np.concatenate([local - half, -local - half], -1)
