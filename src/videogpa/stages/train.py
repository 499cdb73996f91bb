"""Pairs and their latents in, a LoRA out: preference training that can be killed at any instant.

The output folder holds `lora/` (for `pipe.load_lora_weights`), `log.csv`, `tensorboard/` and `training.json`;
while it trains, `checkpoint.safetensors`. Of a model with two experts both are trained, one after the other, each in a
folder of its own; `lora/` has a file for each.
"""

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import BaseModel, ValidationError

from videogpa.artifact import MANIFEST, open_artifact, read_json, recorded, write_json_atomic
from videogpa.dpo.checkpoint import Progression, set_weights
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.diffusion import side_errors
from videogpa.dpo.lora import LORA_FILES, expert_file, lora_parameters, save_lora
from videogpa.dpo.pairs import Reading, TrainingPair, generator, load_pairs, read_batch, split
from videogpa.dpo.plan import Plan, on_meta, plan, training_rate
from videogpa.dpo.reference_cache import ReferenceCache
from videogpa.dpo.training import CHECKPOINT, LOG, Data, prepared, train
from videogpa.errors import InputError, first_problem
from videogpa.families.base import VideoFamily
from videogpa.families.variants import experts_of, require_licensed
from videogpa.plugin import load
from videogpa.stages.pair import licenses_of
from videogpa.types import Row

SUMMARY, LORA, REFERENCE = "training.json", "lora", "reference.jsonl"


