import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.loaders.lora_conversion_utils import _convert_hunyuan_video_lora_to_diffusers
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file, save_file

from tests.dpo.test_diffusion import disturb
from tests.dpo.test_lora import plain_pipeline, plain_sample, sample
from tests.families import tiny_cogvideox, tiny_hunyuan_video, tiny_ltx, tiny_wan
from videogpa.dpo import lora_formats
from videogpa.dpo.lora import LORA_FILES, add_lora, load_earlier, load_lora, lora_parameters, save_lora
from videogpa.dpo.lora_formats import (
    DOWN,
    UP,
    Lora,
    at_strength,
    fuse,
    merge,
    read_loras,
    stacked,
    to_comfyui,
    write_peft,
)
from videogpa.errors import InputError
from videogpa.families import cogvideox, hunyuan_video, ltx, wan
from videogpa.families.base import SamplerSettings
from videogpa.families.wan import Family

SAME = 1e-5
"""How far videos in [0, 1] may lie apart that differ by the order of float32 sums."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory, ti2v_folder):
    """A LoRA with alpha unlike its rank, and the videos that the model with it draws."""
    family = Family(ti2v_folder)
    folder = tmp_path_factory.mktemp("lora")
    train(family, folder)
    return folder, sample(family)


@pytest.fixture(scope="module")
def two_experts(tmp_path_factory):
    """A folder with two experts, LoRAs of both, and the videos that the model with them draws."""
    model = tiny_wan.build(tmp_path_factory.mktemp("a14b"), "a14b_t2v")
    folder = tmp_path_factory.mktemp("loras")
    for seed, (expert, name) in enumerate(zip(wan.EXPERTS, LORA_FILES, strict=True)):
        train(Family(model, expert=expert), folder, name, seed)
    family = Family(model)
    load_lora(family, folder)
    return model, folder, draw(family)


def train(family, folder, name=LORA_FILES[0], seed=0):
    add_lora(family, rank=4, alpha=12.0, seed=seed)
    disturb(family)
    for parameter in lora_parameters(family).values():
        parameter.data *= 1 + seed
    save_lora(family, folder, name)


def draw(family, frames=5):
    settings = SamplerSettings(frames=frames, height=32, width=32, steps=4)
    return family.sample("a red box", None, [7, 8], settings).videos


def draw_plain(pipeline):
    return pipeline(
        prompt="a red box",
        num_videos_per_prompt=2,
        height=32,
        width=32,
        num_frames=5,
        num_inference_steps=4,
        guidance_scale=1.0,
        max_sequence_length=12,
        generator=[torch.Generator().manual_seed(seed) for seed in (7, 8)],
        output_type="pt",
    ).frames


def test_what_is_read_is_written_again_byte_by_byte(stored, tmp_path):
    (lora,) = read_loras(stored[0])
    (file,) = lora_formats.write_diffusers([lora], tmp_path)
    assert file.read_bytes() == (stored[0] / file.name).read_bytes()
    assert lora.scale(lora.modules[0]) == 3.0


def test_peft_reads_its_folder_and_so_do_we(stored, ti2v_folder, family, tmp_path):
    (lora,) = read_loras(stored[0])
    lora_formats.write_peft(lora, tmp_path / "peft", "someone/a-model")
    assert PeftConfig.from_pretrained(tmp_path / "peft").base_model_name_or_path == "someone/a-model"
    load_lora(family, tmp_path / "peft")
    assert torch.equal(sample(family), stored[1])
    plain = plain_pipeline(ti2v_folder)
    PeftModel.from_pretrained(plain.transformer, tmp_path / "peft")
    assert torch.equal(plain_sample(plain), stored[1])
    (again,) = read_loras(tmp_path / "peft")
    assert all(torch.equal(again.change(module), lora.change(module)) for module in lora.modules)


def test_strength_is_part_of_what_is_written(stored, family, tmp_path):
    (lora,) = read_loras(stored[0])
    load_lora(family, stored[0], strength=0.5)
    half = sample(family)
    lora_formats.write_diffusers([at_strength(lora, 0.5)], tmp_path)
    load_lora(family, tmp_path)
    assert torch.equal(sample(family), half)
    own = Lora(weights=lora.weights, config=lora.config | {"alpha_pattern": {"attn1.to_q": 8.0}})
    assert at_strength(own, 0.5).scale("blocks.0.attn1.to_q") == 1.0
    assert at_strength(own, 0.5).scale("blocks.0.attn1.to_k") == 1.5


def test_diffusers_reads_comfyuis_names_of_wan_alpha_included(stored, ti2v_folder, family, tmp_path):
    (file,) = lora_formats.write_comfyui("wan", read_loras(stored[0]), tmp_path, "house")
    weights = load_file(file)
    assert {name.split(".", 3)[3] for name in weights if ".0.self_attn.o." in name} == {
        "self_attn.o.lora_down.weight",
        "self_attn.o.lora_up.weight",
        "self_attn.o.alpha",
    }
    plain = plain_pipeline(ti2v_folder)
    plain.load_lora_weights(tmp_path, weight_name=file.name)
    assert (plain_sample(plain) - stored[1]).abs().max() < SAME
    load_lora(family, file)
    assert (sample(family) - stored[1]).abs().max() < SAME


@pytest.mark.parametrize(
    ("family_name", "blocks", "names"),
    [
        ("wan", "blocks", lora_formats.AUTHORS_WAN),
        ("cogvideox", "transformer_blocks", lora_formats.COGVIDEOX),
    ],
)
def test_comfyuis_own_sum_gives_the_same_model(family_name, blocks, names, ti2v_folder, tmp_path):
    """Its rule, written out: W + alpha / rank up down, on the model's own names of the modules."""

    def family():
        if family_name == "wan":
            return Family(ti2v_folder)
        return cogvideox.Family(tiny_cogvideox.build(tmp_path / "model", "2b"))

    trained = family()
    train(trained, tmp_path)
    named = to_comfyui(family_name, *read_loras(tmp_path))
    theirs = {name: module for module, name in names.items()}
    plain = family()
    weights = plain.transformer.state_dict()
    before = draw(plain, 9)
    for key in [key for key in named if key.endswith(".alpha")]:
        name = key.removesuffix(".alpha")
        _, _, block, rest = name.split(".", 3)
        down, up = named[f"{name}.lora_down.weight"], named[f"{name}.lora_up.weight"]
        weights[f"{blocks}.{block}.{theirs[rest]}.weight"] += named[key] / len(down) * up @ down
    plain.transformer.load_state_dict(weights)
    assert (draw(plain, 9) - draw(trained, 9)).abs().max() < SAME
    assert (before - draw(trained, 9)).abs().max() > 100 * SAME


