"""Pairs and their latents in, a LoRA out: preference training that can be killed at any instant.

The output folder holds `lora/` (for `pipe.load_lora_weights`), `log.csv`, `tensorboard/` and `training.json`;
while it trains, `checkpoint.safetensors`. Every draw is a function of (seed, step), so a resumed run repeats
an undisturbed one bit for bit.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.optim import AdamW

from videogpa.artifact import MANIFEST, open_artifact, write_json_atomic
from videogpa.dpo.checkpoint import Progression, copy_weights, restore, save, set_weights
from videogpa.dpo.diffusion import PairErrors, adapters_off, pair_errors, side_errors
from videogpa.dpo.health import Health, measure, must_stop
from videogpa.dpo.log import progress_bar, training_log
from videogpa.dpo.lora import add_lora, lora_parameters, save_lora
from videogpa.dpo.loss import (
    anchored_dpo_loss,
    diffusion_dpo_loss,
    hinge_loss,
    ipo_loss,
    sft_loss,
    smoothed_dpo_loss,
)
from videogpa.dpo.pairs import (
    Batch,
    Labels,
    TrainingPair,
    batch_indices,
    generator,
    load_pairs,
    read_batch,
    split,
)
from videogpa.errors import InputError
from videogpa.families.base import VideoFamily
from videogpa.plugin import load
from videogpa.stages.pair import licenses_of
from videogpa.tensors import PerSample
from videogpa.types import Row

CHECKPOINT, LOG, SUMMARY, LORA = "checkpoint.safetensors", "log.csv", "training.json", "lora"


class TrainConfig(BaseModel):
    """Everything that decides what the LoRA will be.

    `anchor` is read by the anchored objective alone, `label_smoothing` by the smoothed one.
    `labels="shuffled"` exchanges chosen and rejected in a random half of the pairs, held-out ones included:
    the control that tells a gain of the preferences from a gain of mere training. `stop_at_chosen_rise` is
    the relative rise of the chosen's error against the base (held-out pairs, or a running mean where none are
    held out) at which training stops and goes back to the last evaluation below it; None never stops.
    `precision` is that of the base model; the LoRA and all errors are float32.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = "wan"
    objective: Literal["dpo", "anchored", "smoothed", "ipo", "hinge", "sft"] = "dpo"
    labels: Labels = "as_scored"
    beta: float = Field(2000.0, gt=0)
    anchor: float = Field(5.0, ge=0)
    label_smoothing: float = Field(0.1, ge=0, lt=0.5)
    rank: int = Field(16, gt=0)
    alpha: float = Field(16.0, gt=0)
    steps: int = Field(100, gt=0)
    batch_pairs: int = Field(4, gt=0)
    learning_rate: float = Field(2e-4, gt=0)
    warmup_steps: int = Field(10, ge=0)
    schedule: Literal["constant_with_warmup", "cosine"] = "constant_with_warmup"
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    ema_decay: float | None = Field(None, gt=0, lt=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    held_out_fraction: float = Field(0.1, ge=0, lt=1)
    evaluation_draws: int = Field(4, gt=0)
    evaluate_every: int = Field(20, gt=0)
    stop_at_chosen_rise: float | None = Field(0.015, gt=0)
    checkpoint_every: int = Field(25, gt=0)
    seed: int = 0


def run(
    cfg: TrainConfig, pairs: Path, candidates: Path, model: Path, out: Path, *, overwrite: bool = False
) -> Path:
    """Train a LoRA on complete artifacts of pairs and candidates; returns `out`.

    Raises:
        InputError: an input is missing or does not fit, there are no pairs, or the chosen videos got lost at
            once (the message says what to change).
    """
    accelerator = Accelerator()
    inputs = {"pairs": pairs, "candidates": candidates, "model": model}
    with ExitStack() as stack:
        if accelerator.is_main_process:
            artifact = stack.enter_context(
                open_artifact(
                    out, stage="train", config=cfg, inputs=inputs, row_type=Row, overwrite=overwrite
                )
            )
        accelerator.wait_for_everyone()
        if (out / MANIFEST).exists():
            return out
        training, held_out = split(
            load_pairs(pairs, candidates, cfg.labels, cfg.seed), cfg.held_out_fraction, cfg.seed
        )
        dtype = getattr(torch, cfg.precision)
        family = load("families", cfg.family).Family(model, dtype=dtype, device=accelerator.device)
        _require_fit(family, training[0], model)
        end = train(cfg, family, training, held_out, out, accelerator)
        if accelerator.is_main_process:
            _export(family, end, out, len(training), len(held_out), licenses_of(pairs))
            artifact.finish([], [f"{LORA}/pytorch_lora_weights.safetensors", LOG, SUMMARY])
            (out / CHECKPOINT).unlink(missing_ok=True)
    return out


def train(
    cfg: TrainConfig,
    family: VideoFamily,
    training: list[TrainingPair],
    held_out: list[TrainingPair],
    out: Path,
    accelerator: Accelerator,
) -> Progression:
    """The loop: from the checkpoint in `out`, if there is one, to the last step or the stop rule."""
    add_lora(family, cfg.rank, cfg.alpha, cfg.seed)
    lora = lora_parameters(family)
    optimizer = AdamW(lora.values(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
    schedule = get_scheduler(
        cfg.schedule, optimizer, num_warmup_steps=cfg.warmup_steps, num_training_steps=cfg.steps
    )
    ema = copy_weights(lora)
    now = Progression(step=0, kept=copy_weights(lora))
    if (out / CHECKPOINT).exists():
        now = restore(out / CHECKPOINT, lora, ema, optimizer, schedule)
    reference = _held_out_reference(cfg, family, held_out)

    with ExitStack() as stack:
        if accelerator.is_main_process:
            log = stack.enter_context(training_log(out / LOG, out / "tensorboard", now.step))
            tick = stack.enter_context(progress_bar(cfg.steps, now.step))
        for step in range(now.step + 1, cfg.steps + 1):
            picked = [training[i] for i in batch_indices(len(training), cfg.batch_pairs, cfg.seed, step)]
            batch = read_batch(family, picked, generator(cfg.seed, "step", step))
            errors = pair_errors(family, *_share(batch, accelerator))
            loss = objective(cfg, errors).mean()
            if not torch.isfinite(loss):
                raise InputError(f"the loss is {loss.item()} at step {step}: lower learning_rate or beta")
            optimizer.zero_grad()
            loss.backward()
            _average_gradients(lora, accelerator)
            grad_norm = nn.utils.clip_grad_norm_(lora.values(), cfg.max_grad_norm)
            lr = schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()
            _follow(ema, lora, cfg.ema_decay or 0.0)
            health = measure(errors, cfg.beta)
            now = replace(now, step=step, guard=now.guard.update(errors))

            evaluation = None
            if step % cfg.evaluate_every == 0 or step == cfg.steps:
                with _weights(lora, ema):
                    evaluation = _evaluate(cfg, family, held_out, reference)
                rise = evaluation.chosen_change if evaluation else now.guard.change
                if must_stop(rise, cfg.stop_at_chosen_rise):
                    now = replace(now, stopped=True)
                else:
                    kept = copy_weights(ema)
                    now = replace(now, kept=kept, kept_step=step, kept_health=evaluation or health)
            if accelerator.is_main_process:
                log(step, loss.item(), health, grad_norm.item(), lr, evaluation)
                tick(health)
            if now.stopped:
                break
            if step % cfg.checkpoint_every == 0 and accelerator.is_main_process:
                save(out / CHECKPOINT, now, lora, ema, optimizer, schedule)
    return now


def objective(cfg: TrainConfig, errors: PairErrors) -> PerSample:
    """The loss of each pair."""
    sides = (errors.chosen, errors.rejected, errors.chosen_reference, errors.rejected_reference)
    match cfg.objective:
        case "dpo":
            return diffusion_dpo_loss(*sides, cfg.beta)
        case "anchored":
            return anchored_dpo_loss(*sides, cfg.beta, cfg.anchor)
        case "smoothed":
            return smoothed_dpo_loss(*sides, cfg.beta, cfg.label_smoothing)
        case "ipo":
            return ipo_loss(*sides, cfg.beta)
        case "hinge":
            return hinge_loss(*sides, cfg.beta)
        case "sft":
            return sft_loss(errors.chosen)


def _require_fit(family: VideoFamily, pair: TrainingPair, model: Path) -> None:
    """One forward tells whether the latents are this model's."""
    batch = read_batch(family, [pair], generator(0))
    try:
        with torch.no_grad():
            side_errors(family, *batch)
    except (RuntimeError, KeyError, ValueError) as error:
        shape = tuple(batch.chosen.shape[1:])
        raise InputError(f"{pair.chosen} with latents {shape} was not sampled by {model}: {error}") from error


def _share(batch: Batch, accelerator: Accelerator) -> Batch:
    """This process's part of the batch; every process draws the whole one."""
    pairs, processes = len(batch.t), accelerator.num_processes
    if pairs % processes:
        raise InputError(f"batch_pairs {pairs} is no multiple of the {processes} processes: change either")
    return batch.share(accelerator.process_index, processes)


def _average_gradients(lora: dict[str, nn.Parameter], accelerator: Accelerator) -> None:
    """By hand, over the small adapter: DDP would have to wrap two forwards with different adapters on."""
    if accelerator.num_processes > 1:
        for parameter in lora.values():
            parameter.grad = accelerator.reduce(parameter.grad, "mean")


@torch.no_grad()
def _held_out_errors(
    cfg: TrainConfig, family: VideoFamily, pairs: list[TrainingPair]
) -> tuple[PerSample, PerSample]:
    """Errors of chosen and rejected on the same draws at every call, in batches of training size."""
    sides = [
        side_errors(family, *read_batch(family, pairs[start : start + cfg.batch_pairs], rng))
        for number in range(cfg.evaluation_draws)
        for start in range(0, len(pairs), cfg.batch_pairs)
        for rng in [generator(cfg.seed, "evaluate", number, start)]
    ]
    chosen, rejected = (torch.cat(side) for side in zip(*sides, strict=True))
    return chosen, rejected


def _held_out_reference(
    cfg: TrainConfig, family: VideoFamily, pairs: list[TrainingPair]
) -> tuple[PerSample, PerSample] | None:
    if not pairs:
        return None
    with adapters_off(family.transformer):
        return _held_out_errors(cfg, family, pairs)


def _evaluate(
    cfg: TrainConfig,
    family: VideoFamily,
    pairs: list[TrainingPair],
    reference: tuple[PerSample, PerSample] | None,
) -> Health | None:
    if reference is None:
        return None
    chosen, rejected = _held_out_errors(cfg, family, pairs)
    errors = PairErrors(
        chosen=chosen, rejected=rejected, chosen_reference=reference[0], rejected_reference=reference[1]
    )
    return measure(errors, cfg.beta)


@torch.no_grad()
def _follow(ema: dict[str, Tensor], lora: dict[str, nn.Parameter], decay: float) -> None:
    """ema <- decay ema + (1 - decay) lora; with decay 0 a plain copy."""
    for name, parameter in lora.items():
        ema[name].mul_(decay).add_(parameter, alpha=1 - decay)


@contextmanager
def _weights(lora: dict[str, nn.Parameter], values: dict[str, Tensor]) -> Iterator[None]:
    """The model with other LoRA weights for a while."""
    own = copy_weights(lora)
    set_weights(lora, values)
    try:
        yield
    finally:
        set_weights(lora, own)


def _export(
    family: VideoFamily, end: Progression, out: Path, training: int, held_out: int, licenses: dict[str, str]
) -> None:
    if end.kept_step == 0:
        raise InputError(
            f"the chosen videos' error had risen past the limit at the first evaluation (step {end.step}): "
            "lower learning_rate, raise beta or evaluate more often"
        )
    set_weights(lora_parameters(family), end.kept)
    save_lora(family, out / LORA)
    write_json_atomic(
        out / SUMMARY,
        {
            "last_step": end.step,
            "exported_step": end.kept_step,
            "stopped_early": end.stopped,
            "pairs": training,
            "held_out_pairs": held_out,
            "licenses": licenses,
            "health": asdict(end.kept_health) if end.kept_health else None,
        },
    )
