"""Measure videos: geometry once, if a metric needs it, then every metric; a failure is a row with a reason, never a
number.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from videogpa import __version__
from videogpa.artifact import hash_json, iter_rows, open_artifact, write_json_atomic
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows, steps
from videogpa.errors import CannotJudge, InputError, RowFailed
from videogpa.geometry.base import GeometryBackend, GeometryPrediction, save_prediction
from videogpa.metrics.base import Clip, measure_clip
from videogpa.plugin import available, load
from videogpa.stages.shards import Shard, merge, part_of
from videogpa.stages.windows import order, over_windows
from videogpa.tensors import Video
from videogpa.types import CONSISTENCY, Candidate, MetricValues, Prompt, Score, WindowScore
from videogpa.video_io import (
    Window,
    find_videos,
    read_video,
    read_windows,
    stored_frames,
    write_image,
)

REWARDS = {"paper": "paper_reward"}
"""Rewards that go by another name than their metric."""
GEOMETRY = "geometry"
LICENSES = "licenses.json"
"""Beside scores and pairs: the licence of every model whose weights made them."""
SMALLEST_SIDE = 16
FULL_SIZE_FRAMES = 49
"""Frames that `videogpa score --full-size` looks at by default: all of a clip as long as video models draw."""


class ScoreConfig(BaseModel):
    """How videos are measured. `metrics` None means all; oracle metrics apply only where a truth is known.

    `geometry` names the model for the metrics that need one; where none does, it is not even looked at.
    `geometry_options` go to it (`docs/geometry_models.md`). `accepted_licenses` are those of weights that are not
    free for every use, agreed to by whoever runs this.

    `full_size` computes `consistency` on every pixel of the frames looked at, instead of the reduced ones. `window`
    cuts clips longer than so many frames into windows that overlap by half, each with its own geometry and at most
    `max_frames` frames. Oracles do not look at clips that were cut.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    geometry: str = "sfm"
    geometry_options: dict[str, str | int | float | bool] = {}
    accepted_licenses: tuple[str, ...] = ()
    metrics: tuple[str, ...] | None = None
    max_frames: int = Field(default=10, ge=2)
    max_side: int | None = Field(default=640, ge=16)
    full_size: bool = False
    window: int | None = Field(default=None, ge=2)


@dataclass(frozen=True)
class ScoreJob:
    """One video to measure; `world` is the scene description of a procedural prompt."""

    id: str
    video: Path
    shown: str
    prompt_id: str | None = None
    world: dict[str, Any] | None = None


def check(cfg: ScoreConfig) -> dict[str, str]:
    """The licences of the geometry model's weights, by model, once all that the configuration names is there, whether
    or not a metric needs it.

    Raises:
        InputError: an unknown metric or geometry model, an option that it does not take, weights that are
            missing, a licence that nobody accepted, or settings that do not go together.
    """
    from videogpa.geometry.options import licenses
    from videogpa.licenses import require_accepted

    if CONSISTENCY not in metric_names(cfg) and cfg.full_size:
        raise InputError(f"full size is for {CONSISTENCY}, which is not among the metrics asked for")
    if cfg.full_size and cfg.window is not None:
        raise InputError("a clip is scored either at full size or in windows, not both")
    found = licenses(cfg.geometry, cfg.geometry_options)
    require_accepted(found, cfg.accepted_licenses)
    return found


def check_needed(cfg: ScoreConfig) -> dict[str, str]:
    """As `check`, but of the geometry model only where it is used; no licences where it is not.

    Raises:
        InputError: as `check`.
    """
    return check(cfg) if cfg.full_size or geometry_used(cfg) else {}


def geometry_used(cfg: ScoreConfig) -> str | None:
    """The geometry model; None where no metric that was asked for needs one.

    Raises:
        InputError: a name that no metric has.
    """
    needed = any(load("metrics", name).NEEDS - {"truth"} for name in metric_names(cfg))
    return cfg.geometry if needed else None


def metric_names(cfg: ScoreConfig) -> list[str]:
    """The metrics that the configuration asks for, by default all, the overall score first.

    Raises:
        InputError: a name that no metric has.
    """
    if cfg.metrics is None:
        return sorted(available("metrics"), key=lambda name: name != CONSISTENCY)
    for name in cfg.metrics:
        load("metrics", name)
    return list(cfg.metrics)


def measurable(cfg: ScoreConfig, *, truth: bool) -> set[str]:
    """The metrics asked for that can have a value: their geometry model gives what they need, or does not say what it
    gives, and `truth` says whether any video's true continuation is known.

    Raises:
        InputError: a name that no metric or geometry model has, or an option that the model does not take.
    """
    from videogpa.geometry.options import predicts

    used = geometry_used(cfg)
    said = predicts(used, cfg.geometry_options) if used else set()
    lacking = {"normals", "albedo"} - said if said is not None else set()
    if not truth:
        lacking.add("truth")
    return {name for name in metric_names(cfg) if load("metrics", name).NEEDS.isdisjoint(lacking)}


