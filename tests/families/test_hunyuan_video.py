import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.families import tiny_hunyuan_video
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
from videogpa.dpo.lora import add_lora, load_lora, lora_parameters, save_lora
from videogpa.errors import InputError
from videogpa.families.base import SamplerSettings
from videogpa.families.hunyuan_video import Family, as_picture

VARIANTS = ["t2v", "i2v"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hunyuan_video")
    return {variant: tiny_hunyuan_video.build(root / variant, variant) for variant in VARIANTS}


@pytest.fixture(scope="module", params=VARIANTS)
def arm(request, folders):
    return Family(folders[request.param]), first_frame() if request.param == "i2v" else None


def plain_pipeline(folder):
    plain = DiffusionPipeline.from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    return plain


def plain_videos(plain, image, seeds, guidance):
    count = len(seeds)
    # The plain image-to-video pipeline takes an image for each prompt.
    given = {} if image is None else {"image": [as_picture(image)] * count}
    return plain(
        prompt=[TEXT] * count,
        **given,
        height=32,
        width=32,
        num_frames=9,
        num_inference_steps=2,
        guidance_scale=guidance,
        generator=[torch.Generator().manual_seed(s) for s in seeds],
        output_type="pt",
    ).frames


def test_samples_become_a_lora(arm, tmp_path):
    samples_become_a_lora(arm, tmp_path)


@pytest.mark.parametrize("settings", [SETTINGS, GUIDED], ids=["unguided", "guided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prediction_is_the_pipelines_own_transformer_call(arm, dtype, settings):
    family, image = arm
    if dtype != family.dtype:
        family = Family(family.folder, dtype=dtype)
    calls, handle = transformer_calls(family)
    samples = family.sample(TEXT, image, [3, 4], settings)
    handle.remove()
    assert len(calls) == settings.steps
    for call, output in calls:
        x_t = call["hidden_states"]
        with torch.no_grad():
            predicted = family.predict(x_t, call["timestep"], samples.conditioning)
        assert (predicted - output).abs().max() <= 1e-6
        # Whatever stood in the clean frame's place, the model sees the given one.
        if image is not None:
            spoiled = x_t.clone()
            spoiled[:, :, 0] = 7.0
            with torch.no_grad():
                assert torch.equal(family.predict(spoiled, call["timestep"], samples.conditioning), predicted)


def test_the_model_is_told_the_guidance_of_the_sampling(arm):
    family, image = arm
    plain, guided = (family.sample(TEXT, image, [3], s).conditioning for s in (SETTINGS, GUIDED))
    assert plain["guidance"].tolist() == [6.0]
    assert guided["guidance"].tolist() == [4.0]
    x_t, t = torch.zeros(1, 4, 3, 4, 4), torch.tensor([500.0])
    with torch.no_grad():
        assert not torch.equal(family.predict(x_t, t, plain), family.predict(x_t, t, guided))


def test_the_order_of_the_frames_matters_to_the_model(folders):
    """Without rotary embeddings a model predicts the same for every frame wherever it stands."""
    family = Family(folders["t2v"])
    generator = torch.Generator().manual_seed(0)
    x_t, t = torch.randn(1, 4, 3, 4, 4, generator=generator), torch.tensor([500.0])
    conditioning = family.sample(TEXT, None, [3], SETTINGS).conditioning
    with torch.no_grad():
        straight, reverse = (family.predict(x, t, conditioning) for x in (x_t, x_t.flip(2)))
    assert (straight - reverse.flip(2)).abs().max() > 1e-3


def test_samples_equal_a_plain_pipeline_call(arm):
    family, image = arm
    plain = plain_pipeline(family.folder)
    # The plain image-to-video pipeline encodes prompt and image once a video, which rounds otherwise than once for all.
    seeds = [3, 4] if image is None else [3]
    for settings, guidance in ((SETTINGS, 6.0), (GUIDED, 4.0)):
        samples = family.sample(TEXT, image, seeds, settings)
        assert torch.equal(samples.videos, plain_videos(plain, image, seeds, guidance))
        assert samples.videos.shape == (len(seeds), 9, 3, 32, 32)
        assert samples.latents.shape == (len(seeds), 4, 3, 4, 4)


def test_x0_is_recovered_from_x_t_and_target(arm):
    family, _ = arm
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 4, 3, 4, 4, generator=generator)
    t = family.sample_timesteps(generator, 4, (3, 4, 4))
    sigma = (t / 1000).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(family.noise(x0, eps, t) - sigma * family.target(x0, eps, t), x0)


def test_noise_agrees_with_the_schedulers_own(arm):
    family, _ = arm
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, 3, 4, 4, generator=generator)
    family.scheduler.set_timesteps(20)
    t = family.scheduler.timesteps[[2, 7, 15]]
    torch.testing.assert_close(family.noise(x0, eps, t), family.scheduler.scale_noise(x0, t, eps))


def test_timesteps_follow_the_shifted_training_schedule(arm):
    family, _ = arm
    n, shift = 1000, tiny_hunyuan_video.SHIFT
    t = family.sample_timesteps(torch.Generator().manual_seed(1), n, (3, 4, 4))
    sigma = (t.double() / 1000).sort().values
    u = sigma / (shift - (shift - 1) * sigma)
    edges = torch.arange(n + 1).double() / n
    assert ((u >= edges[:-1] - 1e-5) & (u <= edges[1:] + 1e-5)).all()
    assert 0 < t.min() < t.max() < 1000
    assert not torch.equal(t, t.sort().values)


def test_loss_mask_leaves_out_the_given_frame_only(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3], SETTINGS)
    mask = family.loss_mask(samples.latents, samples.conditioning)
    assert mask[:, :, 0].all() == (image is None)
    assert mask[:, :, 1:].all()
    if image is not None:
        assert torch.equal(samples.latents[:, :, :1], samples.conditioning["first_frame"])


