"""The pages of `videogpa score --report`: a list of all videos, and for each one what it was judged by."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogpa.report.exhibit import CLOUD, ERRORS, PANELS, PICTURE, Exhibit, read_exhibit
from videogpa.report.figures import camera_path, frame_errors
from videogpa.report.findings import number
from videogpa.report.page import PAGE, render
from videogpa.report.table import MetricFacts
from videogpa.types import CONSISTENCY, Score

VIDEOS, SCORES = "videos", "scores.json"
PLACES = 4


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """How the scores came about. `facts` describes every metric of the pages, in their order; `geometry` is None where
    none of the metrics needed one.
    """

    geometry: str | None
    protocol: str
    versions: dict[str, str]
    config: str
    facts: dict[str, MetricFacts]


@dataclass(frozen=True, kw_only=True)
class ShownVideo:
    """A scored video, what is shown of it, and the folder of its page, relative to the list."""

    score: Score
    exhibit: Exhibit
    folder: str

    @property
    def name(self) -> str:
        """The name of its file."""
        return Path(self.score.video).name


def exhibit_folder(page: Path, id: str) -> Path:
    """Where the exhibit and the page of one video are."""
    return page / VIDEOS / id


def write_pages(page: Path, scores: Sequence[Score], about: Measurement) -> None:
    """Write the list and the page of every video that did not fail; their exhibits are there already."""
    videos = ranked(
        [
            ShownVideo(score=s, exhibit=read_exhibit(exhibit_folder(page, s.id)), folder=f"{VIDEOS}/{s.id}")
            for s in scores
            if s.status == "ok"
        ]
    )
    shared = {
        "about": about,
        "files": {"page": PAGE, "picture": PICTURE, "errors": ERRORS, "cloud": CLOUD, "scores": SCORES},
    }
    failed = [s for s in scores if s.status == "failed"]
    context = {
        "headline": list_headline(videos, failed),
        "ranked": CONSISTENCY in about.facts,
        "videos": videos,
        "failed": failed,
    }
    (page / PAGE).write_text(render("score_index.html", shared | context), encoding="utf-8")
    for i, video in enumerate(videos):
        neighbours = {
            "before": videos[i - 1] if i else None,
            "after": videos[i + 1] if i + 1 < len(videos) else None,
        }
        context = _video_context(video, i + 1, videos, about) | neighbours
        path = page / video.folder / PAGE
        path.write_text(render("score_video.html", shared | context), encoding="utf-8")


def ranked(videos: Sequence[ShownVideo]) -> list[ShownVideo]:
    """The most consistent first; those without a value last, and all where nobody asked for it, in the order given."""
    return sorted(videos, key=lambda v: -value if (value := _overall(v)) is not None else float("inf"))


def list_headline(videos: Sequence[ShownVideo], failed: Sequence[Score]) -> str:
    """The list in one sentence."""
    values = [value for v in videos if (value := _overall(v)) is not None]
    count = len(videos) + len(failed)
    unjudged = sum(CONSISTENCY in v.score.metrics for v in videos) - len(values)
    parts = []
    if values:
        low, high = number(min(values), 2), number(max(values), 2)
        spread = f"consistency {high}" if len(values) == 1 else f"consistency from {low} to {high}"
        parts.append(spread)
    if unjudged:
        parts.append(f"{unjudged} cannot be judged")
    if failed:
        parts.append(f"{len(failed)} failed")
    return f"{count} video{'' if count == 1 else 's'}" + (f": {', '.join(parts)}" if parts else "")


def video_headline(video: ShownVideo, rank: int, judged: int) -> str:
    """The score of one video in one sentence; `rank` is its place among the `judged` ones."""
    value = _overall(video)
    if CONSISTENCY not in video.score.metrics:
        return video.name
    if value is None:
        return f"{video.name} cannot be judged"
    return f"Consistency {number(value, 2)}" + (f": place {rank} of {judged}" if judged > 1 else "")


def metric_reasons(score: Score, facts: Mapping[str, MetricFacts]) -> dict[str, str]:
    """Why each metric without a value has none: its own reason, or that of the geometry it needs."""
    found = dict(_reasons(score.reason or "", ["geometry", *(f.name for f in facts.values())]))
    without = {name: f.name for name, f in facts.items() if score.metrics[name] is None}
    return {
        shown: found.get(metric) or found.get("geometry") or "needs what is not known of this video"
        for shown, metric in without.items()
    }


def _reasons(text: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """The parts of a row's reason, "name: why; name: why"."""
    start = "|".join(map(re.escape, names))
    parts = re.split(rf"(?:^|; )({start}): ", text)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def _video_context(
    video: ShownVideo, rank: int, videos: Sequence[ShownVideo], about: Measurement
) -> dict[str, Any]:
    exhibit, windows = video.exhibit, video.score.windows
    return {
        "video": video,
        "shown_window": None if video.score.shown is None else windows[video.score.shown],
        "judged_windows": sum(w.metrics.get(CONSISTENCY) is not None for w in windows),
        "headline": video_headline(video, rank, sum(_overall(v) is not None for v in videos)),
        "up": "../../",
        "panels": PANELS,
        "figures": _figures(exhibit) if exhibit.centers else None,
        "reasons": metric_reasons(video.score, about.facts),
    }


def _figures(exhibit: Exhibit) -> dict[str, str]:
    return {"errors": frame_errors(exhibit.errors), "path": camera_path(exhibit.centers, exhibit.forward)}


def _overall(video: ShownVideo) -> float | None:
    return video.score.metrics.get(CONSISTENCY)
