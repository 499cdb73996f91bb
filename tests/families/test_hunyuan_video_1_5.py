import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline

from tests.families import tiny_hunyuan_video_1_5
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
from videogpa.families.hunyuan_video import as_picture
from videogpa.families.hunyuan_video_1_5 import Family

VARIANTS = ["t2v", "i2v"]


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("hunyuan_video_1_5")
    return {variant: tiny_hunyuan_video_1_5.build(root / variant, variant) for variant in VARIANTS}


@pytest.fixture(scope="module", params=VARIANTS)
def arm(request, folders):
    return Family(folders[request.param]), first_frame() if request.param == "i2v" else None


def plain_pipeline(folder):
    plain = DiffusionPipeline.from_pretrained(folder)
    plain.set_progress_bar_config(disable=True)
    # Without, the VAE takes one video only.
    plain.vae.enable_slicing()
    return plain


def plain_videos(plain, image, seeds, guidance_scale):
    plain.guider = plain.guider.new(guidance_scale=guidance_scale)
    return plain(
        prompt=[TEXT] * len(seeds),
        **({"height": 32, "width": 32} if image is None else {"image": as_picture(image)}),
        num_frames=9,
        num_inference_steps=2,
        generator=[torch.Generator().manual_seed(s) for s in seeds],
        output_type="pt",
    ).frames


def test_samples_become_a_lora(arm, tmp_path):
    samples_become_a_lora(arm, tmp_path)


@pytest.mark.parametrize("text", [TEXT, 'a red box "LEFT" and “right”'], ids=["plain", "quoted"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prediction_is_the_pipelines_own_transformer_call(arm, dtype, text):
    family, image = arm
    if dtype != family.dtype:
        family = Family(family.folder, dtype=dtype)
    calls, handle = transformer_calls(family)
    samples = family.sample(text, image, [3, 4], SETTINGS)
    assert len(calls) == SETTINGS.steps
    for call, output in list(calls):
        x_t = call["hidden_states"][:, : family.transformer.config.out_channels]
        with torch.no_grad():
            predicted = family.predict(x_t, call["timestep"].float(), samples.conditioning)
        assert (predicted - output).abs().max() <= 1e-6
        # What is masked does not show in the output.
        for name, given in calls[-1][0].items():
            assert torch.equal(given, call[name]) if isinstance(given, torch.Tensor) else given == call[name]
    handle.remove()


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
    # Guided first: the guider keeps nothing of it.
    for settings in (GUIDED, SETTINGS):
        samples = family.sample(TEXT, image, [3, 4], settings)
        videos = plain_videos(plain, image, [3, 4], settings.guidance_scale)
        assert torch.equal(samples.videos, videos)
        assert samples.videos.shape == (2, 9, 3, 32, 32)
        assert samples.latents.shape == (2, 4, 3, 2, 2)


def test_x0_is_recovered_from_x_t_and_target(arm):
    family, _ = arm
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 4, 3, 2, 2, generator=generator)
    t = family.sample_timesteps(generator, 4, (3, 2, 2))
    sigma = (t / 1000).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(family.noise(x0, eps, t) - sigma * family.target(x0, eps, t), x0)


def test_noise_agrees_with_the_schedulers_own(arm):
    family, _ = arm
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, 3, 2, 2, generator=generator)
    family.scheduler.set_timesteps(20)
    t = family.scheduler.timesteps[[2, 7, 15]]
    torch.testing.assert_close(family.noise(x0, eps, t), family.scheduler.scale_noise(x0, t, eps))


def test_timesteps_follow_the_shifted_training_schedule(arm):
    family, _ = arm
    n, shift = 1000, tiny_hunyuan_video_1_5.SHIFT
    t = family.sample_timesteps(torch.Generator().manual_seed(1), n, (3, 2, 2))
    sigma = (t.double() / 1000).sort().values
    u = sigma / (shift - (shift - 1) * sigma)
    edges = torch.arange(n + 1).double() / n
    assert ((u >= edges[:-1] - 1e-5) & (u <= edges[1:] + 1e-5)).all()
    assert 0 < t.min() < t.max() < 1000
    assert not torch.equal(t, t.sort().values)


def test_timesteps_are_what_the_model_can_be_told(folders):
    """In bfloat16 it is told a multiple of 4 above 512; the noise must be that timestep's."""
    exact, coarse = (
        Family(folders["t2v"], dtype=dtype).sample_timesteps(torch.Generator().manual_seed(1), 100, (3, 2, 2))
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert coarse.dtype == torch.float32
    assert torch.equal(coarse, coarse.bfloat16().float())
    assert 1 < (exact - coarse).abs().max() <= 2


def test_all_frames_are_part_of_the_loss(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3], SETTINGS)
    mask = family.loss_mask(samples.latents, samples.conditioning)
    assert mask.shape == (1, 1, 3, 2, 2)
    assert mask.all()


def test_encoding_gives_the_conditioning_and_the_scale_that_sampling_used(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3, 4], SETTINGS)
    latents, conditioning = family.encode(samples.videos, TEXT, image)
    assert latents.shape == samples.latents.shape
    assert conditioning.keys() == samples.conditioning.keys()
    for name, tensor in conditioning.items():
        assert torch.equal(tensor, samples.conditioning[name])
    raw = family.pipeline.vae.encode(2 * samples.videos.transpose(1, 2) - 1).latent_dist.mode()
    torch.testing.assert_close(latents, 0.7 * raw)
    if image is not None:
        shown = family.pipeline.vae.encode(2 * image[None, :, None] - 1).latent_dist.mode()
        torch.testing.assert_close(conditioning["first_frame"][:1], 0.7 * shown)


