"""Where in the noise schedule a training draws its timesteps."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def stratified(generator: Generator, n: int) -> Float[Tensor, " n"]:
    """n numbers in (0, 1), one from each n-th of it, in random order; float64 on the CPU."""
    within = torch.rand(n, generator=generator, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    return (torch.randperm(n, generator=generator) + within) / n


def shifted(u: Float[Tensor, " n"], shift: float) -> Float[Tensor, " n"]:
    """sigma = s u / (1 + (s - 1) u): more noise for larger pictures (Esser et al. 2024, arXiv 2403.03206, eq. 23)."""
    return shift * u / (1 + (shift - 1) * u)
