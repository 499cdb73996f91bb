import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler, LTXImageToVideoPipeline, LTXPipeline
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from safetensors.torch import load_file, save_file

from tests.families import tiny_ltx
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
from videogpa.families.first_frame import encoding_by_mode
from videogpa.families.ltx import Family, _as_latents
from videogpa.families.schedule import stratified

ARMS = [(variant, with_image) for variant in tiny_ltx.VAES for with_image in (False, True)]
SIZE = (3, 4, 4)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("ltx")
    return {variant: tiny_ltx.build(root / variant, variant) for variant in tiny_ltx.VAES}


@pytest.fixture(scope="module", params=ARMS, ids=lambda arm: f"{arm[0]}-{'image' if arm[1] else 'text'}")
def arm(request, folders):
    variant, with_image = request.param
    return Family(folders[variant]), first_frame() if with_image else None


@pytest.mark.parametrize("arm", ARMS[-2:], indirect=True)
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
    assert len(calls) == SETTINGS.steps
    for call, output in calls:
        x_t, output = (_as_latents(tokens, SIZE) for tokens in (call["hidden_states"], output))
        t = call["timestep"].reshape(2, -1).max(dim=1).values.float()
        with torch.no_grad():
            predicted = family.predict(x_t, t, samples.conditioning)
        assert (predicted - output).abs().max() <= 1e-6
        # Whatever stood in the clean frame's place, the model sees the given one.
        if image is not None:
            spoiled = x_t.clone()
            spoiled[:, :, 0] = 7.0
            with torch.no_grad():
                assert torch.equal(family.predict(spoiled, t, samples.conditioning), predicted)


@pytest.mark.parametrize("variant", tiny_ltx.VAES)
def test_the_order_of_the_frames_matters_to_the_model(folders, variant):
    """Without rotary embeddings a model predicts the same for every frame wherever it stands."""
    family = Family(folders[variant])
    generator = torch.Generator().manual_seed(0)
    x_t, t = torch.randn(1, 4, *SIZE, generator=generator), torch.tensor([500.0])
    conditioning = {
        "prompt_embeds": torch.randn(1, 12, 16, generator=generator),
        "prompt_mask": torch.ones(1, 12, dtype=torch.bool),
    }
    with torch.no_grad():
        straight, reverse = (family.predict(x, t, conditioning) for x in (x_t, x_t.flip(2)))
    assert (straight - reverse.flip(2)).abs().max() > 1e-3


def plain_videos(plain, image, seeds, guidance_scale):
    """What the diffusers pipeline itself draws: latents of first frames by their mode, the authors' decoding."""
    timestep_aware = plain.vae.config.timestep_conditioning
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    given = {} if image is None else {"image": image.expand(len(seeds), -1, -1, -1)}
    if isinstance(plain, LTXImageToVideoPipeline) and timestep_aware:
        # It hands its generators to torch.randn, which takes one only.
        (generators,) = generators
    elif not isinstance(plain, LTXImageToVideoPipeline | LTXPipeline) and image is not None:
        given = {"image": image[None], "image_cond_noise_scale": 0.0}
    # The decoder of 0.9.1 draws from the global generator.
    torch.manual_seed(0)
    with encoding_by_mode(plain.vae):
        return plain(
            prompt=[TEXT] * len(seeds),
            **given,
            height=32,
            width=32,
            num_frames=9,
            num_inference_steps=2,
            guidance_scale=guidance_scale,
            generator=generators,
            **({"decode_timestep": 0.05, "decode_noise_scale": 0.025} if timestep_aware else {}),
            output_type="pt",
        ).frames


def plain_pipeline(family, image):
    plain = DiffusionPipeline.from_pretrained(family.folder)
    if isinstance(plain, LTXPipeline) and image is not None:
        plain = LTXImageToVideoPipeline(**plain.components)
    plain.set_progress_bar_config(disable=True)
    return plain


def test_samples_equal_a_plain_pipeline_call(arm):
    family, image = arm
    plain = plain_pipeline(family, image)
    one_only = isinstance(plain, LTXImageToVideoPipeline) and plain.vae.config.timestep_conditioning
    seeds = [3] if one_only else [3, 4]
    for settings in (SETTINGS, GUIDED):
        samples = family.sample(TEXT, image, seeds, settings)
        with torch.random.fork_rng(devices=[]):
            videos = plain_videos(plain, image, seeds, settings.guidance_scale)
        assert torch.equal(samples.videos, videos)
        assert samples.videos.shape == (len(seeds), 9, 3, 32, 32)
        assert samples.latents.shape == (len(seeds), 4, *SIZE)
        assert samples.videos.min() >= 0
        assert samples.videos.max() <= 1


def test_the_same_latents_give_the_same_video(folders):
    """The decoder of 0.9.1 draws noise."""
    family = Family(folders["0.9.1"])
    first, second = (family.sample(TEXT, None, [3], SETTINGS) for _ in range(2))
    assert torch.equal(first.videos, second.videos)


