"""Held-out evaluation: every arm on the same prompts and seeds, compared pair by pair (`docs/evaluation.md`)."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from videogpa import __version__
from videogpa.artifact import (
    MANIFEST,
    copy_atomic,
    hash_as_made,
    hash_file,
    hash_json,
    lock,
    open_artifact,
    read_as_made,
    read_manifest,
    read_rows,
    recorded,
    require_as_made,
    require_outside,
    write_json_atomic,
    write_text_atomic,
)
from videogpa.engines.base import Workers
from videogpa.errors import InputError, StageStopped
from videogpa.metrics.between_seeds import BETWEEN_SEEDS
from videogpa.report.findings import read_summary
from videogpa.stages import sample, score
from videogpa.stages.against_truth import (
    BETWEEN,
    BetweenSeedsRow,
    Together,
    Worlds,
    between_seeds,
    draw_truth,
)
from videogpa.stages.best_of import best_id
from videogpa.stages.comparison import (
    BASE,
    GUARDED,
    LARGEST_CHANGES,
    NEITHER,
    SMALLEST_JUDGED,
    SMALLEST_SHARPNESS,
    TRUTH,
    by_arm,
    compare,
    guard_problems,
    means,
)
from videogpa.stages.external_scores import ExternalScore, read_external_scores, require_apart
from videogpa.stages.reuse import (
    REUSED,
    made_differently,
    measured_together,
    primaries_before,
    require_alike,
    take_over,
    videos_of,
)
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig, protocol_hash
from videogpa.statistics import LEVEL, POWER
from videogpa.types import CONSISTENCY, Candidate, EvalRow, MetricValues, Prompt, Score
from videogpa.weights import lora_folder, model_folder

SUMMARY = "summary.json"
EXTERNAL = "external"
"""The folder of the tables that other tools' numbers came in, as they were given."""
ARM_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,63}"
"""Of paths and addresses of pages, too."""
KIN = (
    {"consistency", "cross_view", "edge_agreement", "paper_reward"},
    {"depth_agreement", "normal_agreement", "alignment", "mvcs", "mvcs_published"},
)
"""They compare the same pictures, or the same surfaces, by the same geometry: none judges what another made."""


class Arm(BaseModel):
    """What draws an arm's videos; what is not given is the base's.

    lora: 'embedded', a folder or a file, drawn at `strength`; model: another model's folder (of another `family`);
    best_of: of so many videos for every seed the best by the metric `best_by` is kept. `trained_by` is the metric of
    the pairs that the LoRA was trained on, by default what its training says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    lora: str | None = None
    trained_by: str | None = None
    strength: float = 1.0
    model: str | None = None
    family: str | None = None
    best_of: int = Field(default=1, ge=1)
    best_by: str = CONSISTENCY


class EvaluateConfig(BaseModel):
    """`sample` says how every arm is drawn (its candidates are the seeds per prompt) and which model is the base.

    `arms` are those beside the base, by name. `comparisons` are (arm, against), by default every arm against the
    base. `primary` is the metric that decides, named before the data. `trained_by` is the metric whose preferences
    trained the LoRAs, all of them, beside what their trainings say; without any LoRA, the other models (a LoRA may have
    been merged). What trained or selected an arm may neither be its only judge nor the primary, unless
    `allow_circular`. `truth` scores the true continuations, too, where prompts have them: the ceiling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample: SampleConfig
    score: ScoreConfig
    arms: dict[str, Arm] = {}
    comparisons: tuple[tuple[str, str], ...] | None = None
    primary: str | None = None
    trained_by: str | None = None
    allow_circular: bool = False
    truth: bool = True
    resamples: int = Field(default=10_000, ge=100)
    bootstrap_seed: int = 0

    @property
    def compared(self) -> tuple[tuple[str, str], ...]:
        """The (arm, against), in order."""
        return tuple((arm, BASE) for arm in self.arms) if self.comparisons is None else self.comparisons


