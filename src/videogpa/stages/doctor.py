"""Examines trainings on disk, finished or under way: logs by the doctor's rules, videos by motion and sharpness."""

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from videogpa.artifact import (
    CONFIG,
    MANIFEST,
    open_artifact,
    read_as_made,
    read_manifest,
    read_rows,
    recorded,
)
from videogpa.dpo.calibration import read_calibration
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.doctor import Change, Gain, Training, Verdict, diagnose
from videogpa.dpo.log import read_log
from videogpa.dpo.lora import LORA_FILES
from videogpa.dpo.training import CALIBRATION, LOG
from videogpa.engines.base import Workers
from videogpa.errors import InputError, first_problem
from videogpa.report.findings import Comparison, read_summary
from videogpa.stages import sample, score
from videogpa.stages.comparison import BASE, GUARDED
from videogpa.stages.evaluate import SUMMARY as EVALUATED
from videogpa.stages.rounds import arm_before, evaluation_of, require_whole, trainings_of
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig, higher_is_better
from videogpa.stages.train import LORA, SUMMARY
from videogpa.statistics import bootstrap_interval
from videogpa.types import Candidate, EvalRow, MetricValues, Prompt, Score

DRAWN = SampleConfig(candidates=1)
JUDGED = ScoreConfig(geometry="embedded")
RESAMPLES = 2_000
VERDICTS = "doctor.json"
"""What was found, by arm, beside the evaluation of a run."""
Measured = Mapping[tuple[str, int], MetricValues]
"""Metrics by prompt and seed."""


def examine(folder: Path, probes: Mapping[str, Change] | None = None) -> list[tuple[str, list[Verdict]]]:
    """The verdicts of every training below a training's folder or a whole run's; an empty list is a healthy one.

    Two experts are two trainings, and so are two rounds of an arm; a later round's errors are against the round before
    it. Of a run with a complete evaluation, motion and sharpness are those of its videos against the base's (of a later
    round, with the LoRAs of all up to it), and every arm is compared with the control that has shuffled labels and, by
    the evaluation's primary, with the round before it and the base.

    Args:
        probes: of a training's folder, what `probe` measured.

    Raises:
        InputError: no training lies there, or its configuration cannot be read.
    """
    run = (folder / LORA).is_dir() and not (folder / CONFIG).exists()
    if run:
        require_whole(folder)
    arms = trainings_of(folder) if run else {folder.name: folder} if (folder / CONFIG).exists() else {}
    if not arms:
        raise InputError(
            f"{folder} holds no training that has begun to log: give the folder of `videogpa train` or of "
            "`videogpa run`"
        )
    controls = [arm for arm, path in arms.items() if run and _config(path).labels == "shuffled"]
    evaluation = evaluation_of(folder)
    measured = _evaluated(evaluation) if run else {}
    found = []
    for arm, path in arms.items():
        videos = changes(measured[BASE], measured[arm]) if arm in measured else probes
        better = [
            beaten
            for control in controls
            if (beaten := _beats(evaluation, measured, arm, control)) is not None
        ]
        for expert, training in trainings(path).items():
            # The folder's name is the arm's but for its round.
            name = arm + expert.removeprefix(path.name)
            beats_control = any(better) if better else None
            gains = _gains(evaluation, arm) if arm in measured else []
            found.append((name, diagnose(training, videos, beats_control=beats_control, gains=gains)))
    return found


def lines(examined: Sequence[tuple[str, Sequence[Verdict]]]) -> list[str]:
    """What `examine` found, for people."""
    return [f"{name}: {said}" for name, found in examined for said in [str(v) for v in found] or ["healthy"]]


def probe(
    folder: Path,
    prompts: Path,
    out: Path,
    *,
    count: int = 16,
    drawn: SampleConfig = DRAWN,
    judged: ScoreConfig = JUDGED,
    workers: Workers = 1,
) -> dict[str, Change]:
    """Motion and sharpness of a finished training's videos against the base's: the same prompts, the same noise.

    Args:
        folder: of a training.
        prompts: a folder of prompts, of which the first `count` are drawn.
        drawn: how, and by which model; the family is the training's.
        judged: by which geometry; the metrics are motion and sharpness.
        out: folder to write, kept between calls; base videos too.

    Raises:
        InputError: the training has no LoRA yet, or the inputs are missing.
    """
    if not (folder / LORA / LORA_FILES[0]).exists():
        raise InputError(f"{folder} has no LoRA yet: wait for the end of the training")
    if "earlier" in recorded(folder)["inputs"]:
        raise InputError(
            f"the LoRA of {folder} goes on top of an earlier one and says nothing alone: evaluate the two stacked"
        )
    few = _first_prompts(prompts, count, out / "prompts")
    given = {"family": _config(folder).family, "previews": False, "keep_latents": False}
    drawn = drawn.model_copy(update=given)
    judged = judged.model_copy(update={"metrics": GUARDED})
    measured = {}
    for arm, lora in ((BASE, None), (LORA, str(folder / LORA))):
        samples = sample.run(
            drawn.model_copy(update={"lora": lora}), few, out / "samples" / arm, workers=workers
        )
        scores = read_rows(score.run(judged, samples, out / "scores" / arm, workers=workers), Score)
        seeds = {row.id: (row.prompt_id, row.seed or 0) for row in read_rows(samples, Candidate)}
        measured[arm] = {seeds[row.id]: row.metrics for row in scores}
    return changes(measured[BASE], measured[LORA])


