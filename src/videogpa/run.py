"""A whole run: prompts, samples, scores, pairs, LoRAs, evaluation and report, each resumable by itself."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from videogpa.dpo.config import TrainConfig
from videogpa.engines.local import map_rows, preload
from videogpa.errors import RowFailed
from videogpa.stages import error_maps, evaluate, pair, prompts, report, sample, score, train
from videogpa.stages.evaluate import Arm, EvaluateConfig
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import FilePrompts, WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.weights import model_folder

PromptSource = WorldPrompts | tuple[FilePrompts, Path]


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


def run(cfg: RunConfig, out: Path, *, workers: int, overwrite: bool = False) -> Path:
    """Run or continue; returns the report's folder. Every stage's folder lies in `out`.

    Raises:
        InputError: an input is missing or wrong; what scores need is looked at before anything is drawn.
    """
    for judged in (cfg.score, cfg.evaluate.score):
        score.check(judged)
    # Every stage starts workers of its own; what they need is imported once.
    family = cfg.sample.family if "." in cfg.sample.family else f"videogpa.families.{cfg.sample.family}"
    preload(family, "videogpa.geometry.embedded", "videogpa.metrics.consistency", "peft")
    say = _Steps(total=6)
    say("prompts")
    train_prompts = _prompts(cfg.train_prompts, out / "prompts" / "train", overwrite)
    held_out = _prompts(cfg.held_out_prompts, out / "prompts" / "held_out", overwrite)
    say("candidates")
    candidates = sample.run(
        cfg.sample, train_prompts, out / "candidates", workers=workers, overwrite=overwrite
    )
    say("scores and pairs")
    scores = score.run(cfg.score, candidates, out / "scores", workers=workers, overwrite=overwrite)
    pairs = pair.run(cfg.pair, scores, out / "pairs", overwrite=overwrite)
    say("training " + ", ".join(cfg.trainings))
    maps = None
    if any(training.dense != "off" for training in cfg.trainings.values()):
        maps = error_maps.run(scores, out / "error_maps", workers=workers, overwrite=overwrite)
    loras = train_all(cfg, pairs, candidates, out / "lora", maps=maps, workers=workers, overwrite=overwrite)
    say("evaluation")
    evaluation = evaluate.run(
        with_loras(cfg.evaluate, loras), held_out, out / "evaluation", workers=workers, overwrite=overwrite
    )
    say("report")
    return report.run(out, evaluation, out / "report")


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
    workers: int,
    overwrite: bool,
) -> dict[str, Path]:
    """Train every arm, side by side where there are workers for it; returns the folders that diffusers loads.

    Raises:
        RowFailed: a training failed.
    """
    make_worker = partial(_make_trainer, cfg, pairs, candidates, maps, out, overwrite)
    loras = {}
    for arm, result in map_rows(make_worker, list(cfg.trainings), workers=workers, description="training"):
        if isinstance(result, RowFailed):
            raise result
        loras[arm] = result
    return {arm: loras[arm] / train.LORA for arm in cfg.trainings}


def _make_trainer(
    cfg: RunConfig, pairs: Path, candidates: Path, maps: Path | None, out: Path, overwrite: bool
) -> Callable[[str], Path]:
    model = model_folder(cfg.sample.model)

    def fit(arm: str) -> Path:
        training = cfg.trainings[arm]
        needed = maps if training.dense != "off" else None
        return train.run(training, pairs, candidates, model, out / arm, maps=needed, overwrite=overwrite)

    return fit


def _prompts(source: PromptSource, out: Path, overwrite: bool) -> Path:
    if isinstance(source, WorldPrompts):
        return prompts.run_world(source, out, overwrite=overwrite)
    return prompts.run_files(source[0], source[1], out, overwrite=overwrite)


class _Steps:
    """Prints what the run does now, to standard error."""

    def __init__(self, total: int):
        self.total, self.number = total, 0

    def __call__(self, what: str) -> None:
        from rich.console import Console

        self.number += 1
        Console(stderr=True).print(f"[{self.number}/{self.total}] {what}", markup=False, highlight=False)