def run(
    cfg: EvaluateConfig,
    prompts: Path,
    out: Path,
    *,
    reuse: Sequence[Path] = (),
    reuse_alike: Sequence[Path] = (),
    workers: Workers = 1,
    overwrite: bool = False,
) -> Path:
    """Sample and score all arms; write a row per (arm, prompt, seed), `between_seeds.jsonl` and `summary.json`.

    What the evaluations in `reuse` and `reuse_alike` have drawn and scored of these arms is taken from there
    (`reuse.take_over`); those in `reuse_alike` are passed over where they were made differently.

    Raises:
        InputError: an unknown arm is compared, or two arms twice, an arm has a name that it cannot have, the primary
            cannot be measured, what trained or selected an arm would judge it, or the scores cannot be made
            (`score.check_needed`), two prompts are the same, or an evaluation in `reuse` was made differently or lies
            in `out`.
    """
    arms = {name: _with_maker(arm) for name, arm in cfg.arms.items()}
    cfg = cfg.model_copy(update={"arms": arms})
    worlds = check(cfg, prompts)

    def check_reused(identity: Mapping[str, Any]) -> None:
        if overwrite or not (out / MANIFEST).exists():
            for earlier in reuse:
                require_outside(earlier, out)
                require_alike(earlier, identity)

    with open_artifact(
        out,
        stage="evaluation",
        config=_without_paths(cfg),
        inputs=_inputs(cfg, prompts),
        row_type=EvalRow,
        overwrite=overwrite,
        check=check_reused,
    ) as artifact:
        if artifact.complete:
            return out
        known: dict[Together, BetweenSeedsRow] = {}
        alike = [earlier for earlier in reuse_alike if not made_differently(earlier, recorded(out))]
        for earlier in (*reuse, *alike):
            take_over(earlier, out)
            known |= measured_together(earlier)
        arms = {BASE: Arm(), **cfg.arms}
        rows = [
            row for name, arm in arms.items() for row in _evaluate_arm(cfg, name, arm, prompts, out, workers)
        ]
        artifact.append(*(r for r in rows if r.id not in artifact.done))
        videos, truth = videos_of(rows, out), []
        if cfg.truth and any(worlds.values()):
            folder = draw_truth(cfg.sample, prompts, out / "samples" / TRUTH, workers=workers)
            scored = score.run(cfg.score, folder, out / "scores" / TRUTH, prompts=prompts, workers=workers)
            truth = read_rows(scored, Score)
            # Every seed of the truth is the same video: what is left is what the measurement is off by.
            videos |= {(TRUTH, str(s.prompt_id)): [folder / s.video] * cfg.sample.candidates for s in truth}
        between = between_seeds(cfg.score, videos, worlds, known=known, workers=workers)
        write_text_atomic(out / BETWEEN, "".join(f"{row.model_dump_json()}\n" for row in between))
        summary = summarize(cfg, rows, between, truth) | {
            "protocol": protocol(cfg, recorded(out)["inputs"]),
            "primaries_before": primaries_before(out),
        }
        write_json_atomic(out / SUMMARY, summary)
        kept = [REUSED] if (out / REUSED).exists() else []
        artifact.finish([r.id for r in rows], [SUMMARY, BETWEEN, *kept])
    return out


def check(cfg: EvaluateConfig, prompts: Path) -> Worlds:
    """What can be told before anything is drawn; returns the scenes of the prompts, by id.

    Raises:
        InputError: as `run`. What a LoRA's training says of itself is not looked at.
    """
    _check_arms(cfg)
    asked = [prompt for prompt in read_rows(prompts, Prompt) if prompt.status == "ok"]
    _require_different(asked, prompts)
    worlds = {prompt.id: prompt.world for prompt in asked}
    _check_judges(cfg, worlds)
    return worlds


def add_scores(evaluation: Path, tables: Sequence[Path], *, partial: bool = False) -> Path:
    """Let numbers that other tools measured on a finished evaluation's videos count among its metrics.

    The tables are copied into `external/`, where one takes the place of an earlier one of its name and metrics, and the
    summary is made again from what is on disk: rows, videos and scores stay as they are. Nothing is written before all
    is read.
    `partial` lets a metric miss videos.

    Raises:
        InputError: `evaluation` is no finished one, or another process writes to it, two tables have one name or the
            same metric, one would take metrics away, or as `read_external_scores`.
    """
    rows = read_rows(evaluation, EvalRow)
    with lock(evaluation):
        _add_scores(evaluation, rows, tables, partial=partial)
    return evaluation


def read_evaluation(evaluation: Path) -> list[EvalRow]:
    """The rows of a finished evaluation, with what other tools measured among their metrics.

    Raises:
        InputError: none is there, it is not finished, or as `read_external_scores`.
    """
    rows = read_rows(evaluation, EvalRow)
    outside: dict[tuple[str, str, int], MetricValues] = defaultdict(dict)
    known = {(row.arm, row.prompt_id, row.seed) for row in rows if row.status == "ok"}
    for path in sorted((evaluation / EXTERNAL).glob("[!.]*")):
        for found in read_external_scores(require_as_made(path), known, partial=True):
            outside[found.key] |= found.metrics
    return [
        row.model_copy(update={"metrics": row.metrics | outside[row.arm, row.prompt_id, row.seed]})
        for row in rows
    ]


