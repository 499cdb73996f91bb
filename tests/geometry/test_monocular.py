from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.geometry import tiny_networks
from tests.geometry.stand_ins import ExactMonocular, exact_clip
from videogpa.errors import CannotJudge
from videogpa.geometry import monocular
from videogpa.geometry.cameras import camera_centers, relative_pose, rotation_angle
from videogpa.geometry.monocular import Backend, licenses
from videogpa.metrics import cross_view, depth_agreement
from videogpa.metrics.base import Clip
from videogpa.world.render import FIELD_OF_VIEW_DEGREES


@pytest.fixture
def exact(monkeypatch):
    """A backend whose network sees the exact depth of the clip, each frame on a scale of its own."""

    def backend(clip, kind) -> Backend:
        monkeypatch.setattr(monocular, "DepthNetwork", lambda folder, *_: ExactMonocular(clip, kind))
        return Backend(Path("unused"), field_of_view_degrees=FIELD_OF_VIEW_DEGREES)

    return backend


@pytest.mark.parametrize(
    ("kind", "motion"),
    [
        ("relative", "orbits left"),
        ("relative", "trucks right"),
        ("metric", "trucks right"),
        ("canonical", "dollies backward"),
    ],
)
def test_exact_native_output_gives_the_exact_geometry(exact, kind, motion):
    clip = exact_clip(motion)
    found = exact(clip, kind).predict(clip.rgb)
    scale = (found.depth / clip.depth).median()
    assert found.scale == ("relative" if kind == "relative" else "metric")
    if kind != "relative":
        assert scale == pytest.approx(1, rel=0.02)
    assert (found.depth / clip.depth / scale - 1).abs().median() < (0.03 if kind == "relative" else 0.01)
    assert_close(found.intrinsics, clip.intrinsics)
    assert_close(found.images, clip.rgb)
    true = relative_pose(clip.extrinsics_w2c[:1].expand_as(found.extrinsics_w2c), clip.extrinsics_w2c)
    assert rotation_angle(found.extrinsics_w2c[:, :, :3] @ true[:, :, :3].mT).rad2deg().max() < 1
    gap = (camera_centers(found.extrinsics_w2c) / scale - camera_centers(true)).norm(dim=-1)
    assert gap.max() < 0.06
    angle = (found.normals * clip.normals).sum(1).clamp(-1, 1).acos().rad2deg()
    assert angle.median() < 5
    judged = Clip(frames=clip.rgb, geometry=found)
    assert cross_view.measure(judged) > 0.75
    assert depth_agreement.measure(judged) > 0.7


def test_depth_that_does_not_follow_the_scene_is_not_judged(exact):
    clip = exact_clip("orbits left")
    backend = exact(clip, "relative")
    clip.depth[3] = clip.depth[3].flip(0)
    with pytest.raises(CannotJudge, match="depth of frame 3"):
        backend.predict(clip.rgb)


def test_answers_that_no_camera_could_give_are_not_judged(exact):
    clip = exact_clip()
    backend = exact(clip, "canonical")
    clip.intrinsics[:, 0, 0] = 1e9
    with pytest.raises(CannotJudge, match="field of view"):
        backend.predict(clip.rgb)
    backend = exact(clip, "metric")
    clip.depth[2] = 0
    with pytest.raises(CannotJudge, match="range of metres"):
        backend.predict(clip.rgb)


def test_a_folder_of_a_real_network_goes_all_the_way(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        folder = tiny_networks.save(tmp_path / "d", *tiny_networks.depth_anything("metric"))
    normals = tiny_networks.marigold(tmp_path / "n", ())
    clip = exact_clip("pans left")
    found = Backend(folder, normals=normals).predict(clip.rgb)
    assert found.scale == "metric"
    assert_close(found.depth, torch.full_like(clip.depth, 5), atol=0.5, rtol=0)
    assert_close(found.normals.norm(dim=1), torch.ones_like(clip.depth))
    true = relative_pose(clip.extrinsics_w2c[:1].expand_as(found.extrinsics_w2c), clip.extrinsics_w2c)
    assert rotation_angle(found.extrinsics_w2c[:, :, :3] @ true[:, :, :3].mT).rad2deg().max() < 1.5


def test_the_licences_are_those_of_the_model_cards(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: apple-amlr\n---\n")
    assert set(licenses(tmp_path).values()) == {"apple-amlr"}
    assert sorted(licenses(tmp_path, tmp_path / "n").values()) == ["apple-amlr", "unknown"]
