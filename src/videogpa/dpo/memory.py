"""What a training holds in memory, made smaller: recomputed activations, a quantised, offloaded or sharded base."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videogpa.errors import InputError
from videogpa.plugin import installed


def blocks_of(transformer: nn.Module) -> list[nn.Module]:
    """The transformer's repeated blocks in their order: what lies in its lists of modules."""
    lists = [child for child in transformer.children() if isinstance(child, nn.ModuleList)]
    return [block for modules in lists for block in modules]


def recompute_blocks(transformer: Any, share: float) -> None:
    """Activations of that share of the blocks, evenly spread, are made again in the backward pass instead of kept."""
    if share == 0:
        return
    blocks = blocks_of(transformer)
    count = max(1, round(share * len(blocks)))
    chosen = {blocks[round((i + 0.5) * len(blocks) / count - 0.5)] for i in range(count)}

    def run(block: Any, *args: Any) -> Any:
        module = getattr(block, "__self__", block)
        return checkpoint(block, *args, use_reentrant=False) if module in chosen else block(*args)

    transformer.enable_gradient_checkpointing(run)


def quantize_base(transformer: nn.Module) -> None:
    """The linear layers of the blocks in 8-bit integers, one scale a row; they stay frozen, a LoRA trains beside them.

    Raises:
        InputError: torchao is not installed.
    """
    if not installed(["torchao"]):
        raise InputError("quantize needs torchao: pip install 'videogpa[low-memory]'")
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    for block in blocks_of(transformer):
        quantize_(block, Int8WeightOnlyConfig(), lambda module, _: isinstance(module, nn.Linear))


class OffloadedBlock:
    """A block whose frozen weights are on the accelerator only while it computes.

    Works with recomputed blocks alone: recomputing runs the block again and keeps what its backward pass needs.
    """

    def __init__(self, block: nn.Module, device: torch.device, trained: Iterable[Tensor]):
        ours = {id(parameter) for parameter in trained}
        self.device = device
        self.stored = [
            (module, name, _pinned(parameter.data, device))
            for module in block.modules()
            for name, parameter in module.named_parameters(recurse=False)
            if id(parameter) not in ours
        ]
        self.evict()
        block.register_forward_pre_hook(lambda *_: self.load())
        # Recomputation ends by an exception as soon as it has all it needs.
        block.register_forward_hook(lambda *_: self.evict(), always_call=True)

    def load(self) -> None:
        """The weights on the accelerator, in new tensors: a backward pass that saw them keeps them."""
        for module, name, data in self.stored:
            there = data.to(self.device, non_blocking=True)
            module.register_parameter(name, nn.Parameter(there, requires_grad=False))

    def evict(self) -> None:
        """Empty weights; the memory is free once the last operation on them is done."""
        for module, name, data in self.stored:
            empty = torch.empty(0, dtype=data.dtype, device=self.device)
            module.register_parameter(name, nn.Parameter(empty, requires_grad=False))


def offload_blocks(transformer: nn.Module, device: torch.device, trained: Iterable[Tensor]) -> None:
    """Blocks' frozen weights stay in main memory; all else of the transformer moves to the accelerator.

    Call it with the transformer on the CPU and every block recomputed.
    """
    trained = list(trained)
    blocks = blocks_of(transformer)
    for block in blocks:
        OffloadedBlock(block, device, trained)
    transformer.to(device)


def shard_base(transformer: Any, device: torch.device, trained: Iterable[nn.Parameter]) -> None:
    """The frozen base spread over all processes, block by block (FSDP2); the small LoRA stays whole everywhere."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    ignored = set(trained)
    for module in (*blocks_of(transformer), transformer):
        fully_shard(module, mesh=mesh, ignored_params=ignored)


def optimizer_class(name: str) -> Any:
    """AdamW, or AdamW with moments in 8 bits.

    Raises:
        InputError: torchao is not installed.
    """
    if name == "adamw":
        return torch.optim.AdamW
    if not installed(["torchao"]):
        raise InputError("optimizer adamw_8bit needs torchao: pip install 'videogpa[low-memory]'")
    from torchao.optim import AdamW8bit

    return AdamW8bit


def _pinned(data: Tensor, device: torch.device) -> Tensor:
    """Copies from pinned memory do not make the accelerator wait."""
    return data.pin_memory() if device.type == "cuda" else data
