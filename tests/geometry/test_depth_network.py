import pytest
import torch
from torch.testing import assert_close

from tests.geometry import tiny_networks
from videogpa.errors import InputError
from videogpa.geometry.depth_network import DepthNetwork, focal_over_side, kind_of, metric_depth
from videogpa.geometry.network_folder import input_format, prepared

NETWORKS = {
    "depth_anything": (tiny_networks.depth_anything, "relative"),
    "depth_anything_metric": (lambda: tiny_networks.depth_anything("metric"), "metric"),
    "dpt": (tiny_networks.dpt, "relative"),
    "zoedepth": (tiny_networks.zoedepth, "metric"),
    "depth_pro": (tiny_networks.depth_pro, "canonical"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_real_networks_load_and_answer_at_the_size_of_the_frames(name, tmp_path):
    build, kind = NETWORKS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        saved, preprocessor = build()
    folder = tiny_networks.save(tmp_path, saved, preprocessor)
    network = DepthNetwork(folder)
    frames = torch.rand(2, 3, 40, 60, generator=torch.Generator().manual_seed(1))
    found = network(frames)
    assert network.kind == kind
    assert found.answer.shape == (2, 40, 60)
    assert found.answer.isfinite().all()
    assert (found.field_of_view is not None) == (name == "depth_pro")
    assert torch.equal(found.answer, network(frames).answer)
    with torch.inference_mode():
        raw = saved.eval()(pixel_values=prepared(frames, input_format(folder))[1:]).predicted_depth
    assert_close(found.answer[1].mean(), raw.mean(), rtol=0.05, atol=1e-6)


def test_what_a_configuration_does_not_tell_must_be_said(tmp_path):
    class Config:
        model_type = "dpt"
        backbone_config = tiny_networks.DINO

    with pytest.raises(InputError, match="kind=metric or kind=relative"):
        kind_of(Config, tmp_path)
    Config.model_type = "chmv2"
    with pytest.raises(InputError, match="chmv2"):
        kind_of(Config, tmp_path)
    folder = tiny_networks.save(tmp_path, *tiny_networks.dpt())
    assert DepthNetwork(folder, "metric").kind == "metric"


def test_metric_depth_of_both_kinds():
    depth = torch.tensor([[[0.5, 2.0, 0.0, 1e6]]])
    assert_close(metric_depth(depth, "metric", 0.7), torch.tensor([[[0.5, 2.0, 0, 0]]]))
    assert_close(metric_depth(0.7 / depth, "canonical", 0.7), torch.tensor([[[0.5, 2.0, 0, 0]]]))


def test_a_right_angle_sees_twice_its_focal_length():
    assert focal_over_side(90.0) == pytest.approx(0.5)
