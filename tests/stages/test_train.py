import csv
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from pydantic import BaseModel
from safetensors.torch import load_file

from tests.families import tiny_wan
from videogpa.artifact import Artifact, open_artifact, read_manifest
from videogpa.dpo import diffusion, training
from videogpa.dpo import pairs as pair_module
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.lora import LORA_FILES, add_lora, lora_parameters, save_lora
from videogpa.dpo.pairs import Reading, batch_indices, load_pairs, split
from videogpa.dpo.reference_cache import ReferenceCache
from videogpa.errors import InputError, StageStopped
from videogpa.families.base import save_tensors
from videogpa.stages import train as stage
from videogpa.stages.train import StoppedItself, run
from videogpa.types import Candidate, PreferencePair, Row

CFG = TrainConfig(
    rank=2,
    alpha=4.0,
    steps=6,
    batch_pairs=2,
    beta=20.0,
    learning_rate=1e-2,
    warmup_steps=2,
    schedule="cosine",
    evaluate_every=3,
    evaluation_draws=2,
    checkpoint_every=2,
    ema_decay=0.5,
    stop_at_chosen_rise=None,
)
GOLDEN = {
    "dpo": [0.69315, 0.69315, 0.67288, 0.70809, 0.637, 0.56994],
    "anchored": [0.69315, 0.69315, 0.70238, 0.70422, 0.64818, 0.66565],
    "smoothed": [0.69315, 0.69315, 0.67698, 0.70513, 0.64937, 0.5965],
    "ipo": [0.25, 0.25, 0.2102, 0.28098, 0.17123, 0.05852],
    "hinge": [1.0, 1.0, 0.95815, 1.0296, 0.87635, 0.72648],
    "safeguarded": [0.69315, 0.69315, 0.67286, 0.70782, 0.63611, 0.57257],
    "margin_weighted": [0.69315, 0.64364, 0.86232, 0.40262, 0.52195, 0.62815],
    "dense_own": [0.69315, 0.69315, 0.67777, 0.69696, 0.64507, 0.55533],
    "dense_contrast": [0.69315, 0.69315, 0.68302, 0.6212, 0.67646, 0.50503],
    "sft": [2.50768, 3.01967, 2.79737, 2.49776, 2.53424, 2.25619],
}
PROMPTS = 8
WEIGHTS = Path("lora/pytorch_lora_weights.safetensors")


class Nothing(BaseModel):
    pass


def write_candidates(folder, prompts=PROMPTS, channels=4, first_frame=True):
    """Two candidates per prompt: the chosen has little noise around a pattern, the rejected much."""
    rng = torch.Generator().manual_seed(11)
    pattern = torch.randn(channels, 3, 4, 4, generator=rng)
    with open_artifact(folder, stage="sample", config=Nothing(), inputs={}, row_type=Candidate) as artifact:
        for prompt in range(prompts):
            frame = torch.randn(channels, 1, 4, 4, generator=rng)
            embeds = torch.randn(12, 16, generator=rng)
            given = {"first_frame": frame} if first_frame else {}
            save_tensors(folder / f"conditioning/{prompt}.safetensors", {"prompt_embeds": embeds} | given)
            for seed, noise in enumerate((0.2, 1.0)):
                latents = pattern + noise * torch.randn(pattern.shape, generator=rng)
                if first_frame:
                    latents[:, :1] = frame
                save_tensors(folder / f"latents/{prompt}_{seed}.safetensors", {"latents": latents})
                artifact.append(
                    Candidate(
                        id=f"{prompt}_{seed}",
                        prompt_id=str(prompt),
                        seed=seed,
                        latents=f"latents/{prompt}_{seed}.safetensors",
                        conditioning=f"conditioning/{prompt}.safetensors",
                    )
                )
        artifact.finish(list(artifact.done))
    return folder


class Preferred(BaseModel):
    metric: str = "consistency"


def write_pairs(folder, rows):
    with open_artifact(
        folder, stage="pair", config=Preferred(), inputs={}, row_type=PreferencePair
    ) as artifact:
        (folder / "licenses.json").write_text('{"vggt": "CC-BY-NC-4.0"}')
        artifact.append(*rows)
        artifact.finish([row.id for row in rows])
    return folder


