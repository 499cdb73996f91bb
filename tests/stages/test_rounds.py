import json

import pytest
from safetensors.torch import load_file

from tests.families import tiny_wan
from tests.stages.test_train import write_lora
from videogpa.artifact import read_manifest
from videogpa.dpo.lora import LORA_FILES
from videogpa.dpo.lora_formats import read_loras
from videogpa.errors import InputError
from videogpa.stages.rounds import (
    StackConfig,
    evaluation_of,
    round_arm,
    round_folder,
    stack,
    trainings_of,
)
from videogpa.stages.train import SUMMARY, Taught, taught


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_wan.build(tmp_path_factory.mktemp("model"))


def test_folders_and_names(tmp_path):
    assert round_folder(tmp_path, 1) == tmp_path
    assert (round_arm("dpo", 1), round_arm("dpo", 3)) == ("dpo", "dpo_round_3")
    assert trainings_of(tmp_path) == {}
    assert evaluation_of(tmp_path) == tmp_path / "evaluation"
    for number in (10, 2, 1):
        training = round_folder(tmp_path, number) / "lora" / "dpo"
        training.mkdir(parents=True)
        for name in ("config.json", "log.csv"):
            (training / name).touch()
    (tmp_path / "rounds/2/lora/dpo/log.csv").unlink()
    assert list(trainings_of(tmp_path)) == ["dpo", "dpo_round_10"]
    for number in (2, 10):
        (round_folder(tmp_path, number) / "evaluation").mkdir()
    (tmp_path / "rounds/2/evaluation/manifest.json").touch()
    assert evaluation_of(tmp_path) == tmp_path / "rounds/2/evaluation"


def test_a_stack_is_an_artifact_of_one_lora_for_each_expert(model, tmp_path):
    first = write_lora(tmp_path / "first", model, 5)
    second = write_lora(tmp_path / "second", model, 7, LORA_FILES)
    for folder, licensed in ((first, "a"), (second, "b")):
        told = {"preferred_by": "epipolar", "pairs": 3, "licenses": {licensed: "MIT"}}
        (folder / SUMMARY).write_text(json.dumps(told))
    out = stack(StackConfig(rounds=2), first, second, tmp_path / "out")
    assert set(read_manifest(out).files) == {SUMMARY, *LORA_FILES}
    assert taught(out) == Taught(preferred_by="epipolar", licenses={"a": "MIT", "b": "MIT"})
    # The first has nothing for the second expert.
    (one, other), parts = read_loras(out), [*read_loras(first), *read_loras(second)]
    module = one.modules[0]
    assert (len(one.weights[f"{module}.lora_A.weight"]), other.config["r"]) == (6, 3)
    expected = parts[0].change(module) + parts[1].change(module)
    assert (one.change(module) - expected).abs().max() < 1e-6
    before = (out / LORA_FILES[0]).stat().st_mtime_ns
    assert stack(StackConfig(rounds=2), first, second, out) == out
    assert (out / LORA_FILES[0]).stat().st_mtime_ns == before
    with pytest.raises(InputError, match=r"inputs\.new has changed"):
        stack(StackConfig(rounds=2), first, first, out)
    again = stack(StackConfig(rounds=2), first, second, tmp_path / "again")
    assert load_file(again / LORA_FILES[1]).keys() == load_file(out / LORA_FILES[1]).keys()
    assert all((again / name).read_bytes() == (out / name).read_bytes() for name in LORA_FILES)
