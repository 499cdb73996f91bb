import json

import pytest
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.dpo.test_diffusion import batch, disturb
from tests.families import tiny_wan
from videogpa.dpo.diffusion import pair_errors, side_errors
from videogpa.dpo.lora import (
    LORA_FILES,
    add_lora,
    expert_file,
    load_earlier,
    load_lora,
    lora_parameters,
    remove_lora,
    save_lora,
)
from videogpa.dpo.memory import offload_blocks, recompute_blocks
from videogpa.errors import InputError
from videogpa.families.base import SamplerSettings
from videogpa.families.wan import Family

SETTINGS = SamplerSettings(frames=5, height=32, width=32, steps=2)
FRAME = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1))
TEXT = "a red box"


def sample(family):
    return family.sample(TEXT, FRAME, [7, 8], SETTINGS).videos


@pytest.fixture(scope="module")
def stored(tmp_path_factory, ti2v_folder):
    """A LoRA with alpha unlike its rank, and the videos that the model with it draws."""
    family = Family(ti2v_folder)
    add_lora(family, rank=4, alpha=12.0, seed=0)
    disturb(family)
    folder = tmp_path_factory.mktemp("lora")
    save_lora(family, folder)
    return folder, sample(family)


def plain_pipeline(folder, dtype=torch.float32):
    pipeline = DiffusionPipeline.from_pretrained(folder, dtype={"vae": torch.float32, "default": dtype})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def plain_sample(pipeline):
    return pipeline(
        image=FRAME[None],
        prompt=TEXT,
        num_videos_per_prompt=2,
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=2,
        guidance_scale=1.0,
        max_sequence_length=12,
        generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)],
        output_type="pt",
    ).frames


def test_the_plain_pipeline_draws_the_same_videos(stored, ti2v_folder):
    folder, videos = stored
    plain = plain_pipeline(ti2v_folder)
    base = plain_sample(plain)
    plain.load_lora_weights(folder)
    assert torch.equal(plain_sample(plain), videos)
    assert not torch.equal(base, videos)


def test_in_bfloat16_too_both_load_the_same(stored, ti2v_folder):
    plain = plain_pipeline(ti2v_folder, torch.bfloat16)
    plain.load_lora_weights(stored[0])
    family = Family(ti2v_folder, dtype=torch.bfloat16)
    load_lora(family, stored[0])
    assert torch.equal(plain_sample(plain), sample(family))


def test_loading_gives_back_the_trained_model(stored, family):
    folder, videos = stored
    base = sample(family)
    load_lora(family, folder)
    assert torch.equal(sample(family), videos)
    load_lora(family, folder / "pytorch_lora_weights.safetensors", strength=0.0)
    assert torch.equal(sample(family), base)
    remove_lora(family)
    assert torch.equal(sample(family), base)
    remove_lora(family)


def test_a_folder_that_peft_wrote_loads(ti2v_folder, family, tmp_path):
    """As VideoGPA publishes its LoRAs; the plain pipeline refuses such a folder."""
    original = Family(ti2v_folder)
    config = LoraConfig(r=4, lora_alpha=12.0, target_modules=list(family.lora_targets))
    wrapped = get_peft_model(original.transformer, config)
    disturb(original)
    wrapped.save_pretrained(tmp_path / "published")
    original.transformer = wrapped.get_base_model()
    load_lora(family, tmp_path / "published")
    assert torch.equal(sample(family), sample(original))
    load_lora(family, tmp_path / "published", strength=0.5)
    assert family.transformer.blocks[0].attn1.to_q.scaling["default"] == pytest.approx(0.5 * 12 / 4)
    config_file = tmp_path / "published" / "adapter_config.json"
    plain = config_file.read_text()
    config_file.write_text(json.dumps(json.loads(plain) | {"init_lora_weights": "pissa"}))
    with pytest.raises(InputError, match="changes the base model"):
        load_lora(family, tmp_path / "published")
    config_file.write_text(plain)
    (tmp_path / "published" / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="other formats than safetensors"):
        load_lora(family, tmp_path / "published")


