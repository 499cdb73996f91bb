"""Does a LoRA that is fused into the weights cost anything when a model draws? And one that is not?

    taskset -c 1 python benchmarks/fused_lora.py
    python benchmarks/fused_lora.py --rounds 200 --rank 64 --threads 1

Times one forward of the transformer, as the base, with the LoRA beside the weights and with it fused, for the embedded
model (Wan, 9 frames of 48x48) and the CogVideoX of 38.5 M parameters that `published_step.py` has. A round runs all
three in random order, so that whatever slows the machine slows all of them; what counts is the median of the rounds'
ratios to the base, with a 95 % interval (bootstrap over rounds). Two bases are among them: how far their ratio is from
1 is what the machine itself adds. Expected: fused within 2 % of the base. Writes a CSV beside this file or to --out.
"""

import copy
import csv
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from peft import LoraConfig, get_peft_model_state_dict
from published_step import (
    CHANNELS,
    FRAMES,
    HEAD_WIDTH,
    PATCH,
    SIZE,
    TARGETS,
    TEXT_TOKENS,
    TEXT_WIDTH,
    small_transformer,
)

from videogpa.dpo.lora_formats import Lora, fuse
from videogpa.families.wan import Family
from videogpa.weights import GENERATOR

BASE, AGAIN, BESIDE, FUSED = "base", "base_again", "lora_beside", "lora_fused"
COLUMNS = (
    *("model", "arm", "median_ms", "ratio_to_base", "ci_low", "ci_high", "largest_error"),
    *("rounds", "rank", "threads"),
)
"""`largest_error`: how far the output lies from that of the base with the LoRA beside it."""
LATENTS = (1, 32, 3, 12, 12)
"""Of 9 frames of 48x48 with the embedded VAE."""


def main(
    rounds: Annotated[int, typer.Option(min=5)] = 200,
    rank: Annotated[int, typer.Option(min=1)] = 16,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    device: str = "cpu",
    seed: int = 0,
    out: Annotated[Path | None, typer.Option(help="CSV file")] = None,
) -> None:
    """Measure and print."""
    torch.set_num_threads(threads)
    rows = []
    for name, (transformer, call) in {
        "embedded": embedded(device, seed),
        "cogvideox_38m": small_cogvideox(device, seed),
    }.items():
        arms = arms_of(transformer, rank, seed)
        with torch.no_grad():
            wanted = call(arms[BESIDE])
            error = {arm: (call(model) - wanted).abs().max().item() for arm, model in arms.items()}
            seconds = measure(
                {arm: partial(call, model) for arm, model in arms.items()}, rounds, seed, device
            )
        for arm in arms:
            ratios = seconds[arm] / seconds[BASE]
            low, high = interval(ratios, seed)
            rows.append(
                dict(zip(COLUMNS, (
                    name, arm, 1000 * float(np.median(seconds[arm])), float(np.median(ratios)), low, high, error[arm],
                    rounds, rank, threads,
                ), strict=True))
            )  # fmt: skip
            print(
                f"{name:14} {arm:12} {rows[-1]['median_ms']:9.2f} ms  x{rows[-1]['ratio_to_base']:.4f} "
                f"[{low:.4f}, {high:.4f}]  differs from base + LoRA by {error[arm]:.1e}"
            )
    path = out or Path(__file__).with_name(f"fused_lora_{device}{threads}_{datetime.now(UTC):%Y-%m-%d}.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    print(path)


def embedded(device: str, seed: int) -> tuple[Any, Callable[[Any], torch.Tensor]]:
    """The embedded model's transformer, and a call of it as its pipeline makes them: a timestep for every token."""
    transformer: Any = Family(GENERATOR, device=device).transformer
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(LATENTS, generator=generator).to(device)
    text = torch.randn(1, 24, transformer.config.text_dim, generator=generator).to(device)
    tokens = LATENTS[2] * LATENTS[3] * LATENTS[4] // 4
    timestep = torch.full((1, tokens), 500.0, device=device)
    return transformer, lambda model: model(x, timestep, text, return_dict=False)[0]


def small_cogvideox(device: str, seed: int) -> tuple[Any, Callable[[Any], torch.Tensor]]:
    """CogVideoX of 38.5 M random parameters, and a call of it on 5 latent frames of 32x32."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, FRAMES, CHANNELS, SIZE, SIZE, generator=generator).to(device)
    text = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH, generator=generator).to(device)
    timestep = torch.full((1,), 500, device=device)
    grid = (SIZE // PATCH, SIZE // PATCH)
    rotary = get_3d_rotary_pos_embed(HEAD_WIDTH, ((0, 0), grid), grid, FRAMES, device=torch.device(device))
    transformer = small_transformer(seed).to(device).eval().requires_grad_(False)
    return transformer, lambda model: model(x, text, timestep, image_rotary_emb=rotary, return_dict=False)[0]


def arms_of(transformer: Any, rank: int, seed: int) -> dict[str, Any]:
    """The base twice, with a random LoRA beside its weights, and with the same LoRA in them."""
    beside, fused = copy.deepcopy(transformer), copy.deepcopy(transformer)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS)
    torch.manual_seed(seed)
    beside.add_adapter(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in beside.named_parameters():
        if ".lora_B" in name:
            parameter.data = 0.02 * torch.randn(parameter.shape, generator=generator).to(parameter)
    lora = Lora(weights=get_peft_model_state_dict(beside), config=config.to_dict())
    weights, _, _ = fuse(fused.state_dict(), lora)
    fused.load_state_dict(weights)
    return {BASE: transformer, AGAIN: copy.deepcopy(transformer), BESIDE: beside.eval(), FUSED: fused}


def measure(
    calls: dict[str, Callable[[], Any]], rounds: int, seed: int, device: str
) -> dict[str, np.ndarray]:
    """Seconds of every call in every round; two rounds more go before them, uncounted."""
    order = np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {arm: [] for arm in calls}
    for _ in range(rounds + 2):
        for arm in order.permutation(list(calls)):
            start = time.perf_counter()
            calls[arm]()
            if device != "cpu":
                torch.cuda.synchronize()
            seconds[arm].append(time.perf_counter() - start)
    return {arm: np.array(values[2:]) for arm, values in seconds.items()}


def interval(ratios: np.ndarray, seed: int, resamples: int = 10_000) -> tuple[float, float]:
    """95 % of the medians of rounds drawn anew."""
    drawn = np.random.default_rng(seed).integers(0, len(ratios), (resamples, len(ratios)))
    low, high = np.percentile(np.median(ratios[drawn], axis=1), [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    typer.run(main)
