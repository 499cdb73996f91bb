"""Pages to browse: many clips, two at a time, one over the other, with filters; videos small enough for the web."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat

from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import RowFailed
from videogpa.report.page import render
from videogpa.video_io import frame_rate, read_video, write_preview

LARGEST_SIDE = 480
CRF = 26
CLIPS = "clips"


class Browsed(BaseModel):
    """A clip of an entry; `video` is relative to the page. `value` is what the page's metric says of it."""

    model_config = ConfigDict(frozen=True)

    label: str
    video: str
    value: FiniteFloat | None = None


class Entry(BaseModel):
    """Clips that belong together, and the number that entries are ranked by (None is ranked last)."""

    model_config = ConfigDict(frozen=True)

    text: str
    note: str
    number: FiniteFloat | None
    clips: list[Browsed]


class Collection(BaseModel):
    """A page of entries. `left` and `right` are the labels of the clips that are shown first.

    title: the headline; about: what is shown, in a sentence or two; number: what entries are ranked by.
    """

    model_config = ConfigDict(frozen=True)

    title: str
    about: str
    number: str
    left: str
    right: str
    entries: list[Entry]


def write_collection(page: Path, name: str, collection: Collection, context: dict[str, Any]) -> None:
    """Write `<name>.html` beside the report's page; `context` is what the layout needs (the run's name)."""
    labels = list(dict.fromkeys(clip.label for entry in collection.entries for clip in entry.clips))
    told = {
        "collection": collection,
        "labels": labels,
        "data": collection.model_dump_json().replace("<", "\\u003c"),
    }
    (page / name).write_text(render("browse.html", context | told), encoding="utf-8")


def encode(masters: Sequence[tuple[Path, str]], page: Path, *, workers: Workers) -> None:
    """Small MP4 copies, each of a master and where it goes, relative to the page.

    Raises:
        RowFailed: a master cannot be decoded.
    """
    for _, failed in map_rows(partial(_make_encoder, page), masters, workers=workers, description="clips"):
        if isinstance(failed, RowFailed):
            raise failed


def _make_encoder(page: Path) -> Callable[[tuple[Path, str]], None]:
    def write(job: tuple[Path, str]) -> None:
        master, name = job
        frames = read_video(master, max_side=LARGEST_SIDE)
        write_preview(page / name, frames, fps=frame_rate(master), crf=CRF)

    return write
