import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tests.geometry import tiny_networks
from tests.geometry.stand_ins import exact_clip
from videogpa.errors import InputError
from videogpa.geometry import normals as module
from videogpa.geometry.normals import load_normals, normals_from_depth, to_opencv


def test_normals_of_depth_are_the_true_ones_away_from_edges():
    clip = exact_clip()
    found = normals_from_depth(clip.depth, clip.intrinsics)
    assert_close(found.norm(dim=1), torch.ones_like(clip.depth))
    angle = (found * clip.normals).sum(1).clamp(-1, 1).acos().rad2deg()
    assert angle.median() < 0.5
    assert (angle < 5).float().mean() > 0.85


def test_a_wall_ahead_looks_at_the_camera():
    clip = exact_clip()
    found = normals_from_depth(torch.full((1, 5, 6), 3.0), clip.intrinsics[:1])
    assert_close(found, torch.tensor([0.0, 0, -1])[None, :, None, None].expand(1, 3, 5, 6))


def test_axes_become_opencv():
    up = torch.tensor([[[[0.0]], [[2.0]], [[0.0]]]])
    assert_close(to_opencv(up, "right_up_back").flatten(), torch.tensor([0.0, -1, 0]))
    assert_close(to_opencv(up, "right_down_forward").flatten(), torch.tensor([0.0, 1, 0]))


def test_a_marigold_folder_gives_unit_normals_the_same_for_equal_frames(tmp_path):
    see = load_normals(tiny_networks.marigold(tmp_path / "m", ()), "right_up_back")
    found = see(torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1))
    assert_close(found.norm(dim=1), torch.ones(2, 24, 32))
    assert torch.equal(found[0], found[1])


def test_a_transformers_network_is_read_with_its_axes(tmp_path, monkeypatch):
    class Upwards(nn.Module):
        def forward(self, pixel_values):
            class Output:
                normals = torch.tensor([0.0, 3, 0])[None, :, None, None].expand(1, 3, 4, 4)

            return Output

    monkeypatch.setattr(module, "load", lambda kind, folder: Upwards())
    tiny_networks.save(tmp_path, *tiny_networks.dpt())
    found = load_normals(tmp_path, "right_up_back")(torch.rand(2, 3, 24, 32))
    assert found.shape == (2, 3, 24, 32)
    assert_close(found[:, 1], -torch.ones(2, 24, 32))


def test_folders_of_something_else_are_refused(tmp_path):
    folder = tiny_networks.save(tmp_path, *tiny_networks.dpt())
    with pytest.raises(InputError, match="cannot load"):
        load_normals(folder, "right_up_back")
