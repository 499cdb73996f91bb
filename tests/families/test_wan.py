import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline, WanImageToVideoPipeline, WanPipeline

from tests.families import tiny_wan
from tests.families.contract import (  # noqa: F401
    GUIDED,
    SETTINGS,
    TEXT,
    first_frame,
    samples_become_a_lora,
    test_a_fresh_lora_has_no_preference,
    test_a_seed_gives_the_same_latents_in_any_batch_of_its_size,
    test_every_lora_target_matches_modules,
    test_sampling_leaves_the_global_generator_alone,
    transformer_calls,
)
from videogpa.dpo.lora import LORA_FILES, add_lora, load_lora, lora_parameters, remove_lora, save_lora
from videogpa.errors import InputError
from videogpa.families.base import SamplerSettings
from videogpa.families.wan import EXPERTS, Family

ARMS = [
    ("ti2v", True),
    ("ti2v", False),
    ("t2v", False),
    ("i2v", True),
    ("i2v_clip", True),
    ("a14b_t2v", False),
    ("a14b_i2v", True),
]


@pytest.fixture(scope="module", params=ARMS, ids=lambda arm: f"{arm[0]}-{'image' if arm[1] else 'text'}")
def arm(request, wan_folder):
    variant, with_image = request.param
    return Family(wan_folder(variant)), first_frame() if with_image else None


@pytest.mark.parametrize("arm", [("ti2v", True), ("t2v", False), ("a14b_i2v", True)], indirect=True)
def test_samples_become_a_lora(arm, tmp_path):
    samples_become_a_lora(arm, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prediction_is_the_pipelines_own_transformer_call(arm, dtype):
    family, image = arm
    if dtype != family.dtype:
        family = Family(family.folder, dtype=dtype)
    calls, handle = transformer_calls(family)
    samples = family.sample(TEXT, image, [3, 4], SETTINGS)
    handle.remove()
    # Of two experts this one makes the first step, the other one the rest.
    assert len(calls) == (SETTINGS.steps if family.boundary is None else 1)
    for call, output in calls:
        x_t = call["hidden_states"][:, : family.transformer.config.out_channels]
        t = call["timestep"].reshape(2, -1).max(dim=1).values.float()
        with torch.no_grad():
            predicted = family.predict(x_t, t, samples.conditioning)
        assert (predicted - output).abs().max() <= 1e-6
        # Whatever stood in the clean frame's place, the model sees the given one.
        if family.expand_timesteps and image is not None:
            spoiled = x_t.clone()
            spoiled[:, :, 0] = 7.0
            with torch.no_grad():
                assert torch.equal(family.predict(spoiled, t, samples.conditioning), predicted)


def test_the_order_of_the_frames_matters_to_the_model(wan_folder):
    """Without rotary embeddings a model predicts the same for every frame wherever it stands."""
    family = Family(wan_folder("t2v"))
    generator = torch.Generator().manual_seed(0)
    x_t, t = torch.randn(1, 4, 3, 4, 4, generator=generator), torch.tensor([500.0])
    conditioning = {"prompt_embeds": torch.randn(1, 12, 16, generator=generator)}
    with torch.no_grad():
        straight, reverse = (family.predict(x, t, conditioning) for x in (x_t, x_t.flip(2)))
    assert (straight - reverse.flip(2)).abs().max() > 1e-3


def test_samples_equal_a_plain_pipeline_call(arm):
    family, image = arm
    plain = DiffusionPipeline.from_pretrained(family.folder)
    if family.expand_timesteps and image is None:
        parts = {k: v for k, v in plain.components.items() if not k.startswith("image_")}
        plain = WanPipeline(**parts, expand_timesteps=True)
    plain.set_progress_bar_config(disable=True)
    # The plain image-to-video 2.1 pipeline repeats image embeddings per prompt, not per video.
    batch = {"prompt": [TEXT, TEXT]} if image is not None else {"prompt": TEXT, "num_videos_per_prompt": 2}
    for settings in (SETTINGS, GUIDED):
        samples = family.sample(TEXT, image, [3, 4], settings)
        videos = plain(
            **batch,
            **({} if image is None else {"image": family._as_pipeline_input(image)}),
            height=32,
            width=32,
            num_frames=9,
            num_inference_steps=2,
            guidance_scale=settings.guidance_scale,
            max_sequence_length=family.max_sequence_length,
            generator=[torch.Generator().manual_seed(s) for s in (3, 4)],
            output_type="pt",
        ).frames
        assert torch.equal(samples.videos, videos)
        assert samples.videos.shape == (2, 9, 3, 32, 32)
        assert samples.latents.shape == (2, 4, 3, 4, 4)
        assert samples.videos.min() >= 0
        assert samples.videos.max() <= 1


def test_x0_is_recovered_from_x_t_and_target(arm):
    family, _ = arm
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 4, 3, 4, 4, generator=generator)
    t = family.sample_timesteps(generator, 4, (3, 4, 4))
    sigma = (t / 1000).view(-1, 1, 1, 1, 1)
    recovered = family.noise(x0, eps, t) - sigma * family.target(x0, eps, t)
    torch.testing.assert_close(recovered, x0)