def test_diffusers_reads_comfyuis_names_of_ltx(tmp_path):
    family = ltx.Family(tiny_ltx.build(tmp_path / "model"))
    train(family, tmp_path / "lora")
    given = inputs(family)
    (file,) = lora_formats.write_comfyui("ltx", read_loras(tmp_path / "lora"), tmp_path, "house")
    wanted = predict(family, given)
    plain = DiffusionPipeline.from_pretrained(family.folder)
    base = plain.transformer
    family.transformer = base
    before = predict(family, given)
    plain.load_lora_weights(tmp_path, weight_name=file.name)
    assert (predict(family, given) - wanted).abs().max() < SAME
    assert (before - wanted).abs().max() > 100 * SAME


def inputs(family):
    conditioning = family._conditioning("a red box", None)
    return torch.randn(1, 4, 2, 4, 4, generator=torch.Generator().manual_seed(0)), conditioning


@torch.no_grad()
def predict(family, given):
    return family.predict(given[0], torch.tensor([500.0]), given[1])


HIDDEN = 3072
"""The width that the converter of diffusers takes single blocks to have."""


def test_diffusers_reads_comfyuis_names_of_hunyuan():
    generator = torch.Generator().manual_seed(0)
    modules = [
        *(f"transformer_blocks.0.attn.{side}" for side in ("to_q", "to_k", "to_v", "to_out.0")),
        *(
            f"transformer_blocks.0.attn.{side}"
            for side in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
        ),
        *(f"single_transformer_blocks.3.attn.{side}" for side in ("to_q", "to_v")),
    ]
    sizes = {DOWN: (2, HIDDEN), UP: (HIDDEN, 2)}
    weights = {
        m + side: torch.randn(size, generator=generator) for m in modules for side, size in sizes.items()
    }
    lora = Lora(weights=weights, config={"lora_alpha": 3.0})
    named = to_comfyui("hunyuan_video", lora)
    assert named["transformer.single_blocks.3.linear1.lora_B.weight"].shape == (7 * HIDDEN, 4)
    read = _convert_hunyuan_video_lora_to_diffusers(named)
    probe = torch.randn(HIDDEN, generator=generator)

    def change(module):
        return read[f"transformer.{module}{UP}"] @ (read[f"transformer.{module}{DOWN}"] @ probe)

    for module in modules:
        wanted = 1.5 * weights[module + UP] @ (weights[module + DOWN] @ probe)
        assert torch.allclose(change(module), wanted, rtol=1e-4, atol=1e-2)
    assert not change("single_transformer_blocks.3.attn.to_k").any()
    assert not change("single_transformer_blocks.3.proj_mlp").any()


