import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videogpa.dpo.config import TrainConfig
from videogpa.dpo.loss import (
    anchored_dpo_loss,
    diffusion_dpo_loss,
    hinge_loss,
    implicit_accuracy,
    implicit_reward,
    ipo_loss,
    margin_weighted_dpo_loss,
    preference_logits,
    safeguarded_dpo_loss,
    sft_loss,
    smoothed_dpo_loss,
)

errors = st.floats(0, 2, width=32)


def tensors(*values):
    return [torch.tensor([value], dtype=torch.float32) for value in values]


@settings(max_examples=40)
@given(errors, errors, errors, errors, st.floats(0.1, 50))
def test_dpo_loss_has_its_closed_form(w, r, w_ref, r_ref, beta):
    loss = diffusion_dpo_loss(*tensors(w, r, w_ref, r_ref), beta).item()
    logit = -beta * ((w - w_ref) - (r - r_ref))
    exact = math.log1p(math.exp(-abs(logit))) + max(-logit, 0)
    assert loss == pytest.approx(exact, rel=1e-4, abs=1e-4)


@settings(max_examples=40)
@given(errors, errors, errors, errors)
def test_the_anchor_costs_only_where_the_chosen_got_worse(w, r, w_ref, r_ref):
    sides = tensors(w, r, w_ref, r_ref)
    plain = diffusion_dpo_loss(*sides, 10.0)
    anchored = anchored_dpo_loss(*sides, 10.0, 5.0)
    if w <= w_ref:
        assert torch.equal(anchored, plain)
    else:
        shifted = diffusion_dpo_loss(*tensors(w + 5.0 * (w - w_ref), r, w_ref, r_ref), 10.0)
        torch.testing.assert_close(anchored, shifted, rtol=1e-4, atol=1e-4)


def test_known_values():
    sides = tensors(0.3, 0.5, 0.4, 0.4)
    assert diffusion_dpo_loss(*sides, 5.0).item() == pytest.approx(-math.log(1 / (1 + math.exp(-1.0))))
    assert diffusion_dpo_loss(*tensors(1, 1, 1, 1), 2000.0).item() == pytest.approx(math.log(2))
    assert sft_loss(sides[0]).item() == pytest.approx(0.3)
    assert implicit_reward(sides[0], sides[2], 5.0).item() == pytest.approx(0.5)


@settings(max_examples=40)
@given(errors, errors, errors, errors)
def test_objectives_of_the_logit_have_their_closed_forms(w, r, w_ref, r_ref):
    sides = tensors(w, r, w_ref, r_ref)
    z = preference_logits(*sides, 10.0).item()
    assert ipo_loss(*sides, 10.0).item() == pytest.approx((z - 0.5) ** 2, rel=1e-5)
    assert hinge_loss(*sides, 10.0).item() == pytest.approx(max(0.0, 1 - z), rel=1e-5)
    wrong_way = diffusion_dpo_loss(sides[1], sides[0], sides[3], sides[2], 10.0)
    mixed = 0.8 * diffusion_dpo_loss(*sides, 10.0) + 0.2 * wrong_way
    torch.testing.assert_close(smoothed_dpo_loss(*sides, 10.0, 0.2), mixed)


def test_smoothed_labels_stop_pulling_at_their_own_certainty():
    w = torch.tensor([0.5 - math.log(0.9 / 0.1) / 10.0], requires_grad=True)
    smoothed_dpo_loss(w, *tensors(0.5, 0.5, 0.5), 10.0, 0.1).sum().backward()
    assert w.grad.item() == pytest.approx(0, abs=1e-5)


OBJECTIVES = {
    "dpo": lambda *sides: diffusion_dpo_loss(*sides, 3.0),
    "anchored": lambda *sides: anchored_dpo_loss(*sides, 3.0, 3.0),
    "smoothed": lambda *sides: smoothed_dpo_loss(*sides, 3.0, 0.2),
    "ipo": lambda *sides: ipo_loss(*sides, 3.0),
    "margin_weighted": lambda *sides: margin_weighted_dpo_loss(
        *sides, 3.0, torch.linspace(0.2, 1.8, len(sides[0]))
    ),
    "safeguarded": lambda *sides: safeguarded_dpo_loss(*sides, 3.0, torch.ones(len(sides[0]))),
    # Far from its kink, where no difference quotient is right.
    "hinge": lambda *sides: hinge_loss(*sides, 0.3),
}


