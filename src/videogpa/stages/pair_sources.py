"""Preferences that others wrote down: the published VideoGPA metadata, pairs of folders, tables of a dataset.

A reader gives preferences and what it left out, each with its reason. `docs/pairs.md` describes the formats.
"""

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeGuard

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from videogpa.artifact import is_text, require_file
from videogpa.errors import InputError, first_problem
from videogpa.video_io import find_videos

Format = Literal["videogpa", "folders", "table"]
Role = Literal["prompt", "image", "chosen", "rejected", "chosen_value", "rejected_value", "margin"]
File = Path | bytes
"""A file, or the content of one that is kept inside a table."""

COLUMNS: Mapping[Role, tuple[str, ...]] = {
    "prompt": ("prompt", "caption", "text", "text_prompt"),
    "image": ("image", "first_frame"),
    "chosen": ("chosen", "chosen_video", "video_chosen", "preferred", "preferred_video", "video_preferred"),
    "rejected": ("rejected", "rejected_video", "video_rejected"),
    "chosen_value": ("chosen_value", "chosen_score"),
    "rejected_value": ("rejected_value", "rejected_score"),
    "margin": ("margin",),
}
REQUIRED: tuple[Role, ...] = ("prompt", "chosen", "rejected")
FILE_ROLES: tuple[Role, ...] = ("image", "chosen", "rejected")
FILE_ENDINGS = ("", "_file_name", "_path")
TABLES = (".parquet", ".jsonl", ".csv")
IMAGES = (".png", ".jpg", ".jpeg", ".webp")
PUBLISHED_METRIC, PUBLISHED_GAP, PUBLISHED_MOTION = "consistency_score", 0.05, 0.001
"""What the four published trainers pass to their data set."""


class ImportConfig(BaseModel):
    """How a source is read; None takes what the source says, or its format's own default.

    `columns` names a table's columns by role. `metric` is the name of the values: in published metadata the key that
    ranks the videos of a group (`consistency_score`). `higher_is_better` is its direction (lower for published
    metadata, higher for tables). `min_gap` (.05) and `min_motion` (.001) are the published filters and matter for
    published metadata alone; with `min_motion` 0 motion is not looked at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Format | None = None
    columns: dict[Role, str] = {}
    metric: str | None = None
    higher_is_better: bool | None = None
    min_gap: float | None = Field(default=None, ge=0)
    min_motion: float | None = Field(default=None, ge=0)
    previews: bool = True


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Which of two videos of a prompt is better, and the numbers behind it where the source has them."""

    text: str
    image: File | None = None
    chosen: File
    rejected: File
    chosen_value: float | None = None
    rejected_value: float | None = None
    margin: float | None = None


class Dropped(NamedTuple):
    """An entry that gave no preference; `entry` is its name in the source."""

    entry: str
    reason: str


class Found(NamedTuple):
    """What a source holds; `cfg` is how it was read, without a None where the format has an answer."""

    cfg: ImportConfig
    preferences: list[Preference]
    dropped: list[Dropped]


def locate(source: str) -> Path:
    """A local path as it is; `owner/name` that is none is downloaded from the Hugging Face hub.

    Raises:
        InputError: neither a path nor a dataset that can be downloaded.
    """
    path = Path(source)
    if path.exists():
        return path
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
        raise InputError(f"{source} does not exist")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, repo_type="dataset"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{source} is neither a file or folder here nor a Hugging Face dataset that can be downloaded: {error}"
        ) from error


def read(cfg: ImportConfig, source: Path) -> Found:
    """All preferences of a file or folder.

    Raises:
        InputError: unknown format, unreadable, or columns that cannot be told apart.
    """
    cfg = cfg.model_copy(update={"format": cfg.format or _format_of(source)})
    if cfg.columns and cfg.format != "table":
        raise InputError(f"{source} is read as {cfg.format}, which has no columns to be named")
    match cfg.format:
        case "videogpa":
            return _read_videogpa(cfg, source)
        case "folders":
            return _read_folders(cfg, source)
        case _:
            return _read_table(cfg, source)


def _format_of(source: Path) -> Format:
    if source.is_dir() and not _tables(source) and (source / "chosen").is_dir():
        return "folders"
    if source.suffix.lower() == ".json" and _groups(_json(source)) is not None:
        return "videogpa"
    return "table"


def _read_videogpa(cfg: ImportConfig, source: Path) -> Found:
    """The pairs that the published `DPODataset` forms: the best against the worst of every group."""
    content = _json(source)
    groups = _groups(content)
    if groups is None:
        raise InputError(f"{source} has no groups of videos; expected {{'groups': [{{'videos': [...]}}]}}")
    says = content if isinstance(content, dict) else {}
    cfg = _filled(
        cfg,
        source,
        metric=says.get("metric_name", PUBLISHED_METRIC),
        higher_is_better=says.get("metric_mode", "min") == "max",
        min_gap=says.get("min_gap", PUBLISHED_GAP),
        min_motion=says.get("motion_threshold", PUBLISHED_MOTION),
    )
    preferences, dropped = [], []
    for number, group in enumerate(groups):
        found = _best_against_worst(cfg, group, source.parent)
        if isinstance(found, str):
            dropped.append(Dropped(str(group.get("group_id", f"group {number}")), found))
        else:
            preferences.append(found)
    return Found(cfg, preferences, dropped)


