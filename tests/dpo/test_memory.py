import pytest
import torch
from diffusers.optimization import get_scheduler

from tests.dpo.test_diffusion import batch, disturb
from videogpa.dpo import memory
from videogpa.dpo.checkpoint import Progression, copy_weights, restore, save
from videogpa.dpo.diffusion import pair_errors
from videogpa.dpo.lora import add_lora, lora_parameters
from videogpa.dpo.memory import (
    OffloadedBlock,
    blocks_of,
    offload_blocks,
    optimizer_class,
    quantize_base,
    recompute_blocks,
)
from videogpa.errors import InputError
from videogpa.families.wan import Family


@pytest.fixture
def trained(ti2v_folder):
    family = Family(ti2v_folder)
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    return family


def gradients(family):
    errors = pair_errors(family, batch())
    (errors.chosen - errors.rejected).sum().backward()
    parameters = lora_parameters(family)
    found = {name: parameter.grad.clone() for name, parameter in parameters.items()}
    for parameter in parameters.values():
        parameter.grad = None
    return errors, found


@pytest.mark.parametrize(("share", "runs"), [(0.0, 2), (0.5, 3), (1.0, 4)])
def test_recomputing_changes_no_gradient_and_runs_as_many_blocks_again(trained, share, runs):
    _, expected = gradients(trained)
    recompute_blocks(trained.transformer, share)
    calls = []
    for block in blocks_of(trained.transformer):
        block.register_forward_pre_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    _, found = gradients(trained)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    # Two blocks: the policy's run, and those made again; the reference runs without gradients.
    assert sum(calls) == runs


def test_offloaded_blocks_hold_their_weights_only_while_they_compute(trained):
    reference, expected = gradients(trained)
    recompute_blocks(trained.transformer, 1.0)
    lora = lora_parameters(trained)
    offload_blocks(trained.transformer, torch.device("cpu"), lora.values())
    ours = {id(parameter) for parameter in lora.values()}

    def held():
        blocks = blocks_of(trained.transformer)
        return [p.numel() for b in blocks for p in b.parameters() if id(p) not in ours]

    assert held()
    assert not any(held())
    errors, found = gradients(trained)
    assert not any(held())
    assert torch.equal(errors.chosen, reference.chosen)
    assert torch.equal(errors.rejected_reference, reference.rejected_reference)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_block_that_fails_gives_its_memory_back():
    block = torch.nn.Linear(3, 3)
    OffloadedBlock(block, torch.device("cpu"), [])
    with pytest.raises(RuntimeError):
        block(torch.zeros(1, 4))
    assert block.weight.numel() == 0
    assert block(torch.zeros(1, 3)).shape == (1, 3)


def test_blocks_are_those_of_the_models_lists(trained):
    assert blocks_of(trained.transformer) == list(trained.transformer.blocks)


def test_a_base_in_eight_bits_draws_nearly_the_same_and_takes_a_lora(ti2v_folder):
    pytest.importorskip("torchao")
    family, exact = Family(ti2v_folder), Family(ti2v_folder)
    given = batch(first_frame=False)
    quantize_base(family.transformer)
    with torch.no_grad():
        expected = exact.predict(given.chosen, given.t, given.conditioning)
        found = family.predict(given.chosen, given.t, given.conditioning)
    assert not torch.equal(found, expected)
    assert (found - expected).norm() / expected.norm() < 0.02
    add_lora(family, rank=4, alpha=8.0, seed=0)
    disturb(family)
    _, gradient = gradients(family)
    assert all(tensor.abs().max() > 0 for tensor in gradient.values())


def test_moments_in_eight_bits_survive_a_checkpoint(family, tmp_path, monkeypatch):
    pytest.importorskip("torchao")
    # Compiling the update takes longer than all these tests.
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)

    def training():
        torch.manual_seed(0)
        lora = {name: torch.nn.Parameter(torch.randn(64, 128)) for name in "ab"}
        optimizer = optimizer_class("adamw_8bit")(lora.values(), lr=1e-2)
        return lora, optimizer, get_scheduler("constant", optimizer)

    def steps(lora, optimizer, schedule, numbers):
        for number in numbers:
            for parameter in lora.values():
                parameter.grad = torch.randn(64, 128, generator=torch.Generator().manual_seed(number))
            optimizer.step()
            schedule.step()

    lora, optimizer, schedule = training()
    steps(lora, optimizer, schedule, range(3))
    save(
        tmp_path / "c",
        Progression(step=3, kept=copy_weights(lora)),
        lora,
        copy_weights(lora),
        optimizer,
        schedule,
    )
    steps(lora, optimizer, schedule, range(3, 5))
    again, other, other_schedule = training()
    restore(tmp_path / "c", again, copy_weights(again), other, other_schedule)
    steps(again, other, other_schedule, range(3, 5))
    assert all(torch.equal(again[name], lora[name]) for name in lora)


def test_what_needs_torchao_says_so(family, monkeypatch):
    monkeypatch.setattr(memory, "installed", lambda modules: False)
    with pytest.raises(InputError, match=r"pip install 'videogpa\[low-memory\]'"):
        quantize_base(family.transformer)
    with pytest.raises(InputError, match="adamw_8bit needs torchao"):
        optimizer_class("adamw_8bit")