def test_a_peft_folder_in_the_authors_names_loads(ti2v_folder, family, tmp_path):
    """As VideoGPA publishes its LoRA for Wan 2.2, trained on the authors' own transformer."""
    ours = Family(ti2v_folder)
    add_lora(ours, rank=4, alpha=12.0, seed=0)
    disturb(ours)
    authors = {
        "attn1": "self_attn",
        "attn2": "cross_attn",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "o",
    }
    weights = {}
    for name, parameter in lora_parameters(ours).items():
        name = name.replace(".default", "")
        for here, there in authors.items():
            name = name.replace(f".{here}.", f".{there}.")
        weights[f"base_model.model.{name}"] = parameter.detach().clone()
    LoraConfig(r=4, lora_alpha=12.0, target_modules=["q", "k", "v", "o"]).save_pretrained(tmp_path)
    save_file(weights, tmp_path / "adapter_model.safetensors")
    load_lora(family, tmp_path)
    assert torch.equal(sample(family), sample(ours))


def test_a_lora_that_cannot_be_read_leaves_the_one_before(stored, family, tmp_path):
    load_lora(family, stored[0])
    before = sample(family)
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(b"no safetensors at all")
    with pytest.raises(InputError, match="cannot read the LoRA"):
        load_lora(family, tmp_path)
    assert torch.equal(sample(family), before)


def test_strength_scales_the_change(stored, family):
    load_lora(family, stored[0], strength=0.5)
    layer = family.transformer.blocks[0].attn1.to_q
    assert layer.scaling["default"] == pytest.approx(0.5 * 12 / 4)


def test_a_fresh_lora_is_seeded_and_leaves_the_global_generator_alone(ti2v_folder):
    def fresh(seed):
        family = Family(ti2v_folder)
        before = torch.get_rng_state()
        parameters = add_lora(family, rank=4, alpha=4.0, seed=seed)
        assert torch.equal(before, torch.get_rng_state())
        assert all(p.requires_grad and p.dtype == torch.float32 for p in parameters)
        return torch.cat([p.detach().flatten() for p in parameters])

    assert torch.equal(fresh(1), fresh(1))
    assert not torch.equal(fresh(1), fresh(2))


def test_equal_weights_give_equal_bytes(stored, family, tmp_path):
    load_lora(family, stored[0])
    file = save_lora(family, tmp_path)
    assert file.read_bytes() == (stored[0] / file.name).read_bytes()
    with safe_open(file, "pt") as opened:
        assert '"transformer.lora_alpha": 12.0' in opened.metadata()["lora_adapter_metadata"]


