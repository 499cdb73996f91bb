import csv
from dataclasses import replace

import pytest
import torch
from torch import nn

from videogpa.world.training_loop import Plan, train

PLAN = Plan(steps=8, lr=0.1, warmup=2, cooldown=0.5, average_decay=0.9, weight_decay=0.0, checkpoint_every=2)


class Interruption(Exception):
    """Stands for whatever ends a process."""


def run(out, *, stop_at=None, plan=PLAN, **options):
    """The averaged weights that a little regression ends with."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)

    def loss_of(step):
        if step == stop_at:
            raise Interruption
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (model(x) - x[:, :3] ** 2).square().mean()

    def validate():
        assert not model.training
        return {"size": model.weight.norm().item()}

    train(model, [model.weight], out, plan, loss_of=loss_of, validate=validate, description="test", **options)
    return {k: v.clone() for k, v in model.state_dict().items()}


def log_rows(out):
    with (out / "log.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_the_rate_rises_stays_and_falls():
    expected = [0.05, 0.1, 0.1, 0.1, 0.1, 0.075, 0.05, 0.025]
    assert [PLAN.rate(step) for step in range(8)] == pytest.approx(expected)
    assert replace(PLAN, warmup=1).rate(0) == pytest.approx(0.1)


def test_products_in_bfloat16_end_near_float32_with_weights_in_float32(tmp_path):
    exact = run(tmp_path / "float32")
    rough = run(tmp_path / "bfloat16", plan=replace(PLAN, bfloat16=True))
    for name, value in rough.items():
        assert value.dtype == torch.float32
        assert not torch.equal(value, exact[name])
        torch.testing.assert_close(value, exact[name], atol=0.05, rtol=0)


def test_interrupted_and_resumed_is_uninterrupted_bit_for_bit(tmp_path):
    whole = run(tmp_path / "whole")
    with pytest.raises(Interruption):
        run(tmp_path / "cut", stop_at=5)
    resumed = run(tmp_path / "cut")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    assert [row["step"] for row in log_rows(tmp_path / "whole")] == ["2", "4", "6", "8"]
    plain = ("step", "size")
    assert [[r[k] for k in plain] for r in log_rows(tmp_path / "cut")] == [
        [r[k] for k in plain] for r in log_rows(tmp_path / "whole")
    ]


def test_a_run_may_start_from_another_runs_checkpoint(tmp_path):
    with pytest.raises(Interruption):
        run(tmp_path / "first", stop_at=5)
    branched = run(tmp_path / "second", restart_from=tmp_path / "first/checkpoint.pt")
    whole = run(tmp_path / "whole")
    assert all(torch.equal(whole[k], branched[k]) for k in whole)
    assert [row["step"] for row in log_rows(tmp_path / "second")] == ["6", "8"]
