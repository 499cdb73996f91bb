"""What an evaluation needs the true continuations for: a ceiling, and what the seeds of a prompt say together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from videogpa.artifact import hash_as_made, open_artifact, read_rows
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import CannotJudge, RowFailed
from videogpa.metrics.between_seeds import BETWEEN_SEEDS
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate, MetricValues, Prompt, Row
from videogpa.video_io import read_video, write_master

Worlds = Mapping[str, dict[str, Any] | None]
"""Scene descriptions by prompt; None where there is no truth."""
BETWEEN = "between_seeds.jsonl"
"""Where an evaluation keeps what seeds say together."""
Together = tuple[str, tuple[str, ...]]
"""A prompt and the hashes of its videos: what is measured of all seeds together depends on nothing else."""


class BetweenSeedsRow(Row):
    """What the videos of one (arm, prompt) say together (`metrics.between_seeds`); `seeds` is how many they are."""

    arm: str
    prompt_id: str
    seeds: int
    metrics: MetricValues


def draw_truth(cfg: SampleConfig, prompts: Path, out: Path, *, workers: Workers = 1) -> Path:
    """Candidates that are the true continuations of the prompts that have one, as long and large as `cfg` draws."""
    like = _Size.model_validate(cfg, from_attributes=True)
    known = [p for p in read_rows(prompts, Prompt) if p.status == "ok" and p.world is not None]
    with open_artifact(
        out, stage="candidates", config=like, inputs={"prompts": prompts}, row_type=Candidate
    ) as artifact:
        if artifact.complete:
            return out
        todo = [p for p in known if p.id not in artifact.done]
        make_worker = partial(_make_renderer, like, out)
        for prompt, row in map_rows(make_worker, todo, workers=workers, description="true continuations"):
            artifact.append(_failed(prompt, row) if isinstance(row, RowFailed) else row)
        artifact.finish([p.id for p in known], [v for p in known if (v := artifact.done[p.id].video)])
    return out


def between_seeds(
    cfg: ScoreConfig,
    videos: Mapping[tuple[str, str], Sequence[Path]],
    worlds: Worlds,
    *,
    known: Mapping[Together, BetweenSeedsRow] = {},
    workers: Workers = 1,
) -> list[BetweenSeedsRow]:
    """A row for every (arm, prompt) of `videos` whose truth is known and that has at least two, in their order.

    `known` are rows of other arms or evaluations with the same scoring; the same videos are not measured again.
    """
    jobs = [
        _Job(arm=arm, prompt_id=prompt_id, world=world, videos=tuple(found))
        for (arm, prompt_id), found in videos.items()
        if len(found) > 1 and (world := worlds.get(prompt_id)) is not None
    ]
    found = {}
    for job in jobs if known else ():
        key = together(job.prompt_id, job.videos)
        if key is not None and key in known:
            update = known[key].model_dump(include={"metrics", "reason"})
            found[job] = job.row.model_copy(update=update)
    make_worker = partial(_make_measurer, cfg)
    # All arms of a prompt one after the other: their truth is rendered once.
    by_prompt = sorted((job for job in jobs if job not in found), key=lambda job: job.prompt_id)
    for job, measured in map_rows(make_worker, by_prompt, workers=workers, description="between seeds"):
        if isinstance(measured, RowFailed):
            found[job] = job.row.model_copy(update={"status": "failed", "reason": str(measured)})
        else:
            found[job] = measured
    return [found[job] for job in jobs]


def together(prompt_id: str, videos: Sequence[Path]) -> Together | None:
    """What the row of these videos is known by; None where one of them is no finished artifact's."""
    hashes = [hash for video in videos if (hash := hash_as_made(video)) is not None]
    return (prompt_id, tuple(hashes)) if len(hashes) == len(videos) else None


class _Size(BaseModel):
    frames: int
    height: int
    width: int
    fps: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """The videos of one arm and prompt."""

    arm: str
    prompt_id: str
    world: dict[str, Any]
    videos: tuple[Path, ...]

    @property
    def row(self) -> BetweenSeedsRow:
        """The job's row before anything is measured."""
        id = f"{self.arm}/{self.prompt_id}"
        return BetweenSeedsRow(
            id=id, arm=self.arm, prompt_id=self.prompt_id, seeds=len(self.videos), metrics={}
        )


def _make_renderer(like: _Size, out: Path) -> Callable[[Prompt], Candidate]:
    from videogpa.world.render import render
    from videogpa.world.scene import scene_from_spec

    def draw(prompt: Prompt) -> Candidate:
        assert prompt.world is not None
        video = f"videos/{prompt.id}.mkv"
        frames = render(scene_from_spec(prompt.world), like.frames, like.height, like.width).rgb
        write_master(out / video, frames, fps=like.fps)
        return Candidate(id=prompt.id, prompt_id=prompt.id, video=video)

    return draw


def _failed(prompt: Prompt, why: RowFailed) -> Candidate:
    return Candidate(id=prompt.id, prompt_id=prompt.id, status="failed", reason=str(why))


def _make_measurer(cfg: ScoreConfig) -> Callable[[_Job], BetweenSeedsRow]:
    from videogpa.world.truth import true_continuation

    def measure(job: _Job) -> BetweenSeedsRow:
        read = partial(read_video, max_frames=cfg.max_frames, max_side=cfg.max_side)
        videos = torch.stack([read(path) for path in job.videos])
        truth = true_continuation(job.world, *(videos.shape[i] for i in (1, 3, 4)))
        values: MetricValues = {}
        reasons = []
        for name, together in BETWEEN_SEEDS.items():
            try:
                values[name] = together.measure(videos, truth)
            except CannotJudge as unknown:
                values[name] = None
                reasons.append(f"{name}: {unknown}")
        return job.row.model_copy(update={"metrics": values, "reason": "; ".join(reasons) or None})

    return measure
