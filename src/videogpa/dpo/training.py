"""The training loop: preference pairs in, LoRA weights out; it can be killed at any instant.

Every draw is a function of (seed, step), so a resumed run repeats an undisturbed one bit for bit. Every process reads
the whole batch and works on its share; gradients of the small adapter are summed by hand, since DDP would have to wrap
two forwards with different adapters on.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from videogpa.artifact import hash_file, hash_json, write_json_atomic
from videogpa.dpo.calibration import TRIAL_SHARE, advantages, calibrated, read_calibration
from videogpa.dpo.checkpoint import Progression, copy_weights, restore, save, set_weights
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.diffusion import Batch, PairErrors, Sides, adapters_off, pair_errors, side_errors
from videogpa.dpo.doctor import Training, hopeless
from videogpa.dpo.health import Health, effect_size, measure, must_stop
from videogpa.dpo.log import figures, progress_bar, read_log, training_log
from videogpa.dpo.lora import adapted_norm, add_lora, load_earlier, lora_parameters
from videogpa.dpo.loss import (
    anchored_dpo_loss,
    diffusion_dpo_loss,
    hinge_loss,
    ipo_loss,
    margin_weighted_dpo_loss,
    safeguarded_dpo_loss,
    sft_loss,
    smoothed_dpo_loss,
)
from videogpa.dpo.memory import offload_blocks, optimizer_class, quantize_base, recompute_blocks, shard_base
from videogpa.dpo.pairs import (
    Reading,
    TrainingPair,
    batch_visits,
    content_key,
    generator,
    read_batch,
    read_fixed_batch,
)
from videogpa.dpo.reference_cache import ReferenceCache
from videogpa.errors import InputError
from videogpa.families.base import VideoFamily
from videogpa.tensors import PerSample

CHECKPOINT, LOG, BOARD, CALIBRATION = "checkpoint.safetensors", "log.csv", "tensorboard", "calibration.json"


@dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on. `base_hash` stands for the reference: the base model's weights and an earlier LoRA's."""

    training: list[TrainingPair]
    held_out: list[TrainingPair]
    base_hash: str


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The model that is trained: its LoRA's parameters, and the norm of the base's matrices that they go on."""

    family: VideoFamily
    lora: dict[str, nn.Parameter]
    base_norm: float


def train(
    cfg: TrainConfig,
    policy: Policy,
    data: Data,
    out: Path,
    accelerator: Accelerator,
    cache: ReferenceCache,
) -> tuple[Progression, float]:
    """From the checkpoint in `out`, if there is one, to the last step or a reason to stop; also the beta that was used.

    Raises:
        InputError: the loss is no number, or the batch has fewer pairs than there are processes.
    """
    lora = policy.lora
    steps = _Steps(cfg, policy.family, data, accelerator, cache)
    beta = cfg.beta or _calibrated_beta(steps, lora, out)
    optimizer, schedule = _optimizer(cfg, lora)
    ema = copy_weights(lora)
    now = Progression(step=0, kept=copy_weights(lora))
    if (out / CHECKPOINT).exists():
        now = restore(out / CHECKPOINT, lora, ema, optimizer, schedule)
    held_out_reference = _held_out_reference(steps)
    rows = read_log(out / LOG, now.step, now.log) if now.step else []

    with ExitStack() as stack:
        if accelerator.is_main_process:
            log = stack.enter_context(training_log(out / LOG, out / BOARD, now.step))
            tick = stack.enter_context(progress_bar(cfg.steps, now.step))
        for step in range(now.step + 1, cfg.steps + 1):
            optimizer.zero_grad()
            loss, errors = steps.backward(step, beta)
            if not torch.isfinite(loss):
                raise InputError(f"the loss is {loss.item()} at step {step}: lower learning_rate or beta")
            _sum_gradients(lora, accelerator)
            grad_norm = nn.utils.clip_grad_norm_(lora.values(), cfg.max_grad_norm)
            lr = float(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
            _follow(ema, lora, cfg.ema_decay or 0.0)
            health = measure(errors, beta)
            effect = effect_size(lora, cfg.alpha / cfg.rank, policy.base_norm)
            now = replace(now, step=step, guard=now.guard.update(errors))

            evaluation, to_judge = None, step % cfg.evaluate_every == 0 or step == cfg.steps
            if to_judge:
                with _weights(lora, ema):
                    evaluation = _evaluate(steps, held_out_reference, beta)
            rows.append(figures(step, loss.item(), health, grad_norm.item(), lr, effect, evaluation))
            if to_judge:
                rise = evaluation.chosen_change if evaluation else now.guard.change
                stopped = _reason_to_stop(Training(config=cfg, rows=rows, beta=beta), rise)
                if stopped is None:
                    kept = copy_weights(ema)
                    now = replace(now, kept=kept, kept_step=step, kept_health=evaluation or health)
                now = replace(now, stopped=stopped)
            if accelerator.is_main_process:
                log(rows[-1])
                tick(health)
            if now.stopped is not None:
                break
            if step % cfg.checkpoint_every == 0 and accelerator.is_main_process:
                now = replace(now, log=hash_file(out / LOG))
                save(out / CHECKPOINT, now, lora, ema, optimizer, schedule)
    return now, beta


def objective(cfg: TrainConfig, errors: PairErrors, beta: float) -> PerSample:
    """The loss of each pair."""
    match cfg.objective:
        case "dpo":
            return diffusion_dpo_loss(*errors.sides, beta)
        case "anchored":
            return anchored_dpo_loss(*errors.sides, beta, cfg.anchor)
        case "safeguarded":
            return safeguarded_dpo_loss(*errors.sides, beta, _given(errors.rejected_scale))
        case "margin_weighted":
            return margin_weighted_dpo_loss(*errors.sides, beta, _given(errors.margin))
        case "smoothed":
            return smoothed_dpo_loss(*errors.sides, beta, cfg.label_smoothing)
        case "ipo":
            return ipo_loss(*errors.sides, beta)
        case "hinge":
            return hinge_loss(*errors.sides, beta)
        case "sft":
            return sft_loss(errors.chosen)


def prepared(
    cfg: TrainConfig, family: VideoFamily, accelerator: Accelerator, earlier: Path | None = None
) -> Policy:
    """The family's model with a fresh LoRA, on the accelerator, as small in memory as asked for; a LoRA in the file
    `earlier` is a part of its frozen base.
    """
    base_norm = adapted_norm(family)
    if cfg.quantize:
        quantize_base(family.transformer)
    if earlier is not None:
        load_earlier(family, earlier)
    add_lora(family, cfg.rank, cfg.alpha, cfg.seed)
    lora = lora_parameters(family)
    recompute_blocks(family.transformer, 1.0 if cfg.offload else cfg.recompute)
    if cfg.offload:
        offload_blocks(family.transformer, accelerator.device, lora.values())
    else:
        family.transformer.to(accelerator.device)
    family.device = accelerator.device
    if cfg.shard and accelerator.num_processes > 1:
        shard_base(family.transformer, accelerator.device, lora.values())
    return Policy(family=family, lora=lora_parameters(family), base_norm=base_norm)


@dataclass(frozen=True)
class _Steps:
    """The batches of a training and their errors."""

    cfg: TrainConfig
    family: VideoFamily
    data: Data
    accelerator: Accelerator
    cache: ReferenceCache

    @property
    def reading(self) -> Reading:
        """How this training's pairs become batches."""
        margins = [pair.margin for pair in self.data.training if pair.margin is not None]
        return Reading(
            dense=self.cfg.dense,
            dense_shuffled=self.cfg.dense_shuffled,
            mean_margin=sum(margins) / len(margins) if margins else 1.0,
            seed=self.cfg.seed,
        )

    def backward(self, step: int, beta: float) -> tuple[Tensor, PairErrors]:
        """Gradients of one step's mean loss by this process's share of the pairs; the loss and errors of all."""
        count, processes, rank = (
            self.cfg.batch_pairs,
            self.accelerator.num_processes,
            self.accelerator.process_index,
        )
        if count < processes:
            raise InputError(f"batch_pairs {count} are fewer than the {processes} processes: change either")
        visits = batch_visits(len(self.data.training), count, self.cfg.seed, step)
        batch, keys = self._batch(visits, step)
        share, own_keys = batch.take(slice(rank, None, processes)), keys[rank::processes]
        size = self.cfg.micro_pairs or len(own_keys)
        losses, parts = [], []
        for start in range(0, len(own_keys), size):
            part = slice(start, start + size)
            # All or none are looked up: rounding depends on what is computed together.
            errors = pair_errors(self.family, share.take(part), self.cache.find(own_keys[part]))
            loss = objective(self.cfg, errors, beta).sum() / count
            loss.backward()
            losses.append(loss.detach())
            parts.append(_detached(errors))
        total = self.accelerator.reduce(torch.stack(losses).sum(), "sum")
        errors = _gathered(parts, self.accelerator)
        if self.cfg.reference_draws is not None:
            in_order = [key for process in range(processes) for key in keys[process::processes]]
            found = errors.chosen_reference, errors.rejected_reference
            self.cache.add(in_order, found, write=self.accelerator.is_main_process)
        return total, errors

    def _batch(self, visits: Sequence[tuple[int, int]], step: int) -> tuple[Batch, list[str]]:
        """The whole batch, and the keys of its pairs in the cache of reference errors ("" where none is kept)."""
        picked = [self.data.training[index] for index, _ in visits]
        draws = self.cfg.reference_draws
        if draws is None:
            rng = generator(self.cfg.seed, "step", step)
            return read_batch(self.family, picked, self.reading, rng), [""] * len(picked)
        numbers = [visit % draws for _, visit in visits]
        base = hash_json(
            [
                *(
                    self.data.base_hash,
                    self.cfg.precision,
                    self.cfg.quantize,
                    self.cfg.dense,
                    self.cfg.dense_shuffled,
                ),
                *(self.cfg.seed, draws),
            ]
        )
        keys = [f"{content_key(p, base)}-{number}" for p, number in zip(picked, numbers, strict=True)]
        return read_fixed_batch(self.family, picked, self.reading, numbers, draws), keys

    @torch.no_grad()
    def held_out_errors(self) -> Sides:
        """Errors of chosen and rejected on the same draws at every call, in batches of training size."""
        pairs, size = self.data.held_out, self.cfg.micro_pairs or self.cfg.batch_pairs
        sides = [
            side_errors(self.family, read_batch(self.family, pairs[start : start + size], self.reading, rng))
            for number in range(self.cfg.evaluation_draws)
            for start in range(0, len(pairs), size)
            for rng in [generator(self.cfg.seed, "evaluate", number, start)]
        ]
        chosen, rejected = (torch.cat(side) for side in zip(*sides, strict=True))
        return chosen, rejected