def run(
    cfg: TrainConfig,
    pairs: Path,
    candidates: Path,
    model: Path,
    out: Path,
    *,
    maps: Path | None = None,
    earlier: Path | None = None,
    reference_cache: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Train a LoRA on complete artifacts of pairs and candidates; returns `out`.

    Args:
        maps: a folder of maps of inconsistency (`stages/error_maps.py`), for dense preferences.
        earlier: a stored LoRA that policy and reference both carry, frozen; the LoRA that is written goes on top of it
            (`stages/rounds.py` makes one of the two).
        reference_cache: a file of the reference's errors that several trainings share; by default one in `out`.

    Raises:
        InputError: an input is missing or does not fit, a licence nobody accepted, there are no pairs, or the training
            had to stop before its first good evaluation (the message says what to change).
    """
    if model.is_dir():
        require_licensed(cfg.family, model, cfg.accepted_licenses)
    if cfg.dense != "off" and maps is None:
        raise InputError("dense preferences need maps of inconsistency: make them with `videogpa error-maps`")
    accelerator = Accelerator()
    inputs = {"pairs": pairs, "candidates": candidates, "model": model}
    inputs |= {name: path for name, path in (("maps", maps), ("earlier", earlier)) if path}
    with ExitStack() as stack:
        if accelerator.is_main_process:
            artifact = stack.enter_context(
                open_artifact(
                    out, stage="train", config=cfg, inputs=inputs, row_type=Row, overwrite=overwrite
                )
            )
        accelerator.wait_for_everyone()
        if (out / MANIFEST).exists():
            _drop_checkpoints(out, accelerator)
            return out
        training, held_out = split(
            load_pairs(pairs, candidates, cfg.labels, cfg.seed, maps if cfg.dense != "off" else None),
            cfg.held_out_fraction,
            cfg.seed,
        )
        counts = {
            "pairs": len(training),
            "held_out_pairs": len(held_out),
            **Taught(
                preferred_by=recorded(pairs)["config"].get("metric"), licenses=licenses_of(pairs)
            ).model_dump(),
        }
        if accelerator.is_main_process:
            # Whoever looks at a training under way wants to know them.
            write_json_atomic(out / SUMMARY, counts)
        given = recorded(out)["inputs"]
        base_hash = "+".join(given[name] for name in ("model", "earlier") if name in given)
        experts = experts_of(cfg.family, model)
        summaries = {}
        for number, expert in enumerate(experts):
            folder = out if len(experts) == 1 else out / expert
            folder.mkdir(exist_ok=True)
            family = _load_expert(cfg, model, accelerator, expert if len(experts) > 1 else None)
            before = expert_file(earlier, number, len(experts)) if earlier else None
            policy = prepared(cfg, family, accelerator, before)
            _require_fit(family, training[0], model)
            cache = ReferenceCache(reference_cache or out / REFERENCE, accelerator.device)
            data = Data(training=training, held_out=held_out, base_hash=f"{base_hash}/{expert}")
            end, beta = train(cfg, policy, data, folder, accelerator, cache)
            if accelerator.is_main_process:
                _export(family, end, out / LORA, LORA_FILES[number])
            summaries[expert] = _summary(end, beta)
        if accelerator.is_main_process:
            told = summaries[experts[0]] if len(experts) == 1 else {"experts": summaries}
            write_json_atomic(out / SUMMARY, told | counts)
            logs = [LOG] if len(experts) == 1 else [f"{expert}/{LOG}" for expert in experts]
            weights = [f"{LORA}/{name}" for name in LORA_FILES[: len(experts)]]
            artifact.finish([], [*weights, *logs, SUMMARY])
        _drop_checkpoints(out, accelerator)
    return out


def plan_of(
    cfg: TrainConfig, pairs: Path, candidates: Path, model: Path, *, maps: Path | None = None
) -> Plan:
    """What the training would take on this machine's device; nothing of the model but its configuration is read.

    Raises:
        InputError: as `run`.
    """
    device = Accelerator().device
    dtype = getattr(torch, cfg.precision)
    training, _ = split(
        load_pairs(pairs, candidates, cfg.labels, cfg.seed, maps if cfg.dense != "off" else None),
        cfg.held_out_fraction,
        cfg.seed,
    )
    family = load("families", cfg.family).Family(model, dtype=dtype, device="meta")
    reading = Reading(dense=cfg.dense, seed=cfg.seed)
    batch = on_meta(
        read_batch(family, training[:1], reading, generator(0)), cfg.micro_pairs or cfg.batch_pairs
    )
    return plan(cfg, family, batch, len(training), training_rate(dtype, device))


class StoppedItself(InputError):
    """A training that ended before there was anything to keep."""


class Taught(BaseModel):
    """What taught a LoRA: the metric of its pairs, and the licences of the weights that made them."""

    preferred_by: str | None = None
    licenses: dict[str, str] = {}


def taught(lora: Path) -> Taught:
    """What taught a stored LoRA, as its training says beside it; nothing where none does.

    Raises:
        InputError: what lies there was not written by a training.
    """
    folder = lora.parent if lora.is_file() else lora
    told = next((file for file in (folder / SUMMARY, folder.parent / SUMMARY) if file.exists()), None)
    try:
        return Taught() if told is None else Taught.model_validate(read_json(told))
    except ValidationError as error:
        raise InputError(
            f"{told} is not what a training says of itself ({first_problem(error)}); move the LoRA elsewhere"
        ) from error


def _drop_checkpoints(out: Path, accelerator: Accelerator) -> None:
    if accelerator.is_main_process:
        for checkpoint in out.rglob(CHECKPOINT):
            checkpoint.unlink()


def _load_expert(cfg: TrainConfig, model: Path, accelerator: Accelerator, expert: str | None) -> VideoFamily:
    """The family with the transformer that is to be trained, on the CPU where it is made smaller before it moves."""
    device = "cpu" if cfg.quantize or cfg.offload else accelerator.device
    chosen: dict[str, Any] = {} if expert is None else {"expert": expert}
    return load("families", cfg.family).Family(
        model, dtype=getattr(torch, cfg.precision), device=device, **chosen
    )


def _require_fit(family: VideoFamily, pair: TrainingPair, model: Path) -> None:
    """One forward tells whether the latents are this model's."""
    batch = read_batch(family, [pair], Reading(), generator(0))
    try:
        with torch.no_grad():
            side_errors(family, batch)
    except (RuntimeError, KeyError, ValueError) as error:
        shape = tuple(batch.chosen.shape[1:])
        raise InputError(f"{pair.chosen} with latents {shape} was not sampled by {model}: {error}") from error


def _export(family: VideoFamily, end: Progression, folder: Path, name: str) -> None:
    if end.kept_step == 0:
        raise StoppedItself(f"the training ended before its first good evaluation: {end.stopped}")
    set_weights(lora_parameters(family), end.kept)
    save_lora(family, folder, name)


def _summary(end: Progression, beta: float) -> dict[str, Any]:
    return {
        "last_step": end.step,
        "exported_step": end.kept_step,
        "stopped_early": end.stopped is not None,
        "stop_reason": end.stopped,
        "beta": beta,
        "health": asdict(end.kept_health) if end.kept_health else None,
    }