def write_maps(folder):
    """Random maps of inconsistency of all candidates."""
    rng = torch.Generator().manual_seed(12)
    with open_artifact(folder, stage="error_maps", config=Nothing(), inputs={}, row_type=Row) as artifact:
        for prompt in range(PROMPTS):
            for seed in (0, 1):
                tensors = {"error": torch.rand(9, 8, 8, generator=rng), "judged": torch.ones(9, 8, 8).bool()}
                save_tensors(folder / f"{prompt}_{seed}.safetensors", tensors)
                artifact.append(Row(id=f"{prompt}_{seed}"))
        artifact.finish(list(artifact.done))
    return folder


def pair(prompt, chosen=0, rejected=1):
    return PreferencePair(
        id=f"{prompt}",
        prompt_id=f"{prompt}",
        chosen=f"{prompt}_{chosen}",
        rejected=f"{prompt}_{rejected}",
        chosen_value=1.0,
        rejected_value=0.0,
        margin=0.5 + prompt / 8,
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    return {
        "pairs": write_pairs(root / "pairs", [pair(i) for i in range(PROMPTS)]),
        "candidates": write_candidates(root / "candidates"),
        "model": tiny_wan.build(root / "model"),
    }


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    return run(CFG, **inputs, out=tmp_path_factory.mktemp("train") / "out")


def log_of(out):
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_output_is_complete_and_loads_in_the_plain_pipeline(undisturbed, inputs):
    manifest = read_manifest(undisturbed)
    assert str(WEIGHTS) in manifest.files
    assert json.loads((undisturbed / "training.json").read_text())["licenses"] == {"vggt": "CC-BY-NC-4.0"}
    assert not (undisturbed / "checkpoint.safetensors").exists()
    assert any((undisturbed / "tensorboard").iterdir())
    assert [row["step"] for row in log_of(undisturbed)] == ["1", "2", "3", "4", "5", "6"]
    assert [row["step"] for row in log_of(undisturbed) if row["held_out_accuracy"]] == ["3", "6"]
    summary = json.loads((undisturbed / "training.json").read_text())
    assert summary["preferred_by"] == "consistency"
    assert summary["exported_step"] == summary["last_step"] == 6
    assert summary["pairs"] + summary["held_out_pairs"] == PROMPTS
    plain = DiffusionPipeline.from_pretrained(inputs["model"])
    plain.load_lora_weights(undisturbed / "lora")
    assert plain.get_active_adapters()
    assert any(
        tensor.abs().max() > 0 for key, tensor in load_file(undisturbed / WEIGHTS).items() if "_B" in key
    )


def test_the_first_step_starts_at_the_reference(undisturbed):
    first = log_of(undisturbed)[0]
    assert float(first["accuracy"]) == 0.5
    assert float(first["loss"]) == pytest.approx(0.6931472)
    assert float(first["saturation"]) == float(first["chosen_change"]) == 0.0


@pytest.mark.parametrize("objective", GOLDEN)
def test_golden_trajectories(undisturbed, inputs, tmp_path, objective):
    """Recorded with torch 2.13.0 (CPU, float32), diffusers 0.42.1, peft 0.21.2, transformers 5.23.0.

    A refactoring keeps these losses; a change of method says so and records new ones.
    """
    out = undisturbed
    changes, maps = {"objective": objective}, None
    if objective.startswith("dense"):
        changes, maps = {"dense": objective.removeprefix("dense_")}, write_maps(tmp_path / "maps")
    if objective != "dpo":
        out = run(CFG.model_copy(update=changes), **inputs, out=tmp_path / "out", maps=maps)
    assert [float(row["loss"]) for row in log_of(out)] == pytest.approx(GOLDEN[objective], abs=1e-4)


def test_known_references_change_nothing_and_are_computed_once(inputs, tmp_path, monkeypatch):
    """As many draws as visits: the same training with and without the cache; a second training needs no reference."""
    calls = []
    original = diffusion.reference_errors
    monkeypatch.setattr(diffusion, "reference_errors", lambda *args: calls.append(1) or original(*args))
    cfg = CFG.model_copy(update={"reference_draws": 2, "steps": 14, "held_out_fraction": 0.1})
    cache = tmp_path / "reference.jsonl"
    first = run(cfg, **inputs, out=tmp_path / "first", reference_cache=cache)
    # Seven training pairs, two a step: two draws of all are known after seven steps.
    assert len(calls) == 7
    calls.clear()
    second = run(cfg, **inputs, out=tmp_path / "second", reference_cache=cache)
    assert calls == []
    assert (first / "log.csv").read_bytes() == (second / "log.csv").read_bytes()
    assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes()
    monkeypatch.setattr(ReferenceCache, "find", lambda self, keys: None)
    fresh = run(cfg, **inputs, out=tmp_path / "fresh")
    assert (first / WEIGHTS).read_bytes() == (fresh / WEIGHTS).read_bytes()
    changed = CFG.model_copy(update={"reference_draws": 2, "steps": 14, "seed": 1})
    monkeypatch.undo()
    monkeypatch.setattr(diffusion, "reference_errors", lambda *args: calls.append(1) or original(*args))
    run(changed, **inputs, out=tmp_path / "changed", reference_cache=cache)
    assert calls


def test_fixed_draws_are_stratified_and_return(inputs):
    family = stage.load("families", "wan").Family(inputs["model"])
    one = load_pairs(inputs["pairs"], inputs["candidates"], "as_scored", 0)[0]
    batches = [pair_module.read_fixed_batch(family, [one], Reading(), [draw], 8) for draw in range(8)]
    sigma = torch.cat([batch.t for batch in batches]).sort().values / 1000
    u = sigma / (family.shift - (family.shift - 1) * sigma)
    assert ((u >= torch.arange(8) / 8 - 1e-5) & (u <= (torch.arange(8) + 1) / 8 + 1e-5)).all()
    again = pair_module.read_fixed_batch(family, [one, one], Reading(), [3, 5], 8)
    assert torch.equal(again.eps[1], batches[5].eps[0])
    assert torch.equal(again.t[0], batches[3].t[0])
    assert not torch.equal(batches[0].eps, batches[1].eps)


def test_small_batches_and_recomputation_train_the_same(undisturbed, inputs, tmp_path):
    cfg = CFG.model_copy(update={"micro_pairs": 1, "recompute": 1.0})
    out = run(cfg, **inputs, out=tmp_path / "out")
    expected, found = load_file(undisturbed / WEIGHTS), load_file(out / WEIGHTS)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, atol=2e-4, rtol=1e-3)


