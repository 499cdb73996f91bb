"""Muon in float32 with matrices of one shape batched.

torch.optim.Muon orthogonalises each matrix by itself and in bfloat16, which on processors without bfloat16
arithmetic costs more than the training step it belongs to. Keller Jordan et al., 2024; step size scaled so that
the update's root mean square does not depend on the shape (Liu et al., arXiv 2502.16982).
"""

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """Momentum, then the nearest semi-orthogonal matrix; convolutions count as matrices [out, in * kernel]."""

    def __init__(
        self, params: list[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                by_shape[p.shape].append(p)
            for params in by_shape.values():
                directions = [
                    p.grad.lerp(self.state[p]["momentum_buffer"], group["momentum"])
                    for p in params
                    if p.grad is not None
                ]
                updates = torch.stack([d.flatten(1) for d in directions])
                for p, update in zip(params, orthogonalize(updates), strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(update.view(p.shape), alpha=-group["lr"] * 0.2 * max(update.shape) ** 0.5)


def orthogonalize(x: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz iteration towards U V^T of each matrix in x [n rows columns]."""
    a, b, c = COEFFICIENTS
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(a * x, torch.baddbmm(b * gram, gram, gram, alpha=c), x)
    return x if wide else x.mT