def test_conditioning_of_any_prompt_can_be_stacked(arm):
    family, image = arm
    texts = ("a", "red box " * 2000, 'a red box "LEFT"')
    short, long, quoted = (family.sample(text, image, [3], SETTINGS).conditioning for text in texts)
    assert {k: v.shape for k, v in short.items()} == {k: v.shape for k, v in long.items()}
    assert {k: v.shape for k, v in short.items()} == {k: v.shape for k, v in quoted.items()}
    assert short["prompt_embeds_mask"].sum() < long["prompt_embeds_mask"].sum()
    assert short["prompt_embeds_mask_2"].sum() == 0
    # One token a byte, and the end.
    assert quoted["prompt_embeds_mask_2"].sum() == len('Text "LEFT". ') + 1


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
    plain.transformer.load_lora_adapter(tmp_path, prefix="transformer", use_safetensors=True)
    assert torch.equal(plain_videos(plain, image, [3], 1.0), trained)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_absent_text_and_image_leave_the_gradients_finite(folders, dtype):
    """Their tokens are masked as queries, too: softmax over nothing."""
    family = Family(folders["t2v"], dtype=dtype)
    conditioning = family.sample("a", None, [3], SETTINGS).conditioning
    add_lora(family, 4, 8.0, seed=0)
    generator = torch.Generator().manual_seed(0)
    x_t = torch.randn(1, 4, 3, 2, 2, generator=generator)
    family.predict(x_t, torch.tensor([500.0]), conditioning).float().square().mean().backward()
    gradients = {name: p.grad for name, p in lora_parameters(family).items()}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    # A fresh B is zero, which leaves A without a gradient.
    assert all(gradients[name].abs().max() > 0 for name in gradients if ".lora_B." in name)


def test_training_parts_load_without_text_encoders_and_vae(folders, tmp_path):
    ignored = shutil.ignore_patterns("vae", "text_encoder*", "tokenizer*", "guider")
    family = Family(shutil.copytree(folders["t2v"], tmp_path / "lean", ignore=ignored))
    x = torch.zeros(1, 4, 3, 2, 2)
    conditioning = {
        "prompt_embeds": torch.zeros(1, 5, 16),
        "prompt_embeds_mask": torch.ones(1, 5),
        "prompt_embeds_2": torch.zeros(1, 3, 16),
        "prompt_embeds_mask_2": torch.zeros(1, 3),
    }
    assert family.predict(x, torch.tensor([500.0]), conditioning).shape == x.shape


@pytest.mark.parametrize("frames", [1, 5, 17])
def test_as_many_frames_as_asked_for_are_drawn(arm, frames):
    family, image = arm
    settings = SamplerSettings(frames=frames, height=32, width=32, steps=1)
    if image is not None and frames == 1:
        with pytest.raises(InputError, match="leaves nothing to draw"):
            family.sample(TEXT, image, [0], settings)
    else:
        assert family.sample(TEXT, image, [0], settings).videos.shape[1] == frames


def test_another_shape_of_the_same_area_is_drawn(arm):
    family, image = arm
    settings = SamplerSettings(frames=5, height=16, width=64, steps=1)
    wide = None if image is None else image.reshape(3, 16, 64)
    assert family.sample(TEXT, wide, [0], settings).videos.shape == (1, 5, 3, 16, 64)


@pytest.mark.parametrize(
    ("variant", "frames", "height", "width", "message"),
    [
        ("t2v", 8, 32, 32, r"8 frames do not fit .* choose k\*4\+1"),
        ("t2v", 9, 40, 32, "32x40 does not fit .* multiples of 16"),
        ("t2v", 9, 32, 0, "0x32 does not fit"),
        ("i2v", 9, 48, 48, "48x48 does not fit .* of this shape it draws 32x32"),
        ("i2v", 9, 16, 128, "128x16 does not fit .* of this shape it draws 64x16"),
    ],
)
def test_unfitting_sizes_are_refused(folders, variant, frames, height, width, message):
    settings = SamplerSettings(frames=frames, height=height, width=width, steps=1)
    image = torch.zeros(3, height, width) if variant == "i2v" else None
    with pytest.raises(InputError, match=message):
        Family(folders[variant]).sample(TEXT, image, [0], settings)
    with pytest.raises(InputError, match=message):
        Family(folders[variant]).encode(torch.zeros(1, frames, 3, height, width), TEXT, image)


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


def test_a_step_distilled_model_is_refused(tmp_path):
    tiny_hunyuan_video_1_5.build(tmp_path, "i2v", use_meanflow=True)
    with pytest.raises(InputError, match="choose a folder that is not step-distilled"):
        Family(tmp_path)


def test_another_schedule_or_another_familys_folder_is_refused(folders, tmp_path):
    other = shutil.copytree(folders["t2v"], tmp_path / "other")
    edit(other / "scheduler" / "scheduler_config.json", use_dynamic_shifting=True)
    with pytest.raises(InputError, match="no flow schedule with a fixed shift"):
        Family(other)
    edit(other / "model_index.json", _class_name="HunyuanVideoPipeline")
    with pytest.raises(InputError, match="holds a HunyuanVideoPipeline"):
        Family(other)


def test_a_missing_part_is_refused(folders, tmp_path):
    ignored = shutil.ignore_patterns("text_encoder_2")
    torn = shutil.copytree(folders["t2v"], tmp_path / "torn", ignore=ignored)
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(torn).sample(TEXT, None, [0], SETTINGS)