def test_offloaded_training_is_the_same_bit_for_bit(undisturbed, inputs, tmp_path):
    out = run(CFG.model_copy(update={"offload": True}), **inputs, out=tmp_path / "out")
    assert (out / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()


def test_a_calibrated_beta_is_written_down_and_kept_on_resuming(inputs, tmp_path, monkeypatch):
    cfg = CFG.model_copy(update={"beta": None})
    whole = run(cfg, **inputs, out=tmp_path / "whole")
    found = json.loads((whole / "calibration.json").read_text())
    summary = json.loads((whole / "training.json").read_text())
    assert summary["beta"] == found["beta"] > 0
    assert found["steps"] == 3
    # The trial leaves no trace: the first step starts at the reference.
    assert float(log_of(whole)[0]["margin"]) == 0.0

    def dying(*args):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "_evaluate", dying)
        with pytest.raises(Killed):
            run(cfg, **inputs, out=tmp_path / "killed")
    run(cfg, **inputs, out=tmp_path / "killed")
    assert (whole / WEIGHTS).read_bytes() == (tmp_path / "killed" / WEIGHTS).read_bytes()


def test_a_licence_that_nobody_accepted_stops_before_anything_is_written(inputs, tmp_path):
    model = shutil.copytree(inputs["model"], tmp_path / "model")
    (model / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    with pytest.raises(InputError, match=r"licence is cc-by-nc-4\.0"):
        run(CFG, **(inputs | {"model": model}), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_both_experts_are_trained_by_one_command(inputs, tmp_path):
    model = tiny_wan.build(tmp_path / "model", "a14b_t2v")
    candidates = write_candidates(tmp_path / "candidates", first_frame=False)
    cfg = CFG.model_copy(update={"steps": 3})
    out = run(cfg, **(inputs | {"model": model, "candidates": candidates}), out=tmp_path / "out")
    manifest = read_manifest(out)
    assert {f"lora/{name}" for name in LORA_FILES} <= set(manifest.files)
    assert {"transformer/log.csv", "transformer_2/log.csv"} <= set(manifest.files)
    summary = json.loads((out / "training.json").read_text())
    assert summary["experts"].keys() == {"transformer", "transformer_2"}
    first, second = (load_file(out / "lora" / name) for name in LORA_FILES)
    assert first.keys() == second.keys()
    assert any(not torch.equal(first[key], second[key]) for key in first)
    plain = DiffusionPipeline.from_pretrained(model)
    plain.load_lora_weights(out / "lora", weight_name=LORA_FILES[0])
    plain.load_lora_weights(out / "lora", weight_name=LORA_FILES[1], load_into_transformer_2=True)
    assert plain.transformer_2.peft_config


def write_lora(folder, model, seed, names=LORA_FILES[:1]):
    """LoRAs that change something."""
    for number, name in enumerate(names):
        family = stage.load("families", "wan").Family(model)
        add_lora(family, rank=3, alpha=6.0, seed=seed + number)
        rng = torch.Generator().manual_seed(seed + number)
        for parameter in lora_parameters(family).values():
            parameter.data = 0.2 * torch.randn(parameter.shape, generator=rng)
        save_lora(family, folder, name)
    return folder


def test_a_lora_on_top_of_an_earlier_one_starts_there_and_is_stored_alone(inputs, undisturbed, tmp_path):
    earlier = write_lora(tmp_path / "earlier", inputs["model"], 5)
    out = run(CFG, **inputs, out=tmp_path / "out", earlier=earlier)
    first = log_of(out)[0]
    assert (float(first["accuracy"]), float(first["chosen_change"])) == (0.5, 0.0)
    found = load_file(out / WEIGHTS)
    assert {key: tensor.shape for key, tensor in found.items()} == {
        key: tensor.shape for key, tensor in load_file(undisturbed / WEIGHTS).items()
    }
    assert (out / WEIGHTS).read_bytes() != (undisturbed / WEIGHTS).read_bytes()
    smaller = CFG.model_copy(update={"offload": True})
    again = run(smaller, **inputs, out=tmp_path / "smaller", earlier=earlier)
    assert (again / WEIGHTS).read_bytes() == (out / WEIGHTS).read_bytes()
    other = write_lora(tmp_path / "other", inputs["model"], 6)
    with pytest.raises(InputError, match=r"inputs\.earlier has changed"):
        run(CFG, **inputs, out=out, earlier=other)
    with pytest.raises(InputError, match=r"inputs\.earlier"):
        run(CFG, **inputs, out=out)
    two = write_lora(tmp_path / "two", inputs["model"], 5, LORA_FILES)
    with pytest.raises(InputError, match="two experts, but the model has one"):
        run(CFG, **inputs, out=tmp_path / "refused", earlier=two)


def test_a_training_on_top_of_an_earlier_lora_resumes_bit_for_bit(inputs, tmp_path, monkeypatch):
    earlier = write_lora(tmp_path / "earlier", inputs["model"], 5)
    whole = run(CFG, **inputs, out=tmp_path / "whole", earlier=earlier)
    save = training.save

    def interrupt(path, now, *args):
        save(path, now, *args)
        if now.step == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "save", interrupt)
        with pytest.raises(Killed):
            run(CFG, **inputs, out=tmp_path / "resumed", earlier=earlier)
    resumed = run(CFG, **inputs, out=tmp_path / "resumed", earlier=earlier)
    for name in ("log.csv", WEIGHTS):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_known_references_are_those_of_one_earlier_lora(inputs, tmp_path):
    """One file of them for three bases: none takes another's."""
    cfg = CFG.model_copy(update={"reference_draws": 2, "steps": 8})
    shared = tmp_path / "reference.jsonl"
    loras = [None, *(write_lora(tmp_path / f"lora{seed}", inputs["model"], seed) for seed in (5, 6))]
    sizes = []
    for number, earlier in enumerate(loras):
        found = run(cfg, **inputs, out=tmp_path / f"shared{number}", earlier=earlier, reference_cache=shared)
        own = run(cfg, **inputs, out=tmp_path / f"own{number}", earlier=earlier)
        assert (found / WEIGHTS).read_bytes() == (own / WEIGHTS).read_bytes()
        sizes.append(len(shared.read_text().splitlines()))
    assert sizes == [sizes[0] * count for count in (1, 2, 3)]


def test_each_expert_starts_from_its_own_earlier_lora(inputs, tmp_path, monkeypatch):
    model = tiny_wan.build(tmp_path / "model", "a14b_t2v")
    candidates = write_candidates(tmp_path / "candidates", first_frame=False)
    given = inputs | {"model": model, "candidates": candidates}
    earlier = write_lora(tmp_path / "earlier", model, 5, LORA_FILES)
    carried = []

    def prepared(*args):
        policy = training.prepared(*args)
        layer = policy.family.transformer.blocks[0].attn1.to_q
        carried.append({"weight": layer.lora_B["earlier"].weight.clone()} if len(layer.lora_B) == 2 else {})
        # Of the other expert nothing is loaded.
        assert "pipeline" not in vars(policy.family)
        return policy

    monkeypatch.setattr(stage, "prepared", prepared)
    cfg = CFG.model_copy(update={"steps": 2, "warmup_steps": 0})
    run(cfg, **given, out=tmp_path / "out", earlier=earlier)
    key = "transformer.blocks.0.attn1.to_q.lora_B.weight"
    for found, name in zip(carried, LORA_FILES, strict=True):
        assert torch.equal(found["weight"], load_file(earlier / name)[key])
    (earlier / LORA_FILES[1]).unlink()
    carried.clear()
    run(cfg, **given, out=tmp_path / "first_alone", earlier=earlier)
    assert [bool(found) for found in carried] == [True, False]


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "log.csv", "calibration.json"])
def test_damage_done_while_a_training_is_interrupted_is_noticed(inputs, tmp_path, monkeypatch, name):
    cfg = CFG.model_copy(update={"beta": None})
    original = training.save

    def dying(*args):
        original(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "save", dying)
        with pytest.raises(Killed):
            run(cfg, **inputs, out=tmp_path)
    content = (tmp_path / name).read_bytes()
    rng = random.Random(0)
    for _ in range(10):
        flipped = bytearray(content)
        # A log's first line is written again anyway.
        first = content.index(b"\n") + 1 if name == "log.csv" else 0
        flipped[rng.randrange(first, len(content))] ^= 1 << rng.randrange(8)
        (tmp_path / name).write_bytes(flipped)
        with pytest.raises(InputError, match=rf"{name}.* (is|was) |cannot read .*{name}"):
            run(cfg, **inputs, out=tmp_path)


