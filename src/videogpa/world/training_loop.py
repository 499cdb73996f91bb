"""The loop that trains both embedded models: Muon and AdamW side by side, averaged weights, checkpoints, a log."""

import csv
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor, nn

from videogpa.world.muon import Muon

AVERAGE_WARMUP = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how fast. The rate rises over `warmup` steps and falls to zero over the last `cooldown` share.

    `average_decay` is that of the running average of the weights; `weight_decay` that of what AdamW trains. With
    `bfloat16` matrices are multiplied in it, Muon's too; weights, moments and sums stay float32.
    """

    steps: int
    lr: float
    warmup: int
    cooldown: float
    average_decay: float
    weight_decay: float
    checkpoint_every: int
    bfloat16: bool = False

    def rate(self, step: int) -> float:
        """Learning rate of step `step` (from 0)."""
        return self.lr * min(1, (step + 1) / self.warmup, (self.steps - step) / (self.cooldown * self.steps))


def train(
    model: nn.Module,
    matrices: list[nn.Parameter],
    out: Path,
    plan: Plan,
    *,
    loss_of: Callable[[int], Tensor],
    validate: Callable[[], Mapping[str, float]],
    description: str,
    restart_from: Path | None = None,
) -> None:
    """Train until the plan's end, resuming from `out/checkpoint.pt`; `model` ends with its averaged weights.

    Computed where the model is. `matrices` are the parameters that Muon trains. `loss_of` draws everything from the
    step's number, so that an interrupted run goes on as if nothing had happened. `validate` measures the model as it
    stands, which is with averaged weights in evaluation mode; its figures become columns of `out/log.csv`.
    """
    out.mkdir(parents=True, exist_ok=True)
    muon, device = {id(p) for p in matrices}, matrices[0].device.type
    rest = [p for p in model.parameters() if id(p) not in muon]
    optimizers = [
        Muon(matrices, lr=plan.lr, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=plan.lr, betas=(0.9, 0.98), weight_decay=plan.weight_decay),
    ]
    average = {k: v.clone() for k, v in model.state_dict().items()}
    checkpoint, start = out / "checkpoint.pt", 0
    source = checkpoint if checkpoint.exists() else restart_from
    if source:
        state = torch.load(source, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        average = state["average"]
        for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        start = state["step"]
    losses, began = [], time.monotonic()
    with Progress() as progress:
        bar = progress.add_task(description, total=plan.steps, completed=start)
        for step in range(start, plan.steps):
            with torch.autocast(device, torch.bfloat16, enabled=plan.bfloat16):
                loss = loss_of(step)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = plan.rate(step)
                with torch.autocast(device, torch.bfloat16, enabled=plan.bfloat16):
                    optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            _follow(average, model, min(plan.average_decay, (step + 1) / (step + AVERAGE_WARMUP)))
            losses.append(loss.item())
            progress.advance(bar)
            if (step + 1) % plan.checkpoint_every == 0 or step + 1 == plan.steps:
                with _weights(model, average):
                    figures = validate()
                row = {"step": step + 1, "train_loss": sum(losses) / len(losses), **figures}
                _log(out / "log.csv", row | {"seconds": round(time.monotonic() - began)})
                losses = []
                state = {
                    "step": step + 1,
                    "model": model.state_dict(),
                    "average": average,
                    "optimizers": [o.state_dict() for o in optimizers],
                }
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
    model.load_state_dict(average)
    model.eval()


@torch.no_grad()
def _follow(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


@contextmanager
def _weights(model: nn.Module, values: dict[str, Tensor]) -> Iterator[None]:
    """The model with other weights, in evaluation mode, for a while."""
    own = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(values)
    model.eval()
    try:
        yield
    finally:
        model.load_state_dict(own)
        model.train()


def _log(path: Path, row: Mapping[str, float | int]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow(v if isinstance(v, int) else f"{v:.4f}" for v in row.values())
