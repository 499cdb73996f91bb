"""Real-size DPO steps on a GPU: CogVideoX-5B and Wan 2.2 TI2V-5B from their published configurations, random weights.

    python benchmarks/gpu_training.py --model cogvideox --result benchmarks/gpu_training_h200_DATE
    python benchmarks/gpu_training.py --model wan --result …
    python benchmarks/gpu_training.py --model cogvideox --small    # the same on a CPU in a minute: does it run?

One pair a step in bfloat16, LoRA of rank 64. Seconds a step (median), samples a second, peak memory, and model FLOP
utilisation: the operations that the maths needs (no recomputation) over time and the card's bf16 peak; the memory that
`train --plan` foretells; and the largest DPO logit of a fresh LoRA at beta 5000, which should be none. Against the
published step (four forwards, second copy; CogVideoX only) in the same run; and which attention kernel pays.
"""

import gc
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import typer
from accelerate import Accelerator
from diffusers import CogVideoXDPMScheduler, FlowMatchEulerDiscreteScheduler
from published_step import PublishedTrainer
from rows import write_rows
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from videogpa.dpo.config import TrainConfig
from videogpa.dpo.diffusion import Batch, pair_errors, reference_errors
from videogpa.dpo.loss import diffusion_dpo_loss, preference_logits
from videogpa.dpo.plan import Plan, on_meta, plan
from videogpa.dpo.training import prepared
from videogpa.families.variants import variants_of
from videogpa.plugin import load

PEAK = 989e12
"""Dense bf16 operations a second of an H100 SXM and an H200, by their data sheets."""
MODELS: dict[str, dict[str, Any]] = {
    "cogvideox": {
        "variant": "5B",
        "pipeline": "CogVideoXPipeline",
        "latents": (16, 13, 60, 90),
        "text": (226, 4096),
        "small": {"num_attention_heads": 2, "num_layers": 2, "text_embed_dim": 64},
    },
    "wan": {
        "variant": "2.2 TI2V 5B",
        "pipeline": "WanPipeline",
        "latents": (48, 21, 44, 80),
        "text": (512, 4096),
        "small": {"num_attention_heads": 2, "num_layers": 2, "ffn_dim": 64, "text_dim": 64},
    },
}
ARMS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, references known": {"known": True},
    "ours, half recomputed, known": {"known": True, "recompute": 0.5},
    "ours, recomputed": {"recompute": 1.0},
    "ours, recomputed, known": {"known": True, "recompute": 1.0},
    "ours, recomputed, known, cudnn attention": {
        "known": True, "recompute": 1.0, "kernel": SDPBackend.CUDNN_ATTENTION,
    },
    "ours, recomputed, known, compiled": {"known": True, "recompute": 1.0, "compile": True},
    "ours, offloaded, known": {"known": True, "recompute": 1.0, "offload": True},
    "published, recomputed": {"published": True, "recompute": 1.0},
    "published": {"published": True},
}  # fmt: skip


def main(
    model: Annotated[Literal["cogvideox", "wan"], typer.Option()] = "cogvideox",
    steps: int = 5,
    arm: Annotated[list[str] | None, typer.Option(help="only these steps, repeatable")] = None,
    small: bool = False,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), model, small)
        needed = operations(Path(folder), model, small)
        for name in arm or ARMS:
            made = ARMS[name]
            if (small and ("kernel" in made or "compile" in made)) or (
                model == "wan" and made.get("published")
            ):
                continue
            rows.append(
                {"model": model, "step": name}
                | measured(Path(folder), model, small, made, steps, device, needed)
            )
            print(*rows[-1].values(), sep="  ", flush=True)
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
    if result is not None:
        write_rows(rows, result)