def test_latents_that_were_changed_are_noticed(inputs, tmp_path):
    candidates = tmp_path / "candidates"
    shutil.copytree(inputs["candidates"], candidates)
    manifest = read_manifest(candidates)
    others = {path.relative_to(candidates).as_posix(): "0" * 64 for path in candidates.rglob("*.safetensors")}
    (candidates / "manifest.json").write_text(manifest.model_copy(update={"files": others}).model_dump_json())
    with pytest.raises(StageStopped, match="is not the file that its stage made"):
        run(CFG, **inputs | {"candidates": candidates}, out=tmp_path / "out")


def test_a_second_run_does_nothing_and_a_changed_one_is_refused(undisturbed, inputs):
    before = (undisturbed / WEIGHTS).stat().st_mtime_ns
    # Killed right before its end, it may have left its checkpoint.
    (undisturbed / "checkpoint.safetensors").touch()
    run(CFG, **inputs, out=undisturbed)
    assert (undisturbed / WEIGHTS).stat().st_mtime_ns == before
    assert not (undisturbed / "checkpoint.safetensors").exists()
    with pytest.raises(InputError, match=r"config.beta 20.0 -> 10.0"):
        run(CFG.model_copy(update={"beta": 10.0}), **inputs, out=undisturbed)


class Killed(BaseException):
    pass


