"""A study's folder from an evaluation's videos: pairs, attention checks, and copies that do not tell whose they are.

All copies have opaque names, the same encoder settings, the same length in bytes and the same time stamp.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from videogpa.artifact import ROWS, atomic_path, hash_file, open_artifact, read_rows
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import InputError, RowFailed
from videogpa.stages.comparison import BASE
from videogpa.study.plan import StudyConfig, StudyItem
from videogpa.study.votes import SQLITE
from videogpa.types import EvalRow, Prompt
from videogpa.video_io import frame_rate, read_video, write_preview
from videogpa.world.faults import jittered

BROKEN = "(broken)"
"""In the place of an arm, whose name this cannot be: a check's worse video, the better one with every frame bent by
itself."""
CHECK_CLIPS = 4
"""Checks that are made for each that a rater sees."""
CHECK_STRENGTH = 8.0
"""Of that bending, in per cent of the longer side; the battery's strongest has 4."""
SHOWN_ROWS = "evaluation_rows"
"""Of the recorded inputs the one that stays the same when an evaluation gets metrics from outside."""
CRF = 12
BOX_HEADER = 8


def create(
    cfg: StudyConfig,
    evaluation: Path,
    prompts: Path,
    out: Path,
    *,
    workers: Workers = 1,
    overwrite: bool = False,
) -> Path:
    """Write the items and their videos; all of the study but the votes. Returns the folder.

    Raises:
        InputError: an unknown arm, votes in a folder that is to be overwritten, prompts that are not the evaluation's,
            too few different pairs or too few of the base's videos (for checks) for one rater, or a video that cannot
            be read.
    """
    if overwrite and (out / SQLITE).exists():
        raise InputError(f"{out / SQLITE} holds votes: move it away before the study is made anew")
    rows = [row for row in read_rows(evaluation, EvalRow) if row.status == "ok"]
    texts = {prompt.id: prompt.text for prompt in read_rows(prompts, Prompt)}
    if unknown := sorted({row.prompt_id for row in rows} - texts.keys()):
        raise InputError(f"{prompts} has no prompt '{unknown[0]}', of which {evaluation} has videos")
    pairs = _pairs(cfg, rows, texts, evaluation)
    items = [*pairs, *_checks(cfg, rows, texts, {item.prompt_id for item in pairs})]
    stored = {(row.arm, row.prompt_id, row.seed): str(row.video) for row in rows}
    inputs = {"evaluation": evaluation, SHOWN_ROWS: evaluation / ROWS, "prompts": prompts}
    with open_artifact(
        out, stage="study", config=cfg, inputs=inputs, row_type=StudyItem, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        clips = {clip.name: clip for item in items for clip in _clips(item, stored)}
        make_worker = partial(_make_writer, evaluation, out)
        for _, failed in map_rows(make_worker, list(clips.values()), workers=workers, description="videos"):
            if isinstance(failed, RowFailed):
                raise InputError(f"the study's videos cannot be made: {failed}")
        make_alike([out / name for name in clips])
        artifact.append(*(item for item in items if item.id not in artifact.done))
        artifact.finish([item.id for item in items], sorted(clips))
    return out


def make_alike(videos: Sequence[Path]) -> None:
    """Fill MP4 files up to the length of the longest, and give them all the same time stamp.

    The filling is a box that players skip (`free`, ISO/IEC 14496-12, section 8.1.2).
    """
    longest = max(path.stat().st_size for path in videos) + BOX_HEADER
    for path in videos:
        if room := longest - path.stat().st_size:
            whole = path.read_bytes() + room.to_bytes(4, "big") + b"free" + bytes(room - BOX_HEADER)
            with atomic_path(path) as temporary:
                temporary.write_bytes(whole)
        os.utime(path, (0, 0))


def _pairs(
    cfg: StudyConfig, rows: Sequence[EvalRow], texts: Mapping[str, str], evaluation: Path
) -> list[StudyItem]:
    arms = list(dict.fromkeys(row.arm for row in rows))
    compared = cfg.comparisons or tuple((arm, BASE) for arm in arms if arm != BASE)
    for arm in {name for sides in compared for name in sides}:
        if arm not in arms:
            raise InputError(f"the evaluation has no arm '{arm}'; it has {', '.join(arms)}")
    asked = list(dict.fromkeys(row.prompt_id for row in rows))[: cfg.prompts]
    wanted = [row for row in rows if row.prompt_id in asked and any(row.arm in sides for sides in compared)]
    # Best-of-N may have kept the very video that the base drew: nothing to compare.
    content = {(row.arm, row.prompt_id, row.seed): _content(evaluation, row) for row in wanted}
    seeds = {id: list(dict.fromkeys(row.seed for row in wanted if row.prompt_id == id)) for id in asked}
    shown = [
        (sides, id, seed)
        for sides in compared
        for id in asked
        for seed in seeds[id]
        if len({content.get((arm, id, seed)) for arm in sides} - {None}) == len(sides)
    ]
    if len(shown) < cfg.items:
        raise InputError(
            f"{len(shown)} different pairs are too few for raters who see {cfg.items}: show fewer (--items)"
        )
    return [
        StudyItem(
            id=f"pair{number:05d}", kind="pair", prompt_id=id, text=texts[id], seed=seed, arms=sides,
            videos=(_name(cfg, sides[0], id, seed), _name(cfg, sides[1], id, seed)),
        )
        for number, (sides, id, seed) in enumerate(shown)
    ]  # fmt: skip


def _content(evaluation: Path, row: EvalRow) -> str:
    source = evaluation / str(row.video)
    if not source.is_file():
        raise InputError(f"{source} is missing")
    return hash_file(source)


def _checks(
    cfg: StudyConfig, rows: Sequence[EvalRow], texts: Mapping[str, str], asked: Collection[str]
) -> list[StudyItem]:
    intact = [row for row in rows if row.arm == BASE and row.prompt_id in asked]
    if len(intact) < cfg.checks:
        raise InputError(
            f"{cfg.checks} attention checks are made of as many of the base's videos, of which there are "
            f"{len(intact)}: show fewer (--checks)"
        )
    order = np.random.default_rng([cfg.seed, 2]).permutation(len(intact))
    return [
        StudyItem(
            id=f"check{number:05d}", kind="check", prompt_id=row.prompt_id, text=texts[row.prompt_id],
            seed=row.seed, arms=(BASE, BROKEN), expected="first",
            videos=(_name(cfg, BASE, row.prompt_id, row.seed), _name(cfg, BROKEN, row.prompt_id, row.seed)),
        )
        for number, row in enumerate(intact[i] for i in order[: CHECK_CLIPS * cfg.checks])
    ]  # fmt: skip


def _name(cfg: StudyConfig, arm: str, prompt_id: str, seed: int) -> str:
    told = hashlib.sha256(f"{cfg.seed}:{arm}:{prompt_id}:{seed}".encode()).hexdigest()
    return f"videos/{told[:24]}.mp4"


@dataclass(frozen=True, kw_only=True)
class _Clip:
    """One video of the study and what it is made from."""

    name: str
    source: str
    broken: bool


def _clips(item: StudyItem, stored: Mapping[tuple[str, str, int], str]) -> Iterator[_Clip]:
    for arm, name in zip(item.arms, item.videos, strict=True):
        source = stored[BASE if arm == BROKEN else arm, item.prompt_id, item.seed]
        yield _Clip(name=name, source=source, broken=arm == BROKEN)


def _make_writer(evaluation: Path, out: Path) -> Callable[[_Clip], None]:
    def write(clip: _Clip) -> None:
        source = evaluation / clip.source
        try:
            frames, fps = read_video(source), frame_rate(source)
        except InputError as error:
            raise RowFailed(str(error)) from error
        if clip.broken:
            own = np.frombuffer(hashlib.sha256(clip.name.encode()).digest(), np.uint32)
            frames = jittered(frames, CHECK_STRENGTH, np.random.default_rng(own))
        write_preview(out / clip.name, frames, fps=fps, crf=CRF)

    return write
