"""Judge metrics by clips whose faults are known, and by samples whose truth is known: `videogpa benchmark reward`."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from videogpa.artifact import open_artifact, read_rows, write_json_atomic
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import CannotJudge, InputError, RowFailed
from videogpa.fidelity.analysis import by_change, mean_ranks, verdict, within_prompt_spearman
from videogpa.fidelity.battery import Case, Split, cases, clean_clip, frames_of
from videogpa.fidelity.legitimate import specular
from videogpa.fidelity.tables import write_tables
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import compose
from videogpa.geometry.movers import with_movers
from videogpa.geometry.options import build
from videogpa.metrics.base import Clip, measure_clip
from videogpa.plugin import load
from videogpa.stages.score import ScoreConfig, check_needed, geometry_used, higher_is_better, metric_names
from videogpa.tensors import Video
from videogpa.types import Candidate, FidelityRow, MetricValues, Prompt
from videogpa.video_io import read_video
from videogpa.world.render import Render
from videogpa.world.truth import exact_geometry, true_continuation

EXACT = "exact"
GLOSS = (25, 50, 100)
"""Percent; the scene's surfaces reflect so much of the light as a highlight."""
WORLD_SCALE = 10.0
SUMMARY = "summary.json"
ORACLES = ("oracle_psnr", "oracle_ssim", "oracle_warp")
TOGETHER = "oracles together"
"""The mean rank by `ORACLES`. Each alone errs its own way (they agree with each other by a rank correlation of .54 to
.69); the flow oracle is left out, because it is as noisy as the optical flow that it is measured by.
"""


class FidelityConfig(BaseModel):
    """`scenes` scenes of a split, each clean, with every fault and change; how they are measured.

    The development split is for choosing and calibrating a metric, the held-out one for reporting it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: ScoreConfig = ScoreConfig(geometry="embedded")
    split: Split = "held_out"
    scenes: int = Field(default=24, ge=1, le=100_000)
    frames: int = Field(default=9, ge=3, le=1000)
    size: int = Field(default=48, ge=32, le=4096)


@dataclass(frozen=True)
class SampleGroup:
    """The samples of one prompt of the procedural world."""

    prompt_id: str
    world: dict[str, Any]
    videos: tuple[tuple[str, Path], ...]


def run(
    cfg: FidelityConfig,
    out: Path,
    *,
    samples: Path | None = None,
    prompts: Path | None = None,
    workers: Workers = 1,
    overwrite: bool = False,
) -> Path:
    """Measure everything, one row a clip, and write `summary.json`, tables (CSV) and a plot per metric.

    `samples` is a candidates folder drawn for `prompts` of the procedural world: with them, metrics are also ranked
    against oracles, once with the geometry model and once with the exact geometry.

    Raises:
        InputError: as `check_needed`, samples without their prompts, or scoring at full size or in windows.
    """
    if cfg.score.full_size or cfg.score.window is not None:
        raise InputError("the reward benchmark scores whole clips at reduced size: no full size, no windows")
    check_needed(cfg.score)
    groups = _groups(samples, prompts)
    inputs = {name: path for name, path in (("samples", samples), ("prompts", prompts)) if path is not None}
    with open_artifact(
        out, stage="fidelity", config=cfg, inputs=inputs, row_type=FidelityRow, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        jobs: list[int | SampleGroup] = [*range(cfg.scenes), *groups]
        todo = [job for job in jobs if _marker(job) not in artifact.done]
        for job, rows in map_rows(partial(_make_worker, cfg), todo, workers=workers, description="measuring"):
            if isinstance(rows, RowFailed):
                rows = [_failed(cfg, job, rows)]
            # The row that marks a job as done is appended with its others, in one write.
            artifact.append(*(r for r in rows if r.id not in artifact.done))
        measured = list(artifact.done.values())
        summary = summarize(cfg, measured)
        write_json_atomic(out / SUMMARY, summary)
        write_tables(out, summary)
        artifact.finish(sorted(r.id for r in measured))
    return out


def summarize(cfg: FidelityConfig, rows: Iterable[FidelityRow]) -> dict[str, Any]:
    """All figures by metric: `battery`, `changes`, `invariance`, `gloss`, `oracles`."""
    rows = list(rows)
    names = [n for n in metric_names(cfg.score) if "truth" not in load("metrics", n).NEEDS]
    return {name: _figures(name, rows) for name in names}


def _figures(name: str, rows: list[FidelityRow]) -> dict[str, Any]:
    sign = 1.0 if higher_is_better(name) else -1.0
    values = {r.id: sign * v for r in rows if (v := r.metrics.get(name)) is not None}
    battery = {_case(r): r for r in rows if r.kind in ("clean", "fault", "degradation", "legitimate")}
    scores = {case: values[r.id] for case, r in battery.items() if r.id in values}
    clean = {c.scene: v for c, v in scores.items() if c.id.endswith("/clean/0")}
    return {
        "battery": asdict(verdict(scores, list(battery))),
        "changes": [asdict(row) for row in by_change(scores, list(battery))],
        "invariance": _shifts([r for r in rows if r.kind == "invariance"], values, clean),
        "gloss": _shifts([r for r in rows if r.kind == "gloss"], values, clean),
        "oracles": _oracles([r for r in rows if r.kind == "sample"], values),
    }


def _shifts(
    rows: list[FidelityRow], values: Mapping[str, float], clean: Mapping[int, float]
) -> list[dict[str, Any]]:
    """How far the clean clips' scores move under a change that should not move them."""
    moved = defaultdict(list)
    for row in rows:
        if row.id in values and row.scene is not None and row.scene in clean:
            moved[row.change, row.strength, row.geometry].append(values[row.id] - clean[row.scene])
    return [
        {
            "change": change,
            "strength": strength,
            "geometry": geometry,
            "median_shift": median(shifts),
            "median_distance": median(abs(s) for s in shifts),
            "largest_distance": max(abs(s) for s in shifts),
            "clips": len(shifts),
        }
        for (change, strength, geometry), shifts in moved.items()
    ]


