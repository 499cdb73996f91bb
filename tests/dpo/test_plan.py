import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.dpo.test_diffusion import batch
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.diffusion import pair_errors
from videogpa.dpo.lora import add_lora
from videogpa.dpo.memory import blocks_of
from videogpa.dpo.plan import COPIES, on_meta, plan
from videogpa.families.wan import Family

CFG = TrainConfig(rank=4, alpha=8.0, steps=100, batch_pairs=3)


def planned(folder, **changes):
    family = Family(folder, device="meta")
    return plan(CFG.model_copy(update=changes), family, on_meta(batch(first_frame=False), 3), 30, None)


def test_nothing_is_loaded(ti2v_folder):
    family = Family(ti2v_folder, device="meta")
    assert all(parameter.is_meta for parameter in family.transformer.parameters())


def test_operations_and_memory_are_those_of_a_real_step(ti2v_folder):
    expected = planned(ti2v_folder)
    family = Family(ti2v_folder)
    base = sum(p.numel() * p.element_size() for p in family.transformer.parameters())
    adapters = add_lora(family, 4, 8.0, seed=0)
    storages = {}
    parameters = {p.untyped_storage().data_ptr() for p in family.transformer.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        pair_errors(family, batch(first_frame=False))
    # Operations are counted where attention is matrix products; a fused kernel makes its matrix once more going back.
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        errors = pair_errors(family, batch(first_frame=False))
        (errors.chosen - errors.rejected).sum().backward()
    buffers = sum(b.numel() * b.element_size() for b in family.transformer.buffers())
    assert expected.base == base + buffers
    assert expected.lora == COPIES * sum(p.numel() * p.element_size() for p in adapters)
    assert expected.activations == pytest.approx(sum(storages.values()), rel=0.1)
    assert expected.flops_of_a_step == pytest.approx(counted.get_total_flops(), rel=0.1)


def test_what_shrinks_memory_shrinks_the_plan(ti2v_folder):
    plain = planned(ti2v_folder)
    recomputed = planned(ti2v_folder, recompute=1.0)
    assert recomputed.activations < plain.activations
    assert recomputed.flops_of_a_step > plain.flops_of_a_step
    assert recomputed.base == plain.base
    assert planned(ti2v_folder, quantize="int8").base < plain.base
    # Two blocks are all that this model has: nothing is gained but what both options save together.
    assert len(blocks_of(Family(ti2v_folder).transformer)) == 2
    assert planned(ti2v_folder, offload=True).base == plain.base


def test_known_references_pay_from_the_second_visit_of_a_draw(ti2v_folder):
    # Thirty pairs, three a step, a hundred steps: ten visits.
    assert planned(ti2v_folder).visits == 10
    assert planned(ti2v_folder).share_saved == 0
    assert planned(ti2v_folder, reference_draws=10).share_saved == 0
    half = planned(ti2v_folder, reference_draws=5)
    assert half.share_saved == pytest.approx(0.5 * half.flops_of_the_reference / half.flops_of_a_step)


def test_the_lines_say_memory_time_and_break_even(ti2v_folder):
    family = Family(ti2v_folder, device="meta")
    found = plan(CFG, family, on_meta(batch(first_frame=False), 3), 30, rate=1e9)
    memory, step, reference = found.lines()
    assert memory.startswith("memory: ")
    assert "100 steps" in step
    assert found.seconds_of_a_step == pytest.approx(found.flops_of_a_step / 1e9)
    assert "every pair comes 10.0 times" in reference


def test_the_shape_of_one_pair_stands_for_all():
    given = batch()
    repeated = on_meta(given._replace(weights=(torch.ones(3, 1, 3, 4, 4),) * 2), 5)
    assert repeated.chosen.shape == (5, 4, 3, 4, 4)
    assert repeated.conditioning["prompt_embeds"].shape == (5, 12, 16)
    assert repeated.weights[0].shape == (5, 1, 3, 4, 4)
    assert repeated.eps.is_meta
