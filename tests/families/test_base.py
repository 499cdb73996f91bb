import pytest
import torch

from videogpa.errors import InputError
from videogpa.families.base import load_tensors, require_device, save_tensors


def test_tensors_survive_the_round_trip_bit_for_bit(tmp_path):
    tensors = {"a": torch.randn(2, 3).to(torch.bfloat16), "view": torch.arange(6.0).view(2, 3).T}
    save_tensors(tmp_path / "deep" / "x.safetensors", tensors)
    loaded = load_tensors(tmp_path / "deep" / "x.safetensors")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.safetensors"]


def test_missing_and_torn_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="absent"):
        load_tensors(tmp_path / "absent.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"12345")
    with pytest.raises(InputError, match="torn"):
        load_tensors(tmp_path / "torn.safetensors")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_tensors_that_are_not_finite_are_refused(tmp_path, value):
    save_tensors(tmp_path / "x.safetensors", {"a": torch.tensor([1.0, value])})
    with pytest.raises(InputError, match="'a' has values that are not finite"):
        load_tensors(tmp_path / "x.safetensors")


def test_a_device_is_one_that_is_there():
    assert require_device("cpu") == "cpu"
    for name in ("nothing", "cuda:99", ""):
        with pytest.raises(InputError, match=f"there is no device '{name}' here"):
            require_device(name)
