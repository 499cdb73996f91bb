"""The clips that a page shows: which ones, by a fixed rule, and their files beside the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videogpa.contact_sheet import contact_sheet
from videogpa.false_colors import error_colors, inconsistency
from videogpa.geometry.base import load_prediction
from videogpa.video_io import frame_rate, probe, read_video, write_image, write_preview

VIDEOS, SHEETS = "videos", "sheets"
SHEET_FRAMES = 10
SHEET_SIDE = 640
SMALL = 256
ERROR_SCALE = 2
"""Small error maps twice as large keep a colour for every pixel in 4:2:0; the page enlarges them further."""


@dataclass(frozen=True, kw_only=True)
class SourceClip:
    """Where a clip's files are: the lossless master, and its geometry (may not exist)."""

    name: str
    master: Path
    geometry: Path


@dataclass(frozen=True, kw_only=True)
class ShownClip:
    """A clip on the page. Paths are relative to the page; `errors` is a video of error maps, None without
    geometry. `value` is the score that the page is about.
    """

    label: str
    video: str
    errors: str | None
    value: float | None
    slot: int | None = None


def spread_ranks(count: int, wanted: int) -> list[int]:
    """Ranks (from 0) spread evenly from the first to the last of `count`: never only the best."""
    return sorted({round(rank) for rank in np.linspace(0, count - 1, min(wanted, count))})


def show(
    source: SourceClip, page: Path, *, label: str, value: float | None, slot: int | None = None
) -> ShownClip:
    """Encode the clip for browsers, and its error maps at the same pace.

    Raises:
        InputError: the master is gone.
        RowFailed: the master cannot be decoded.
    """
    video = f"{VIDEOS}/{source.name}.mp4"
    fps = frame_rate(source.master)
    write_preview(page / video, read_video(source.master), fps=fps)
    errors = None
    if source.geometry.exists():
        errors = f"{VIDEOS}/{source.name}-errors.mp4"
        maps = error_colors(*inconsistency(load_prediction(source.geometry)))
        # Geometry sees a limited number of frames: fewer frames last as long as the whole clip.
        pace = fps * len(maps) / probe(source.master).frames
        write_preview(page / errors, maps, fps=pace, scale=ERROR_SCALE if max(maps.shape[2:]) < SMALL else 1)
    return ShownClip(label=label, video=video, errors=errors, value=value, slot=slot)


def show_truth(spec: dict[str, Any], like: Path, page: Path, name: str) -> ShownClip:
    """Render the true continuation of a procedural prompt at the size, length and pace of the video `like`."""
    from videogpa.world.render import render
    from videogpa.world.scene import scene_from_spec

    info = probe(like)
    video = f"{VIDEOS}/{name}.mp4"
    write_preview(
        page / video,
        render(scene_from_spec(spec), info.frames, info.height, info.width).rgb,
        fps=frame_rate(like),
    )
    return ShownClip(label="true continuation", video=video, errors=None, value=None)


def show_sheet(source: SourceClip, page: Path) -> str:
    """Draw a clip's contact sheet; returns its path relative to the page."""
    sheet = f"{SHEETS}/{source.name}.png"
    frames = read_video(source.master, max_frames=SHEET_FRAMES, max_side=SHEET_SIDE)
    geometry = load_prediction(source.geometry) if source.geometry.exists() else None
    write_image(page / sheet, contact_sheet(frames, geometry))
    return sheet


def letters(ranks: Sequence[int]) -> dict[int, str]:
    """A letter for every rank, in order: A, B, C, …"""
    return {rank: chr(ord("A") + i) for i, rank in enumerate(ranks)}