@pytest.mark.filterwarnings("ignore:Input.*double precision")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_agree_with_finite_differences(name):
    generator = torch.Generator().manual_seed(0)
    w, r, w_ref, r_ref = torch.rand(4, 5, generator=generator)
    w = w.requires_grad_()
    r = r.requires_grad_()

    def loss(w, r):
        return OBJECTIVES[name](w, r, w_ref, r_ref)

    # The losses work in float32 whatever they get, so the steps are wide and the tolerance is float32's.
    assert torch.autograd.gradcheck(loss, (w, r), eps=1e-2, atol=5e-3, rtol=5e-3, raise_exception=True)
    if name == "dpo":
        loss(w, r).sum().backward()
        logits = preference_logits(w, r, w_ref, r_ref, 3.0)
        torch.testing.assert_close(w.grad, 3.0 * torch.sigmoid(-logits))
        torch.testing.assert_close(r.grad, -w.grad)


def test_the_safeguard_changes_the_rejected_gradient_alone():
    w, r, w_ref, r_ref = torch.rand(4, 5, generator=torch.Generator().manual_seed(0))
    scale = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0])
    plain = [w.clone().requires_grad_(), r.clone().requires_grad_()]
    safe = [w.clone().requires_grad_(), r.clone().requires_grad_()]
    expected = diffusion_dpo_loss(*plain, w_ref, r_ref, 3.0)
    found = safeguarded_dpo_loss(*safe, w_ref, r_ref, 3.0, scale)
    torch.testing.assert_close(found, expected)
    expected.sum().backward()
    found.sum().backward()
    torch.testing.assert_close(safe[0].grad, plain[0].grad)
    torch.testing.assert_close(safe[1].grad, scale * plain[1].grad)


def test_margins_weigh_pairs():
    sides = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    margin = torch.tensor([0.0, 1.0, 2.0])
    weighted = margin_weighted_dpo_loss(*sides, 5.0, margin)
    torch.testing.assert_close(weighted, margin * diffusion_dpo_loss(*sides, 5.0))


def test_losses_are_per_sample_and_float32_for_bfloat16_errors():
    sides = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)).bfloat16()
    for loss in (*(objective(*sides) for objective in OBJECTIVES.values()), sft_loss(sides[0])):
        assert loss.shape == (6,)
        assert loss.dtype == torch.float32


def test_small_differences_of_bfloat16_errors_are_not_lost():
    """Differences of .29, .59 and 1.18 logits, far below a bfloat16 step of the terms that they come from."""
    reference = torch.full((3,), 0.3, dtype=torch.bfloat16)
    better = reference.float() - torch.tensor([0.29, 0.59, 1.18]) / 2000
    logits = preference_logits(better, reference, reference, reference, 2000.0)
    torch.testing.assert_close(logits, torch.tensor([0.29, 0.59, 1.18]), rtol=1e-3, atol=1e-3)


def test_the_gradient_fades_where_a_pair_is_learnt():
    """With the default beta, an advantage of 1 % of a usual error already counts as learnt."""
    beta = TrainConfig().beta
    learnt, even = torch.tensor([0.297, 0.3], requires_grad=True), torch.full((2,), 0.3)
    diffusion_dpo_loss(learnt, even, even, even, beta).sum().backward()
    weight = -learnt.grad / beta
    assert weight.abs()[1] == pytest.approx(0.5)
    assert weight.abs()[0] < 0.01


def test_accuracy_is_against_the_reference():
    # Both videos are easier for the policy than for the reference, but the rejected one improved more:
    # comparing the policy's errors alone would call this right.
    w, r, w_ref, r_ref = tensors(0.2, 0.3, 0.3, 0.5)
    assert implicit_accuracy(preference_logits(w, r, w_ref, r_ref, 1.0)).item() == 0.0
    assert implicit_accuracy(preference_logits(w, r, w, r, 1.0)).item() == 0.5
    assert implicit_accuracy(preference_logits(w, r, r, w, 1.0)).item() == 1.0
