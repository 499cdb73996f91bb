import pytest
import torch

from videogpa.dpo.diffusion import adapters_off, pair_errors, prediction_errors
from videogpa.dpo.lora import add_lora, lora_parameters
from videogpa.dpo.loss import preference_logits
from videogpa.families.wan import Family


def batch(first_frame=True, pairs=3):
    generator = torch.Generator().manual_seed(2)
    chosen, rejected, eps = torch.randn(3, pairs, 4, 3, 4, 4, generator=generator)
    conditioning = {"prompt_embeds": torch.randn(pairs, 12, 16, generator=generator)}
    if first_frame:
        rejected[:, :, :1] = chosen[:, :, :1]
        conditioning["first_frame"] = chosen[:, :, :1]
    t = torch.tensor([100.0, 500.0, 900.0])[:pairs]
    return chosen, rejected, eps, t, conditioning


def disturb(family):
    generator = torch.Generator().manual_seed(3)
    for parameter in lora_parameters(family).values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3


def test_the_error_is_the_mean_over_what_is_predicted(family):
    x0, _, eps, t, conditioning = batch()
    errors = prediction_errors(family, x0, eps, t, conditioning)
    predicted = family.predict(family.noise(x0, eps, t), t, conditioning)
    difference = (predicted - (eps - x0))[:, :, 1:]
    torch.testing.assert_close(errors, difference.square().mean(dim=(1, 2, 3, 4)))
    assert errors.shape == (3,)


def test_the_given_first_frame_is_no_part_of_the_error(family):
    x0, _, eps, t, conditioning = batch()
    other = eps.clone()
    other[:, :, 0] += 5.0
    assert torch.equal(
        prediction_errors(family, x0, eps, t, conditioning),
        prediction_errors(family, x0, other, t, conditioning),
    )
    free = {"prompt_embeds": conditioning["prompt_embeds"]}
    assert not torch.equal(
        prediction_errors(family, x0, eps, t, free), prediction_errors(family, x0, other, t, free)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first_frame", [True, False])
def test_a_fresh_lora_has_no_preference(ti2v_folder, dtype, first_frame):
    family = Family(ti2v_folder, dtype=dtype)
    add_lora(family, rank=4, alpha=8.0, seed=0)
    errors = pair_errors(family, *batch(first_frame))
    sides = (errors.chosen, errors.rejected, errors.chosen_reference, errors.rejected_reference)
    assert all(side.dtype == torch.float32 for side in sides)
    assert preference_logits(*sides, 5000.0).abs().max() < 1e-3


def test_the_reference_is_the_base_model_bit_for_bit(family, ti2v_folder):
    chosen, rejected, eps, t, conditioning = batch()
    base = Family(ti2v_folder)
    both = [torch.cat([x, y]) for x, y in ((chosen, rejected), (eps, eps), (t, t))]
    twice = {name: torch.cat([tensor, tensor]) for name, tensor in conditioning.items()}
    with torch.no_grad():
        expected = prediction_errors(base, *both, twice).chunk(2)
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    errors = pair_errors(family, chosen, rejected, eps, t, conditioning)
    assert torch.equal(errors.chosen_reference, expected[0])
    assert torch.equal(errors.rejected_reference, expected[1])
    assert not torch.equal(errors.chosen, errors.chosen_reference)


def test_policy_and_reference_are_two_calls_of_one_model(family):
    before = sum(p.numel() for p in family.transformer.parameters())
    adapters = add_lora(family, rank=4, alpha=8.0, seed=0)
    assert sum(p.numel() for p in family.transformer.parameters()) == before + sum(
        p.numel() for p in adapters
    )
    calls = []
    family.transformer.register_forward_hook(lambda module, args, output: calls.append(len(output[0])))
    pair_errors(family, *batch(pairs=3))
    assert calls == [6, 6]


def test_gradients_reach_the_lora_and_nothing_else(family):
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    errors = pair_errors(family, *batch())
    assert not errors.chosen_reference.requires_grad
    (errors.chosen.sum() - errors.rejected.sum()).backward()
    for name, parameter in family.transformer.named_parameters():
        assert parameter.requires_grad == (".lora_" in name)
        assert (parameter.grad is not None) == (".lora_" in name)


def test_adapters_come_back_after_an_error(family):
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    chosen, _, eps, t, conditioning = batch()
    before = prediction_errors(family, chosen, eps, t, conditioning)
    with pytest.raises(RuntimeError), adapters_off(family.transformer):
        raise RuntimeError
    assert torch.equal(before, prediction_errors(family, chosen, eps, t, conditioning))
