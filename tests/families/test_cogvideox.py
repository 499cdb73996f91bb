import json
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from tests.families import tiny_cogvideox
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
from videogpa.families.cogvideox import Family
from videogpa.families.first_frame import encoding_by_mode

VARIANTS = list(tiny_cogvideox.TRANSFORMERS)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("cogvideox")
    return {variant: tiny_cogvideox.build(root / variant, variant) for variant in VARIANTS}


@pytest.fixture(scope="module", params=VARIANTS)
def arm(request, folders):
    image = first_frame() if request.param.endswith("i2v") else None
    return Family(folders[request.param]), image


@pytest.mark.parametrize("arm", ["2b", "5b_i2v"], indirect=True)
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
        x_t = call["hidden_states"][:, :, : tiny_cogvideox.LATENT_CHANNELS].transpose(1, 2)
        with torch.no_grad():
            predicted = family.predict(x_t, call["timestep"].float(), samples.conditioning)
        assert (predicted - output.transpose(1, 2)).abs().max() <= 1e-6


@pytest.mark.parametrize("variant", ["5b", "1.5_t2v"])
def test_the_order_of_the_frames_matters_to_the_model(folders, variant):
    """Without rotary embeddings, as the published trainer calls it, it does not."""
    family = Family(folders[variant])
    generator = torch.Generator().manual_seed(0)
    x_t, t = torch.randn(1, 4, 4, 4, 4, generator=generator), torch.tensor([500.0])
    conditioning = {"prompt_embeds": torch.randn(1, 12, 16, generator=generator)}

    def turned(x):
        # Whole temporal patches change places.
        step = family.transformer.config.patch_size_t or 1
        return x.unflatten(2, (-1, step)).flip(2).flatten(2, 3)

    def difference():
        with torch.no_grad():
            straight, reverse = (family.predict(x, t, conditioning) for x in (x_t, turned(x_t)))
        return (straight - turned(reverse)).abs().max()

    assert difference() > 1e-3
    family._rotary = lambda x: None
    assert difference() < 1e-5


def test_samples_equal_a_plain_pipeline_call(arm):
    family, image = arm
    plain = DiffusionPipeline.from_pretrained(family.folder)
    plain.set_progress_bar_config(disable=True)
    given = {} if image is None else {"image": image.expand(2, -1, -1, -1)}
    for settings in (SETTINGS, GUIDED):
        samples = family.sample(TEXT, image, [3, 4], settings)
        with encoding_by_mode(plain.vae):
            videos = plain(
                prompt=[TEXT, TEXT],
                **given,
                height=32,
                width=32,
                num_frames=9,
                num_inference_steps=2,
                guidance_scale=settings.guidance_scale,
                max_sequence_length=tiny_cogvideox.TEXT_LENGTH,
                generator=[torch.Generator().manual_seed(s) for s in (3, 4)],
                output_type="pt",
            ).frames
        assert torch.equal(samples.videos, videos)
        assert samples.videos.shape == (2, 9, 3, 32, 32)
        padded = 4 if family.transformer.config.patch_size_t else 3
        assert samples.latents.shape == (2, 4, padded, 4, 4)


def test_x0_is_recovered_from_x_t_and_target(arm):
    family, _ = arm
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 4, 4, 4, 4, 4, generator=generator)
    t = family.sample_timesteps(generator, 4, (4, 4, 4))
    signal, rest = family._shares(t, x0)
    torch.testing.assert_close(
        signal * family.noise(x0, eps, t) - rest * family.target(x0, eps, t), x0, atol=1e-5, rtol=1e-4
    )


def test_noise_and_target_agree_with_the_schedulers_own(arm):
    family, _ = arm
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, 3, 4, 4, 4, 4, generator=generator)
    t = torch.tensor([0, 500, 999])
    torch.testing.assert_close(family.noise(x0, eps, t.float()), family.scheduler.add_noise(x0, eps, t))
    torch.testing.assert_close(family.target(x0, eps, t.float()), family.scheduler.get_velocity(x0, eps, t))
    # Zero terminal SNR: nothing of the video is left at the last step.
    torch.testing.assert_close(family.noise(x0, eps, t.float())[2], eps[2])


def test_timesteps_cover_the_schedule_evenly(arm):
    family, _ = arm
    t = family.sample_timesteps(torch.Generator().manual_seed(1), 1000, (4, 4, 4))
    assert torch.equal(t.sort().values, torch.arange(1000.0))
    assert not torch.equal(t, t.sort().values)


def test_padding_is_no_part_of_the_loss(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3], SETTINGS)
    mask = family.loss_mask(samples.latents, samples.conditioning)
    padded = samples.latents.shape[2] - 3
    assert padded == (1 if family.transformer.config.patch_size_t else 0)
    assert not mask[:, :, :padded].any()
    assert mask[:, :, padded:].all()