def test_x0_is_recovered_from_x_t_and_target(arm):
    family, _ = arm
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 4, *SIZE, generator=generator)
    t = family.sample_timesteps(generator, 4, SIZE)
    sigma = (t / 1000).view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(family.noise(x0, eps, t) - sigma * family.target(x0, eps, t), x0)


def test_noise_agrees_with_the_schedulers_own(folders):
    family = Family(folders["0.9"])
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, *SIZE, generator=generator)
    family.scheduler.set_timesteps(20, mu=1.0)
    t = family.scheduler.timesteps[[2, 7, 15]]
    torch.testing.assert_close(family.noise(x0, eps, t), family.scheduler.scale_noise(x0, t, eps))


@pytest.mark.parametrize("size", [SIZE, (8, 8, 16), (21, 16, 24)])
@pytest.mark.parametrize("variant", ["0.9", "0.9.7"])
def test_timesteps_follow_the_schedulers_own_schedule(folders, variant, size):
    family = Family(folders[variant])
    n = 1000
    t = family.sample_timesteps(torch.Generator().manual_seed(1), n, size)
    u = stratified(torch.Generator().manual_seed(1), n)
    # As the pipelines ask for it, but in as good as endless steps.
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(family.scheduler.config)
    mu = calculate_shift(size[0] * size[1] * size[2], 1024, 4096, 0.95, 2.05) if variant == "0.9" else None
    scheduler.set_timesteps(sigmas=[*u.sort(descending=True).values.tolist(), 1e-9], mu=mu)
    torch.testing.assert_close(t.sort(descending=True).values, scheduler.timesteps[:-1], atol=1e-3, rtol=0)
    assert t.min() >= (100 if variant == "0.9" else 0)
    assert t.max() < 1000
    assert not torch.equal(t, t.sort().values)


def test_larger_videos_get_more_noise_up_to_0_9_1_and_not_later(folders):
    for variant, grows in (("0.9", True), ("0.9.7", False)):
        family = Family(folders[variant])
        small, large = (
            family.sample_timesteps(torch.Generator().manual_seed(1), 8, size)
            for size in ((3, 4, 4), (21, 16, 24))
        )
        assert (small < large).all() if grows else torch.equal(small, large)


