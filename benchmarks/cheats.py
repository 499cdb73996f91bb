"""Edits that make videos no truer: what gains by them is no evidence, so they are controls.

An edit takes the videos of one prompt, one a seed, and returns as many; `measure_filtered` is an arm of edited ones.
"""

from collections import defaultdict
from pathlib import Path

import torch
from pydantic import BaseModel

from videogpa.artifact import open_artifact, read_rows
from videogpa.engines.base import Workers
from videogpa.metrics.between_seeds import Videos
from videogpa.stages import score
from videogpa.stages.against_truth import between_seeds
from videogpa.stages.comparison import Values, by_arm
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate, EvalRow, Prompt, Score
from videogpa.video_io import frame_rate, read_video, write_master
from videogpa.world import faults


def shrunk(videos: Videos) -> Videos:
    """Half way to the mean over seeds."""
    return (videos + videos.mean(0)) / 2


def blurred(videos: Videos) -> Videos:
    """By .6 pixels; the first frame is given and stays, as in all that follows."""
    return _after_first(videos, _soft(videos))


def lightly_blurred(videos: Videos) -> Videos:
    """By .3 pixels, a hundredth of the sharpness."""
    return _after_first(videos, _soft(videos, 0.3))


def sharpened(videos: Videos) -> Videos:
    """A tenth of what blur would take away, added."""
    return _after_first(videos, (1.1 * videos - 0.1 * _soft(videos)).clamp(0, 1))


def stretched(videos: Videos) -> Videos:
    """4 % more contrast about every frame's mean."""
    mean = videos.mean((-1, -2), keepdim=True)
    return _after_first(videos, (mean + 1.04 * (videos - mean)).clamp(0, 1))


def smoothed(videos: Videos) -> Videos:
    """A fifth of every frame taken from the frames before and after."""
    around = (videos.roll(1, 1) + videos.roll(-1, 1)) / 2
    around[:, -1] = videos[:, -2]
    return _after_first(videos, 0.8 * videos + 0.2 * around)


def filtered(videos: Videos) -> Videos:
    """Smoothed and stretched: together they hide from each other's guards."""
    return stretched(smoothed(videos))


def _soft(videos: Videos, pixels: float = 0.6) -> Videos:
    return faults.blurred(videos.flatten(0, 1), pixels).unflatten(0, (len(videos), -1))


def _after_first(videos: Videos, changed: Videos) -> Videos:
    return torch.cat([videos[:, :1], changed[:, 1:]], 1)


def slowed(videos: Videos) -> Videos:
    """A tenth slower: frames blended from their neighbours, so a little softer, too."""
    when = 0.9 * torch.arange(videos.shape[1])
    before = when.floor().long()
    share = (when - before).view(1, -1, 1, 1, 1)
    after = (before + 1).clamp(max=videos.shape[1] - 1)
    return (1 - share) * videos[:, before] + share * videos[:, after]


def frozen(videos: Videos) -> Videos:
    """The last third stands still."""
    kept = videos.shape[1] - videos.shape[1] // 3
    return videos[:, torch.arange(videos.shape[1]).clamp(max=kept - 1)]


EDITS = {
    "shrunk": shrunk, "blurred": blurred, "lightly_blurred": lightly_blurred, "sharpened": sharpened,
    "stretched": stretched, "smoothed": smoothed, "slowed": slowed, "frozen": frozen,
}  # fmt: skip


FILTERED = "filtered"


class Filters(BaseModel):
    """What was done to the videos of a folder."""

    edit: str = FILTERED


def measure_filtered(
    drawn: Path, asked: Path, judge: ScoreConfig, out: Path, *, workers: Workers = 1
) -> Values:
    """What an evaluation would measure of the videos in `drawn`, an arm's, were they filtered."""
    folder = _filter_all(drawn, out / "candidates")
    scored = score.run(judge, folder, out / "scores", prompts=asked, workers=workers)
    metrics = {row.id: row.metrics for row in read_rows(scored, Score)}
    videos = [row for row in read_rows(folder, Candidate) if row.seed is not None and row.video is not None]
    rows = [
        EvalRow(id=v.id, arm=FILTERED, prompt_id=v.prompt_id, seed=v.seed, metrics=metrics[v.id])
        for v in videos
    ]
    of_prompt = defaultdict(list)
    for video in videos:
        of_prompt[FILTERED, video.prompt_id].append(folder / video.video)
    worlds = {prompt.id: prompt.world for prompt in read_rows(asked, Prompt)}
    return by_arm(rows, between_seeds(judge, of_prompt, worlds, workers=workers), ())[FILTERED]


def _filter_all(drawn: Path, out: Path) -> Path:
    inputs = {"candidates": drawn}
    with open_artifact(
        out, stage="candidates", config=Filters(), inputs=inputs, row_type=Candidate
    ) as artifact:
        if artifact.complete:
            return out
        rows = [row for row in read_rows(drawn, Candidate) if row.video is not None]
        for row in rows:
            if row.id not in artifact.done:
                source = drawn / row.video
                edited = filtered(read_video(source)[None])[0]
                write_master(out / row.video, edited, fps=frame_rate(source))
                artifact.append(Candidate(id=row.id, prompt_id=row.prompt_id, seed=row.seed, video=row.video))
        artifact.finish([row.id for row in rows], [str(row.video) for row in rows])
    return out
