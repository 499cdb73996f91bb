import json
from functools import partial

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from videogpa.geometry.embedded_network import GeometryNetwork
from videogpa.world import frames, train_geometry
from videogpa.world.frames import CHANNELS, read_frames, render_frames
from videogpa.world.render import render, world_intrinsics
from videogpa.world.scene import sample_scene
from videogpa.world.train_geometry import degrade, depth_normals, export, mirror, train, validate


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "CHUNK", 2)
    render_frames(tmp_path / "frames", scenes=4, size=16, first_seed=5_000_000)
    return read_frames(tmp_path / "frames", scenes=4, first_seed=5_000_000)


def test_frames_come_back_as_they_were_rendered(data):
    clip = render(sample_scene(5_000_001), 2, 16, 16)
    assert_close(data[2:4, CHANNELS["rgb"]].float(), clip.rgb, atol=1e-3, rtol=0)
    assert_close(data[2:4, CHANNELS["depth"]][:, 0].float(), clip.depth, atol=0, rtol=1e-3)


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(data, tmp_path, monkeypatch):
    monkeypatch.setattr(train_geometry, "CHECKPOINT_EVERY", 2)
    small = partial(GeometryNetwork, widths=(4, 8, 8), full=2, depth=1)
    monkeypatch.setattr(train_geometry, "GeometryNetwork", small)
    whole = train(tmp_path / "a", data, data, steps=4, batch=2, seed=0, lr=1e-3)

    class Killed(Exception):
        pass

    def die(answer, truth, intrinsics, calls=[0]):  # noqa: B006
        calls[0] += 1
        if calls[0] == 4:
            raise Killed
        return loss(answer, truth, intrinsics)

    loss = train_geometry.geometry_loss
    monkeypatch.setattr(train_geometry, "geometry_loss", die)
    with pytest.raises(Killed):
        train(tmp_path / "b", data, data, steps=4, batch=2, seed=0, lr=1e-3)
    monkeypatch.setattr(train_geometry, "geometry_loss", loss)
    resumed = train(tmp_path / "b", data, data, steps=4, batch=2, seed=0, lr=1e-3)
    assert_close(resumed.state_dict(), whole.state_dict())


def test_a_surface_seen_in_a_mirror_keeps_its_normals_consistent_with_its_depth():
    clip = render(sample_scene(5_000_000), 1, 48, 48)
    packed = torch.cat([clip.rgb, clip.albedo, clip.normals, clip.depth[:, None]], 1)
    for view in (packed, mirror(packed, torch.tensor([True]))):
        implied = depth_normals(view[:, CHANNELS["depth"]][:, 0], clip.intrinsics)
        cosine = (implied * view[:, CHANNELS["normals"], 1:-1, 1:-1]).sum(1)
        assert cosine.median() > 0.999


def test_normals_of_a_wall_straight_ahead_point_back():
    normals = depth_normals(torch.full((1, 8, 8), 3.0), world_intrinsics(8, 8, 1))
    assert_close(normals, torch.tensor([0.0, 0, -1]).view(1, 3, 1, 1).expand_as(normals))


def test_degraded_frames_stay_in_range_and_some_stay_clean():
    images = torch.rand(24, 3, 16, 16)
    degraded = degrade(images, np.random.default_rng(0))
    assert degraded.min() >= 0
    assert degraded.max() <= 1
    clean = (degraded - images).abs().amax((1, 2, 3)) < 1e-6
    assert 0 < clean.sum() < 24


def test_weights_and_figures_are_exported_together(data, tmp_path):
    model = GeometryNetwork().eval()
    export(model, tmp_path / "weights", {"seed": 0} | validate(model, data))
    assert (tmp_path / "weights" / "network.safetensors").stat().st_size < 6e6
    assert {"seed", "abs_rel"} <= json.loads((tmp_path / "weights" / "training.json").read_text()).keys()