def test_loss_mask_leaves_out_the_given_frame_only(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3, 4], SETTINGS)
    mask = family.loss_mask(samples.latents, samples.conditioning)
    assert mask.shape == (2, 1, *SIZE)
    assert mask[:, :, 1:].all()
    assert mask[:, :, 0].all() == (image is None)
    if image is not None:
        assert not mask[:, :, 0].any()
        assert torch.equal(samples.latents[:, :, :1], samples.conditioning["first_frame"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_encoding_gives_the_conditioning_and_the_scale_that_sampling_used(arm, dtype):
    family, image = arm
    if dtype != family.dtype:
        family = Family(family.folder, dtype=dtype)
    samples = family.sample(TEXT, image, [3, 4], SETTINGS)
    latents, conditioning = family.encode(samples.videos, TEXT, image)
    assert latents.shape == samples.latents.shape
    assert conditioning.keys() == samples.conditioning.keys()
    for name, tensor in conditioning.items():
        assert torch.equal(tensor, samples.conditioning[name])
    raw = family.pipeline.vae.encode(2 * samples.videos.transpose(1, 2) - 1).latent_dist.mode()
    mean, std = (torch.tensor(x).view(-1, 1, 1, 1) for x in ([0.1, -0.2, 0.3, 0.0], [0.8, 1.1, 0.9, 1.2]))
    given = 0 if image is None else 1
    torch.testing.assert_close((latents * std + mean)[:, :, given:], raw[:, :, given:])
    if given:
        assert torch.equal(latents[:, :, :1], samples.latents[:, :, :1])
        shown = family.pipeline.vae.encode(2 * image[None, :, None] - 1).latent_dist.mode()
        torch.testing.assert_close((latents * std + mean)[:1, :, :1], shown, atol=0.02, rtol=0.02)


def test_a_lora_is_the_same_in_the_plain_pipeline(arm, tmp_path):
    family, image = Family(arm[0].folder), arm[1]
    add_lora(family, 4, 4.0, seed=0)
    with torch.no_grad():
        for parameter in lora_parameters(family).values():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(1))
    save_lora(family, tmp_path)
    trained = family.sample(TEXT, image, [3], SETTINGS).videos
    assert not torch.equal(trained, arm[0].sample(TEXT, image, [3], SETTINGS).videos)
    again = Family(family.folder)
    load_lora(again, tmp_path)
    assert torch.equal(again.sample(TEXT, image, [3], SETTINGS).videos, trained)
    plain = plain_pipeline(family, image)
    plain.load_lora_weights(tmp_path)
    with torch.random.fork_rng(devices=[]):
        assert torch.equal(plain_videos(plain, image, [3], 1.0), trained)


def test_training_parts_load_without_the_weights_of_text_encoder_and_vae(folders, tmp_path):
    """The VAE's configuration tells where the tokens are."""
    ignored = shutil.ignore_patterns("text_encoder", "tokenizer")
    lean = shutil.copytree(folders["0.9.7"], tmp_path / "lean", ignore=ignored)
    (lean / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    x = torch.zeros(1, 4, *SIZE)
    prompt = {"prompt_embeds": torch.zeros(1, 12, 16), "prompt_mask": torch.ones(1, 12, dtype=torch.bool)}
    assert Family(lean).predict(x, torch.tensor([500.0]), prompt).shape == x.shape


@pytest.mark.parametrize("frames", [1, 5, 13])
@pytest.mark.parametrize("variant", tiny_ltx.VAES)
def test_as_many_frames_as_asked_for_are_drawn(folders, variant, frames):
    settings = SamplerSettings(frames=frames, height=32, width=64, steps=2)
    samples = Family(folders[variant]).sample(TEXT, None, [0], settings)
    assert samples.videos.shape == (1, frames, 3, 32, 64)
    assert samples.latents.shape == (1, 4, (frames - 1) // 4 + 1, 4, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (SamplerSettings(frames=8, height=32, width=32, steps=2), r"8 frames do not fit .* choose k\*4\+1"),
        (SamplerSettings(frames=9, height=40, width=32, steps=2), "32x40 does not fit .* multiples of 32"),
        (SamplerSettings(frames=9, height=32, width=32, steps=1), "1 step does not fit .* choose 2 or more"),
    ],
)
def test_unfitting_sizes_and_steps_are_refused(folders, settings, message):
    family, image = Family(folders["0.9"]), torch.zeros(3, settings.height, settings.width)
    for given in (None, image):
        with pytest.raises(InputError, match=message):
            family.sample(TEXT, given, [0], settings)
    if settings.steps > 1:
        with pytest.raises(InputError, match=message):
            family.encode(torch.zeros(1, settings.frames, *image.shape), TEXT, image)


def test_a_first_frame_of_another_size_is_refused(folders):
    tall = SamplerSettings(frames=9, height=64, width=32, steps=2)
    for variant in tiny_ltx.VAES:
        with pytest.raises(InputError, match="the first frame is 32x32 but the video 32x64"):
            Family(folders[variant]).sample(TEXT, first_frame(), [0], tall)


def test_a_first_frame_that_is_the_whole_video_is_refused(folders):
    one = SamplerSettings(frames=1, height=32, width=32, steps=2)
    for variant in tiny_ltx.VAES:
        with pytest.raises(InputError, match="leaves nothing to draw"):
            Family(folders[variant]).sample(TEXT, first_frame(), [0], one)


@pytest.mark.parametrize(
    ("variant", "file", "changes", "message"),
    [
        ("0.9", "model_index.json", {"_class_name": "WanPipeline"}, "holds a WanPipeline"),
        ("0.9", "model_index.json", {"scheduler": ["diffusers", "DDIMScheduler"]}, "no flow schedule"),
        ("0.9", "scheduler/scheduler_config.json", {"use_karras_sigmas": True}, "no flow schedule"),
        ("0.9", "scheduler/scheduler_config.json", {"stochastic_sampling": True}, "samples stochastically"),
        ("0.9.7", "scheduler/scheduler_config.json", {"use_dynamic_shifting": True}, "has its own timesteps"),
        ("0.9.7", "scheduler/scheduler_config.json", {"shift": 3.0}, "has its own timesteps"),
        ("0.9", "transformer/config.json", {"patch_size": 2}, "takes patches"),
        ("0.9", "transformer/config.json", {"num_layers": 3}, "missing keys"),
        ("0.9", "vae/config.json", {"scaling_factor": 0.5}, "has a scaling_factor"),
        ("0.9", "vae/config.json", {"down_block_types": ["None", "None"]}, "cannot load"),
    ],
)
def test_unusable_folders_are_refused(folders, tmp_path, variant, file, changes, message):
    folder = shutil.copytree(folders[variant], tmp_path / "folder")
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match=message):
        Family(folder)


def test_a_folder_with_missing_parts_is_refused(folders, tmp_path):
    blind = shutil.copytree(folders["0.9"], tmp_path / "blind")
    shutil.rmtree(blind / "vae")
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(blind)
    torn = shutil.copytree(folders["0.9"], tmp_path / "torn")
    weights = torn / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["encoder.conv_in.conv.weight"]
    save_file(tensors, weights)
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(torn).sample(TEXT, None, [0], SETTINGS)


def test_both_pipeline_classes_share_the_components(folders, tmp_path):
    """Whichever of the two the folder names."""
    other = shutil.copytree(folders["0.9"], tmp_path / "image")
    path = other / "model_index.json"
    path.write_text(path.read_text().replace("LTXPipeline", "LTXImageToVideoPipeline"))
    for folder in (folders["0.9"], other):
        family = Family(folder)
        with_image, without = family._pipeline_for(first_frame()), family._pipeline_for(None)
        assert type(with_image) is LTXImageToVideoPipeline
        assert type(without) is LTXPipeline
        assert without.transformer is with_image.transformer is family.transformer
        assert without.vae is with_image.vae
    assert torch.equal(
        Family(other).sample(TEXT, None, [3], SETTINGS).videos,
        Family(folders["0.9"]).sample(TEXT, None, [3], SETTINGS).videos,
    )