@pytest.mark.parametrize(
    ("place", "call"),
    [("measure", 5), ("save", 2), ("save_after", 2), ("_evaluate", 2), ("save_lora", 1), ("finish", 1)],
)
def test_killed_and_resumed_equals_undisturbed_bit_for_bit(
    undisturbed, inputs, tmp_path, monkeypatch, place, call
):
    """Killed in a step, before a checkpoint, right after one, while evaluating, and around the export."""
    calls = 0
    name = place.removesuffix("_after")
    owner = {"finish": Artifact, "save_lora": stage}.get(name, training)
    original = getattr(owner, name)

    def dying(*args):
        nonlocal calls
        calls += 1
        if calls == call and place.endswith("_after"):
            original(*args)
        if calls == call:
            raise Killed
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            run(CFG, **inputs, out=tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    with (tmp_path / "out" / "log.csv").open("a") as file:
        file.write("99,torn")
    run(CFG, **inputs, out=tmp_path / "out")
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (undisturbed / WEIGHTS).read_bytes()
    assert (tmp_path / "out" / "log.csv").read_bytes() == (undisturbed / "log.csv").read_bytes()
    assert read_manifest(tmp_path / "out") == read_manifest(undisturbed)


@pytest.mark.parametrize("objective", ["dpo", "anchored", "smoothed", "ipo", "hinge", "sft"])
def test_training_moves_what_it_should(inputs, tmp_path, objective):
    """At a high rate: preferences are learnt and hold on held-out prompts, SFT lowers the chosen error."""
    cfg = CFG.model_copy(
        update={
            "objective": objective,
            "steps": 20,
            "learning_rate": 2e-2,
            "evaluate_every": 10,
            "held_out_fraction": 0.25,
            "ema_decay": None,
        }
    )
    last = log_of(run(cfg, **inputs, out=tmp_path / "out"))[-1]
    if objective == "sft":
        assert float(last["held_out_chosen_change"]) < -0.1
    elif objective == "ipo":
        # Every pair is drawn to one half and held there; so small a margin of two held-out pairs is noise.
        assert 0.2 < float(last["margin"]) < 0.8
    else:
        assert float(last["held_out_accuracy"]) > 0.7
        assert float(last["held_out_margin"]) > 0
    if objective == "anchored":
        assert float(last["held_out_chosen_change"]) < -0.02


def test_the_stop_rule_goes_back_to_the_last_good_evaluation(inputs, tmp_path, monkeypatch):
    changes = iter([0.001, 0.5])
    original = training._evaluate

    def rising(*args):
        health = original(*args)
        return training.replace(health, chosen_change=next(changes))

    monkeypatch.setattr(training, "_evaluate", rising)
    cfg = CFG.model_copy(update={"stop_at_chosen_rise": 0.015, "evaluate_every": 2, "ema_decay": None})
    out = run(cfg, **inputs, out=tmp_path / "stopped")
    summary = json.loads((out / "training.json").read_text())
    assert summary["stopped_early"]
    assert (summary["last_step"], summary["exported_step"]) == (4, 2)
    monkeypatch.undo()
    # What came after the good evaluation is no part of the export.
    whole = run(cfg.model_copy(update={"evaluate_every": 4}), **inputs, out=tmp_path / "whole")
    assert (whole / WEIGHTS).read_bytes() != (out / WEIGHTS).read_bytes()


def test_a_chosen_error_that_rises_at_once_gives_no_lora(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "must_stop", lambda rise, limit: True)
    cfg = CFG.model_copy(update={"stop_at_chosen_rise": 0.01})
    with pytest.raises(InputError, match="lower learning_rate"):
        run(cfg, **inputs, out=tmp_path / "out")
    assert not (tmp_path / "out" / "lora").exists()


HOPELESS = CFG.model_copy(
    update={
        "beta": 1e7,
        "steps": 30,
        "evaluate_every": 11,
        "checkpoint_every": 5,
        "warmup_steps": 1,
        "ema_decay": None,
    }
)


def test_a_hopeless_training_stops_and_says_what_the_doctor_found(inputs, tmp_path):
    out = run(HOPELESS, **inputs, out=tmp_path / "stopped")
    summary = json.loads((out / "training.json").read_text())
    assert (summary["last_step"], summary["exported_step"]) == (22, 11)
    assert "beta_too_large" in summary["stop_reason"]
    assert len(log_of(out)) == 22
    watched = HOPELESS.model_copy(update={"stop_when_hopeless": False})
    summary = json.loads((run(watched, **inputs, out=tmp_path / "whole") / "training.json").read_text())
    assert (summary["last_step"], summary["stop_reason"]) == (30, None)


def test_a_resumed_training_stops_for_the_same_reason(inputs, tmp_path, monkeypatch):
    whole = run(HOPELESS, **inputs, out=tmp_path / "whole")
    save = training.save

    def interrupt(path, now, *args):
        save(path, now, *args)
        if now.step == 15:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(HOPELESS, **inputs, out=tmp_path / "resumed")
    monkeypatch.undo()
    resumed = run(HOPELESS, **inputs, out=tmp_path / "resumed")
    for name in ("log.csv", "training.json", WEIGHTS):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()


def test_a_training_that_is_hopeless_at_once_names_the_verdict(inputs, tmp_path):
    cfg = HOPELESS.model_copy(update={"evaluate_every": 30})
    with pytest.raises(
        StoppedItself, match=r"before its first good evaluation: at step 30 beta_too_large.*Lower beta"
    ):
        run(cfg, **inputs, out=tmp_path / "out")


def test_without_held_out_pairs_the_running_mean_guards(inputs, tmp_path):
    cfg = CFG.model_copy(update={"held_out_fraction": 0.0, "stop_at_chosen_rise": 10.0, "steps": 3})
    summary = json.loads((run(cfg, **inputs, out=tmp_path / "out") / "training.json").read_text())
    assert summary["held_out_pairs"] == 0
    assert summary["health"]["accuracy"] >= 0.0


def test_shuffled_labels_exchange_exactly_half(inputs):
    scored = load_pairs(inputs["pairs"], inputs["candidates"], "as_scored", 0)
    shuffled = load_pairs(inputs["pairs"], inputs["candidates"], "shuffled", 0)
    exchanged = [
        a.chosen == b.rejected and a.rejected == b.chosen for a, b in zip(scored, shuffled, strict=True)
    ]
    kept = [a == b for a, b in zip(scored, shuffled, strict=True)]
    assert sum(exchanged) == sum(kept) == PROMPTS // 2
    assert shuffled == load_pairs(inputs["pairs"], inputs["candidates"], "shuffled", 0)
    others = [load_pairs(inputs["pairs"], inputs["candidates"], "shuffled", seed) for seed in range(1, 4)]
    assert any(other != shuffled for other in others)


def test_the_split_is_by_prompt(inputs):
    pairs = load_pairs(inputs["pairs"], inputs["candidates"], "as_scored", 0) * 2
    training, held_out = split(pairs, 0.25, seed=0)
    assert len(held_out) == 4
    assert {p.prompt_id for p in training}.isdisjoint({p.prompt_id for p in held_out})
    assert split(pairs, 0.0, seed=0) == (pairs, [])
    with pytest.raises(InputError, match="too few to hold any out"):
        split(pairs[:1], 0.25, seed=0)


@pytest.mark.parametrize(("count", "batch"), [(7, 3), (2, 5), (5, 5)])
def test_every_pair_comes_once_per_epoch(count, batch):
    drawn = [index for step in range(1, 2 * count + 1) for index in batch_indices(count, batch, 0, step)]
    for epoch in range(2 * batch):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))