def test_noise_agrees_with_the_schedulers_own(wan_folder):
    family = Family(wan_folder("ti2v"))
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, 3, 4, 4, generator=generator)
    family.scheduler.set_timesteps(20)
    t = family.scheduler.timesteps[[2, 7, 15]]
    torch.testing.assert_close(family.noise(x0, eps, t), family.scheduler.scale_noise(x0, t, eps))


@pytest.mark.parametrize(("variant", "shift"), [("ti2v", 3.0), ("t2v", 5.0)])
def test_timesteps_follow_the_shifted_training_schedule(wan_folder, variant, shift):
    family = Family(wan_folder(variant))
    n = 1000
    t = family.sample_timesteps(torch.Generator().manual_seed(1), n, (3, 4, 4))
    sigma = (t.double() / 1000).sort().values
    u = sigma / (shift - (shift - 1) * sigma)
    edges = torch.arange(n + 1).double() / n
    assert ((u >= edges[:-1] - 1e-5) & (u <= edges[1:] + 1e-5)).all()
    assert t.min() > 0
    assert t.max() < 1000
    assert not torch.equal(t, t.sort().values)


def test_loss_mask_leaves_out_the_given_frame_only(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3], SETTINGS)
    mask = family.loss_mask(samples.latents, samples.conditioning)
    given = image is not None and family.expand_timesteps
    assert mask[:, :, 0].all() != given
    assert mask[:, :, 1:].all()
    if given:
        assert torch.equal(samples.latents[:, :, :1], samples.conditioning["first_frame"])


def test_encoding_gives_the_conditioning_that_sampling_used(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3, 4], SETTINGS)
    latents, conditioning = family.encode(samples.videos, TEXT, image)
    assert latents.shape == samples.latents.shape
    assert conditioning.keys() == samples.conditioning.keys()
    for name, tensor in conditioning.items():
        assert torch.equal(tensor, samples.conditioning[name])
    vae = family.pipeline.vae
    mean, std = (torch.tensor(x).view(-1, 1, 1, 1) for x in (vae.config.latents_mean, vae.config.latents_std))
    raw = latents * std + mean
    redrawn = vae.encode(2 * samples.videos.transpose(1, 2) - 1).latent_dist.mode()
    skip = 1 if image is not None and family.expand_timesteps else 0
    torch.testing.assert_close(raw[:, :, skip:], redrawn[:, :, skip:], atol=1e-5, rtol=1e-5)


def test_training_parts_load_without_text_encoder_and_vae(wan_folder, tmp_path):
    lean = tmp_path / "lean"
    shutil.copytree(
        wan_folder("ti2v"), lean, ignore=shutil.ignore_patterns("vae", "text_encoder", "tokenizer")
    )
    family = Family(lean)
    x = torch.zeros(1, 4, 3, 4, 4)
    assert (
        family.predict(x, torch.tensor([500.0]), {"prompt_embeds": torch.zeros(1, 12, 16)}).shape == x.shape
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SamplerSettings(frames=8, height=32, width=32, steps=1), "8 frames do not fit"),
        (SamplerSettings(frames=9, height=40, width=32, steps=1), "32x40 does not fit"),
        (SamplerSettings(frames=9, height=48, width=48, steps=1), "the first frame is 32x32"),
    ],
)
def test_unfitting_sizes_are_refused(wan_folder, settings, message):
    with pytest.raises(InputError, match=message):
        Family(wan_folder("ti2v")).sample(TEXT, first_frame(), [0], settings)


