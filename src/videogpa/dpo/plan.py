"""What a training will take, before anything is loaded: one step is run on tensors without memory, and counted."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from videogpa.dpo.config import TrainConfig
from videogpa.dpo.diffusion import Batch, pair_errors, reference_errors
from videogpa.dpo.lora import add_lora, lora_parameters
from videogpa.dpo.memory import blocks_of, recompute_blocks
from videogpa.families.base import VideoFamily

GIB = 2**30
EFFICIENCY = {"cpu": 0.7, "cuda": 0.39}
"""Of a large matrix product's rate, what a training step reaches: .71 on one CPU core, .39 with CogVideoX-5B on an H100
(docs/cost.md); small models reach less. Another kind of device is taken for a GPU.
"""
COPIES = 6
"""Of the LoRA in float32: weights, gradient, two moments, running mean, the last good one."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Bytes, floating point operations and seconds; `share_saved` is what known references save of the whole training.

    `activations` are those kept for the backward pass of one micro-batch, with those of one block that is made again.
    """

    base: int
    lora: int
    activations: int
    flops_of_a_step: float
    flops_of_the_reference: float
    visits: float
    share_saved: float
    seconds_of_a_step: float | None
    steps: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.base + self.lora + self.activations

    def lines(self) -> list[str]:
        """For people."""
        parts = {"base": self.base, "LoRA and optimizer": self.lora, "activations": self.activations}
        each = ", ".join(f"{name} {size / GIB:.2f}" for name, size in parts.items())
        step = f"a step: {self.flops_of_a_step / 1e12:.2f} TFLOP"
        if self.seconds_of_a_step is not None:
            hours = self.steps * self.seconds_of_a_step / 3600
            step += f", about {self.seconds_of_a_step:.2f} s; {self.steps} steps: {hours:.2f} h"
        share = self.flops_of_the_reference / self.flops_of_a_step
        return [
            f"memory: {self.total / GIB:.2f} GiB ({each})",
            step,
            f"reference: every pair comes {self.visits:.1f} times, so --cache-reference K saves work for K below "
            f"{self.visits:.1f}, at most {share:.0%} of all; as configured {self.share_saved:.0%}",
        ]


def plan(cfg: TrainConfig, family: VideoFamily, batch: Batch, pairs: int, rate: float | None) -> Plan:
    """Count one step of one process.

    Args:
        family: built on the device `meta`.
        batch: one micro-batch, on `meta`.
        pairs: number of training pairs.
        rate: floating point operations a second that a step reaches (`training_rate`).
    """
    transformer = family.transformer
    base = _bytes(transformer.parameters()) + _bytes(transformer.buffers())
    blocks = blocks_of(transformer)
    in_blocks = sum(_bytes(block.parameters()) for block in blocks)
    if cfg.quantize:
        base -= round(in_blocks * (1 - 1 / transformer.dtype.itemsize))
    if cfg.offload:
        # Two blocks at a time: the one that runs and the one whose memory is not free yet.
        base -= round(in_blocks * (1 - 2 / len(blocks)) / (transformer.dtype.itemsize if cfg.quantize else 1))
    add_lora(family, cfg.rank, cfg.alpha, cfg.seed)
    lora = _bytes(lora_parameters(family).values())
    share = 1.0 if cfg.offload else cfg.recompute
    with _fused_attention():
        again = _kept(family, batch) // len(blocks) if share else 0
        recompute_blocks(transformer, share)
        with FlopCounterMode(display=False) as counted:
            kept = _kept(family, batch)
        with FlopCounterMode(display=False) as counted_reference:
            reference_errors(family, batch)
    scale = cfg.batch_pairs / len(batch.t)
    step, reference = (scale * c.get_total_flops() for c in (counted, counted_reference))
    visits = cfg.steps * cfg.batch_pairs / pairs
    known = max(0.0, 1 - cfg.reference_draws / visits) if cfg.reference_draws else 0.0
    return Plan(
        base=base,
        lora=COPIES * lora,
        activations=kept + again,
        flops_of_a_step=step,
        flops_of_the_reference=reference,
        visits=visits,
        share_saved=known * reference / step,
        seconds_of_a_step=None if rate is None else (step - known * reference) / rate,
        steps=cfg.steps,
    )


def on_meta(batch: Batch, count: int) -> Batch:
    """The first pair of a batch, `count` times, without memory."""

    def repeated(tensor: Tensor) -> Tensor:
        return tensor[:1].to("meta").expand(count, *tensor.shape[1:])

    weights = None if batch.weights is None else (repeated(batch.weights[0]), repeated(batch.weights[1]))
    return Batch(
        chosen=repeated(batch.chosen),
        rejected=repeated(batch.rejected),
        eps=repeated(batch.eps),
        t=repeated(batch.t),
        conditioning={name: repeated(tensor) for name, tensor in batch.conditioning.items()},
        weights=weights,
    )


def training_rate(dtype: torch.dtype, device: torch.device) -> float:
    """Floating point operations a second that a training step reaches, by large matrix products for half a second."""
    share = EFFICIENCY.get(device.type, EFFICIENCY["cuda"])
    # On a GPU waiting for a smaller one takes longer than the product.
    return share * _matmul_rate(dtype, device, size=2048 if device.type == "cpu" else 8192)


def _matmul_rate(dtype: torch.dtype, device: torch.device, size: int) -> float:
    a, b = torch.ones(2, size, size, dtype=dtype, device=device)
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < 0.5:
        # Reading a value waits for the product.
        (a @ b)[0, 0].item()
        done += 1
    return done * 2 * size**3 / (time.perf_counter() - began)


class _FusedAttention(torch.autograd.Function):
    """What a fused attention kernel computes and keeps: never the matrix of all tokens by all tokens."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As `scaled_dot_product_attention`, in shapes and operations."""
        out = (query @ key.mT) @ value
        ctx.save_for_backward(query, key, value, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The matrix is made again, block by block."""
        query, key, value, _ = ctx.saved_tensors
        matrix, slope = query @ key.mT, gradient @ value.mT
        return slope @ key, slope.mT @ query, matrix.mT @ gradient


@contextmanager
def _fused_attention() -> Iterator[None]:
    """Attention as accelerators compute it; tensors without memory would take the slow path that keeps everything."""
    original = torch.nn.functional.scaled_dot_product_attention
    torch.nn.functional.scaled_dot_product_attention = lambda query, key, value, *_, **__: (
        _FusedAttention.apply(query, key, value)
    )
    try:
        yield
    finally:
        torch.nn.functional.scaled_dot_product_attention = original


def _kept(family: VideoFamily, batch: Batch) -> int:
    """Bytes that a forward pass of both sides keeps for its backward pass, which is run, too."""
    parameters = {_storage(tensor) for tensor in family.transformer.parameters()}
    sizes: dict[int, int] = {}
    held: list[Any] = []

    def keep(tensor: Tensor) -> Tensor:
        key = _storage(tensor)
        if key not in parameters and key not in sizes:
            sizes[key] = tensor.untyped_storage().nbytes()
            # So that no later tensor gets its number.
            held.append(tensor.untyped_storage())
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        known = torch.zeros(len(batch.t), device="meta")
        errors = pair_errors(family, batch, (known, known))
    kept = sum(sizes.values())
    (errors.chosen - errors.rejected).sum().backward()
    reference_errors(family, batch)
    return kept


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
