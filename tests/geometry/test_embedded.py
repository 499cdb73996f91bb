import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from videogpa.errors import CannotJudge, InputError
from videogpa.fidelity.battery import Case, clean_clip, frames_of
from videogpa.geometry.cameras import relative_pose, resize_intrinsics, rotation_angle
from videogpa.geometry.embedded import SHORT_SIDE, Backend, at_working_size, load_network
from videogpa.metrics import cross_view
from videogpa.metrics.base import Clip
from videogpa.world.paths import CameraMove
from videogpa.world.render import FIELD_OF_VIEW_DEGREES, render, world_intrinsics
from videogpa.world.scene import sample_scene

FRAMES = 5
MOVES = {6_000_010: "orbits right", 6_000_011: "dollies forward", 6_000_012: "pans left"}


@pytest.fixture(scope="module")
def backend():
    return Backend()


@pytest.fixture(scope="module")
def clips():
    return [render(sample_scene(s, move=CameraMove(m, "steadily")), FRAMES, 48, 48) for s, m in MOVES.items()]


def consistency(backend: Backend, frames: torch.Tensor) -> float:
    return cross_view.measure(Clip(frames=frames, geometry=backend.predict(frames)))


def test_a_quick_orbit_is_not_mistaken_for_a_slower_one(backend):
    """From starts that turn by less, the search ends in a camera that turns 4° too little."""
    clip = clean_clip("development", 16, 9, 48, 48)
    found = backend.predict(frames_of(Case(16, "clean", "still_curtain", 0), clip)).extrinsics_w2c
    true = relative_pose(clip.extrinsics_w2c[:1].expand(9, 3, 4), clip.extrinsics_w2c)
    assert rotation_angle(found[:, :, :3] @ true[:, :, :3].mT).rad2deg().max() < 2


def test_depth_normals_and_poses_of_scenes_never_seen(backend, clips):
    depth_errors, normal_errors = [], []
    for clip in clips:
        found = backend.predict(clip.rgb)
        ratio = found.depth / clip.depth
        depth_errors.append((ratio / ratio.median() - 1).abs().mean())
        normal_errors.append((found.normals * clip.normals).sum(1).clamp(-1, 1).acos().rad2deg().median())
        true = relative_pose(clip.extrinsics_w2c[:1].expand(FRAMES, 3, 4), clip.extrinsics_w2c)
        turn = rotation_angle(found.extrinsics_w2c[:, :, :3] @ true[:, :, :3].mT)
        assert turn.rad2deg().max() < 1.5
    assert torch.stack(depth_errors).mean() < 0.1
    assert torch.stack(normal_errors).mean() < 15


def test_confidence_knows_where_depth_is_wrong(backend, clips):
    found = [backend.predict(clip.rgb) for clip in clips]
    error = torch.cat([(f.depth / c.depth).log().abs().flatten() for f, c in zip(found, clips, strict=True)])
    confidence = torch.cat([f.confidence.flatten() for f in found])
    assert ((confidence > 0) & (confidence <= 1)).all()
    sure = confidence > confidence.median()
    assert error[sure].mean() < 0.7 * error[~sure].mean()


def test_frames_that_wobble_score_worse(backend, clips):
    generator = torch.Generator().manual_seed(0)
    for clip in clips:
        coarse = torch.randn(FRAMES, 2, 4, 4, generator=generator)
        shift = F.interpolate(coarse, (48, 48), mode="bicubic").permute(0, 2, 3, 1) * 2 / 48
        grid = F.affine_grid(torch.eye(2, 3).expand(FRAMES, 2, 3), (FRAMES, 3, 48, 48), align_corners=False)
        bent = F.grid_sample(clip.rgb, grid + shift, align_corners=False, padding_mode="border")
        assert consistency(backend, bent) < consistency(backend, clip.rgb) - 0.02


def test_other_sizes_are_brought_to_the_working_size(backend):
    clip = render(sample_scene(6_000_013, move=CameraMove("trucks left", "steadily")), 3, 96, 144)
    found = backend.predict(clip.rgb)
    assert found.images.shape == (3, 3, SHORT_SIDE, 72)
    expected = resize_intrinsics(world_intrinsics(96, 144, 3), (96, 144), (SHORT_SIDE, 72))
    torch.testing.assert_close(found.intrinsics, expected)


def test_the_working_size_keeps_the_rays_of_the_image_corners():
    images, k = at_working_size(torch.rand(1, 3, 100, 70), FIELD_OF_VIEW_DEGREES)
    before, after = world_intrinsics(100, 70, 1)[0], k[0]
    for axis, (old, new) in enumerate(((70, images.shape[3]), (100, images.shape[2]))):
        edge = (old - 0.5 - before[axis, 2]) / before[axis, axis]
        torch.testing.assert_close((new - 0.5 - after[axis, 2]) / after[axis, axis], edge)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (torch.rand(1, 3, 48, 48), "at least two"),
        (torch.full((4, 3, 48, 48), 0.5), "no texture"),
        (
            torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(1)).expand(4, 3, 48, 48),
            "not move",
        ),
        (torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(1)), "no camera pose|shares only"),
    ],
    ids=["one frame", "flat", "frozen", "noise"],
)
def test_clips_without_geometry_are_not_judged(backend, frames, reason):
    with pytest.raises(CannotJudge, match=reason):
        backend.predict(frames)


def test_cuts_between_scenes_are_not_judged(backend, clips):
    with pytest.raises(CannotJudge):
        backend.predict(torch.stack([clip.rgb[0] for clip in clips]))


def test_a_file_that_is_missing_or_holds_something_else_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.safetensors"):
        load_network(tmp_path / "nowhere.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"other\.safetensors"):
        load_network(tmp_path / "other.safetensors")
