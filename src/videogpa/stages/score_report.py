"""Score videos and show why: the pages of `videogpa score --report`."""

from collections.abc import Sequence
from pathlib import Path

from videogpa.artifact import library_versions, write_json_atomic
from videogpa.engines.base import Workers
from videogpa.plugin import load
from videogpa.report.page import replacing
from videogpa.report.score_page import SCORES, VIDEOS, Measurement, write_pages
from videogpa.report.table import metric_facts
from videogpa.stages.score import (
    ScoreConfig,
    ScoreJob,
    geometry_used,
    metric_names,
    protocol_hash,
    score_videos,
    scores_as_json,
)
from videogpa.types import Score


def run(
    cfg: ScoreConfig, jobs: Sequence[ScoreJob], out: Path, *, workers: Workers, pictures: Path | None = None
) -> list[Score]:
    """Score all jobs and write their pages into `out`, which is replaced in one step; returns the scores in the
    order of the jobs. `pictures` is a folder for contact sheets.

    Raises:
        InputError: an unknown geometry model or metric, or `out` holds something that is not a report.
    """
    with replacing(out) as page:
        rows = score_videos(cfg, jobs, workers=workers, pictures=pictures, exhibits=page / VIDEOS)
        found = {row.id: row for row in rows}
        scores = [found[job.id] for job in jobs]
        write_json_atomic(page / SCORES, scores_as_json(cfg, scores))
        write_pages(page, scores, measurement(cfg))
    return scores


def measurement(cfg: ScoreConfig) -> Measurement:
    """What the pages say about how the scores came about; metrics that need a known truth have no place on them."""
    facts = {
        name: metric_facts(name) for name in metric_names(cfg) if "truth" not in load("metrics", name).NEEDS
    }
    return Measurement(
        geometry=geometry_used(cfg),
        protocol=protocol_hash(cfg),
        versions=library_versions(),
        config=cfg.model_dump_json(indent=2),
        facts=facts,
    )
