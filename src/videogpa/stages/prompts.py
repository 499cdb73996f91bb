"""Prompts: from procedural scenes (with a true continuation), or from text, JSON, CSV files and image folders."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from videogpa.artifact import is_text, open_artifact, require_file, write_json_atomic
from videogpa.errors import InputError
from videogpa.types import Prompt
from videogpa.video_io import read_image, write_image
from videogpa.world.paths import MOVES
from videogpa.world.scene import scene_from_spec, scene_spec

SEED_RANGES = {"train": 2_000_000, "development": 2_500_000, "held_out": 3_000_000}
"""First scene seed of each split; the generator was trained on seeds below 1,000,000."""
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
TEXT_KEYS = ("text", "prompt", "caption")


class WorldPrompts(BaseModel):
    """`count` procedural scenes of one split, camera moves in turn, each with its rendered first frame.

    `text_only` leaves the caption alone: no first frame, and no true continuation, since the caption fits many scenes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: Literal["train", "development", "held_out"] = "train"
    count: int = Field(default=48, ge=1)
    offset: int = Field(default=0, ge=0)
    size: int = Field(default=48, ge=16)
    dynamic: bool = False
    text_only: bool = False


class FilePrompts(BaseModel):
    """Every entry of a file or folder; captions keep their order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: int | None = Field(default=None, ge=1)


def run_world(cfg: WorldPrompts, out: Path, *, overwrite: bool = False) -> Path:
    """Write prompt rows and first frames of procedural scenes."""
    from videogpa.world.render import render

    with open_artifact(
        out, stage="prompts", config=cfg, inputs={}, row_type=Prompt, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        first = SEED_RANGES[cfg.split] + cfg.offset
        ids = []
        for i in range(cfg.count):
            spec = scene_spec(first + i, move=MOVES[i % len(MOVES)], dynamic=cfg.dynamic)
            row_id = f"scene{first + i}"
            ids.append(row_id)
            if row_id in artifact.done:
                continue
            scene = scene_from_spec(spec)
            if cfg.text_only:
                artifact.append(Prompt(id=row_id, text=scene.caption))
                continue
            image = f"images/{row_id}.png"
            write_image(out / image, render(scene, 1, cfg.size, cfg.size).rgb[0])
            artifact.append(Prompt(id=row_id, text=scene.caption, image=image, world=spec))
        artifact.finish(ids, files=[] if cfg.text_only else [f"images/{i}.png" for i in ids])
    return out


def run_files(cfg: FilePrompts, source: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Read prompts that somebody else wrote.

    Accepts .txt (one a line), .json and .jsonl (strings, or objects with `text`, `prompt` or `caption` and
    optionally `image`, `image_path` or `first_frame`; an object of id to caption too, as DL3DV captions come),
    .csv with such columns, and folders of images (caption from a .txt of the same name).

    Raises:
        InputError: missing, unreadable, or without a single prompt.
    """
    entries = _limited(cfg, source)
    with open_artifact(
        out, stage="prompts", config=cfg, inputs={"source": source}, row_type=Prompt, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        ids, files = [], []
        for i, (text, image) in enumerate(entries):
            row_id = f"prompt{i:05d}"
            ids.append(row_id)
            stored = None
            if image is not None:
                stored = f"images/{row_id}.png"
                files.append(stored)
                write_image(out / stored, read_image(image))
            if row_id not in artifact.done:
                artifact.append(Prompt(id=row_id, text=text, image=stored))
        artifact.finish(ids, files=files)
    return out


def count_entries(cfg: FilePrompts, source: Path) -> int:
    """How many prompts `run_files` would write.

    Raises:
        InputError: as `run_files`.
    """
    return len(_limited(cfg, source))


def run_single(text: str, image: Path | None, out: Path, *, overwrite: bool = False) -> Path:
    """One prompt given on the command line."""
    source = out.with_suffix(".json")
    write_json_atomic(source, [{"text": text} | ({"image": str(image.absolute())} if image else {})])
    return run_files(FilePrompts(), source, out, overwrite=overwrite)


def _limited(cfg: FilePrompts, source: Path) -> list[tuple[str, Path | None]]:
    entries = list(_entries(source))[: cfg.limit]
    if not entries:
        raise InputError(f"{source} contains no prompts; give text, JSON, JSONL, CSV or a folder of images")
    return entries


def _entries(source: Path) -> Iterator[tuple[str, Path | None]]:
    if source.is_dir():
        yield from _image_folder(source)
        return
    require_file(source)
    content = _text(source)
    try:
        match source.suffix.lower():
            case ".json":
                value = json.loads(content)
                items = list(value.values()) if isinstance(value, dict) else value
                if not isinstance(items, list):
                    raise InputError(f"{source} is neither a list of prompts nor an object of them")
            case ".jsonl":
                items = [json.loads(line) for line in content.splitlines() if line.strip()]
            case ".csv":
                items = list(csv.DictReader(content.splitlines()))
            case _:
                items = [line.strip() for line in content.splitlines() if line.strip()]
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source} is not valid JSON: {error}") from error
    except csv.Error as error:
        raise InputError(f"{source} is no table: {error}") from error
    for number, item in enumerate(items, start=1):
        yield _entry(item, source, number)


def _entry(item: Any, source: Path, number: int) -> tuple[str, Path | None]:
    if isinstance(item, str):
        item = {"text": item}
    text = next((item[k] for k in TEXT_KEYS if k in item), None) if isinstance(item, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"{source}, entry {number}: no caption; expected one of the keys {', '.join(TEXT_KEYS)}"
        )
    if not is_text(text):
        raise InputError(f"{source}, entry {number}: its caption has half of a character (a lone surrogate)")
    image = next((item[k] for k in ("image", "image_path", "first_frame") if item.get(k)), None)
    if not isinstance(image, str | None):
        raise InputError(f"{source}, entry {number}: its image is no path")
    return text, source.parent / image if image else None


def _image_folder(folder: Path) -> Iterator[tuple[str, Path | None]]:
    for image in sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES):
        caption = image.with_suffix(".txt")
        yield _text(caption).strip() if caption.is_file() else "", image


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
