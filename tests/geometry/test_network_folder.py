import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import AutoModelForDepthEstimation, AutoModelForNormalEstimation

from tests.geometry import tiny_networks
from videogpa.errors import InputError
from videogpa.geometry.network_folder import InputFormat, at_size, input_format, load, prepared


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_networks.save(tmp_path_factory.mktemp("folder") / "dpt", *tiny_networks.dpt())


def test_folders_that_are_missing_or_hold_something_else_are_named(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        load(AutoModelForDepthEstimation, tmp_path / "nowhere")
    with pytest.raises(InputError, match="dpt"):
        load(AutoModelForNormalEstimation, folder)


def test_weights_that_are_not_all_there_are_refused(folder, tmp_path):
    weights = load_file(folder / "model.safetensors")
    del weights["head.head.0.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"lacks 1 tensors.*head\.head\.0\.weight"):
        load(AutoModelForDepthEstimation, tmp_path)


@pytest.mark.parametrize("content", ["[]", "3", '{"model_type": []}', "no JSON"])
def test_a_configuration_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="cannot load a network"):
        load(AutoModelForDepthEstimation, tmp_path)


def test_pickled_weights_are_never_read(folder, tmp_path):
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="cannot load"):
        load(AutoModelForDepthEstimation, tmp_path)


def test_the_input_format_is_the_folders_own(folder, tmp_path):
    found = input_format(folder)
    assert found == InputFormat(size=(32, 32), multiple=1, keep_aspect=False, mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(InputError, match=r"preprocessor_config\.json"):
        input_format(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 384, "do_normalize": True}))
    with pytest.raises(InputError, match="image_mean"):
        input_format(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size_divisor": 32}))
    assert input_format(tmp_path).size is None
    assert input_format(tmp_path).multiple == 32


@pytest.mark.parametrize(
    ("frame", "goal", "keep", "expected"),
    [
        ((480, 640), (518, 518), True, (518, 686)),
        ((640, 480), (518, 518), True, (686, 518)),
        ((480, 640), (384, 384), False, (378, 378)),
        ((480, 640), None, False, (476, 644)),
    ],
)
def test_sides_follow_the_format(frame, goal, keep, expected):
    form = InputFormat(size=goal, multiple=14, keep_aspect=keep, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert tuple(prepared(torch.rand(1, 3, *frame), form).shape[-2:]) == expected


def test_colours_are_normalised():
    form = InputFormat(size=None, multiple=1, keep_aspect=False, mean=(0.2, 0.4, 0.6), std=(0.1, 0.2, 0.5))
    frames = torch.rand(2, 3, 5, 7)
    found = prepared(frames, form)
    assert_close(found[:, 1], (frames[:, 1] - 0.4) / 0.2)


def test_answers_are_resized_edge_on_edge():
    ramp = torch.arange(8.0).expand(1, 1, 4, 8)
    assert at_size(ramp, (4, 8)) is ramp
    assert_close(at_size(ramp, (4, 16))[0, 0, 0, 1:-1], torch.arange(0.25, 7, 0.5))