def test_all_that_a_hunyuan_lora_changes_has_a_name_and_adds_up(tmp_path):
    family = hunyuan_video.Family(tiny_hunyuan_video.build(tmp_path / "model"))
    train(family, tmp_path)
    (lora,) = read_loras(tmp_path)
    named = to_comfyui("hunyuan_video", lora)
    names = {key.removeprefix("transformer.").removesuffix(DOWN) for key in named if key.endswith(DOWN)}
    assert names == {
        "double_blocks.0.img_attn_qkv",
        "double_blocks.0.img_attn_proj",
        "single_blocks.0.linear1",
        "txt_in.individual_token_refiner.blocks.0.self_attn_qkv",
        "txt_in.individual_token_refiner.blocks.0.self_attn_proj",
    }
    refiner = "transformer.txt_in.individual_token_refiner.blocks.0.self_attn_qkv"
    whole = named[refiner + UP] @ named[refiner + DOWN]
    attention = "context_embedder.token_refiner.refiner_blocks.0.attn.to_{}"
    for part, side in zip(whole.chunk(3), "qkv", strict=True):
        assert torch.allclose(part, lora.change(attention.format(side)), atol=1e-5)


def test_families_and_modules_without_names_are_refused(stored):
    (lora,) = read_loras(stored[0])
    with pytest.raises(InputError, match=r"'my_lab\.video', only for wan, cogvideox, ltx"):
        to_comfyui("my_lab.video", lora)
    for family in lora_formats.COMFYUI:
        odd = {"blokcs.0.to_q" + side: torch.zeros(2, 2) for side in (DOWN, UP)}
        with pytest.raises(InputError, match="no name in ComfyUI is known for 'blokcs"):
            to_comfyui(family, Lora(weights=odd, config={"lora_alpha": 2}))


def test_the_merged_folder_draws_what_base_and_lora_draw(stored, ti2v_folder, tmp_path):
    (lora,) = read_loras(stored[0])
    lost = merge([lora], ti2v_folder, ["transformer"], tmp_path / "merged")
    merged = plain_pipeline(tmp_path / "merged")
    assert (plain_sample(merged) - stored[1]).abs().max() < SAME
    assert lost < 1e-6
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "merged" / vae).samefile(ti2v_folder / vae)
    config = "transformer/config.json"
    assert not (tmp_path / "merged" / config).samefile(ti2v_folder / config)


def test_a_merge_in_shards_is_the_same_and_keeps_precision(stored, ti2v_folder, tmp_path):
    pipeline = DiffusionPipeline.from_pretrained(ti2v_folder, torch_dtype=torch.bfloat16)
    pipeline.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards" / "transformer").glob("*.safetensors"))) > 1
    (lora,) = read_loras(stored[0])
    lost = merge([lora], tmp_path / "shards", ["transformer"], tmp_path / "merged")
    merged = Family(tmp_path / "merged", dtype=torch.bfloat16).transformer.state_dict()
    exact, _, _ = fuse(pipeline.transformer.state_dict(), lora)
    assert all(torch.equal(merged[name], exact[name]) for name in exact)
    assert merged["blocks.0.attn1.to_q.weight"].dtype == torch.bfloat16
    assert 1e-4 < lost < 0.1
    small = merge([at_strength(lora, 1e-4)], tmp_path / "shards", ["transformer"], tmp_path / "small")
    assert small > 0.5
    float32 = merge([lora], tmp_path / "shards", ["transformer"], tmp_path / "float32", torch.float32)
    assert float32 < 1e-5
    whole = Family(tmp_path / "float32")
    beside = Family(tmp_path / "shards")
    load_lora(beside, stored[0])
    assert (sample(whole) - sample(beside)).abs().max() < SAME