def test_processes_share_the_batch_without_overlap(inputs):
    pairs = load_pairs(inputs["pairs"], inputs["candidates"], "as_scored", 0)[:4]
    family = stage.load("families", "wan").Family(inputs["model"])
    batch = pair_module.read_batch(family, pairs, Reading(), pair_module.generator(0, "step", 1))
    parts = [batch.take(slice(rank, None, 2)) for rank in (0, 1)]
    assert [len(part.t) for part in parts] == [2, 2]
    assert sorted(torch.cat([part.t for part in parts]).tolist()) == sorted(batch.t.tolist())
    assert torch.equal(parts[1].conditioning["first_frame"], batch.conditioning["first_frame"][1::2])


def test_unusable_inputs_are_refused(inputs, tmp_path):
    def refused(message, cfg=CFG, **changed):
        with pytest.raises(InputError, match=message):
            run(cfg, **(inputs | changed), out=tmp_path / "out", overwrite=True)

    refused("does not exist", pairs=tmp_path / "absent")
    refused("does not exist", model=tmp_path / "absent")
    refused("holds no pairs", pairs=write_pairs(tmp_path / "none", []))
    failed = PreferencePair(
        id="x",
        status="failed",
        reason="equal",
        prompt_id="0",
        chosen="0_0",
        rejected="0_1",
        chosen_value=0.0,
        rejected_value=0.0,
        margin=0.0,
    )
    refused("holds no pairs", pairs=write_pairs(tmp_path / "failed", [failed]))
    refused("names candidate 99_0", pairs=write_pairs(tmp_path / "unknown", [pair(99)]))
    refused("was not sampled by", candidates=write_candidates(tmp_path / "other", channels=5))
    torn = tmp_path / "torn"
    shutil.copytree(inputs["candidates"], torn)
    (torn / "latents/3_0.safetensors").unlink()
    refused("3_0.safetensors is missing", candidates=torn)
    refused("needs? maps of inconsistency", cfg=CFG.model_copy(update={"dense": "own"}))
    unscored = [row.model_copy(update={"margin": None}) for row in map(pair, range(PROMPTS))]
    by_margin = CFG.model_copy(update={"objective": "margin_weighted"})
    refused("needs pairs with scores", cfg=by_margin, pairs=write_pairs(tmp_path / "unscored", unscored))
    refused("no families plug-in", cfg=CFG.model_copy(update={"family": "none"}))