def _reason_to_stop(training: Training, chosen_rise: float) -> str | None:
    cfg, step = training.config, training.rows[-1]["step"]
    if must_stop(chosen_rise, cfg.stop_at_chosen_rise):
        return (
            f"at step {step:.0f} the chosen videos' error had risen by {chosen_rise:.2%} "
            f"(stop_at_chosen_rise {cfg.stop_at_chosen_rise:.2%}): lower learning_rate, raise beta or evaluate "
            "more often"
        )
    verdict = hopeless(training) if cfg.stop_when_hopeless else None
    return None if verdict is None else f"at step {step:.0f} {verdict}"


def _optimizer(cfg: TrainConfig, lora: dict[str, nn.Parameter]) -> tuple[Any, Any]:
    from diffusers.optimization import get_scheduler

    optimizer = optimizer_class(cfg.optimizer)(
        lora.values(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay
    )
    schedule = get_scheduler(
        cfg.schedule, optimizer, num_warmup_steps=cfg.warmup_steps, num_training_steps=cfg.steps
    )
    return optimizer, schedule


def _calibrated_beta(steps: _Steps, lora: dict[str, nn.Parameter], out: Path) -> float:
    """The beta of `calibration.json`, found by a trial training first where there is none; the LoRA is fresh after it.

    The trial's beta is 1, so that the sigmoid is straight; Adam's steps do not depend on the size of the gradient.
    """
    path = out / CALIBRATION
    if not path.exists():
        fresh, cfg = copy_weights(lora), steps.cfg
        optimizer, schedule = _optimizer(cfg, lora)
        count = max(1, round(TRIAL_SHARE * cfg.steps))
        found = []
        quiet = not steps.accelerator.is_main_process
        with progress_bar(count, 0, "calibration", quiet=quiet) as tick:
            for step in range(1, count + 1):
                optimizer.zero_grad()
                _, errors = steps.backward(step, beta=1.0)
                _sum_gradients(lora, steps.accelerator)
                nn.utils.clip_grad_norm_(lora.values(), cfg.max_grad_norm)
                optimizer.step()
                schedule.step()
                found.append(advantages(errors))
                tick(measure(errors, 1.0))
        set_weights(lora, fresh)
        last = torch.cat(found[-max(1, count // 4) :])
        if steps.accelerator.is_main_process:
            write_json_atomic(path, asdict(calibrated(last, count)))
        steps.accelerator.wait_for_everyone()
    return read_calibration(path).beta


def _given(values: PerSample | None) -> PerSample:
    if values is None:
        raise InputError("the objective margin_weighted needs pairs with scores, and some have none")
    return values


def _detached(errors: PairErrors) -> PairErrors:
    values: dict[str, Any] = {field.name: getattr(errors, field.name) for field in fields(errors)}
    return PairErrors(**{name: value.detach() for name, value in values.items() if value is not None})


def _gathered(parts: list[PairErrors], accelerator: Accelerator) -> PairErrors:
    """The errors of all processes' pairs."""
    values: dict[str, Any] = {}
    for field in fields(PairErrors):
        own = [getattr(part, field.name) for part in parts]
        if own[0] is not None:
            # Shares may differ by a pair.
            padded = accelerator.pad_across_processes(torch.cat(own), pad_index=torch.nan)
            every = accelerator.gather(padded)
            values[field.name] = every[~every.isnan()] if accelerator.num_processes > 1 else every
    return PairErrors(**values)


def _sum_gradients(lora: dict[str, nn.Parameter], accelerator: Accelerator) -> None:
    if accelerator.num_processes > 1:
        for parameter in lora.values():
            parameter.grad = accelerator.reduce(parameter.grad, "sum")


def _held_out_reference(steps: _Steps) -> Sides | None:
    if not steps.data.held_out:
        return None
    with adapters_off(steps.family.transformer):
        return steps.held_out_errors()


def _evaluate(steps: _Steps, reference: Sides | None, beta: float) -> Health | None:
    if reference is None:
        return None
    chosen, rejected = steps.held_out_errors()
    errors = PairErrors(
        chosen=chosen, rejected=rejected, chosen_reference=reference[0], rejected_reference=reference[1]
    )
    return measure(errors, beta)


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