def test_encoding_gives_the_conditioning_and_the_scale_that_sampling_used(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3, 4], SETTINGS)
    latents, conditioning = family.encode(samples.videos, TEXT, image)
    assert latents.shape == samples.latents.shape
    assert conditioning.keys() == samples.conditioning.keys()
    for name, tensor in conditioning.items():
        assert torch.equal(tensor, samples.conditioning[name])
    raw = 0.7 * family.pipeline.vae.encode(2 * samples.videos.transpose(1, 2) - 1).latent_dist.mode()
    if image is not None:
        raw[:, :, :1] = samples.conditioning["first_frame"]
        shown = family.pipeline.vae.encode(2 * image[None, :, None] - 1).latent_dist.mode()
        torch.testing.assert_close(raw[:1, :, :1], 0.7 * shown)
    torch.testing.assert_close(latents, raw)


def test_conditioning_of_any_prompt_can_be_stacked(arm):
    family, image = arm
    short, long = (family.sample(text, image, [3], SETTINGS).conditioning for text in ("a", "red box " * 400))
    assert {k: v.shape for k, v in short.items()} == {k: v.shape for k, v in long.items()}
    assert short["prompt_attention_mask"].sum() < long["prompt_attention_mask"].sum()
    assert not torch.equal(short["pooled_prompt_embeds"], long["pooled_prompt_embeds"])


def test_the_prompts_embeddings_show_the_image(folders):
    family = Family(folders["i2v"])
    one, other = (
        family.sample(TEXT, image, [3], SETTINGS).conditioning["prompt_embeds"]
        for image in (first_frame(), 1 - first_frame())
    )
    # 576 / 4 tokens of the image come first.
    assert (one - other)[:, :144].abs().amax(2).min() > 1e-5


def test_a_lora_is_the_same_in_the_plain_pipeline(arm, tmp_path):
    family, image = Family(arm[0].folder), arm[1]
    add_lora(family, 4, 8.0, seed=0)
    with torch.no_grad():
        for parameter in lora_parameters(family).values():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    save_lora(family, tmp_path)
    trained = family.sample(TEXT, image, [3], SETTINGS).videos
    assert not torch.equal(trained, arm[0].sample(TEXT, image, [3], SETTINGS).videos)
    again = Family(family.folder)
    load_lora(again, tmp_path)
    assert torch.equal(again.sample(TEXT, image, [3], SETTINGS).videos, trained)
    plain = plain_pipeline(family.folder)
    plain.load_lora_weights(tmp_path)
    assert torch.equal(plain_videos(plain, image, [3], 6.0), trained)


