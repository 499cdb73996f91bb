"""The stages themselves on a GPU at full size: Wan 2.1 1.3B as published in shape, with random weights.

    python benchmarks/gpu_pipeline.py --out work/gpu --result benchmarks/gpu_pipeline_h100_DATE
    python benchmarks/gpu_pipeline.py --out work/small --small    # the same on a CPU in a minute: does it run?

A model folder is written once (the text encoder is small: what it costs is little and known). Videos of 81 frames of
832x480 are drawn twice with different numbers of sampler steps, which tells the steps from the rest; drawn again they
must be the same bytes. A preference by sharpness then trains a LoRA of rank 64, which draws, too. Seconds, peak memory
of the device, and what must be equal. Weights that nobody trained draw noise: only costs and equalities mean something.
"""

import gc
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from rows import write_rows
from transformers import UMT5Config, UMT5EncoderModel

from videogpa.artifact import hash_file, read_rows
from videogpa.dpo.config import TrainConfig
from videogpa.families.base import SamplerSettings
from videogpa.families.variants import variants_of
from videogpa.families.wan import Family
from videogpa.stages import pair, prompts, sample, score, train
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import FilePrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate
from videogpa.world.generator import build_tokenizer

TEXT = "a red box on a table; the camera orbits left"
SMALL = {"num_attention_heads": 2, "num_layers": 2, "ffn_dim": 64}


