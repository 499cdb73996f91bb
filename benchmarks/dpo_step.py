"""Time and memory of our DPO step against the published one, on the same 38.5 M CogVideoX and the same batch.

    python benchmarks/dpo_step.py --result benchmarks/dpo_step_cpu1_DATE

The published step (`published_step.py`) is written down independently of the package: four forwards, a second copy of
the weights. All arms start from the same LoRA, take their steps in turns and must find the same loss; a figure is the
median over rounds, in seconds of processor time of one thread and in seconds by the clock.
"""

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate import Accelerator
from diffusers import CogVideoXDPMScheduler
from published_step import BETA, CLIP, FRAMES, LEARNING_RATE, SIZE, TEXT_TOKENS, TEXT_WIDTH, PublishedTrainer
from published_step import small_transformer as build
from rows import write_rows
from torch import Tensor, nn

from videogpa.dpo.config import TrainConfig
from videogpa.dpo.diffusion import Batch, Sides, pair_errors, reference_errors
from videogpa.dpo.loss import diffusion_dpo_loss
from videogpa.dpo.training import prepared
from videogpa.families.cogvideox import Family

Step = Callable[[], float]
TIMESTEP = 500


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    torch.set_num_threads(1)
    scheduler = CogVideoXDPMScheduler(
        prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0
    )
    rng = torch.Generator().manual_seed(0)
    chosen, rejected, noise = torch.randn(3, 1, FRAMES, 16, SIZE, SIZE, generator=rng)
    prompt = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH, generator=rng)
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), scheduler)
        batch = Batch(
            *(x.transpose(1, 2) for x in (chosen, rejected, noise)),
            torch.full((1,), float(TIMESTEP)),
            {"prompt_embeds": prompt, "padding": torch.zeros(1, dtype=torch.long)},
        )
        arms, weights, starts = {}, {}, None
        for name, recompute, cached in (
            ("ours, recomputed", 1.0, False), ("ours", 0.0, False),
            ("ours, recomputed, references known", 1.0, True), ("ours, references known", 0.0, True),
        ):  # fmt: skip
            family, lora = trainer(Path(folder), recompute)
            starts = starts or {key: value.detach().clone() for key, value in lora.items()}
            known = reference_errors(family, batch) if cached else None
            arms[name] = our_step(family, lora, batch, known)
            weights[name] = sum(p.numel() * p.element_size() for p in family.transformer.parameters())
        rotary = family._rotary(batch.chosen)
    for name, checkpointing in (("published, recomputed", True), ("published", False)):
        published = PublishedTrainer(
            build(0), scheduler, beta=BETA, learning_rate=LEARNING_RATE, checkpointing=checkpointing
        )
        start_alike(published.lora_parameters(), starts)
        arms[name] = published_step(published, chosen, rejected, noise, prompt, rotary)
        weights[name] = published.weights_in_memory()
    losses = {name: [] for name in arms}
    clock, processor = ({name: [] for name in arms} for _ in range(2))
    for number in range(rounds + 1):
        for name, step in arms.items():
            gc.collect()
            began, used = time.perf_counter(), time.process_time()
            losses[name].append(step())
            if number:  # The first round warms up.
                clock[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - used)
    base = statistics.median(processor["published, recomputed"])
    spread = max(abs(a - b) for name in arms for a, b in zip(losses[name], losses["published"], strict=True))
    rows = [
        {
            "step": name,
            "processor_s": f"{statistics.median(processor[name]):.3f}",
            "clock_s": f"{statistics.median(clock[name]):.3f}",
            "fastest_s": f"{min(processor[name]):.3f}",
            "of_published_recomputed": f"{statistics.median(processor[name]) / base:.3f}",
            "weights_MiB": f"{weights[name] / 2**20:.1f}",
            "loss": f"{losses[name][-1]:.7f}",
        }
        for name in arms
    ]
    for row in rows:
        print(*row.values(), sep="  ")
    print(f"largest difference of any loss from the published step's: {spread:.1e}")
    if result is not None:
        write_rows(rows, result)


def write_folder(folder: Path, scheduler: CogVideoXDPMScheduler) -> None:
    """What training reads of a CogVideoX folder: the transformer and the schedule."""
    build(0).save_pretrained(folder / "transformer")
    scheduler.save_pretrained(folder / "scheduler")
    index = {"_class_name": "CogVideoXPipeline", "scheduler": ["diffusers", "CogVideoXDPMScheduler"]}
    (folder / "model_index.json").write_text(json.dumps(index))


def trainer(folder: Path, recompute: float) -> tuple[Family, dict[str, nn.Parameter]]:
    """Our model with its LoRA, as the training prepares it."""
    family = Family(folder)
    cfg = TrainConfig(rank=64, alpha=128, recompute=recompute)
    return family, prepared(cfg, family, Accelerator()).lora


def our_step(family: Family, lora: dict[str, nn.Parameter], batch: Batch, known: Sides | None) -> Step:
    """One update: errors, loss, gradients, clipping, AdamW."""
    optimizer = torch.optim.AdamW(lora.values(), lr=LEARNING_RATE)

    def step() -> float:
        errors = pair_errors(family, batch, known)
        loss = diffusion_dpo_loss(*errors.sides, BETA).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(lora.values(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def published_step(
    published: PublishedTrainer,
    chosen: Tensor,
    rejected: Tensor,
    noise: Tensor,
    prompt: Tensor,
    rotary: object,
) -> Step:
    timesteps = torch.full((1,), TIMESTEP)
    return lambda: published.step(chosen, rejected, noise, timesteps, prompt, rotary)


def start_alike(lora: dict[str, nn.Parameter], starts: dict[str, Tensor]) -> None:
    """The same LoRA as the other arms'."""
    with torch.no_grad():
        for name, parameter in lora.items():
            parameter.copy_(starts[name])


if __name__ == "__main__":
    typer.run(main)