def _add_scores(evaluation: Path, rows: Sequence[EvalRow], tables: Sequence[Path], *, partial: bool) -> None:
    given = {path.name: path for path in tables}
    if len(given) < len(tables):
        raise InputError(f"{len(tables)} tables of scores have only {len(given)} names; rename some")
    kept = {path.name: path for path in sorted((evaluation / EXTERNAL).glob("[!.]*"))}
    known = {(row.arm, row.prompt_id, row.seed) for row in rows if row.status == "ok"}
    hidden = next((name for name in given if name.startswith(".")), None)
    if hidden is not None:
        raise InputError(f"{given[hidden]} is a hidden file, which would not be found again: rename it")
    external = {
        name: read_external_scores(require_as_made(path), known, partial=partial or name not in given)
        for name, path in (kept | given).items()
    }
    require_apart(external)
    for name in kept.keys() & given.keys():
        lost = _metrics_of(read_external_scores(kept[name], known, partial=True)) - _metrics_of(
            external[name]
        )
        if lost:
            raise InputError(
                f"{name} would take the place of an earlier table of that name, which has {', '.join(sorted(lost))}: "
                "rename it"
            )
    cfg, between = _recorded(evaluation)
    scored = evaluation / "scores" / TRUTH
    truth = read_rows(scored, Score) if scored.exists() else []
    own = _protocol_of(evaluation, cfg)
    summary = summarize(cfg, rows, between, truth, external)
    for name, path in given.items():
        copy_atomic(path, evaluation / EXTERNAL / name)
    write_json_atomic(
        evaluation / SUMMARY,
        summary
        | {
            "protocol": _with_external(own, summary["external"]),
            "primaries_before": primaries_before(evaluation),
        },
    )
    manifest = read_manifest(evaluation)
    changed = {
        name: hash_file(evaluation / name) for name in (SUMMARY, *(f"{EXTERNAL}/{n}" for n in external))
    }
    files = dict(sorted((manifest.files | changed).items()))
    write_json_atomic(
        evaluation / MANIFEST, manifest.model_copy(update={"files": files}).model_dump(mode="json")
    )


def _protocol_of(evaluation: Path, cfg: EvaluateConfig) -> str:
    try:
        return read_summary(evaluation / SUMMARY).protocol
    except StageStopped:
        # Numbers were being added when the process was killed: the manifest does not know the new summary yet.
        return protocol(cfg, recorded(evaluation)["inputs"])


def _metrics_of(table: Sequence[ExternalScore]) -> set[str]:
    return {row.metric for row in table}


def summarize(
    cfg: EvaluateConfig,
    rows: Sequence[EvalRow],
    between: Sequence[BetweenSeedsRow] = (),
    truth: Sequence[Score] = (),
    external: Mapping[str, Sequence[ExternalScore]] = {},
) -> dict[str, Any]:
    """Means of arms and of the truth, paired comparisons, the primary's first, and who breaks a guard.

    `external` are other tools' numbers by the file that they came in. `docs/evaluation.md` describes the keys.
    """
    values = by_arm(rows, between, truth, external)
    outside: dict[str, dict[str, Any]] = {
        row.metric: {"higher_is_better": row.higher_is_better, "file": file}
        for file, found in external.items()
        for row in found
    }
    arms = {arm: values.get(arm, {}) for arm in dict.fromkeys(row.arm for row in rows)}
    compared = compare(
        values,
        cfg.compared,
        primary=cfg.primary,
        resamples=cfg.resamples,
        seed=cfg.bootstrap_seed,
        outside={name: says["higher_is_better"] for name, says in outside.items()},
    )
    return {
        "primary": cfg.primary,
        "arms": {arm: means(found) for arm, found in arms.items()},
        "truth": means(values.get(TRUTH, {})),
        "external": outside,
        "comparisons": compared,
        "guards": {
            arm: guard_problems(arms.get(BASE, {}), found) for arm, found in arms.items() if arm != BASE
        },
        "circular": circular(cfg),
        "allow_circular": cfg.allow_circular,
        "prompts": len({row.prompt_id for row in rows}),
        "failed_rows": sum(r.status == "failed" for r in rows),
    }


def circular(cfg: EvaluateConfig) -> dict[str, list[str]]:
    """By arm, what trained or selected it, and the kin of that: what these metrics say of the arm is no evidence."""
    with_lora = {name for name, arm in cfg.arms.items() if arm.lora is not None}
    trained = with_lora or {name for name, arm in cfg.arms.items() if arm.model is not None}
    made = {
        name: {
            *_kin(cfg.trained_by if name in trained else None),
            *_kin(arm.trained_by),
            *_kin(arm.best_by if arm.best_of > 1 else None),
        }
        for name, arm in cfg.arms.items()
    }
    return {name: sorted(metrics) for name, metrics in made.items() if metrics}


