"""Where in the noise schedule a training draws its timesteps."""

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from jaxtyping import Float
from torch import Generator, Tensor

from videogpa.errors import InputError


def stratified(generator: Generator, n: int) -> Float[Tensor, " n"]:
    """n numbers in (0, 1), one from each n-th of it, in random order; float64 on the CPU."""
    within = torch.rand(n, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    return (torch.randperm(n, generator=generator) + within) / n


def shifted(u: Float[Tensor, " n"], shift: float) -> Float[Tensor, " n"]:
    """sigma = s u / (1 + (s - 1) u): more noise for larger pictures (Esser et al. 2024, arXiv 2403.03206, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)


def fixed_shift(folder: Path, scheduler: Any) -> float:
    """The shift of a flow schedule that has one and nothing else.

    Raises:
        InputError: it is another schedule, or draws noise of its own.
    """
    bent = ("use_dynamic_shifting", "shift_terminal", "invert_sigmas", "stochastic_sampling")
    spaced = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
    is_flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    if not is_flow or any(scheduler.config[name] for name in bent + spaced):
        raise InputError(f"the scheduler of {folder} is no flow schedule with a fixed shift and nothing else")
    return float(scheduler.config.shift)