def measured(
    folder: Path,
    model: str,
    small: bool,
    arm: dict[str, Any],
    steps: int,
    device: torch.device,
    needed: float,
) -> dict[str, str]:
    """One arm; running out of memory is a result."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    logits: list[float] = []
    planned = "" if arm.get("published") else f"{planned_of(folder, model, small, arm).total / 2**30:.2f}"
    try:
        seconds = statistics.median(timed(step_of(folder, model, small, arm, device, logits), steps, device))
    except torch.OutOfMemoryError:
        return {
            "seconds": "out of memory", "samples_s": "", "peak_GiB": "", "planned_GiB": planned,
            "utilisation": "", "fresh_logit": "",
        }  # fmt: skip
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return {
        "seconds": f"{seconds:.3f}",
        "samples_s": f"{2 / seconds:.3f}",
        "peak_GiB": f"{peak:.2f}",
        "planned_GiB": planned,
        "utilisation": f"{needed / seconds / PEAK:.3f}",
        "fresh_logit": f"{logits[0]:.2g}" if logits else "",
    }


def timed(step: Callable[[], None], steps: int, device: torch.device) -> Iterator[float]:
    for number in range(steps + 2):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number > 1:  # Two rounds warm up.
            yield time.perf_counter() - began


def step_of(
    folder: Path, model: str, small: bool, arm: dict[str, Any], device: torch.device, logits: list[float]
) -> Callable[[], None]:
    """One update of this arm on one random pair; `logits` gets the largest one of every step."""
    given = batch(model, small, device)
    family = load("families", model).Family(folder, dtype=torch.bfloat16, device="meta")
    where = "cpu" if arm.get("offload") else device
    family.transformer, family.device = random_transformer(model, small, torch.device(where)), device
    if arm.get("published"):
        trainer = PublishedTrainer(
            family.transformer,
            family.scheduler,
            beta=1.0,
            learning_rate=5e-6,
            checkpointing=bool(arm.get("recompute")),
        )
        rotary, t = family._rotary(given.chosen), given.t.long()
        sides = [side.transpose(1, 2).bfloat16() for side in given[:3]]
        text = given.conditioning["prompt_embeds"]
        return lambda: trainer.step(*sides, t, text, rotary) and None
    cfg = config_of(arm)
    lora = prepared(cfg, family, Accelerator()).lora
    if arm.get("compile"):
        for block in (
            family.transformer.transformer_blocks if model == "cogvideox" else family.transformer.blocks
        ):
            block.compile()
    optimizer = torch.optim.AdamW(lora.values(), lr=5e-6)
    known = reference_errors(family, given) if arm.get("known") else None
    kernels = [arm["kernel"]] if "kernel" in arm else list(SDPBackend.__members__.values())[1:]

    def step() -> None:
        with sdpa_kernel(kernels):
            sides = pair_errors(family, given, known).sides
            diffusion_dpo_loss(*sides, 1.0).mean().backward()
        logits.append(float(preference_logits(*sides, 5000.0).detach().abs().max()))
        nn.utils.clip_grad_norm_(lora.values(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def batch(model: str, small: bool, device: torch.device) -> Batch:
    channels, frames, height, width = MODELS[model]["latents"]
    tokens, text_width = MODELS[model]["text"]
    if small:
        frames, height, width, tokens, text_width = 3, 8, 8, 12, 64
    conditioning = {"prompt_embeds": torch.randn(1, tokens, text_width, device=device, dtype=torch.bfloat16)}
    if model == "cogvideox":
        conditioning["padding"] = torch.zeros(1, dtype=torch.long, device=device)
    sides = torch.randn(3, 1, channels, frames, height, width, device=device)
    return Batch(*sides, torch.full((1,), 500.0, device=device), conditioning)


def config_of(arm: dict[str, Any]) -> TrainConfig:
    return TrainConfig(
        rank=64,
        alpha=128,
        batch_pairs=1,
        recompute=arm.get("recompute", 0.0),
        offload=arm.get("offload", False),
    )


def planned_of(folder: Path, model: str, small: bool, arm: dict[str, Any]) -> Plan:
    """What `train --plan` says of this arm."""
    family = load("families", model).Family(folder, dtype=torch.bfloat16, device="meta")
    return plan(config_of(arm), family, on_meta(batch(model, small, torch.device("cpu")), 1), 1, None)


def operations(folder: Path, model: str, small: bool) -> float:
    """What a step with known references needs, without recomputation, in floating point operations."""
    found = planned_of(folder, model, small, {})
    return found.flops_of_a_step - found.flops_of_the_reference


def architecture(model: str, small: bool) -> dict[str, Any]:
    says = variants_of(model)[MODELS[model]["variant"]].architecture
    return says | (MODELS[model]["small"] if small else {})


def random_transformer(model: str, small: bool, device: torch.device) -> Any:
    built = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with device:
            return (
                load("families", model).TRANSFORMER(**architecture(model, small)).requires_grad_(False).eval()
            )
    finally:
        torch.set_default_dtype(built)


def write_folder(folder: Path, model: str, small: bool) -> None:
    """A model folder without weights."""
    with torch.device("meta"):
        load("families", model).TRANSFORMER(**architecture(model, small)).save_config(folder / "transformer")
    scheduler: Any = FlowMatchEulerDiscreteScheduler(shift=5.0)
    if model == "cogvideox":
        scheduler = CogVideoXDPMScheduler(
            prediction_type="v_prediction", rescale_betas_zero_snr=True, snr_shift_scale=1.0
        )
    scheduler.save_pretrained(folder / "scheduler")
    index = {"_class_name": MODELS[model]["pipeline"], "expand_timesteps": model == "wan"}
    (folder / "model_index.json").write_text(
        json.dumps(index | {"scheduler": ["diffusers", type(scheduler).__name__]})
    )


if __name__ == "__main__":
    typer.run(main)