def _oracles(rows: list[FidelityRow], values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Within-prompt rank correlation with every oracle, by the geometry that the metric was measured with."""
    truths = {r.change: r.metrics for r in rows if r.geometry != EXACT}
    oracles = [n for n in next(iter(truths.values()), {}) if "truth" in load("metrics", n).NEEDS]
    together = all(name in oracles for name in ORACLES)
    found = []
    for geometry in dict.fromkeys(r.geometry for r in rows):
        groups = defaultdict(list)
        for row in rows:
            if row.geometry == geometry and row.change in truths:
                groups[row.prompt_id].append(row)
        for name in [*([TOGETHER] if together else []), *oracles]:
            pairs = [
                list(zip([values.get(r.id) for r in group], _true_order(group, truths, name), strict=True))
                for group in groups.values()
            ]
            mean, error, count = within_prompt_spearman(pairs)
            if count:
                found.append(
                    {
                        "oracle": name,
                        "geometry": geometry,
                        "spearman": mean,
                        "standard_error": error,
                        "prompts": count,
                    }
                )
    return found


def _true_order(
    group: Sequence[FidelityRow], truths: Mapping[str, MetricValues], oracle: str
) -> list[float | None]:
    """What an oracle says about the samples of one prompt, higher being better; `TOGETHER` by their mean rank."""
    if oracle == TOGETHER:
        return mean_ranks([_true_order(group, truths, name) for name in ORACLES])
    sign = 1.0 if higher_is_better(oracle) else -1.0
    values = [truths[row.change].get(oracle) for row in group]
    return [None if value is None else sign * value for value in values]


def _make_worker(cfg: FidelityConfig) -> Callable[[int | SampleGroup], list[FidelityRow]]:
    used = geometry_used(cfg.score)
    backend = build(used, cfg.score.geometry_options) if used else None
    names = metric_names(cfg.score)
    metrics = {name: load("metrics", name) for name in names}
    untrue = {name: m for name, m in metrics.items() if "truth" not in m.NEEDS}

    def geometry_of(frames: Video) -> tuple[GeometryPrediction | None, str | None]:
        try:
            return (with_movers(backend.predict(frames)) if backend else None), None
        except CannotJudge as unknown:
            return None, f"geometry: {unknown}"

    def measured(
        frames: Video, prediction: GeometryPrediction | None, why: str | None, **row: Any
    ) -> FidelityRow:
        values, reasons = measure_clip(untrue, Clip(frames=frames, geometry=prediction))
        reason = "; ".join([why, *reasons] if why else reasons) or None
        return FidelityRow(metrics=values, reason=reason, **row)

    def scene_rows(number: int) -> Iterable[FidelityRow]:
        clean = clean_clip(cfg.split, number, cfg.frames, cfg.size, cfg.size)
        own = cfg.score.geometry
        for case in cases(number):
            frames = frames_of(case, clean)
            row: dict[str, Any] = {
                "kind": case.kind,
                "change": case.change,
                "strength": case.strength,
                "geometry": own,
            }
            yield measured(frames, *geometry_of(frames), id=case.id, scene=number, **row)
        for change, strength, frames in _variants(cfg, number):
            row = {"id": f"s{number:03d}/{change}/{strength}", "change": change, "strength": strength}
            yield measured(frames, *geometry_of(frames), kind="invariance", scene=number, geometry=own, **row)
        prediction, why = geometry_of(clean.rgb)
        moved = None if prediction is None else _elsewhere(prediction)
        row = {"id": f"s{number:03d}/world/1", "kind": "invariance", "change": "world", "strength": 1}
        yield measured(clean.rgb, moved, why, scene=number, geometry=own, **row)
        yield from gloss_rows(number, clean)

    def gloss_rows(number: int, clean: Render) -> Iterable[FidelityRow]:
        for percent in (0, *GLOSS):
            frames = specular(clean, percent / 100)
            row: dict[str, Any] = {"kind": "gloss", "change": "gloss", "strength": percent, "scene": number}
            name = f"s{number:03d}/gloss/{percent}"
            if percent:
                yield measured(frames, *geometry_of(frames), id=name, geometry=cfg.score.geometry, **row)
            exact = exact_geometry(clean, frames)
            yield measured(frames, exact, None, id=f"{name}/{EXACT}", geometry=EXACT, **row)

    def sample_rows(group: SampleGroup) -> Iterable[FidelityRow]:
        for name, path in group.videos:
            frames = read_video(path)
            truth = true_continuation(group.world, len(frames), *frames.shape[-2:])
            geometry, why = geometry_of(frames)
            values, reasons = measure_clip(metrics, Clip(frames=frames, geometry=geometry, truth=truth))
            row: dict[str, Any] = {"kind": "sample", "change": name, "prompt_id": group.prompt_id}
            reason = "; ".join([why, *reasons] if why else reasons) or None
            yield FidelityRow(
                id=f"{group.prompt_id}/{name}",
                geometry=cfg.score.geometry,
                metrics=values,
                reason=reason,
                **row,
            )
            exact = replace(truth.geometry, images=frames)
            yield measured(frames, exact, None, id=f"{group.prompt_id}/{name}/{EXACT}", geometry=EXACT, **row)

    @torch.inference_mode()
    def work(job: int | SampleGroup) -> list[FidelityRow]:
        return list(scene_rows(job) if isinstance(job, int) else sample_rows(job))

    return work


def _variants(cfg: FidelityConfig, number: int) -> Iterable[tuple[str, int, Video]]:
    """The clean clip of a scene with other numbers of frames and other sizes."""
    for frames in ((cfg.frames + 1) // 2, 2 * cfg.frames - 1):
        yield "frames", frames, clean_clip(cfg.split, number, frames, cfg.size, cfg.size).rgb
    for size in (cfg.size * 2 // 3, cfg.size * 4 // 3, cfg.size * 2):
        yield "size", size, clean_clip(cfg.split, number, cfg.frames, size, size).rgb


def _elsewhere(prediction: GeometryPrediction) -> GeometryPrediction:
    """The same geometry in a world ten times as large, with another origin and orientation."""
    turn = torch.tensor([[0.0, 0, 1, 5], [1, 0, 0, -3], [0, 1, 0, 2]]).expand(len(prediction.depth), 3, 4)
    poses = compose(prediction.extrinsics_w2c, turn)
    return replace(
        prediction,
        depth=prediction.depth * WORLD_SCALE,
        extrinsics_w2c=torch.cat([poses[..., :3], poses[..., 3:] * WORLD_SCALE], -1),
    )


def _groups(samples: Path | None, prompts: Path | None) -> list[SampleGroup]:
    if samples is None:
        if prompts is not None:
            raise InputError(f"prompts {prompts} are those of samples: give both, or neither (--samples)")
        return []
    if prompts is None:
        raise InputError(f"samples {samples} need the prompts that they were drawn for (--prompts)")
    worlds = {p.id: p.world for p in read_rows(prompts, Prompt)}
    videos = defaultdict(list)
    for row in read_rows(samples, Candidate):
        if row.video is not None:
            videos[row.prompt_id].append((row.id, samples / row.video))
    found = []
    for prompt_id, paths in videos.items():
        world = worlds.get(prompt_id)
        if world is None:
            raise InputError(
                f"prompt {prompt_id} in {prompts} has no known truth: use `videogpa prompts world`"
            )
        found.append(SampleGroup(prompt_id, world, tuple(paths)))
    return found


def _failed(cfg: FidelityConfig, job: int | SampleGroup, why: RowFailed) -> FidelityRow:
    """Stands for all clips of a scene, or all samples of a prompt, that could not be measured."""
    row: dict[str, Any] = {"id": _marker(job), "status": "failed", "reason": str(why), "geometry": EXACT}
    if isinstance(job, int):
        return FidelityRow(kind="gloss", change="gloss", strength=GLOSS[-1], scene=job, **row)
    return FidelityRow(kind="sample", change=job.videos[-1][0], prompt_id=job.prompt_id, **row)


def _case(row: FidelityRow) -> Case:
    assert row.scene is not None
    return Case(row.scene, row.kind, row.change, row.strength)  # type: ignore[arg-type]


def _marker(job: int | SampleGroup) -> str:
    """The id of the last row of a job."""
    if isinstance(job, int):
        return f"s{job:03d}/gloss/{GLOSS[-1]}/{EXACT}"
    return f"{job.prompt_id}/{job.videos[-1][0]}/{EXACT}"
