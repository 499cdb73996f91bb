"""What goes wrong inside a command's process, set up before the command begins."""

import os
import time
from collections.abc import Callable
from typing import Any

import torch

NOBODY = 65534


def as_nobody() -> None:
    """Without the rights of whoever runs the tests."""
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)


def environment(name: str, value: str) -> None:
    """Of this process and of all that it starts."""
    os.environ[name] = value


def clock_jumps(seconds: float) -> None:
    """The time of day jumps, there and back, every tenth time that it is asked for."""
    real, asked = time.time, 0

    def jumping() -> float:
        nonlocal asked
        asked += 1
        return real() + (seconds if asked // 10 % 2 else 0)

    time.time = jumping


def failing(what: str, kind: str, call: int) -> None:
    """In one of its calls, counted from 1, something of a model gives no numbers or takes too much memory."""
    from videogpa.families.wan import Family
    from videogpa.geometry.embedded import Backend
    from videogpa.metrics import motion

    owner: Any = {"sample": Family, "encode": Family, "predict": Backend, "measure": motion}[what]
    setattr(owner, what, _failing(getattr(owner, what), kind, call))


def _failing(working: Callable[..., Any], kind: str, failing_call: int) -> Callable[..., Any]:
    calls = 0

    def call(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            match kind:
                case "memory":
                    raise MemoryError
                case "nan":
                    return _without_numbers(working(*arguments, **named))
        return working(*arguments, **named)

    return call


def _without_numbers(value: Any) -> Any:
    """The same with NaN in the place of every floating number."""
    if isinstance(value, float):
        return float("nan")
    if isinstance(value, torch.Tensor):
        return torch.full_like(value, torch.nan) if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _without_numbers(part) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(map(_without_numbers, value))
    if hasattr(value, "__dataclass_fields__"):
        return type(value)(
            **{name: _without_numbers(getattr(value, name)) for name in value.__dataclass_fields__}
        )
    return value
