"""What every family keeps to, whatever the model: tests give it their `arm`, a family and its first frame."""

import pytest
import torch

from videogpa.artifact import open_artifact
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.diffusion import Batch, pair_errors
from videogpa.dpo.lora import add_lora, load_lora
from videogpa.dpo.loss import preference_logits
from videogpa.families.base import SamplerSettings
from videogpa.families.shared_noise import SharedNoise
from videogpa.families.variants import license_of
from videogpa.stages import sample, train
from videogpa.stages.prompts import FilePrompts
from videogpa.stages.sample import SampleConfig
from videogpa.types import PreferencePair, Prompt
from videogpa.video_io import write_image

SETTINGS = SamplerSettings(frames=9, height=32, width=32, steps=2)
GUIDED = SamplerSettings(frames=9, height=32, width=32, steps=2, guidance_scale=4.0)
TEXT = "a red box camera orbits left"


def first_frame():
    pixels = torch.randint(0, 256, (3, 32, 32), generator=torch.Generator().manual_seed(5))
    return pixels.float() / 255


def transformer_calls(family):
    """Records (kwargs, output) of every transformer call."""
    calls = []
    handle = family.transformer.register_forward_hook(
        lambda module, args, kwargs, output: calls.append((kwargs, output[0])), with_kwargs=True
    )
    return calls, handle


def test_a_seed_gives_the_same_latents_in_any_batch_of_its_size(arm):
    family, image = arm
    first = family.sample(TEXT, image, [3, 4], SETTINGS).latents
    second = family.sample(TEXT, image, [9, 3], SETTINGS).latents
    torch.testing.assert_close(first[0], second[1], atol=1e-6, rtol=1e-6)
    assert not torch.equal(first[0], second[0])


def test_videos_may_share_a_part_of_their_noise(arm):
    family, image = arm

    def apart(share):
        with SharedNoise(share, 1):
            latents = family.sample(TEXT, image, [3, 4], SETTINGS).latents
        return (latents[0] - latents[1]).square().mean()

    assert 0 < apart(0.9) < 0.5 * apart(0.0)


def test_sampling_leaves_the_global_generator_alone(arm):
    family, image = arm
    family.sample(TEXT, image, [3], SETTINGS)
    before = torch.get_rng_state()
    family.sample(TEXT, image, [3], SETTINGS)
    assert torch.equal(before, torch.get_rng_state())


def test_every_lora_target_matches_modules(arm):
    family, _ = arm
    names = [name for name, _ in family.transformer.named_modules()]
    for target in family.lora_targets:
        assert any(name.endswith(f".{target}") for name in names)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fresh_lora_has_no_preference(arm, dtype):
    family, image = type(arm[0])(arm[0].folder, dtype=dtype), arm[1]
    samples = family.sample(TEXT, image, [3, 4], SETTINGS)
    add_lora(family, 4, 8.0, seed=0)
    generator = torch.Generator().manual_seed(2)
    t = family.sample_timesteps(generator, 2, samples.latents.shape[2:])
    eps = torch.randn(samples.latents.shape, generator=generator)
    chosen, rejected = samples.latents.float(), samples.latents.float().flip(0)
    errors = pair_errors(family, Batch(chosen, rejected, eps, t, samples.conditioning))
    sides = (errors.chosen, errors.rejected, errors.chosen_reference, errors.rejected_reference)
    assert all(side.dtype == torch.float32 and side.isfinite().all() for side in sides)
    assert preference_logits(*sides, 5000.0).abs().max() < 1e-3


def samples_become_a_lora(arm, tmp_path):
    """The stages themselves, from prompts to a LoRA that changes the video; for one arm of each way through them."""
    family, image = arm
    name = type(family).__module__.rsplit(".", 1)[1]
    with open_artifact(
        tmp_path / "prompts", stage="prompts", config=FilePrompts(), inputs={}, row_type=Prompt
    ) as prompts:
        for row in ("a", "b"):
            if image is not None:
                write_image(tmp_path / "prompts" / f"{row}.png", image)
            prompts.append(Prompt(id=row, text=TEXT, image=None if image is None else f"{row}.png"))
        prompts.finish(["a", "b"])
    accepted = (license_of(name, family.folder),)
    drawn = SampleConfig(
        accepted_licenses=accepted,
        family=name,
        model=str(family.folder),
        candidates=2,
        height=32,
        width=32,
        steps=2,
    )
    candidates = sample.run(drawn, tmp_path / "prompts", tmp_path / "candidates")
    with open_artifact(
        tmp_path / "pairs", stage="pair", config=FilePrompts(), inputs={}, row_type=PreferencePair
    ) as pairs:
        (tmp_path / "pairs" / "licenses.json").write_text("{}")
        for row in ("a", "b"):
            sides = {
                "chosen": f"{row}-0",
                "rejected": f"{row}-1",
                "chosen_value": 1.0,
                "rejected_value": 0.0,
            }
            pairs.append(PreferencePair(id=row, prompt_id=row, margin=1.0, **sides))
        pairs.finish(["a", "b"])
    cfg = TrainConfig(
        family=name, rank=2, steps=2, batch_pairs=2, held_out_fraction=0, learning_rate=1e-2,
        stop_at_chosen_rise=None, accepted_licenses=accepted,
    )  # fmt: skip
    trained = train.run(cfg, tmp_path / "pairs", candidates, family.folder, tmp_path / "lora")
    again = type(family)(family.folder)
    load_lora(again, trained / "lora")
    before, after = (f.sample(TEXT, image, [3], SETTINGS).videos for f in (family, again))
    assert not torch.equal(before, after)