def test_a_missing_or_superfluous_first_frame_is_refused(wan_folder):
    with pytest.raises(InputError, match="give every prompt a first frame"):
        Family(wan_folder("i2v")).sample(TEXT, None, [0], SETTINGS)
    with pytest.raises(InputError, match="cannot take a first frame"):
        Family(wan_folder("t2v")).sample(TEXT, first_frame(), [0], SETTINGS)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_unusable_folders_are_refused(wan_folder, tmp_path):
    with pytest.raises(InputError, match="no model folder"):
        Family(tmp_path / "absent")
    with pytest.raises(InputError, match="no diffusers folder"):
        Family(tmp_path)

    def copy(name):
        return shutil.copytree(wan_folder("ti2v"), tmp_path / name)

    other = copy("other")
    edit(other / "model_index.json", _class_name="CogVideoXPipeline")
    with pytest.raises(InputError, match="holds a CogVideoXPipeline"):
        Family(other)
    deeper = copy("deeper")
    edit(deeper / "transformer" / "config.json", num_layers=3)
    with pytest.raises(InputError, match="missing keys"):
        Family(deeper)
    wider = copy("wider")
    edit(wider / "transformer" / "config.json", ffn_dim=64)
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(wider)
    torn = copy("torn")
    weights = torn / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(torn)
    blind = copy("blind")
    shutil.rmtree(blind / "vae")
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(blind).sample(TEXT, None, [0], SETTINGS)


def test_both_pipeline_classes_share_the_components(wan_folder):
    family = Family(wan_folder("ti2v"))
    with_image = family._pipeline_for(first_frame())
    without = family._pipeline_for(None)
    assert isinstance(with_image, WanImageToVideoPipeline)
    assert isinstance(without, WanPipeline)
    assert without.transformer is with_image.transformer is family.transformer
    assert without.vae is with_image.vae


@pytest.mark.parametrize("variant", tiny_wan.BOUNDARIES)
def test_experts_share_the_schedule_at_the_boundary(wan_folder, variant):
    boundary = 1000 * tiny_wan.BOUNDARIES[variant]
    first, second = (Family(wan_folder(variant), expert=name) for name in EXPERTS)
    size, n = (3, 4, 4), 500
    high, low = (f.sample_timesteps(torch.Generator().manual_seed(1), n, size) for f in (first, second))
    assert high.min() >= boundary - 1e-3 > low.max() - 2e-3
    # Together they are the schedule of one model: the shares are those of the unshifted range.
    border = boundary / 1000 / (first.shift - (first.shift - 1) * boundary / 1000)
    u = torch.cat([high, low]).double() / 1000
    u = u / (first.shift - (first.shift - 1) * u)
    assert u[:n].min() == pytest.approx(border, abs=2 / n)
    assert u[n:].max() == pytest.approx(border, abs=2 / n)
    assert u[:n].mean() == pytest.approx((1 + border) / 2, abs=2e-3)


def test_each_expert_predicts_as_the_pipeline_calls_it(wan_folder):
    family = Family(wan_folder("a14b_t2v"), expert="transformer_2")
    calls, handle = transformer_calls(family)
    samples = family.sample(TEXT, None, [3, 4], SETTINGS)
    handle.remove()
    assert len(calls) == 1
    call, output = calls[0]
    assert call["timestep"].max() < 875
    with torch.no_grad():
        predicted = family.predict(call["hidden_states"], call["timestep"].float(), samples.conditioning)
    assert (predicted - output).abs().max() <= 1e-6
    first = Family(wan_folder("a14b_t2v")).sample(TEXT, None, [3, 4], SETTINGS)
    assert torch.equal(first.videos, samples.videos)


def test_both_experts_loras_load_in_the_plain_pipeline(wan_folder, tmp_path):
    for number, name in enumerate(EXPERTS):
        family = Family(wan_folder("a14b_t2v"), expert=name)
        add_lora(family, 4, 4.0, seed=number)
        with torch.no_grad():
            for parameter in lora_parameters(family).values():
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(number))
        save_lora(family, tmp_path, LORA_FILES[number])
    ours = Family(wan_folder("a14b_t2v"))
    base = ours.sample(TEXT, None, [3], SETTINGS).videos
    load_lora(ours, tmp_path)
    plain = DiffusionPipeline.from_pretrained(ours.folder)
    plain.set_progress_bar_config(disable=True)
    plain.load_lora_weights(tmp_path, weight_name=LORA_FILES[0])

    def drawn():
        return plain(
            prompt=TEXT, height=32, width=32, num_frames=9, num_inference_steps=2, guidance_scale=1.0,
            max_sequence_length=ours.max_sequence_length, generator=[torch.Generator().manual_seed(3)],
            output_type="pt",
        ).frames  # fmt: skip

    with_one = drawn()
    plain.load_lora_weights(tmp_path, weight_name=LORA_FILES[1], load_into_transformer_2=True)
    assert not torch.equal(with_one, base)
    assert not torch.equal(drawn(), with_one)
    assert torch.equal(ours.sample(TEXT, None, [3], SETTINGS).videos, drawn())
    remove_lora(ours)
    assert torch.equal(ours.sample(TEXT, None, [3], SETTINGS).videos, base)
    with pytest.raises(InputError, match="two experts, but the model has one"):
        load_lora(Family(wan_folder("t2v")), tmp_path)