def test_a_lora_that_does_not_fit_is_refused_and_leaves_the_model_alone(stored, family, tmp_path):
    before = sample(family)
    path = tmp_path / "pytorch_lora_weights.safetensors"

    def refused(message, source=tmp_path):
        with pytest.raises(InputError, match=message):
            load_lora(family, source)

    refused("no LoRA at", tmp_path / "absent")
    refused("0 safetensors files")
    path.write_bytes(b"no safetensors at all")
    refused("cannot read the LoRA")
    (tmp_path / "pytorch_lora_weights.bin").write_bytes(b"pickle")
    path.unlink()
    refused("0 safetensors files")
    save_file({"transformer.blocks.9.attn1.to_q.lora_A.weight": torch.zeros(2, 24)}, path)
    refused("nothing there takes 'transformer.blocks.9")
    save_file({"transformer.blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 30)}, path)
    refused("has size 30, the model 24")
    save_file({"unet.blocks.0.attn1.to_q.lora_A.weight": torch.zeros(2, 24)}, path)
    refused("nothing there takes 'unet")
    save_file({"weight": torch.zeros(2)}, path)
    refused("nothing there takes 'weight'")
    assert torch.equal(sample(family), before)


def test_another_models_lora_is_refused(stored, tmp_path):
    wide = Family(tiny_wan.build(tmp_path / "wide", width=48))
    with pytest.raises(InputError, match="does not fit the model"):
        load_lora(wide, stored[0])


def test_parameters_are_named(family):
    add_lora(family, rank=4, alpha=4.0, seed=0)
    # 2 blocks, self- and cross-attention, 4 targets, A and B.
    assert len(lora_parameters(family)) == 2 * 2 * 4 * 2


def on_top(model, stored, dtype=torch.float32):
    """A family whose base carries the stored LoRA, with a fresh one beside it."""
    family = Family(model, dtype=dtype)
    load_earlier(family, stored / LORA_FILES[0])
    add_lora(family, rank=2, alpha=6.0, seed=1)
    return family


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_reference_is_the_model_with_the_earlier_lora(stored, ti2v_folder, dtype):
    loaded = Family(ti2v_folder, dtype=dtype)
    load_lora(loaded, stored[0])
    with torch.no_grad():
        expected = side_errors(loaded, batch())
    family = on_top(ti2v_folder, stored[0], dtype)
    fresh = pair_errors(family, batch())
    disturb(family)
    errors = pair_errors(family, batch())
    for found in (fresh, errors):
        assert torch.equal(found.chosen_reference, expected[0])
        assert torch.equal(found.rejected_reference, expected[1])
    assert torch.equal(fresh.chosen, expected[0])
    assert not torch.allclose(errors.chosen, expected[0], rtol=1e-2)


def test_gradients_never_reach_the_earlier_lora(stored, ti2v_folder, tmp_path):
    family = on_top(ti2v_folder, stored[0])
    disturb(family)
    before = {name: p.detach().clone() for name, p in family.transformer.named_parameters()}
    errors = pair_errors(family, batch())
    (errors.chosen.sum() - errors.rejected.sum()).backward()
    trained = lora_parameters(family)
    assert len(trained) == 2 * 2 * 4 * 2
    earlier = [name for name in before if ".earlier." in name]
    assert len(earlier) == len(trained)
    for name, parameter in family.transformer.named_parameters():
        assert parameter.requires_grad == (name in trained)
        assert (parameter.grad is not None) == (name in trained)
    saved = load_file(save_lora(family, tmp_path))
    assert {min(tensor.shape) for tensor in saved.values()} == {2}


def test_an_earlier_lora_is_offloaded_and_recomputed_with_the_base(stored, ti2v_folder):
    found = []
    for smaller in (False, True):
        family = on_top(ti2v_folder, stored[0])
        disturb(family)
        lora = lora_parameters(family)
        if smaller:
            recompute_blocks(family.transformer, 1.0)
            offload_blocks(family.transformer, torch.device("cpu"), lora.values())
            assert not family.transformer.blocks[0].attn1.to_q.lora_A["earlier"].weight.numel()
        errors = pair_errors(family, batch())
        (errors.chosen - errors.rejected).sum().backward()
        found.append([errors.chosen_reference, *(p.grad for p in lora.values())])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_an_earlier_lora_of_some_modules_or_another_model(stored, ti2v_folder, tmp_path):
    half = {
        f"transformer.blocks.0.attn1.to_q.lora_{side}.weight": torch.randn(*size)
        for side, size in (("A", (3, 24)), ("B", (24, 3)))
    }
    save_file(half, tmp_path / "half.safetensors")
    loaded, family = Family(ti2v_folder), Family(ti2v_folder)
    load_lora(loaded, tmp_path / "half.safetensors")
    load_earlier(family, tmp_path / "half.safetensors")
    add_lora(family, rank=2, alpha=6.0, seed=1)
    with torch.no_grad():
        expected = side_errors(loaded, batch())
    assert torch.equal(pair_errors(family, batch()).chosen_reference, expected[0])
    wide = Family(tiny_wan.build(tmp_path / "wide", width=48))
    with pytest.raises(InputError, match="does not fit the model"):
        load_earlier(wide, stored[0] / LORA_FILES[0])


def test_of_two_experts_each_has_its_own_file(stored, tmp_path):
    first, second = (tmp_path / name for name in LORA_FILES)
    first.write_bytes((stored[0] / LORA_FILES[0]).read_bytes())
    assert expert_file(tmp_path, 0, 1) == expert_file(tmp_path, 0, 2) == first
    assert expert_file(tmp_path, 1, 2) is None
    second.write_bytes(first.read_bytes())
    assert expert_file(tmp_path, 1, 2) == second
    with pytest.raises(InputError, match="two experts, but the model has one"):
        expert_file(tmp_path, 0, 1)


def test_names_of_files_are_those_of_diffusers():
    from diffusers.loaders import lora_base

    from videogpa.dpo import lora

    assert lora.LORA_WEIGHT_NAME_SAFE == lora_base.LORA_WEIGHT_NAME_SAFE
    assert lora.LORA_ADAPTER_METADATA_KEY == lora_base.LORA_ADAPTER_METADATA_KEY
