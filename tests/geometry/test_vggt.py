import sys
import types
from pathlib import Path

import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file
from scipy.spatial.transform import Rotation
from torch import nn
from torch.testing import assert_close

from tests.geometry.stand_ins import CONFIDENCE, ExactVGGT, exact_clip
from videogpa.errors import CannotJudge, InputError
from videogpa.geometry import vggt
from videogpa.geometry.cameras import camera_centers, relative_pose, rotation_angle
from videogpa.geometry.vggt import Backend, licenses, load_network, rotation_matrix


class Heads(nn.Module, PyTorchModelHubMixin):
    """The shape of VGGT's class, small: four parts, loaded as the real one is."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.aggregator, self.camera_head = nn.Linear(width, width), nn.Linear(width, width)
        self.point_head, self.track_head = nn.Linear(width, width), nn.Linear(width, width)


@pytest.fixture
def package(monkeypatch):
    """A package `vggt` with `vggt.models.vggt.VGGT`."""
    for name in ("vggt", "vggt.models", "vggt.models.vggt"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["vggt.models.vggt"].VGGT = Heads


@pytest.fixture
def exact(monkeypatch):
    """A backend whose network answers with the exact geometry of the clip."""

    def backend(clip, **options) -> Backend:
        monkeypatch.setattr(vggt, "load_network", lambda folder: ExactVGGT(clip))
        return Backend(Path("unused"), longer_side=70, **options)

    return backend


def test_exact_native_output_gives_the_exact_geometry(exact):
    clip = exact_clip("orbits left")
    found = exact(clip).predict(clip.rgb)
    assert_close(found.images, clip.rgb)
    assert_close(found.depth, clip.depth)
    assert_close(found.extrinsics_w2c, clip.extrinsics_w2c, atol=1e-5, rtol=0)
    assert_close(found.intrinsics, clip.intrinsics)
    assert_close(found.confidence, torch.full_like(clip.depth, 1 - 1 / CONFIDENCE))


@pytest.mark.parametrize("motion", ["orbits left", "dollies backward", "pans right"])
def test_poses_by_alignment_are_the_true_ones_too(exact, motion):
    clip = exact_clip(motion)
    learned = exact(clip).predict(clip.rgb).extrinsics_w2c
    aligned = exact(clip, poses="alignment").predict(clip.rgb).extrinsics_w2c
    learned = relative_pose(learned[:1].expand_as(learned), learned)
    assert rotation_angle(aligned[:, :, :3] @ learned[:, :, :3].mT).rad2deg().max() < 0.5
    assert (camera_centers(aligned) - camera_centers(learned)).norm(dim=-1).max() < 0.03


def test_a_camera_that_stands_still_is_not_judged(exact):
    clip = exact_clip()
    clip.extrinsics_w2c[:] = clip.extrinsics_w2c[0]
    with pytest.raises(CannotJudge, match="not move"):
        exact(clip).predict(clip.rgb)


def test_quaternions_are_scalar_last_and_of_any_length():
    quaternion = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    true = torch.from_numpy(Rotation.from_quat(quaternion.numpy(), scalar_first=False).as_matrix())
    assert_close(rotation_matrix(quaternion), true.float(), atol=1e-5, rtol=0)


def test_a_folder_is_loaded_whole_and_heads_that_nobody_reads_are_dropped(package, tmp_path, capsys):
    saved = Heads(width=5)
    saved.save_pretrained(tmp_path)
    found = load_network(tmp_path)
    assert_close(found.aggregator.weight, saved.aggregator.weight)
    assert found.point_head is None
    assert found.track_head is None
    assert not found.training
    assert capsys.readouterr().out == ""


def test_weights_that_are_not_all_there_are_refused(package, tmp_path):
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        load_network(tmp_path)
    Heads().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["aggregator.weight"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"does not hold the weights of VGGT.*"):
        load_network(tmp_path)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "vggt", None)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"pip install --no-deps git\+https"):
        load_network(tmp_path)


def test_the_licence_is_the_cards_and_else_that_of_the_research_weights(tmp_path):
    assert licenses(tmp_path) == {"vggt": "CC-BY-NC-4.0"}
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: vggt-commercial\n---\n")
    assert licenses(tmp_path) == {"vggt": "vggt-commercial"}
