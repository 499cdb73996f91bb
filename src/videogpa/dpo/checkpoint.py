"""The state of a training run in one file, so that there is no half of a checkpoint."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from videogpa.dpo.health import ChosenGuard, Health
from videogpa.errors import InputError
from videogpa.families.base import load_tensors, save_tensors

ADAM = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True)
class Progression:
    """How far a run is. `kept` is the LoRA of the last good evaluation; `stopped` says why a run ended early; `log` is
    the hash of the log up to here.
    """

    step: int
    kept: dict[str, Tensor]
    kept_step: int = 0
    kept_health: Health | None = None
    guard: ChosenGuard = field(default_factory=ChosenGuard)
    stopped: str | None = None
    log: str | None = None


def save(
    path: Path,
    now: Progression,
    lora: dict[str, nn.Parameter],
    ema: dict[str, Tensor],
    optimizer: Optimizer,
    schedule: LambdaLR,
) -> None:
    """Write everything that the next step depends on, atomically."""
    moments = {name: optimizer.state[parameter] for name, parameter in lora.items()}
    tensors = {
        **{f"lora/{name}": tensor for name, tensor in lora.items()},
        **{f"ema/{name}": tensor for name, tensor in ema.items()},
        **{f"kept/{name}": tensor for name, tensor in now.kept.items()},
        **{
            f"adam/{key}/{name}{part}": tensor
            for name in lora
            for key in ADAM
            for part, tensor in _parts(moments[name][key]).items()
        },
    }
    state = {
        "step": now.step,
        "kept_step": now.kept_step,
        "kept_health": asdict(now.kept_health) if now.kept_health else None,
        "guard": asdict(now.guard),
        "log": now.log,
        "schedule": {
            "last_epoch": schedule.last_epoch,
            "_last_lr": [float(lr) for lr in schedule.get_last_lr()],
        },
    }
    # One metadata key: safetensors writes several in random order.
    save_tensors(path, tensors, {"state": json.dumps(state | {"sha256": _digest(tensors, state)})})


def restore(
    path: Path,
    lora: dict[str, nn.Parameter],
    ema: dict[str, Tensor],
    optimizer: Optimizer,
    schedule: LambdaLR,
) -> Progression:
    """Put weights, their mean, optimizer and schedule back as they were when the file was written.

    Raises:
        InputError: the file is damaged.
    """
    tensors, state = _read(path)

    def part(name: str) -> dict[str, Tensor]:
        return {key.removeprefix(name): value for key, value in tensors.items() if key.startswith(name)}

    set_weights(lora, part("lora/"))
    device = next(iter(lora.values())).device
    ema.update({name: value.to(device) for name, value in part("ema/").items()})
    for name, parameter in lora.items():
        optimizer.state[parameter] = {
            key: _moment(optimizer, parameter, key, part(f"adam/{key}/{name}")) for key in ADAM
        }
    schedule.load_state_dict(schedule.state_dict() | state["schedule"])
    for group, lr in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    return Progression(
        step=state["step"],
        kept={name: value.to(device) for name, value in part("kept/").items()},
        kept_step=state["kept_step"],
        kept_health=Health(**state["kept_health"]) if state["kept_health"] else None,
        guard=ChosenGuard(**state["guard"]),
        log=state["log"],
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    damaged = InputError(f"{path} is damaged, or of an earlier version: delete it to begin the training anew")
    tensors = load_tensors(path)
    try:
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["state"])
        whole = state.pop("sha256") == _digest(tensors, state)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged from error
    if not whole:
        raise damaged
    return tensors, state


def _digest(tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
    found = hashlib.sha256(json.dumps(state, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _parts(moment: Tensor) -> dict[str, Tensor]:
    """The tensor itself, or the tensors that a moment in 8 bits consists of, by the ending of their name."""
    names = getattr(moment, "tensor_attrs", None)
    return {"": moment} if names is None else {f"/{name}": getattr(moment, name) for name in names}


def _moment(optimizer: Any, parameter: nn.Parameter, key: str, parts: dict[str, Tensor]) -> Tensor:
    if "" in parts:
        # A step's number stays where the optimizer wants it.
        return parts[""] if key == "step" else parts[""].to(parameter.device)
    moment = optimizer._new_buffer(parameter, key == "exp_avg")
    for ending, tensor in parts.items():
        getattr(moment, ending.removeprefix("/")).copy_(tensor)
    return moment


def copy_weights(lora: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values that later steps do not change."""
    return {name: parameter.detach().clone() for name, parameter in lora.items()}


@torch.no_grad()
def set_weights(lora: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    """Overwrite the parameters in place."""
    for name, parameter in lora.items():
        parameter.copy_(values[name])
