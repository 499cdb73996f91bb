"""What every family keeps to, whatever the model: tests give it their `arm`, a family and its first frame."""

import torch

from videogpa.families.base import SamplerSettings

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


def test_sampling_leaves_the_global_generator_alone(arm):
    family, image = arm
    family.sample(TEXT, image, [3], SETTINGS)
    before = torch.get_rng_state()
    family.sample(TEXT, image, [3], SETTINGS)
    assert torch.equal(before, torch.get_rng_state())