def _best_against_worst(cfg: ImportConfig, group: dict[str, Any], base: Path) -> Preference | str:
    """The pair of a group, or why it has none."""
    metric = str(cfg.metric)
    videos = [video for video in group["videos"] if _counts(video, metric, cfg.min_motion)]
    if len(videos) < 2:
        return (
            f"{len(videos)} of {len(group['videos'])} videos have a path, a number under '{metric}' "
            f"and enough motion ('motion_norm' of at least {cfg.min_motion})"
        )
    videos.sort(key=lambda video: video[metric], reverse=bool(cfg.higher_is_better))
    chosen, rejected = videos[0], videos[-1]
    gap = abs(chosen[metric] - rejected[metric])
    if gap < (cfg.min_gap or 0):
        return f"best and worst differ by {gap:.3g}, less than {cfg.min_gap}"
    image = group.get("image_path", group.get("input_image_path"))
    if not isinstance(image, str | None):
        return f"its first frame {str(image)[:40]!r} is no path"
    return Preference(
        text=_text(group.get("text_prompt", group.get("prompt")), str(group.get("group_id", "a group"))),
        image=base / image if image else None,
        chosen=base / chosen["video_path"],
        rejected=base / rejected["video_path"],
        chosen_value=chosen[metric],
        rejected_value=rejected[metric],
        margin=gap,
    )


def _counts(video: Any, metric: str, min_motion: float | None) -> bool:
    if not isinstance(video, dict) or not isinstance(video.get("video_path"), str):
        return False
    motion = video.get("motion_norm")
    moves = not min_motion or (_is_number(motion) and motion >= min_motion)
    return bool(video["video_path"]) and _is_number(video.get(metric)) and moves


def _read_folders(cfg: ImportConfig, source: Path) -> Found:
    """`chosen/NAME.*` against `rejected/NAME.*`, with `NAME.txt` and `NAME.png` beside the folders or in `chosen`."""
    sides = {side: _by_stem(source / side) for side in ("chosen", "rejected")}
    preferences, dropped = [], []
    for name in sorted(sides["chosen"].keys() | sides["rejected"].keys()):
        missing = [side for side, videos in sides.items() if name not in videos]
        if missing:
            dropped.append(Dropped(name, f"there is no video {missing[0]}/{name}"))
            continue
        beside = [folder / name for folder in (source, source / "chosen")]
        captions = [file for stem in beside if (file := stem.with_name(f"{name}.txt")).is_file()]
        images = [file for stem in beside for end in IMAGES if (file := stem.with_name(name + end)).is_file()]
        preferences.append(
            Preference(
                text=_caption(captions[0]) if captions else "",
                image=images[0] if images else None,
                chosen=sides["chosen"][name],
                rejected=sides["rejected"][name],
            )
        )
    return Found(cfg, preferences, dropped)


