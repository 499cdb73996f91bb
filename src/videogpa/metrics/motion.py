"""How much the camera moves, whatever the scene's scale, origin and orientation."""

from videogpa.errors import CannotJudge
from videogpa.geometry.cameras import camera_centers, relative_pose, rotation_angle
from videogpa.metrics.base import Clip, Need, geometry_of

HIGHER_IS_BETTER = True
"""More motion reads as better only so that a table can point somewhere. It is a guard, never a reward: what
matters is that it stays where the base model had it."""
UNIT = "radians of apparent motion"
SOURCE = "path of the camera centres over median depth, plus the rotation angle; both summed over the clip"
NEEDS: frozenset[Need] = frozenset({"geometry"})


def measure(clip: Clip) -> float:
    """Σ |c_{t+1} - c_t| / median depth + Σ angle(R_{t+1} R_tᵀ), in radians.

    A sideways step of a hundredth of the depth and a turn of a hundredth of a radian move the image alike.

    Raises:
        CannotJudge: no geometry, fewer than two frames, no known depth.
    """
    prediction = geometry_of(clip)
    poses, depth = prediction.extrinsics_w2c.double(), prediction.depth
    known = depth[(depth > 0) & depth.isfinite()]
    if len(poses) < 2 or not len(known):
        raise CannotJudge("camera motion needs two frames and some known depth")
    path = camera_centers(poses).diff(dim=0).norm(dim=-1).sum() / known.median()
    turned = rotation_angle(relative_pose(poses[:-1], poses[1:])[..., :3]).sum()
    return (path + turned).item()