def test_encoding_gives_the_conditioning_and_the_scale_that_sampling_used(arm):
    family, image = arm
    samples = family.sample(TEXT, image, [3, 4], SETTINGS)
    latents, conditioning = family.encode(samples.videos, TEXT, image)
    assert latents.shape == samples.latents.shape
    assert conditioning.keys() == samples.conditioning.keys()
    for name, tensor in conditioning.items():
        assert torch.equal(tensor, samples.conditioning[name])
    padded = int(conditioning["padding"][0])
    raw = family.pipeline.vae.encode(2 * samples.videos.transpose(1, 2) - 1).latent_dist.mode()
    torch.testing.assert_close(latents[:, :, padded:], 0.7 * raw)
    assert torch.equal(latents[:, :, :padded], latents[:, :, padded : 2 * padded])


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
    plain = DiffusionPipeline.from_pretrained(family.folder)
    plain.set_progress_bar_config(disable=True)
    plain.load_lora_weights(tmp_path)
    with encoding_by_mode(plain.vae):
        videos = plain(
            prompt=TEXT,
            **({} if image is None else {"image": image[None]}),
            height=32,
            width=32,
            num_frames=9,
            num_inference_steps=2,
            guidance_scale=1.0,
            max_sequence_length=tiny_cogvideox.TEXT_LENGTH,
            generator=[torch.Generator().manual_seed(3)],
            output_type="pt",
        ).frames
    assert torch.equal(videos, trained)


def test_training_parts_load_without_text_encoder_and_vae(folders, tmp_path):
    ignored = shutil.ignore_patterns("vae", "text_encoder", "tokenizer")
    family = Family(shutil.copytree(folders["5b"], tmp_path / "lean", ignore=ignored))
    x = torch.zeros(1, 4, 3, 4, 4)
    prompt = {"prompt_embeds": torch.zeros(1, 12, 16)}
    assert family.predict(x, torch.tensor([500.0]), prompt).shape == x.shape


@pytest.mark.parametrize("frames", [1, 9, 17])
@pytest.mark.parametrize("variant", ["2b", "5b", "1.5_t2v"])
def test_as_many_frames_as_asked_for_are_drawn(folders, variant, frames):
    settings = SamplerSettings(frames=frames, height=32, width=32, steps=1)
    assert Family(folders[variant]).sample(TEXT, None, [0], settings).videos.shape[1] == frames


@pytest.mark.parametrize(
    ("variant", "frames", "height", "width", "message"),
    [
        ("5b", 8, 32, 32, r"8 frames do not fit .* choose k\*8\+1"),
        ("5b", 13, 32, 32, "13 frames do not fit"),
        ("5b", 9, 40, 32, "32x40 does not fit .* multiples of 16"),
        ("5b_i2v", 9, 32, 48, "48x32 does not fit .* it draws 32x32 only"),
        ("1.5_t2v", 9, 48, 32, "32x48 does not fit .* at most 32x32"),
    ],
)
def test_unfitting_sizes_are_refused(folders, variant, frames, height, width, message):
    image = torch.zeros(3, height, width) if variant.endswith("i2v") else None
    with pytest.raises(InputError, match=message):
        Family(folders[variant]).sample(
            TEXT, image, [0], SamplerSettings(frames=frames, height=height, width=width, steps=1)
        )


def test_a_missing_superfluous_or_unfitting_first_frame_is_refused(folders):
    with pytest.raises(InputError, match="give every prompt a first frame"):
        Family(folders["5b_i2v"]).sample(TEXT, None, [0], SETTINGS)
    with pytest.raises(InputError, match="cannot take a first frame"):
        Family(folders["5b"]).sample(TEXT, first_frame(), [0], SETTINGS)
    wide = SamplerSettings(frames=9, height=32, width=48, steps=1)
    with pytest.raises(InputError, match="the first frame is 32x32"):
        Family(folders["5b_i2v"]).sample(TEXT, first_frame(), [0], wide)


def test_a_part_with_missing_weights_is_refused(folders, tmp_path):
    torn = shutil.copytree(folders["5b"], tmp_path / "torn")
    weights = torn / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["encoder.conv_in.conv.weight"]
    save_file(tensors, weights)
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(torn).sample(TEXT, None, [0], SETTINGS)


@pytest.mark.parametrize("content", ["[]", "{}", "3", "no JSON"])
def test_a_part_without_a_configuration_is_refused(folders, tmp_path, content):
    emptied = shutil.copytree(folders["5b"], tmp_path / "emptied")
    (emptied / "text_encoder" / "config.json").write_text(content)
    with pytest.raises(InputError, match="cannot load the model folder"):
        Family(emptied).sample(TEXT, None, [0], SETTINGS)


def test_another_prediction_or_another_familys_folder_is_refused(folders, tmp_path):
    other = shutil.copytree(folders["5b"], tmp_path / "epsilon")
    path = other / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "epsilon"}))
    with pytest.raises(InputError, match="does not predict v"):
        Family(other)
    path.write_text(path.read_text().replace("epsilon", "v_prediction"))
    index = json.loads((other / "model_index.json").read_text())
    for scheduler, message in (
        ("NoSuchScheduler", "cannot load"),
        ("FlowMatchEulerDiscreteScheduler", "predict v"),
    ):
        changed = index | {"scheduler": ["diffusers", scheduler]}
        (other / "model_index.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=message):
            Family(other)
    path = other / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "WanPipeline"}))
    with pytest.raises(InputError, match="holds a WanPipeline"):
        Family(other)
