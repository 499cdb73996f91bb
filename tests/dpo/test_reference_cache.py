import pytest
import torch

from videogpa.dpo.reference_cache import ReferenceCache
from videogpa.errors import InputError


def test_errors_come_back_exactly_from_the_file(tmp_path):
    cache = ReferenceCache(tmp_path / "reference.jsonl")
    assert cache.find(["a", "b"]) is None
    sides = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    cache.add(["a", "b", "c"], (sides[0], sides[1]), write=True)
    again = ReferenceCache(tmp_path / "reference.jsonl")
    chosen, rejected = again.find(["c", "a"])
    assert torch.equal(chosen, sides[0][[2, 0]])
    assert torch.equal(rejected, sides[1][[2, 0]])
    assert again.find(["a", "d"]) is None


def test_the_first_value_stays_and_a_torn_line_is_dropped(tmp_path):
    path = tmp_path / "reference.jsonl"
    cache = ReferenceCache(path)
    cache.add(["a"], (torch.ones(1), torch.zeros(1)), write=True)
    cache.add(["a", "b"], (torch.full((2,), 5.0), torch.full((2,), 6.0)), write=False)
    assert cache.find(["a", "b"])[0].tolist() == [1.0, 5.0]
    with path.open("a") as file:
        file.write('{"key": "c", "chos')
    again = ReferenceCache(path)
    assert again.known == {"a": (1.0, 0.0)}
    again.add(["c"], (torch.ones(1), torch.ones(1)), write=True)
    assert ReferenceCache(path).known.keys() == {"a", "c"}


def test_a_line_that_was_changed_is_computed_again(tmp_path):
    path = tmp_path / "reference.jsonl"
    sides = torch.tensor([0.25, 0.5]), torch.tensor([0.75, torch.nan])
    ReferenceCache(path).add(["a", "b"], sides, write=True)
    assert ReferenceCache(path).known == {"a": (0.25, 0.75)}
    path.write_text(path.read_text().replace("0.25", "0.35"))
    assert ReferenceCache(path).known == {}


@pytest.mark.parametrize("content", ["key,chosen,rejected", "{}\n"])
def test_another_file_is_left_alone(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(InputError, match="no file of a base's errors"):
        ReferenceCache(path)
    assert path.read_text() == content
