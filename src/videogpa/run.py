"""A whole run: prompts, samples, scores, pairs, LoRAs, evaluation and report, each resumable by itself.

More rounds go on from the LoRA of those before: its own samples are scored and paired, and a fresh LoRA is trained on
top of it, against it as the reference (iterations of DPO on the model's own samples, as Yuan et al. 2024, arXiv
2401.10020, do with language models).
"""

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from videogpa.artifact import CONFIG, MANIFEST, lock, write_json_atomic
from videogpa.dpo.config import TrainConfig
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import InputError, RowFailed, StageStopped
from videogpa.stages import doctor, error_maps, evaluate, pair, prompts, report, sample, score, train
from videogpa.stages.comparison import BASE
from videogpa.stages.evaluate import Arm, EvaluateConfig
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import FilePrompts, WorldPrompts
from videogpa.stages.rounds import EVALUATION, ROUNDS, StackConfig, round_arm, round_folder, stack
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.weights import model_folder

PromptSource = WorldPrompts | tuple[FilePrompts, Path]
REPORT = "report"


class RunConfig(BaseModel):
    """Everything that a run does. `trainings` maps arm names to how their LoRA is trained.

    Every training is an arm of the evaluation; the `lora` of a further arm of it may be the name of a training.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    train_prompts: PromptSource
    held_out_prompts: PromptSource
    sample: SampleConfig
    score: ScoreConfig
    pair: PairConfig
    trainings: dict[str, TrainConfig]
    evaluate: EvaluateConfig


def with_reward(cfg: RunConfig, reward: str) -> RunConfig:
    """The same run with preferences made by another reward (`stages.score.reward_metric`).

    Raises:
        InputError: no metric of that name.
    """
    metric = score.reward_metric(reward)
    names = cfg.score.metrics
    if names is not None and metric not in names:
        names = (metric, *names)
    return cfg.model_copy(
        update={
            "score": cfg.score.model_copy(update={"metrics": names}),
            "pair": cfg.pair.model_copy(update={"metric": metric}),
            "evaluate": cfg.evaluate.model_copy(update={"trained_by": metric}),
        }
    )


def run(
    cfg: RunConfig,
    out: Path,
    rounds: int = 1,
    *,
    workers: Workers,
    overwrite: bool = False,
    keep: Callable[[], None] | None = None,
) -> Path:
    """Run or continue; returns the report's folder. Every stage's folder lies in `out`, those of later rounds, with the
    evaluation and report of them all, in `out/rounds/<k>`; a finished run may be given more rounds. `keep` is called
    between stages (`stages.store.Keeping`).

    Raises:
        InputError: an input is missing or wrong, or another process works on the run; what scores need is looked at
            before anything is drawn.
    """
    for scoring in (cfg.score, cfg.evaluate.score):
        score.check_needed(scoring)
    with lock(out):
        return _run(cfg, out, rounds, workers, overwrite, keep)


def _run(
    cfg: RunConfig, out: Path, rounds: int, workers: Workers, overwrite: bool, keep: Callable[[], None] | None
) -> Path:
    leading = leading_arm(cfg, rounds) if rounds > 1 else None
    if overwrite and (out / "candidates" / CONFIG).exists():
        # What is about what will be replaced must not pass for being about what comes.
        for stale in (ROUNDS, EVALUATION, REPORT):
            shutil.rmtree(out / stale, ignore_errors=True)
        (out / doctor.VERDICTS).unlink(missing_ok=True)
    say = _Steps(3 + 3 * rounds, keep)
    say("prompts")
    train_prompts = _prompts(cfg.train_prompts, out / "prompts" / "train", overwrite)
    held_out = _prompts(cfg.held_out_prompts, out / "prompts" / "held_out", overwrite)
    planned = [*cfg.trainings, *(round_arm(leading, n) for n in range(2, rounds + 1) if leading)]
    evaluate.check(_judged(cfg, {name: Path(name) for name in planned}, leading, rounds), held_out)
    fit = partial(train_round, train_prompts=train_prompts, say=say, workers=workers, overwrite=overwrite)
    loras = fit(cfg, out)
    if leading is not None:
        for number in range(2, rounds + 1):
            home, earlier = round_folder(out, number), loras[round_arm(leading, number - 1)]
            new = fit(later_round(cfg, leading, number, earlier), home, earlier=earlier)[leading]
            together = stack(StackConfig(rounds=number), earlier, new, home / "stacked", overwrite=overwrite)
            loras[round_arm(leading, number)] = together
    say("evaluation")
    judged = _judged(cfg, loras, leading, rounds)
    home = round_folder(out, rounds)
    fewer = [round_folder(out, number) / EVALUATION for number in range(1, rounds)]
    evaluation = evaluate.run(
        judged,
        held_out,
        home / EVALUATION,
        reuse_alike=[folder for folder in fewer if (folder / MANIFEST).exists()],
        workers=workers,
        overwrite=overwrite,
    )
    say("report")
    return write_report(out, evaluation, workers=workers, note=say.note)


def write_report(
    out: Path, evaluation: Path, *, workers: Workers, note: Callable[..., None] = lambda *_: None
) -> Path:
    """Examine the trainings of a finished run, write what is found, and make its report.

    Raises:
        InputError: as `report.run`.
    """
    examined = doctor.examine(out)
    verdicts = {name: [str(verdict) for verdict in found] for name, found in examined}
    write_json_atomic(evaluation.with_name(doctor.VERDICTS), verdicts)
    note(*doctor.lines(examined))
    return report.run(out, evaluation, evaluation.with_name(REPORT), workers=workers)


def train_round(
    cfg: RunConfig,
    out: Path,
    *,
    earlier: Path | None = None,
    train_prompts: Path,
    say: "_Steps",
    workers: Workers,
    overwrite: bool,
) -> dict[str, Path]:
    """Sample, score, pair and train on top of the `earlier` LoRA; returns the LoRAs by training.

    Raises:
        RowFailed: a training failed.
    """
    title = "" if earlier is None else f"round {out.name}, "
    say(f"{title}candidates")
    candidates = sample.run(
        cfg.sample, train_prompts, out / "candidates", workers=workers, overwrite=overwrite
    )
    say(f"{title}scores and pairs")
    scores = score.run(cfg.score, candidates, out / "scores", workers=workers, overwrite=overwrite)
    pairs = pair.run(cfg.pair, scores, out / "pairs", overwrite=overwrite)
    say(f"{title}training {', '.join(cfg.trainings)}")
    maps = None
    if any(training.dense != "off" for training in cfg.trainings.values()):
        maps = error_maps.run(scores, out / "error_maps", workers=workers, overwrite=overwrite)
    loras = train_all(
        cfg, pairs, candidates, out / "lora", maps=maps, earlier=earlier, workers=workers, overwrite=overwrite
    )
    for lora in loras.values():
        say.note(*doctor.lines(doctor.examine(lora.parent)))
    return loras


def leading_arm(cfg: RunConfig, rounds: int) -> str:
    """The training that goes on in later rounds: the first that is no control.

    Raises:
        InputError: there is none, or an arm of the recipe has the name of a later round.
    """
    leading = next((arm for arm, training in cfg.trainings.items() if training.labels != "shuffled"), None)
    if leading is None:
        raise InputError("no training can go on for more rounds: all are controls with shuffled labels")
    later = {round_arm(leading, number) for number in range(2, rounds + 1)}
    for arm in later & {*cfg.trainings, *cfg.evaluate.arms}:
        raise InputError(f"an arm of the recipe is called '{arm}', as a later round would be: rename it")
    return leading


def later_round(cfg: RunConfig, arm: str, number: int, lora: Path) -> RunConfig:
    """What round `number` samples and trains: other noise, drawn with the LoRA of the rounds before it."""
    drawn = {"lora": str(lora), "lora_strength": 1.0, "seed": cfg.sample.seed + number - 1}
    changes = {"sample": cfg.sample.model_copy(update=drawn), "trainings": {arm: cfg.trainings[arm]}}
    return cfg.model_copy(update=changes)


def _judged(cfg: RunConfig, loras: Mapping[str, Path], leading: str | None, rounds: int) -> EvaluateConfig:
    judged = with_loras(cfg.evaluate, loras)
    return judged if leading is None else with_rounds(judged, leading, rounds)


def with_rounds(cfg: EvaluateConfig, arm: str, rounds: int) -> EvaluateConfig:
    """The evaluation with every later round of an arm compared with the base and with the round before it, too."""
    arms = [round_arm(arm, number) for number in range(1, rounds + 1)]
    wanted = [(later, against) for before, later in pairwise(arms) for against in (BASE, before)]
    given = {frozenset(sides) for sides in cfg.compared}
    added = [sides for sides in wanted if frozenset(sides) not in given]
    return cfg.model_copy(update={"comparisons": (*cfg.compared, *added)})


def with_loras(cfg: EvaluateConfig, loras: Mapping[str, Path]) -> EvaluateConfig:
    """The evaluation with an arm for every trained LoRA; arms that name a training are drawn with its LoRA."""
    named = {name: str(folder) for name, folder in loras.items()}
    trained = {name: Arm(lora=folder) for name, folder in named.items()}
    further = {
        name: arm.model_copy(update={"lora": named.get(arm.lora or "", arm.lora)})
        for name, arm in cfg.arms.items()
    }
    return cfg.model_copy(update={"arms": trained | further})


def train_all(
    cfg: RunConfig,
    pairs: Path,
    candidates: Path,
    out: Path,
    *,
    maps: Path | None = None,
    earlier: Path | None = None,
    workers: Workers,
    overwrite: bool,
) -> dict[str, Path]:
    """Train every arm, side by side where there are workers for it; returns the folders that diffusers loads.

    Raises:
        StageStopped: a training had to stop; the message says why.
        RowFailed: a training failed.
    """
    make_worker = partial(_make_trainer, cfg, pairs, candidates, maps, earlier, out, overwrite)
    loras = {}
    for arm, result in map_rows(make_worker, list(cfg.trainings), workers=workers, description="training"):
        if isinstance(result, RowFailed):
            raise result
        loras[arm] = result
    return {arm: loras[arm] / train.LORA for arm in cfg.trainings}


def _make_trainer(
    cfg: RunConfig,
    pairs: Path,
    candidates: Path,
    maps: Path | None,
    earlier: Path | None,
    out: Path,
    overwrite: bool,
) -> Callable[[str], Path]:
    model = model_folder(cfg.sample.model)

    def fit(arm: str) -> Path:
        training = cfg.trainings[arm]
        needed = maps if training.dense != "off" else None
        try:
            return train.run(
                training,
                pairs,
                candidates,
                model,
                out / arm,
                maps=needed,
                earlier=earlier,
                overwrite=overwrite,
            )
        except InputError as error:
            raise StageStopped(str(error)) from error

    return fit


def _prompts(source: PromptSource, out: Path, overwrite: bool) -> Path:
    if isinstance(source, WorldPrompts):
        return prompts.run_world(source, out, overwrite=overwrite)
    return prompts.run_files(source[0], source[1], out, overwrite=overwrite)


class _Steps:
    """Prints what the run does now, to standard error, once what it did before is kept."""

    def __init__(self, total: int, keep: Callable[[], None] | None):
        self.total, self.number, self.keep = total, 0, keep

    def __call__(self, what: str) -> None:
        if self.number and self.keep is not None:
            self.keep()
        self.number += 1
        self._print(f"[{self.number}/{self.total}] {what}")

    def note(self, *lines: str) -> None:
        """What a step found."""
        for line in lines:
            self._print(f"    {line}")

    def _print(self, text: str) -> None:
        from rich.console import Console

        Console(stderr=True).print(text, markup=False, highlight=False)
