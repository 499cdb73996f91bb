"""What a whole run will take, from a pilot of it: work, storage, and time by the number of workers.

The pilot is the run itself on few prompts and few training steps, in one process. Rows are independent of each other:
their seconds grow with the prompts and spread over workers. What loads a model is paid by each worker of each pass;
what a stage does between rows is done by one process, however many workers there are.
"""

import heapq
import itertools
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from videogpa.artifact import hash_json, read_rows, write_json_atomic
from videogpa.dpo.calibration import TRIAL_SHARE
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.training import BOARD
from videogpa.engines.local import Timing, map_rows, timed
from videogpa.errors import InputError, first_problem
from videogpa.run import PromptSource, RunConfig, leading_arm, run
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import WorldPrompts, count_entries
from videogpa.stages.train import SUMMARY
from videogpa.types import PreferencePair

COSTS, PILOT = "costs.json", "pilot"
STEPS, JUDGED = 8, 4
"""Training steps of a pilot, and after how many it is judged."""
TRAINING = "training"
STAGES = ("prompts", "candidates", "scores and pairs", TRAINING, "evaluation", "report")
EVERY_ROUND = ("candidates", "scores and pairs", TRAINING)


class PassCost(BaseModel):
    """Rows that are computed together: seconds until a worker is ready, and of each row of the pilot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    description: str
    load: float
    jobs: tuple[float, ...]


class TrainingCost(BaseModel):
    """Seconds of one training: until its first step, of a step, and of judging one held-out pair."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    setup: float
    step: float
    judged_pair: float


class StageCost(BaseModel):
    """`between` are the seconds that no worker had a part in, `bytes` what the stage has written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passes: tuple[PassCost, ...]
    between: float
    bytes: int


class Costs(BaseModel):
    """What a pilot of a recipe took; `start` are the seconds until the processes of several workers are there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipe: str
    training_prompts: int
    held_out_prompts: int
    pairs: int
    stages: dict[str, StageCost]
    trainings: dict[str, TrainingCost]
    start: float


@dataclass(frozen=True)
class StagePlan:
    """Of one stage: seconds of work in all, bytes, and seconds that it lasts by the number of workers."""

    stage: str
    work: float
    bytes: int
    lasts: Mapping[int, float]


def measure(cfg: RunConfig, out: Path, prompts: int = 2) -> Costs:
    """Run a pilot in `out` on so many training and held-out prompts; one that was measured there before is taken.

    Raises:
        InputError: `out` holds another recipe's pilot, or as `run`.
    """
    recipe = hash_json([cfg.model_dump(mode="json"), prompts])
    known = _read(out / COSTS)
    if known is not None:
        if known.recipe != recipe:
            raise InputError(f"{out} holds the pilot of another recipe or size: choose another folder")
        return known
    small = pilot(cfg, prompts)
    marks: list[tuple[float, int, int]] = []
    with timed() as timings:

        def mark() -> None:
            marks.append((time.perf_counter(), len(timings), _size(out / PILOT)))

        mark()
        run(small, out / PILOT, workers=1, overwrite=True, keep=mark)
        mark()
    stages = {
        stage: _stage(timings[before[1] : after[1]], after[0] - before[0], after[2] - before[2])
        for stage, (before, after) in zip(STAGES, itertools.pairwise(marks), strict=True)
    }
    seconds = dict(zip(small.trainings, stages[TRAINING].passes[-1].jobs, strict=True))
    costs = Costs(
        recipe=recipe,
        training_prompts=_count(small.train_prompts),
        held_out_prompts=_count(small.held_out_prompts),
        pairs=len(read_rows(out / PILOT / "pairs", PreferencePair)),
        stages=stages,
        trainings={arm: _training(out / PILOT / "lora" / arm, seconds[arm]) for arm in small.trainings},
        start=_start(),
    )
    write_json_atomic(out / COSTS, costs.model_dump(mode="json"))
    return costs


def pilot(cfg: RunConfig, prompts: int) -> RunConfig:
    """The same run on few prompts: every pair that there is, few steps, and some of the pairs to judge by."""
    few = {
        "steps": STEPS,
        "evaluate_every": JUDGED,
        "checkpoint_every": STEPS,
        "held_out_fraction": 0.5,
        "stop_at_chosen_rise": None,
        "stop_when_hopeless": False,
    }
    return cfg.model_copy(
        update={
            # Pairs to judge by are those of other prompts than the pairs to train on.
            "train_prompts": _few(cfg.train_prompts, max(2, prompts)),
            "held_out_prompts": _few(cfg.held_out_prompts, prompts),
            "pair": PairConfig(
                metric=cfg.pair.metric,
                pairs_per_prompt=cfg.pair.pairs_per_prompt,
                reuse_candidates=cfg.pair.reuse_candidates,
            ),
            "trainings": {
                arm: training.model_copy(update=few | {"beta": training.beta or 1.0})
                for arm, training in cfg.trainings.items()
            },
        }
    )