def test_a_lora_in_the_authors_names_is_renamed(stored, tmp_path):
    (lora,) = read_loras(stored[0])
    changes = {"attn1": "self_attn", "attn2": "cross_attn", "to_out.0": "o", "to_": ""}
    weights = {}
    for own in lora.weights:
        key = own
        for name, theirs in changes.items():
            key = key.replace(name, theirs)
        weights[key] = own
    assert "blocks.1.cross_attn.o.lora_A.weight" in weights
    theirs = Lora(weights={key: lora.weights[own] for key, own in weights.items()}, config=lora.config)
    write_peft(theirs, tmp_path / "theirs")
    (ours,) = read_loras(tmp_path / "theirs")
    assert {*ours.modules} == {*lora.modules} == {*ours.config["target_modules"]}
    for key, own in weights.items():
        assert torch.equal(ours.weights[own], theirs.weights[key])
    patterned = Lora(weights=theirs.weights, config=lora.config | {"alpha_pattern": {"q": 1.0}})
    write_peft(patterned, tmp_path / "patterned")
    with pytest.raises(InputError, match="not converted"):
        read_loras(tmp_path / "patterned")


def test_both_experts_in_every_format(two_experts, tmp_path):
    model, folder, videos = two_experts
    loras = read_loras(folder)
    assert len(loras) == 2
    merge(loras, model, wan.EXPERTS, tmp_path / "merged")
    assert (draw_plain(plain_pipeline(tmp_path / "merged")) - videos).abs().max() < SAME

    lora_formats.write_diffusers(loras, tmp_path / "diffusers")
    family = Family(model)
    load_lora(family, tmp_path / "diffusers")
    assert torch.equal(draw(family), videos)

    files = lora_formats.write_comfyui("wan", loras, tmp_path / "comfyui", "house")
    assert [file.name for file in files] == ["house_high_noise.safetensors", "house_low_noise.safetensors"]
    plain = plain_pipeline(model)
    for file, second in zip(files, (False, True), strict=True):
        plain.load_lora_weights(file.parent, weight_name=file.name, load_into_transformer_2=second)
    assert (draw_plain(plain) - videos).abs().max() < SAME

    plain = plain_pipeline(model)
    for expert, lora in zip(wan.EXPERTS, loras, strict=True):
        lora_formats.write_peft(lora, tmp_path / "peft" / expert)
        PeftModel.from_pretrained(getattr(plain, expert), tmp_path / "peft" / expert)
    assert torch.equal(draw_plain(plain), videos)

    with pytest.raises(InputError, match="has 2 experts"):
        merge(loras, model, ["transformer"], tmp_path / "one")


def test_a_file_without_configuration_has_alpha_of_its_rank(stored, family, tmp_path):
    weights = load_file(stored[0] / LORA_FILES[0])
    name = "transformer.blocks.0.attn1.to_q"
    weights[name + DOWN], weights[name + UP] = torch.randn(2, 24), torch.randn(24, 2)
    save_file(weights, tmp_path / "bare.safetensors")
    (lora,) = read_loras(tmp_path / "bare.safetensors")
    assert {lora.scale(module) for module in lora.modules} == {1.0}
    load_lora(family, tmp_path / "bare.safetensors")
    bare = sample(family)
    lora_formats.write_peft(lora, tmp_path / "peft")
    load_lora(family, tmp_path / "peft")
    assert torch.equal(sample(family), bare)


