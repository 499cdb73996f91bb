import pytest
import torch

from videogpa.dpo.diffusion import Batch, adapters_off, pair_errors, safe_scale, side_errors
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
    return Batch(chosen, rejected, eps, t, conditioning)


def disturb(family):
    generator = torch.Generator().manual_seed(3)
    for parameter in lora_parameters(family).values():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3


def test_the_error_is_the_mean_over_what_is_predicted(family):
    given = batch()
    errors, _ = side_errors(family, given)
    predicted = family.predict(family.noise(given.chosen, given.eps, given.t), given.t, given.conditioning)
    difference = (predicted - (given.eps - given.chosen))[:, :, 1:]
    torch.testing.assert_close(errors, difference.square().mean(dim=(1, 2, 3, 4)))
    assert errors.shape == (3,)


def test_the_given_first_frame_is_no_part_of_the_error(family):
    given = batch()
    other = given.eps.clone()
    other[:, :, 0] += 5.0
    assert torch.equal(side_errors(family, given)[0], side_errors(family, given._replace(eps=other))[0])
    free = given._replace(conditioning={"prompt_embeds": given.conditioning["prompt_embeds"]})
    assert not torch.equal(side_errors(family, free)[0], side_errors(family, free._replace(eps=other))[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("first_frame", [True, False])
def test_a_fresh_lora_has_no_preference(ti2v_folder, dtype, first_frame):
    family = Family(ti2v_folder, dtype=dtype)
    add_lora(family, rank=4, alpha=8.0, seed=0)
    errors = pair_errors(family, batch(first_frame))
    sides = (errors.chosen, errors.rejected, errors.chosen_reference, errors.rejected_reference)
    assert all(side.dtype == torch.float32 for side in sides)
    assert preference_logits(*sides, 5000.0).abs().max() < 1e-3


def test_the_reference_is_the_base_model_bit_for_bit(family, ti2v_folder):
    given = batch()
    with torch.no_grad():
        expected = side_errors(Family(ti2v_folder), given)
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    errors = pair_errors(family, given)
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
    pair_errors(family, batch(pairs=3))
    assert calls == [6, 6]


def test_gradients_reach_the_lora_and_nothing_else(family):
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    errors = pair_errors(family, batch())
    assert not errors.chosen_reference.requires_grad
    (errors.chosen.sum() - errors.rejected.sum()).backward()
    for name, parameter in family.transformer.named_parameters():
        assert parameter.requires_grad == (".lora_" in name)
        assert (parameter.grad is not None) == (".lora_" in name)


def test_adapters_come_back_after_an_error(family):
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    before = side_errors(family, batch())[0]
    with pytest.raises(RuntimeError), adapters_off(family.transformer):
        raise RuntimeError
    assert torch.equal(before, side_errors(family, batch())[0])


def test_known_reference_errors_save_the_second_call(family):
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    fresh = pair_errors(family, batch())
    calls = []
    family.transformer.register_forward_hook(lambda module, args, output: calls.append(len(output[0])))
    known = pair_errors(family, batch(), (fresh.chosen_reference, fresh.rejected_reference))
    assert calls == [6]
    assert torch.equal(known.chosen, fresh.chosen)
    assert torch.equal(known.rejected_reference, fresh.rejected_reference)


def test_weights_count_places_and_ones_change_nothing(family):
    given = batch(first_frame=False)
    ones = torch.ones(3, 1, 3, 4, 4)
    plain = pair_errors_without_lora(family, given)
    assert torch.equal(pair_errors_without_lora(family, given._replace(weights=(ones, ones)))[0], plain[0])
    one_place = torch.zeros(3, 1, 3, 4, 4)
    one_place[:, :, 1, 2, 3] = 48.0
    chosen, rejected = pair_errors_without_lora(family, given._replace(weights=(one_place, ones)))
    predicted = family.predict(family.noise(given.chosen, given.eps, given.t), given.t, given.conditioning)
    there = (predicted - (given.eps - given.chosen))[:, :, 1, 2, 3]
    torch.testing.assert_close(chosen, there.square().mean(1))
    assert torch.equal(rejected, plain[1])


def pair_errors_without_lora(family, given):
    with torch.no_grad():
        return side_errors(family, given)


def test_the_safe_scale_keeps_the_chosen_error_from_rising():
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = torch.randn(2, 50, 4, 3, 2, 2, generator=generator)
    rejected = rejected + 2 * chosen * torch.linspace(-1, 1, 50).view(-1, 1, 1, 1, 1)
    scale = safe_scale(chosen, rejected)
    kept = (chosen * (chosen - scale.view(-1, 1, 1, 1, 1) * rejected)).flatten(1).sum(1)
    assert (kept > -1e-4).all()
    assert ((scale > 0) & (scale <= 1)).all()
    assert 0 < (scale < 1).sum() < 50
    # No more is taken away than has to be.
    torch.testing.assert_close(kept[scale < 1], torch.zeros_like(kept[scale < 1]), atol=1e-4, rtol=0)