def test_training_parts_load_without_text_encoders_and_vae(folders, tmp_path):
    ignored = shutil.ignore_patterns("vae", "text_encoder*", "tokenizer*")
    family = Family(shutil.copytree(folders["t2v"], tmp_path / "lean", ignore=ignored))
    x = torch.zeros(1, 4, 3, 4, 4)
    conditioning = {
        "prompt_embeds": torch.zeros(1, 5, 16),
        "prompt_attention_mask": torch.ones(1, 5, dtype=torch.long),
        "pooled_prompt_embeds": torch.zeros(1, 16),
        "guidance": torch.tensor([6.0]),
    }
    assert family.predict(x, torch.tensor([500.0]), conditioning).shape == x.shape


@pytest.mark.parametrize("frames", [1, 5, 33])
def test_as_many_frames_as_asked_for_are_drawn(arm, frames):
    family, image = arm
    settings = SamplerSettings(frames=frames, height=32, width=32, steps=1)
    if image is not None and frames == 1:
        with pytest.raises(InputError, match="leaves nothing to draw"):
            family.sample(TEXT, image, [0], settings)
    else:
        assert family.sample(TEXT, image, [0], settings).videos.shape[1] == frames


@pytest.mark.parametrize(
    ("frames", "height", "width", "message"),
    [
        (8, 32, 32, r"8 frames do not fit .* choose k\*4\+1"),
        (9, 40, 32, "32x40 does not fit .* multiples of 16"),
        (9, 32, 0, "0x32 does not fit"),
    ],
)
def test_unfitting_sizes_are_refused(folders, frames, height, width, message):
    settings = SamplerSettings(frames=frames, height=height, width=width, steps=1)
    with pytest.raises(InputError, match=message):
        Family(folders["t2v"]).sample(TEXT, None, [0], settings)
    with pytest.raises(InputError, match=message):
        Family(folders["t2v"]).encode(torch.zeros(1, frames, 3, height, width), TEXT, None)


def test_a_missing_superfluous_or_unfitting_first_frame_is_refused(folders):
    with pytest.raises(InputError, match="give every prompt a first frame"):
        Family(folders["i2v"]).sample(TEXT, None, [0], SETTINGS)
    with pytest.raises(InputError, match="cannot take a first frame"):
        Family(folders["t2v"]).sample(TEXT, first_frame(), [0], SETTINGS)
    wide = SamplerSettings(frames=9, height=32, width=48, steps=1)
    with pytest.raises(InputError, match="the first frame is 32x32"):
        Family(folders["i2v"]).sample(TEXT, first_frame(), [0], wide)


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"use_dynamic_shifting": True},
        {"shift_terminal": 0.1},
        {"use_karras_sigmas": True},
        {"invert_sigmas": True},
        {"stochastic_sampling": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_schedule_is_refused(folders, tmp_path, changes):
    other = shutil.copytree(folders["t2v"], tmp_path / "other")
    edit(other / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(InputError, match="no flow schedule with a fixed shift"):
        Family(other)


def test_another_scheduler_or_another_familys_folder_is_refused(folders, tmp_path):
    other = shutil.copytree(folders["t2v"], tmp_path / "other")
    edit(other / "model_index.json", scheduler=["diffusers", "DDIMScheduler"])
    with pytest.raises(InputError, match="no flow schedule"):
        Family(other)
    edit(other / "model_index.json", _class_name="HunyuanVideo15Pipeline")
    with pytest.raises(InputError, match="holds a HunyuanVideo15Pipeline"):
        Family(other)


def test_a_transformer_that_the_pipeline_does_not_fit_is_refused(folders, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folders["i2v"], other)
    edit(other / "transformer" / "config.json", image_condition_type="latent_concat")
    with pytest.raises(InputError, match="draws 4 frames less"):
        Family(other)
    edit(other / "transformer" / "config.json", image_condition_type=None)
    with pytest.raises(InputError, match="does not fit its HunyuanVideoImageToVideoPipeline"):
        Family(other)
    undistilled = tiny_hunyuan_video.build(tmp_path / "undistilled", guidance_embeds=False)
    with pytest.raises(InputError, match="guidance_embeds"):
        Family(undistilled)


def test_a_missing_part_is_refused(folders, tmp_path):
    ignored = shutil.ignore_patterns("text_encoder_2")
    torn = shutil.copytree(folders["t2v"], tmp_path / "torn", ignore=ignored)
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(torn).sample(TEXT, None, [0], SETTINGS)