def test_what_does_not_fit_is_refused(stored, ti2v_folder, tmp_path):
    (lora,) = read_loras(stored[0])
    for name, weights, message in (
        (
            "missing",
            {"blocks.9.attn1.to_q" + s: torch.zeros(24, 24) for s in (DOWN, UP)},
            "has no 'blocks.9.attn1",
        ),
        ("size", {"blocks.0.attn1.to_q" + s: torch.zeros(2, 2) for s in (DOWN, UP)}, "has size"),
    ):
        with pytest.raises(InputError, match=message):
            merge(
                [Lora(weights=weights, config={"lora_alpha": 2})],
                ti2v_folder,
                ["transformer"],
                tmp_path / name,
            )
        assert not (tmp_path / name / "model_index.json").exists()
    with pytest.raises(InputError, match="is the model itself"):
        merge([lora], ti2v_folder, ["transformer"], ti2v_folder)
    save_file({"a.alpha": torch.zeros(1)}, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"'a\.alpha' is no pair"):
        read_loras(tmp_path / "odd.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="cannot read"):
        read_loras(tmp_path / "broken.safetensors")
    shutil.copytree(stored[0], tmp_path / "dora")
    config = {"use_dora": True, "r": 4, "peft_type": "LORA"}
    (tmp_path / "dora" / LORA_FILES[0]).rename(tmp_path / "dora" / "adapter_model.safetensors")
    (tmp_path / "dora" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="another kind of adapter"):
        read_loras(tmp_path / "dora")


MODULES = {"blocks.0.attn1.to_q": (6, 5), "blocks.0.attn1.to_out.0": (5, 5), "blocks.1.attn1.to_q": (6, 4)}
"""Of a made-up model: outputs and inputs."""


@st.composite
def loras(draw):
    modules = draw(st.lists(st.sampled_from(sorted(MODULES)), min_size=1, unique=True))
    ranks = {module: draw(st.integers(1, 4)) for module in modules}
    config = {
        "lora_alpha": draw(st.floats(0.1, 30)),
        "alpha_pattern": draw(st.dictionaries(st.sampled_from(["to_q", *MODULES]), st.floats(0.1, 30))),
        "use_rslora": draw(st.booleans()),
    }
    rng = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    dtype = draw(st.sampled_from([torch.float32, torch.bfloat16]))
    weights = {}
    for module, rank in ranks.items():
        out, into = MODULES[module]
        weights[module + DOWN] = torch.randn(rank, into, generator=rng).to(dtype)
        weights[module + UP] = torch.randn(out, rank, generator=rng).to(dtype)
    return Lora(weights=weights, config=config)


@given(st.lists(loras(), min_size=1, max_size=4))
def test_a_stack_changes_what_its_loras_change_together(parts):
    together = stacked(parts)
    assert set(together.modules) == {module for lora in parts for module in lora.modules}
    for module in together.modules:
        own = [lora for lora in parts if module in lora.modules]
        assert len(together.weights[module + DOWN]) == sum(len(lora.weights[module + DOWN]) for lora in own)
        assert together.scale(module) == 1.0
        expected = sum(lora.change(module).double() for lora in own)
        size = sum(lora.change(module).abs().max() for lora in own)
        assert (together.change(module) - expected).abs().max() <= 1e-5 * size


def test_a_stack_draws_what_the_new_lora_draws_on_top_of_the_earlier_one(stored, ti2v_folder, tmp_path):
    trained = Family(ti2v_folder)
    load_earlier(trained, stored[0] / LORA_FILES[0])
    add_lora(trained, rank=2, alpha=6.0, seed=1)
    disturb(trained)
    videos = sample(trained)
    save_lora(trained, tmp_path / "new")
    new = read_loras(tmp_path / "new")
    for folder in (tmp_path / "stacked", tmp_path / "again"):
        (file,) = lora_formats.write_diffusers([stacked([*read_loras(stored[0]), *new])], folder)
    assert file.read_bytes() == (tmp_path / "stacked" / file.name).read_bytes()
    family = Family(ti2v_folder)
    load_lora(family, tmp_path / "stacked")
    assert (sample(family) - videos).abs().max() < SAME
    plain = plain_pipeline(ti2v_folder)
    plain.load_lora_weights(tmp_path / "stacked")
    assert torch.equal(plain_sample(plain), sample(family))
    assert (stored[1] - videos).abs().max() > 100 * SAME