def changes(base: Measured, lora: Measured) -> dict[str, Change]:
    """Of every guarded measure, over the videos of which both have it.

    The median: one video whose geometry is found wrongly moves the mean motion of two dozen by several per cent.
    """
    found = {}
    for metric in GUARDED:
        by_prompt: dict[str, list[float]] = defaultdict(list)
        for prompt, seed in sorted(base.keys() & lora.keys()):
            before, after = (arm[prompt, seed].get(metric) for arm in (base, lora))
            if before and after is not None:
                by_prompt[prompt].append(after / before - 1)
        if by_prompt:
            every = [change for prompt in by_prompt.values() for change in prompt]
            low, high = _median_interval(list(by_prompt.values()))
            found[metric] = Change(median=float(np.median(every)), low=low, high=high, count=len(every))
    return found


def _median_interval(by_prompt: Sequence[Sequence[float]]) -> tuple[float, float]:
    """95 % percentile interval of the median, resampling whole prompts."""
    drawn = np.random.default_rng(0).integers(0, len(by_prompt), (RESAMPLES, len(by_prompt)))
    medians = [np.median([change for i in sample for change in by_prompt[i]]) for sample in drawn]
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


class _First(BaseModel):
    count: int


def _first_prompts(prompts: Path, count: int, out: Path) -> Path:
    rows = [row for row in read_rows(prompts, Prompt) if row.status == "ok"][:count]
    with open_artifact(
        out, stage="prompts", config=_First(count=count), inputs={"prompts": prompts}, row_type=Prompt
    ) as artifact:
        if artifact.complete:
            return out
        images = [row.image for row in rows if row.image]
        for image in images:
            (out / image).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(prompts / image, out / image)
        artifact.append(*(row for row in rows if row.id not in artifact.done))
        artifact.finish([row.id for row in rows], images)
    return out


def _evaluated(evaluation: Path) -> dict[str, dict[tuple[str, int], MetricValues]]:
    """The metrics of every arm's videos; none where the run was not evaluated to the end."""
    measured: dict[str, dict[tuple[str, int], MetricValues]] = defaultdict(dict)
    for row in read_rows(evaluation, EvalRow) if (evaluation / MANIFEST).exists() else ():
        measured[row.arm][row.prompt_id, row.seed] = row.metrics
    return measured


def _gains(evaluation: Path, arm: str) -> list[tuple[Gain, Gain]]:
    """Against the round before and the base: by the measure that made the pairs, and by the primary. Only what signed
    ranks say, too: of few prompts an interval is too narrow.
    """
    summary = read_summary(evaluation / EVALUATED)
    reward, primary = recorded(evaluation)["config"]["trained_by"], summary.primary
    found = []
    for against in dict.fromkeys((arm_before(arm) or BASE, BASE)):
        compared, levels = summary.compared(arm, against), summary.arms.get(against, {})
        if not (primary and {reward, primary} <= compared.keys() and levels[reward] and levels[primary]):
            continue
        if compared[reward].clear and compared[primary].clear:
            found.append((_gain(compared[reward], levels[reward]), _gain(compared[primary], levels[primary])))
    return found


def _gain(compared: Comparison, level: float) -> Gain:
    sign = 1 if compared.higher_is_better else -1
    low, high = sorted(sign * end / abs(level) for end in compared.ci95)
    mean = sign * compared.mean_difference / abs(level)
    return Gain(metric=compared.metric, against=compared.against, mean=mean, low=low, high=high)


def _beats(evaluation: Path, measured: Mapping[str, Measured], arm: str, control: str) -> bool | None:
    """Whether an arm's videos are better than the control's by the measure that made the pairs, beyond chance; None
    where that was not measured.
    """
    if not {arm, control} <= measured.keys() or arm == control:
        return None
    metric = recorded(evaluation)["config"]["trained_by"]
    if metric is None:
        return None
    both = [
        (key[0], ours - theirs)
        for key in sorted(measured[arm].keys() & measured[control].keys())
        if (ours := measured[arm][key].get(metric)) is not None
        and (theirs := measured[control][key].get(metric)) is not None
    ]
    if not both:
        return None
    sign = 1 if higher_is_better(metric) else -1
    gains = sign * np.array([difference for _, difference in both])
    low, _ = bootstrap_interval(gains, [prompt for prompt, _ in both], RESAMPLES, 0)
    return low > 0


def trainings(folder: Path) -> dict[str, Training]:
    """The training in this folder, or its two experts', by name.

    Raises:
        InputError: there is no log, or no configuration.
    """
    logs = sorted([*folder.glob(LOG), *folder.glob(f"*/{LOG}")])
    if not logs:
        raise InputError(f"{folder} has no {LOG} yet: the training has not begun")
    whole = Training(config=_config(folder), rows=(), **_pair_counts(folder))
    found = {}
    for log in logs:
        own = log.parent == folder
        name = folder.name if own else f"{folder.name}/{log.parent.name}"
        found[name] = replace(whole, rows=read_log(log), beta=_beta(whole.config, log.parent))
    return found


def _config(folder: Path) -> TrainConfig:
    if (folder / MANIFEST).exists():
        read_manifest(folder)
    try:
        return TrainConfig.model_validate(recorded(folder)["config"])
    except ValidationError as error:
        raise InputError(
            f"{folder / CONFIG} is not the configuration of a training: {first_problem(error)}"
        ) from error


def _pair_counts(folder: Path) -> dict[str, Any]:
    """How many pairs are trained on and held out."""
    if not (folder / SUMMARY).exists():
        return {}
    summary = json.loads(read_as_made(folder / SUMMARY))
    return {name: summary[name] for name in ("pairs", "held_out_pairs")}


def _beta(cfg: TrainConfig, folder: Path) -> float | None:
    if cfg.beta is not None or not (folder / CALIBRATION).exists():
        return cfg.beta
    return read_calibration(folder / CALIBRATION).beta
