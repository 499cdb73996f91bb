"""Seconds and memory of Depth Anything 3 on a GPU, by size of the network, with random weights.

    python benchmarks/gpu_geometry.py --result benchmarks/gpu_geometry_h100_DATE

Ten frames of 504 pixels, as the scorer looks at them, in bfloat16: the network alone. What the scorer does after it
runs on the processor and is the same for every network.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated, get_args

import torch
import typer
from rows import write_rows

from videogpa.geometry.depth_anything_3 import Size, build_network


def main(
    frames: int = 10,
    side: int = 504,
    rounds: int = 5,
    size: Annotated[list[str] | None, typer.Option(help="only these, repeatable")] = None,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [measured(name, frames, side, rounds, device) for name in size or get_args(Size)]
    if result is not None:
        write_rows(rows, result)


@torch.inference_mode()
def measured(size: str, frames: int, side: int, rounds: int, device: str) -> dict[str, str]:
    """The median of some rounds after one that warms up."""
    with torch.device(device):
        network = build_network(size).eval()  # type: ignore[arg-type]
    network, images = network.to(device), torch.randn(1, frames, 3, side, side, device=device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            network(images)["depth"].float().cpu()
        seconds.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else float("nan")
    row = {
        "network": size,
        "parameters": f"{sum(p.numel() for p in network.parameters()) / 1e6:.0f} M",
        "seconds": f"{statistics.median(seconds[1:]):.3f}",
        "peak_GiB": f"{peak:.2f}",
    }
    print(*row.values(), sep="  ", flush=True)
    return row


if __name__ == "__main__":
    typer.run(main)
