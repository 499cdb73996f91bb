"""The state of a training run in one file, so that there is no half of a checkpoint."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from videogpa.dpo.health import ChosenGuard, Health
from videogpa.families.base import load_tensors, save_tensors


@dataclass(frozen=True, kw_only=True)
class Progression:
    """How far a run is. `kept` is the LoRA of the last good evaluation."""

    step: int
    kept: dict[str, Tensor]
    kept_step: int = 0
    kept_health: Health | None = None
    guard: ChosenGuard = field(default_factory=ChosenGuard)
    stopped: bool = False


def save(
    path: Path,
    now: Progression,
    lora: dict[str, nn.Parameter],
    ema: dict[str, Tensor],
    optimizer: Optimizer,
    schedule: LambdaLR,
) -> None:
    """Write everything that the next step depends on, atomically."""
    moments = dict(zip(lora, optimizer.state_dict()["state"].values(), strict=True))
    tensors = {
        **{f"lora/{name}": tensor for name, tensor in lora.items()},
        **{f"ema/{name}": tensor for name, tensor in ema.items()},
        **{f"kept/{name}": tensor for name, tensor in now.kept.items()},
        **{f"adam/{key}/{name}": moments[name][key] for name in lora for key in moments[name]},
    }
    state = {
        "step": now.step,
        "kept_step": now.kept_step,
        "kept_health": asdict(now.kept_health) if now.kept_health else None,
        "guard": asdict(now.guard),
        "schedule": {k: v for k, v in schedule.state_dict().items() if k in ("last_epoch", "_last_lr")},
    }
    save_tensors(path, tensors, {"state": json.dumps(state)})


def restore(
    path: Path,
    lora: dict[str, nn.Parameter],
    ema: dict[str, Tensor],
    optimizer: Optimizer,
    schedule: LambdaLR,
) -> Progression:
    """Put weights, their mean, optimizer and schedule back as they were when the file was written."""
    tensors = load_tensors(path)
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}

    set_weights(lora, part("lora/"))
    device = next(iter(lora.values())).device
    ema.update({name: value.to(device) for name, value in part("ema/").items()})
    moments = {key: part(f"adam/{key}/") for key in ("step", "exp_avg", "exp_avg_sq")}
    per_parameter = {i: {key: moments[key][name] for key in moments} for i, name in enumerate(lora)}
    schedule.load_state_dict(schedule.state_dict() | state["schedule"])
    optimizer.load_state_dict(optimizer.state_dict() | {"state": per_parameter})
    for group, lr in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = lr
    return Progression(
        step=state["step"],
        kept={name: value.to(device) for name, value in part("kept/").items()},
        kept_step=state["kept_step"],
        kept_health=Health(**state["kept_health"]) if state["kept_health"] else None,
        guard=ChosenGuard(**state["guard"]),
    )


def copy_weights(lora: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values that later steps do not change."""
    return {name: parameter.detach().clone() for name, parameter in lora.items()}


@torch.no_grad()
def set_weights(lora: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    """Overwrite the parameters in place."""
    for name, parameter in lora.items():
        parameter.copy_(values[name])