def main(
    out: Annotated[Path, typer.Option(help="work folder, emptied first")],
    steps: Annotated[int, typer.Option(help="of the longer of two samplings")] = 8,
    training_steps: int = 6,
    small: bool = False,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    rows = []
    for row in measurements(out, device, small, steps, training_steps):
        print(*row.values(), sep="  ", flush=True)
        rows.append(row)
    if result is not None:
        write_rows(rows, result)


def measurements(
    out: Path, device: str, small: bool, steps: int, training_steps: int
) -> Iterator[dict[str, Any]]:
    with measured("write the model folder", device) as row:
        model = write_model(out / "model", small, device)
    yield row
    yield from stages(out, model, device, small, steps, training_steps)
    yield from equalities(model, device, small)


def stages(
    out: Path, model: Path, device: str, small: bool, steps: int, training_steps: int
) -> Iterator[dict[str, Any]]:
    """From prompts to videos of the LoRA."""
    (out / "prompts.txt").write_text(f"{TEXT}\n", encoding="utf-8")
    asked = prompts.run_files(FilePrompts(), out / "prompts.txt", out / "prompts")
    size = {"frames": 9, "height": 32, "width": 32} if small else {"frames": 81, "height": 480, "width": 832}
    drawn = SampleConfig(
        model=str(model), candidates=2, steps=steps, guidance_scale=5.0, dtype="bfloat16", device=device, **size,
    )  # fmt: skip
    few = drawn.model_copy(update={"steps": steps // 4})
    seconds = {}
    # The first warms up what loads once.
    for name, cfg in {"sample": drawn, "few": few, "again": drawn}.items():
        with measured(f"sample, {cfg.steps} steps ({name})", device) as row:
            sample.run(cfg, asked, out / name)
        seconds[name] = float(row["seconds"])
        yield row
    each = (seconds["again"] - seconds["few"]) / (steps - few.steps) / drawn.candidates
    yield noted("seconds of a sampler step of one video, with guidance", f"{each:.3f}")
    yield noted("a video drawn again is the same", same(out / "sample", out / "again"))
    with measured("score (sharpness)", device) as row:
        scores = score.run(ScoreConfig(metrics=("sharpness",)), out / "sample", out / "scores")
    yield row
    pairs = pair.run(PairConfig(metric="sharpness"), scores, out / "pairs")
    cfg = TrainConfig(
        rank=64, alpha=128.0, beta=1.0, steps=training_steps, batch_pairs=1, precision="bfloat16", recompute=1.0,
        held_out_fraction=0.0, evaluate_every=training_steps, checkpoint_every=training_steps, learning_rate=1e-4,
        stop_at_chosen_rise=None, stop_when_hopeless=False,
    )  # fmt: skip
    planned = train.plan_of(cfg, pairs, out / "sample", model)
    yield noted("planned memory of training, GiB", f"{planned.total / 2**30:.2f}")
    yield noted("planned seconds of a training step", f"{planned.seconds_of_a_step or 0:.3f}")
    for name in ("lora", "lora_again"):
        with measured(f"train, {training_steps} steps ({name})", device) as row:
            train.run(cfg, pairs, out / "sample", model, out / name)
        yield row
    first, second = (hash_file(next((out / name / train.LORA).iterdir())) for name in ("lora", "lora_again"))
    yield noted("a LoRA trained again is the same", first == second)
    with_lora = few.model_copy(update={"lora": str(out / "lora" / train.LORA)})
    with measured(f"sample with the LoRA, {few.steps} steps", device) as row:
        sample.run(with_lora, asked, out / "with_lora")
    yield row
    yield noted("the LoRA changes the video", not same(out / "few", out / "with_lora"))


def equalities(model: Path, device: str, small: bool) -> Iterator[dict[str, Any]]:
    """What training sees is what the pipeline does; and what happens when memory is short."""
    family = Family(model, dtype=torch.bfloat16, device=device)
    calls: list[tuple[dict[str, Any], torch.Tensor]] = []
    handle = family.transformer.register_forward_hook(
        lambda module, args, kwargs, output: calls.append((kwargs, output[0].clone())), with_kwargs=True
    )
    size = (9, 32, 32) if small else (17, 480, 832)
    settings = SamplerSettings(frames=size[0], height=size[1], width=size[2], steps=2, guidance_scale=1.0)
    samples = family.sample(TEXT, None, [3, 4], settings)
    handle.remove()
    apart = []
    for call, output in calls:
        with torch.no_grad():
            predicted = family.predict(call["hidden_states"], call["timestep"].float(), samples.conditioning)
        apart.append(float((predicted - output).abs().max()))
    yield noted("largest difference of prediction and pipeline's call", max(apart))
    if device == "cpu" or small:
        return
    del calls, samples
    total = torch.cuda.get_device_properties(0).total_memory
    used = torch.cuda.memory_allocated()
    at_once = sample.Together(family, settings, 8)
    with measured("8 videos of 17 frames at once", device) as row:
        at_once(TEXT, None, range(8))
    yield row
    peak = float(row["peak_GiB"]) * 2**30
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((used + 0.6 * (peak - used)) / total)
    with measured("the same with three fifths of that memory", device) as row:
        at_once(TEXT, None, range(8))
    yield row
    yield noted("videos at once after that", at_once.at_once)
    torch.cuda.set_per_process_memory_fraction(1.0)


@contextmanager
def measured(what: str, device: str) -> Iterator[dict[str, Any]]:
    """Seconds and peak memory of the block."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    row = noted(what, "")
    began = time.perf_counter()
    yield row
    if device == "cuda":
        torch.cuda.synchronize()
        row["peak_GiB"] = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}"
    row["seconds"] = f"{time.perf_counter() - began:.2f}"


def noted(what: str, value: Any) -> dict[str, Any]:
    return {"what": what, "value": value, "seconds": "", "peak_GiB": ""}


def same(one: Path, other: Path) -> bool:
    """All videos of two folders of candidates."""
    return _hashes(one) == _hashes(other)


def _hashes(folder: Path) -> list[str]:
    return [hash_file(folder / str(row.video)) for row in read_rows(folder, Candidate)]


def write_model(folder: Path, small: bool, device: str) -> Path:
    """A complete pipeline folder in bfloat16, its VAE in float32."""
    shape = variants_of("wan")["2.1 T2V 1.3B"].architecture | (SMALL if small else {})
    torch.manual_seed(0)
    with torch.device(device):
        transformer = WanTransformer3DModel(**shape).to(torch.bfloat16)
        vae = AutoencoderKLWan(**({"base_dim": 4, "num_res_blocks": 1} if small else {}))
    tokenizer = build_tokenizer()
    tokenizer.model_max_length = 512
    text = UMT5Config(vocab_size=len(tokenizer), d_model=4096, d_kv=64, d_ff=256, num_layers=2, num_heads=4)
    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(text).to(torch.bfloat16),
        vae=vae,
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
        ),
        transformer=transformer,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


if __name__ == "__main__":
    typer.run(main)