def protocol(cfg: EvaluateConfig, inputs: Mapping[str, str]) -> str:
    """Evaluations with the same one may be set side by side (16 hex digits): it covers all but what the arms are.

    `inputs` are the hashes of at least `prompts` and `model`.
    """
    stored = {
        "model",
        "lora",
        "lora_strength",
        "previews",
        "keep_latents",
        "shared_noise",
        "accepted_licenses",
    }
    described = {
        "score": protocol_hash(cfg.score),
        "sample": cfg.sample.model_dump(mode="json", exclude=stored),
        "prompts": inputs["prompts"],
        "model": inputs["model"],
        "between_seeds": list(BETWEEN_SEEDS),
        "statistics": [cfg.resamples, cfg.bootstrap_seed, LEVEL, POWER],
        "guards": [SMALLEST_SHARPNESS, LARGEST_CHANGES, SMALLEST_JUDGED],
        "truth": cfg.truth,
        "primary": cfg.primary,
        "version": __version__,
    }
    return hash_json(described)[:16]


def _evaluate_arm(
    cfg: EvaluateConfig, name: str, arm: Arm, prompts: Path, out: Path, workers: Workers
) -> list[EvalRow]:
    seeds = cfg.sample.candidates
    drawn = cfg.sample.model_copy(
        update={
            "lora": arm.lora,
            "lora_strength": arm.strength,
            "model": arm.model or cfg.sample.model,
            "family": arm.family or cfg.sample.family,
            "candidates": seeds * arm.best_of,
        }
    )
    samples = sample.run(drawn, prompts, out / "samples" / name, workers=workers)
    scored = score.run(cfg.score, samples, out / "scores" / name, prompts=prompts, workers=workers)
    scores = {s.id: s for s in read_rows(scored, Score)}
    return [_row(name, arm, pool, scores) for pool in _pools(read_rows(samples, Candidate), seeds)]


def _pools(candidates: Sequence[Candidate], seeds: int) -> Iterator[list[Candidate]]:
    """The videos among which each (prompt, seed) chooses: the seed's own first, then every `seeds`-th after it."""
    by_prompt: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        by_prompt[candidate.prompt_id].append(candidate)
    for drawn in by_prompt.values():
        yield from (drawn[first::seeds] for first in range(seeds))


def _row(name: str, arm: Arm, pool: Sequence[Candidate], scores: Mapping[str, Score]) -> EvalRow:
    own, judged = pool[0], {c.id: scores[c.id] for c in pool if c.id in scores}
    assert own.seed is not None
    chosen = own.id if arm.best_of == 1 else best_id(arm.best_by, list(judged.values()))
    row = EvalRow(id=f"{name}/{own.id}", arm=name, prompt_id=own.prompt_id, seed=own.seed)
    if chosen is None:
        reason = f"none of its {arm.best_of} videos could be judged by {arm.best_by}"
        return row.model_copy(update={"status": "failed", "reason": reason})
    candidate = next(c for c in pool if c.id == chosen)
    # A candidate that failed was not scored; its own row says why.
    found = judged.get(chosen, candidate)
    return row.model_copy(
        update={
            "status": found.status,
            "reason": found.reason,
            "video": candidate.video and f"samples/{name}/{candidate.video}",
            "metrics": found.metrics if isinstance(found, Score) else {},
        }
    )


def _with_maker(arm: Arm) -> Arm:
    """What trained its LoRA, as far as the training beside it tells."""
    if arm.lora is None or arm.trained_by is not None:
        return arm
    # It loads what trains.
    from videogpa.stages.train import taught

    return arm.model_copy(update={"trained_by": taught(lora_folder(arm.lora)).preferred_by})


def _without_paths(cfg: EvaluateConfig) -> EvaluateConfig:
    """What lies on disk is compared by content, not by where it lies."""
    arms = {
        name: arm.model_copy(update={"lora": arm.lora and "given", "model": arm.model and "given"})
        for name, arm in cfg.arms.items()
    }
    drawn = cfg.sample.model_copy(update={"model": "given", "lora": None})
    return cfg.model_copy(update={"arms": arms, "sample": drawn})