def protocol_hash(cfg: ScoreConfig) -> str:
    """Scores with the same hash were measured the same way and may be compared (first 16 hex digits).

    A geometry model that no metric needs is not part of it.
    """
    from videogpa.geometry.options import protocol
    from videogpa.metrics.perceptual import perceptual_name

    used, consents = geometry_used(cfg), {"geometry_options", "accepted_licenses"}
    described = {
        "config": cfg.model_dump(mode="json", exclude=consents) | {"geometry": used},
        "geometry": used and protocol(used, cfg.geometry_options),
        "metrics": {name: load("metrics", name).SOURCE for name in metric_names(cfg)},
        "perceptual": perceptual_name(),
        "version": __version__,
    }
    return hash_json(described)[:16]


def run(
    cfg: ScoreConfig,
    candidates: Path,
    out: Path,
    *,
    prompts: Path | None = None,
    workers: Workers = 1,
    overwrite: bool = False,
    shard: Shard | None = None,
) -> Path:
    """Score all candidates of a sample stage, or a part of them; `prompts` adds the oracle metrics where the world is
    known.

    The geometry of every clip, where a metric needs it, is kept beside its score (`geometry/<id>.safetensors`).

    Raises:
        InputError: as `check_needed`, or an input that is missing or incomplete.
    """
    from videogpa.geometry.options import weights

    licenses, used = check_needed(cfg), geometry_used(cfg)
    worlds = {p.id: p.world for p in iter_rows(prompts, Prompt)} if prompts else {}
    jobs = [
        ScoreJob(c.id, candidates / c.video, c.video, c.prompt_id, worlds.get(c.prompt_id))
        for c in iter_rows(candidates, Candidate)
        if c.status == "ok" and c.video is not None
    ]
    if prompts and (unknown := sorted({str(job.prompt_id) for job in jobs} - worlds.keys())):
        raise InputError(f"{prompts} has no prompt '{unknown[0]}', of which {candidates} has videos")
    inputs = {"candidates": candidates} | ({"prompts": prompts} if prompts else {})
    named = weights(used, cfg.geometry_options) if used else {}
    inputs |= {f"geometry_{option}": path for option, path in named.items()}
    jobs, out = part_of(shard, jobs, out)
    with open_artifact(
        out, stage="scores", config=cfg, inputs=inputs, row_type=Score, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        if shard is not None and shard.merges:
            merge(artifact, Score, shard.of)
        todo = [j for j in jobs if j.id not in artifact.done]
        for score in score_videos(cfg, todo, workers=workers, keep=out / GEOMETRY):
            artifact.append(score)
        write_json_atomic(out / LICENSES, licenses)
        good = [j.id for j in jobs if artifact.done[j.id].status == "ok"]
        kept = [name for id in good if (out / (name := f"{GEOMETRY}/{id}.safetensors")).is_file()]
        artifact.finish([j.id for j in jobs], [LICENSES, *kept])
    return out


def score_videos(
    cfg: ScoreConfig,
    jobs: Sequence[ScoreJob],
    *,
    workers: Workers,
    keep: Path | None = None,
    pictures: Path | None = None,
    exhibits: Path | None = None,
) -> Iterator[Score]:
    """Scores as they are done, in any order. `keep` is a folder for the geometry of every clip, `pictures`
    one for contact sheets that show where a video breaks, `exhibits` one for what the pages of a report show.

    Raises:
        InputError: as `check_needed`.
    """
    check_needed(cfg)
    make_worker = partial(_make_worker, cfg, keep, pictures, exhibits)
    for job, result in map_rows(make_worker, jobs, workers=workers, description="scoring"):
        if isinstance(result, RowFailed):
            yield Score(
                id=job.id, status="failed", reason=str(result), prompt_id=job.prompt_id, video=job.shown
            )
        else:
            yield result


def jobs_for_paths(paths: Sequence[Path]) -> list[ScoreJob]:
    """One job per video; folders stand for the videos directly inside them.

    Raises:
        InputError: a folder without videos. (A missing file is a failed row later: it must not stop the rest.)
    """
    videos = [v for path in paths for v in (find_videos(path) if path.is_dir() else [path])]
    return [ScoreJob(f"video{i:05d}", video, str(video)) for i, video in enumerate(videos)]


def scores_as_json(cfg: ScoreConfig, scores: Sequence[Score]) -> dict[str, Any]:
    """What `videogpa score --json` writes."""
    keys = ("status", "reason", "frames", "metrics", "shown")
    return {
        "geometry": geometry_used(cfg),
        "licenses": check_needed(cfg),
        "protocol": protocol_hash(cfg),
        "videos": [
            {"path": s.video}
            | {k: getattr(s, k) for k in keys}
            | {"windows": [window.model_dump() for window in s.windows]}
            for s in scores
        ],
    }


@dataclass(frozen=True, kw_only=True)
class _Look:
    """What was found in some frames. `reasons` are "name: why", of the geometry or of a metric."""

    window: Window
    geometry: GeometryPrediction | None
    values: MetricValues
    reasons: list[str]

    @property
    def reason(self) -> str | None:
        return "; ".join(self.reasons) or None


def _make_worker(
    cfg: ScoreConfig, keep: Path | None, pictures: Path | None, exhibits: Path | None
) -> Callable[[ScoreJob], Score]:
    from videogpa.contact_sheet import contact_sheet
    from videogpa.geometry.options import build
    from videogpa.report.exhibit import write_exhibit

    used = geometry_used(cfg)
    backend = build(used, cfg.geometry_options) if used else None
    metrics = {name: load("metrics", name) for name in metric_names(cfg)}

    def score(job: ScoreJob) -> Score:
        shown, parts = None, []
        for window in _windows(cfg, job.video):
            look = _look(cfg, backend, metrics, job, window)
            parts.append(_as_row(look))
            if shown is None or order(_as_row(look)) < order(_as_row(shown)):
                shown, shown_at = look, len(parts) - 1
        if shown is None:
            raise RowFailed("holds no frames")
        if keep is not None and shown.geometry is not None:
            save_prediction(keep / f"{job.id}.safetensors", shown.geometry)
        if pictures is not None:
            write_image(pictures / f"{job.id}.png", contact_sheet(shown.window.frames, shown.geometry))
        if exhibits is not None:
            write_exhibit(exhibits / job.id, shown.window.frames, shown.geometry)
        whole = Score(
            id=job.id,
            reason=shown.reason,
            prompt_id=job.prompt_id,
            video=job.shown,
            frames=len(shown.window.frames),
            metrics=shown.values,
            geometry=used,
        )
        if len(parts) == 1:
            return whole
        values, reasons = over_windows(parts)
        update = {
            "metrics": values,
            "reason": "; ".join(reasons) or None,
            "frames": parts[-1].first + parts[-1].frames,
            "windows": tuple(parts),
            "shown": shown_at,
        }
        return whole.model_copy(update=update)

    return score


def _windows(cfg: ScoreConfig, video: Path) -> Iterator[Window]:
    """The whole clip, or its windows one after the other."""
    try:
        if cfg.window is None:
            frames = read_video(video, max_frames=cfg.max_frames, max_side=cfg.max_side)
            yield Window(first=0, length=len(frames), whole=True, frames=frames)
        else:
            yield from read_windows(
                video, window=cfg.window, max_frames=cfg.max_frames, max_side=cfg.max_side
            )
    except InputError as error:
        raise RowFailed(str(error)) from error


def _look(
    cfg: ScoreConfig,
    backend: GeometryBackend | None,
    metrics: Mapping[str, Any],
    job: ScoreJob,
    window: Window,
) -> _Look:
    from videogpa.geometry.movers import with_movers

    frames = window.frames
    _require_video(frames)
    geometry, reasons = None, []
    if backend is not None:
        try:
            geometry = with_movers(backend.predict(frames))
        except CannotJudge as unknown:
            reasons.append(f"geometry: {unknown}")
    truth = None
    if job.world is not None and window.whole:
        from videogpa.world.truth import true_continuation

        truth = true_continuation(job.world, *(frames.shape[i] for i in (0, 2, 3)))
    clip = Clip(frames=frames, geometry=geometry, truth=truth)
    if cfg.full_size and CONSISTENCY in metrics:
        metrics = {**metrics, CONSISTENCY: _FullSize(job.video, cfg.max_frames)}
    values, unjudged = measure_clip(metrics, clip)
    return _Look(window=window, geometry=geometry, values=values, reasons=reasons + unjudged)


@dataclass(frozen=True)
class _FullSize:
    """`consistency` on every pixel of a video, in the place of the metric that sees the reduced frames."""

    video: Path
    max_frames: int
    NEEDS: frozenset[str] = frozenset({"geometry"})

    def measure(self, clip: Clip) -> float:
        from videogpa.metrics import full_size

        with stored_frames(self.video, max_frames=self.max_frames) as stored:
            return full_size.measure(
                clip, stored.read, track=partial(steps, description="frames at full size")
            )


def _as_row(look: _Look) -> WindowScore:
    return WindowScore(
        first=look.window.first, frames=look.window.length, metrics=look.values, reason=look.reason
    )


def _require_video(frames: Video) -> None:
    count, _, height, width = frames.shape
    if count < 2:
        raise RowFailed("has only 1 frame; at least 2 are needed")
    if min(height, width) < SMALLEST_SIDE:
        raise RowFailed(f"is {width}x{height} pixels; both sides must be at least {SMALLEST_SIDE}")


def judged_values(scores: Sequence[Score], metric: str) -> dict[str, float]:
    """Value by score id, of the scores that have one: a failure is never a number."""
    values = {s.id: s.metrics.get(metric) for s in scores if s.status == "ok"}
    return {row_id: value for row_id, value in values.items() if value is not None}


def higher_is_better(metric: str) -> bool:
    """The direction of a metric by name."""
    return load("metrics", metric).HIGHER_IS_BETTER


def reward_metric(reward: str) -> str:
    """The metric that a reward stands for: `consistency`, `paper`, `alignment`, or any metric by its own name.

    Raises:
        InputError: no metric of that name.
    """
    name = REWARDS.get(reward, reward)
    load("metrics", name)
    return name