def _caption(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error


def _by_stem(folder: Path) -> dict[str, Path]:
    videos = find_videos(folder)
    found = {video.stem: video for video in videos}
    if len(found) < len(videos):
        twice = next(video for video in videos if found[video.stem] != video)
        raise InputError(f"{folder} holds more than one video named {twice.stem}; keep one of them")
    return found


def _read_table(cfg: ImportConfig, source: Path) -> Found:
    """One preference a row."""
    tables = _tables(source) if source.is_dir() else [source]
    if not tables:
        raise InputError(
            f"{source} holds no pairs: expected metadata.jsonl, another .jsonl, .csv or .parquet table, "
            "or the folders 'chosen' and 'rejected'"
        )
    cfg = _filled(cfg, source, higher_is_better=True)
    preferences, dropped = [], []
    for table in tables:
        rows = list(_rows(table))
        if not all(isinstance(row, dict) for row in rows):
            raise InputError(
                f"{table} is no table of pairs: every entry must be an object with named columns"
            )
        if any(None in row for row in rows):
            raise InputError(f"{table} has a row with more cells than the header: quote what holds a comma")
        columns = _columns(cfg, table, list(dict.fromkeys(name for row in rows for name in row)))
        for number, row in enumerate(rows, start=1):
            cells = {role: row.get(name) for role, name in columns.items()}
            image, chosen, rejected = (_file(cells.get(role), table.parent) for role in FILE_ROLES)
            if chosen is None or rejected is None:
                side = "chosen" if chosen is None else "rejected"
                dropped.append(Dropped(f"{table.name}, row {number}", f"it has no {side} video"))
                continue
            preferences.append(
                Preference(
                    text=_text(cells.get("prompt"), f"{table}, row {number}").strip(),
                    image=image,
                    chosen=chosen,
                    rejected=rejected,
                    **_numbers(cfg, cells, f"{table}, row {number}"),
                )
            )
    return Found(cfg, preferences, dropped)


def _numbers(cfg: ImportConfig, cells: Mapping[Role, Any], where: str) -> dict[str, float | None]:
    roles: tuple[Role, ...] = ("chosen_value", "rejected_value", "margin")
    chosen, rejected, margin = (_number(cells.get(role), f"{where}: its {role}") for role in roles)
    if margin is None and chosen is not None and rejected is not None:
        margin = chosen - rejected if cfg.higher_is_better else rejected - chosen
    return {"chosen_value": chosen, "rejected_value": rejected, "margin": margin}


def _tables(folder: Path) -> list[Path]:
    """The metadata of a dataset folder and of its splits; without any, its data files of the first kind it has."""
    metadata = [path for end in TABLES for path in folder.rglob(f"metadata{end}")]
    if metadata:
        return sorted(metadata)
    return next((found for end in TABLES if (found := sorted(folder.rglob(f"*{end}")))), [])


def _rows(table: Path) -> Iterator[dict[str, Any]]:
    require_file(table)
    try:
        match table.suffix.lower():
            case ".parquet":
                yield from _parquet(table)
            case ".jsonl":
                yield from (
                    json.loads(line) for line in table.read_text("utf-8").splitlines() if line.strip()
                )
            case ".csv":
                with table.open(newline="", encoding="utf-8") as file:
                    yield from csv.DictReader(file)
            case ".json":
                content = _json(table)
                if not isinstance(content, list):
                    raise InputError(f"{table} is no list of pairs")
                yield from content
            case _:
                raise InputError(
                    f"{table} is no table of pairs; give .parquet, .jsonl, .json, .csv or a folder"
                )
    except InputError:
        raise
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise InputError(f"cannot read pairs from {table}: {error}") from error


def _parquet(table: Path) -> list[dict[str, Any]]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{table} needs pyarrow: install it (pip install pyarrow) or convert the table to .jsonl or .csv"
        ) from error
    return parquet.read_table(table).to_pylist()


def _columns(cfg: ImportConfig, table: Path, present: list[str]) -> dict[Role, str]:
    """Which column plays which role, as configured or else by the one known name that the table has.

    Raises:
        InputError: a configured column is missing, a required role has no column, or more than one could play it.
    """
    found: dict[Role, str] = {}
    for role, names in COLUMNS.items():
        endings = FILE_ENDINGS if role in FILE_ROLES else ("",)
        known = {name + end for name in names for end in endings}
        options = [cfg.columns[role]] if role in cfg.columns else [name for name in present if name in known]
        if role in cfg.columns and options[0] not in present:
            raise InputError(f"{table} has no column '{options[0]}'; it has {', '.join(present)}")
        if len(options) > 1:
            raise InputError(f"{table}: {' and '.join(options)} could all be the {role}; name its column")
        if not options and role in REQUIRED:
            raise InputError(
                f"{table}: no column is known to be the {role}; name one of {', '.join(present)}"
            )
        if options:
            found[role] = options[0]
    for role, name in found.items():
        if twice := [other for other in found if other != role and found[other] == name]:
            raise InputError(f"{table}: the column '{name}' cannot be both {role} and {twice[0]}")
    return found


def _file(cell: Any, base: Path) -> File | None:
    """A path relative to the table, or content; Hugging Face tables keep {'bytes', 'path'}."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return cell
    return base / cell if isinstance(cell, str) and cell.strip() else None


def _number(cell: Any, where: str) -> float | None:
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        return None
    try:
        value = float(cell)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where} {str(cell)[:40]!r} is no finite number; leave out what is not known")
    return value


def _text(cell: Any, where: str) -> str:
    if cell is not None and not (isinstance(cell, str) and is_text(cell)):
        raise InputError(f"{where}: its caption {str(cell)[:40]!r} is no text")
    return cell or ""


def _is_number(value: Any) -> TypeGuard[float]:
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _filled(cfg: ImportConfig, source: Path, **says: Any) -> ImportConfig:
    open_fields = {name: value for name, value in says.items() if getattr(cfg, name) is None}
    try:
        return ImportConfig.model_validate(cfg.model_dump() | open_fields)
    except ValidationError as error:
        raise InputError(f"{source} has settings that cannot be used: {first_problem(error)}") from error


def _json(path: Path) -> Any:
    require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"cannot read pairs from {path}: {error}") from error


def _groups(content: Any) -> list[dict[str, Any]] | None:
    """The groups of published metadata (a list, or under 'groups' or 't2v_groups'), or None if it is none."""
    if isinstance(content, dict):
        content = content.get("groups") or content.get("t2v_groups")
    if not isinstance(content, list) or not content:
        return None
    is_groups = all(isinstance(group, dict) and isinstance(group.get("videos"), list) for group in content)
    return content if is_groups else None