def _inputs(cfg: EvaluateConfig, prompts: Path) -> dict[str, Path]:
    loras = {f"lora_{name}": lora_folder(arm.lora) for name, arm in cfg.arms.items() if arm.lora}
    models = {f"model_{name}": model_folder(arm.model) for name, arm in cfg.arms.items() if arm.model}
    return {"prompts": prompts, "model": model_folder(cfg.sample.model), **loras, **models}


def _recorded(evaluation: Path) -> tuple[EvaluateConfig, list[BetweenSeedsRow]]:
    """How a finished evaluation was made, and what the seeds of a prompt said together."""
    try:
        cfg = EvaluateConfig.model_validate(recorded(evaluation)["config"])
        lines = read_as_made(evaluation / BETWEEN).decode().splitlines()
        return cfg, [BetweenSeedsRow.model_validate_json(line) for line in lines]
    except (OSError, ValueError) as error:
        raise InputError(f"{evaluation} is no evaluation of this version: {error}; redo it") from error


def _with_external(own: str, outside: Mapping[str, Any]) -> str:
    """An evaluation's protocol, and after a + the names and directions of what others measured (8 hex digits)."""
    directions = {name: says["higher_is_better"] for name, says in outside.items()}
    return f"{own.partition('+')[0]}+{hash_json(directions)[:8]}"


def _require_different(asked: Sequence[Prompt], folder: Path) -> None:
    """Two that are the same are not two in any statistics."""
    known: dict[tuple[str, str | None], str] = {}
    for prompt in asked:
        image = prompt.image and (hash_as_made(folder / prompt.image) or prompt.image)
        first = known.setdefault((prompt.model_dump_json(exclude={"id", "image"}), image), prompt.id)
        if first != prompt.id:
            raise InputError(
                f"prompts '{first}' and '{prompt.id}' of {folder} are the same: keep one, and draw it with more "
                "seeds (--seeds)"
            )


def _check_arms(cfg: EvaluateConfig) -> None:
    score.check_needed(cfg.score)
    if cfg.sample.shared_noise:
        raise InputError(
            "an evaluation needs seeds that are independent: set shared_noise of its sample to 0"
        )
    for name in cfg.arms:
        if name in (BASE, TRUTH) or not re.fullmatch(ARM_NAME, name):
            raise InputError(
                f"an arm cannot be called '{name}': it names a folder, so up to 64 letters, digits and _.+@=- with a "
                f"letter, a digit or _ in front, and {BASE} and {TRUTH} are taken"
            )
    for name in {n for pair in cfg.compared for n in pair}:
        if name not in (BASE, *cfg.arms):
            raise InputError(f"cannot compare unknown arm '{name}'; arms are {', '.join((BASE, *cfg.arms))}")
    compared: set[frozenset[str]] = set()
    for arm, against in cfg.compared:
        if arm == against:
            raise InputError(f"cannot compare arm '{arm}' with itself")
        if {arm, against} in compared:
            # Tests are corrected for their number: one said twice would count against all others.
            raise InputError(f"'{arm}' and '{against}' are compared twice; once is enough, either way round")
        compared.add(frozenset((arm, against)))


def _check_judges(cfg: EvaluateConfig, worlds: Worlds) -> None:
    truth = any(worlds.values())
    # A window is no true continuation, and the errors of seeds together are of whole clips.
    cut = cfg.score.window is not None and cfg.score.window < cfg.sample.frames
    measured = score.measurable(cfg.score, truth=truth and not cut)
    for name, arm in cfg.arms.items():
        if arm.best_of > 1 and arm.best_by not in measured:
            raise InputError(
                f"arm '{name}' is selected by '{arm.best_by}', which is not among the metrics that can be measured "
                f"here: {', '.join(sorted(measured))}"
            )
    if cfg.sample.candidates > 1 and truth:
        measured |= BETWEEN_SEEDS.keys()
    judges = measured - set(GUARDED) - NEITHER
    if cfg.primary is not None and cfg.primary not in judges:
        raise InputError(
            f"the primary '{cfg.primary}' is not among the metrics that judge and can be measured here: "
            f"{', '.join(sorted(judges))}"
        )
    for name, made_by in ({} if cfg.allow_circular else circular(cfg)).items():
        if cfg.primary in made_by:
            raise InputError(
                f"the primary '{cfg.primary}' judges by what made arm '{name}': name another one, or allow it "
                "(--allow-circular)"
            )
        if not judges - set(made_by):
            raise InputError(
                f"arm '{name}' was trained or selected by {', '.join(made_by)} and nothing else would judge it: add "
                "other metrics, or allow it (--allow-circular)"
            )


def _kin(metric: str | None) -> set[str]:
    if metric is None:
        return set()
    return next((kin for kin in KIN if metric in kin), {metric})