def predict(cfg: RunConfig, costs: Costs, workers: Sequence[int], rounds: int = 1) -> list[StagePlan]:
    """What every stage of the recipe takes, with each number of workers.

    Workers are GPUs or machines that do not get in each other's way; one worker is a process without any other. As many
    pairs are counted as the pilot found for a prompt; filters of the recipe leave fewer. Later rounds cost as the first
    one: its candidates, its scores, one more training, and one more arm, taken to cost as much as the mean of all.

    Raises:
        InputError: no training can go on for more rounds.
    """
    later = (rounds - 1) * [leading_arm(cfg, rounds)] if rounds > 1 else []
    arms = 1 + len({*cfg.trainings, *cfg.evaluate.arms})
    training = _count(cfg.train_prompts) / costs.training_prompts
    held_out = _count(cfg.held_out_prompts) / costs.held_out_prompts
    judged = held_out * (arms + len(later)) / arms
    growth = dict.fromkeys(STAGES, judged) | {"candidates": training, "scores and pairs": training}
    growth |= {"prompts": max(training, held_out), TRAINING: 1.0}
    plans = []
    for stage, cost in costs.stages.items():
        times = rounds if stage in EVERY_ROUND else 1
        passes = times * [_grown(one, growth[stage]) for one in cost.passes]
        if stage == TRAINING:
            pairs = round(costs.pairs * training)
            seconds = {arm: _fit(cfg.trainings[arm], one, pairs) for arm, one in costs.trainings.items()}
            # Maps for dense preferences are made before.
            passes = times * [_grown(one, training) for one in cost.passes[:-1]]
            fitted = [tuple(seconds.values()), *((seconds[arm],) for arm in later)]
            passes += [cost.passes[-1].model_copy(update={"jobs": jobs}) for jobs in fitted]
        between = times * cost.between * growth[stage]
        lasts = {count: between + sum(pass_seconds(one, count, costs) for one in passes) for count in workers}
        work = sum(one.load + sum(one.jobs) for one in passes)
        plans.append(StagePlan(stage, between + work, round(times * cost.bytes * growth[stage]), lasts))
    return plans


def makespan(jobs: Sequence[float], workers: int) -> float:
    """When the last of the jobs ends, if whoever is free takes the next."""
    free = [0.0] * min(workers, len(jobs))
    for seconds in jobs:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free, default=0.0)


def pass_seconds(cost: PassCost, workers: int, costs: Costs) -> float:
    """How long a pass lasts: until the workers' processes are there, have loaded, and the last row is done."""
    # With one job there is one worker, and with one worker no process is started.
    start = costs.start if min(workers, len(cost.jobs)) > 1 else 0.0
    return start + cost.load + makespan(cost.jobs, workers)


def lines(plans: Sequence[StagePlan], gpu: bool) -> list[str]:
    """The table for people: of all stages work, storage and how long they last; last what is paid for."""
    workers = list(plans[0].lasts)
    unit = "GPUs" if gpu else "workers"
    table = [
        ["stage", "work", "storage", *(f"{count} {unit if count > 1 else unit[:-1]}" for count in workers)]
    ]
    table += [[p.stage, _time(p.work), _bytes(p.bytes), *(_time(p.lasts[n]) for n in workers)] for p in plans]
    total = {n: sum(p.lasts[n] for p in plans) for n in workers}
    table.append(
        [
            "all",
            _time(sum(p.work for p in plans)),
            _bytes(sum(p.bytes for p in plans)),
            *map(_time, total.values()),
        ]
    )
    paid = [_time(n * seconds) for n, seconds in total.items()]
    table.append([f"all {unit} held until the end", "", "", *paid])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]


def _stage(timings: Sequence[Timing], seconds: float, size: int) -> StageCost:
    passes = tuple(PassCost(description=t.description, load=t.load, jobs=tuple(t.jobs)) for t in timings)
    worked = sum(one.load + sum(one.jobs) for one in passes)
    return StageCost(passes=passes, between=max(0.0, seconds - worked), bytes=max(0, size))


def _training(folder: Path, seconds: float) -> TrainingCost:
    """Told by the times at which the training (of each expert) logged its steps."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    steps, judged, logged = [], [], 0.0
    for board in sorted(folder.rglob(BOARD)):
        events = EventAccumulator(str(board)).Reload().Scalars("loss")
        took = {later.step: later.wall_time - event.wall_time for event, later in itertools.pairwise(events)}
        plain = statistics.mean(value for step, value in took.items() if step % JUDGED)
        steps.append(plain)
        judged.append(statistics.mean(value - plain for step, value in took.items() if step % JUDGED == 0))
        logged += plain + sum(took.values())
    held_out = json.loads((folder / SUMMARY).read_text())["held_out_pairs"]
    return TrainingCost(
        setup=max(0.0, seconds - logged),
        step=sum(steps),
        judged_pair=max(0.0, sum(judged)) / max(1, held_out),
    )


def _fit(cfg: TrainConfig, cost: TrainingCost, pairs: int) -> float:
    steps = cfg.steps * (1.0 if cfg.beta else 1.0 + TRIAL_SHARE)
    # Once more for the reference.
    judgings = cfg.steps / cfg.evaluate_every + 1
    return cost.setup + steps * cost.step + judgings * cost.judged_pair * cfg.held_out_fraction * pairs


def _grown(cost: PassCost, growth: float) -> PassCost:
    jobs = itertools.islice(itertools.cycle(cost.jobs), round(len(cost.jobs) * growth))
    return cost.model_copy(update={"jobs": tuple(jobs)})


def _start() -> float:
    # The first time the server of processes starts, too.
    for _ in range(2):
        began = time.perf_counter()
        list(map_rows(_nothing, [0, 1], workers=2, description="starting"))
    return time.perf_counter() - began


def _nothing() -> Callable[[int], int]:
    return partial(max, 0)


def _few(source: PromptSource, count: int) -> PromptSource:
    if isinstance(source, WorldPrompts):
        return source.model_copy(update={"count": min(count, source.count)})
    cfg, path = source
    return cfg.model_copy(update={"limit": min(count, cfg.limit or count)}), path


def _count(source: PromptSource) -> int:
    return source.count if isinstance(source, WorldPrompts) else count_entries(*source)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _read(path: Path) -> Costs | None:
    if not path.exists():
        return None
    try:
        return Costs.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path} is damaged: {first_problem(error)}") from error


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _bytes(size: int | float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
