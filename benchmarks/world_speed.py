"""Frames a second of the world's renderer with all its outputs, on one core.

    python benchmarks/world_speed.py

Processor time, so that other work on the machine counts as little as possible; the best of several rounds.
"""

import time
from typing import Annotated

import torch
import typer

from videogpa.world.render import render
from videogpa.world.scene import sample_scene


def main(
    size: int = 64, frames: int = 9, scenes: int = 20, rounds: Annotated[int, typer.Option(min=1)] = 5
) -> None:
    """Render the same scenes several times; every fourth has a moving body."""
    torch.set_num_threads(1)
    sampled = [sample_scene(seed, dynamic=seed % 4 == 0) for seed in range(scenes)]
    render(sampled[0], frames, size, size)
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        for scene in sampled:
            render(scene, frames, size, size)
        seconds.append(time.process_time() - start)
    count = scenes * frames
    print(
        f"{size}x{size}: best {count / min(seconds):.0f}, median {count / sorted(seconds)[rounds // 2]:.0f} "
        f"frames/s of processor time over {rounds} rounds of {count} frames"
    )


if __name__ == "__main__":
    typer.run(main)
