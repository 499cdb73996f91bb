import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.export.clips import small
from videogpa.errors import InputError
from videogpa.geometry.base import load_prediction, save_prediction


def test_a_prediction_comes_back(tmp_path):
    save_prediction(tmp_path / "row.safetensors", small())
    found = load_prediction(tmp_path / "row.safetensors")
    torch.testing.assert_close(found.depth, small().depth)
    assert found.scale == small().scale


@pytest.mark.parametrize(
    ("changes", "scale", "message"),
    [
        ({}, "light years", "its scale is light years"),
        ({"depth": None}, "metric", "it has no depth"),
        ({"depth": torch.zeros(1, 2, 3)}, "metric", "depth has the shape"),
        ({"confidence": torch.zeros(0)}, "metric", "confidence has the shape"),
        ({"intrinsics": torch.nan}, "metric", "intrinsics has values that are not finite"),
        ({"images": torch.inf}, "metric", "images has values that are not finite"),
        ({"images": 3e38}, "metric", "images has values in"),
        ({"extrinsics_w2c": torch.long}, "metric", "extrinsics_w2c is of torch.int64"),
        ({"speed": torch.zeros(1)}, "metric", "nothing there is called 'speed'"),
    ],
)
def test_what_is_no_prediction_is_refused(tmp_path, changes, scale, message):
    path = tmp_path / "row.safetensors"
    save_prediction(path, small())
    tensors = load_file(path)
    for name, value in changes.items():
        if value is None:
            del tensors[name]
        elif isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            was = tensors[name]
            tensors[name] = was.to(value) if isinstance(value, torch.dtype) else torch.full_like(was, value)
    save_file(tensors, path, {"scale": scale})
    with pytest.raises(InputError, match=f"holds no geometry prediction: {message}"):
        load_prediction(path)
