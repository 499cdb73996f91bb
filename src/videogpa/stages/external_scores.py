"""Numbers that other tools measured on an evaluation's videos (CLIP, DINO, VBench, VideoReward, ...), read strictly.

A table, CSV with a header or JSONL, has one number a row: `arm`, `prompt_id`, `seed`, `metric`, `value`, and
`higher_is_better` where that is not so. What does not fit is refused with its line: a number that lands on another
video, or quietly on none, would be worse than none.
"""

import csv
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from videogpa.artifact import require_file
from videogpa.errors import InputError
from videogpa.metrics.between_seeds import BETWEEN_SEEDS
from videogpa.plugin import available
from videogpa.types import MetricValues

Key = tuple[str, str, int]
"""Arm, prompt id and seed: one video of an evaluation."""
LARGEST = 1e100
"""Squares and sums of what is larger have no number."""
SHOWN = 5
"""Names that an error lists at most."""


class ExternalScore(BaseModel):
    """One number about one video. A metric's name is letters, digits, `_` and `-`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arm: str
    prompt_id: str
    seed: int
    metric: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    value: float = Field(allow_inf_nan=False, ge=-LARGEST, le=LARGEST)
    higher_is_better: bool = True

    @property
    def key(self) -> Key:
        """The video that the number belongs to."""
        return self.arm, self.prompt_id, self.seed

    @property
    def metrics(self) -> MetricValues:
        """The number as rows of this package hold theirs."""
        return {self.metric: self.value}


def from_outside(metric: str) -> bool:
    """Whether a metric is neither this package's nor a module of somebody else's, whose name has a dot."""
    return "." not in metric and metric not in {*available("metrics"), *BETWEEN_SEEDS}


def read_external_scores(path: Path, known: Collection[Key], *, partial: bool = False) -> list[ExternalScore]:
    """The rows of a table, in its order, each about a video in `known`.

    Every metric has a value for every known video, unless `partial` allows some to be missing. Arms are then to be
    compared on the videos that both have, never by their means.

    Raises:
        InputError: the file cannot be read or has no rows; a row that has missing, unknown or malformed fields, is
            about an unknown video, or says again what another said; a metric that is named like one of this package,
            has two directions, or misses videos. The message names the line and the fix.
    """
    rows: list[ExternalScore] = []
    lines: dict[tuple[Key, str], int] = {}
    directions: dict[str, tuple[bool, int]] = {}
    videos = _by_arm(known)
    for line, record, texts in _records(path):
        where = f"{path} line {line}"
        row = _parsed(record, texts, where)
        _require_known(row, videos, where)
        if not from_outside(row.metric):
            raise InputError(f"{where}: '{row.metric}' is a metric of this package; give yours another name")
        first = lines.setdefault((row.key, row.metric), line)
        if first != line:
            raise InputError(
                f"{where} gives '{row.metric}' of {_named(row.key)} again, as line {first} did; remove one"
            )
        better, said = directions.setdefault(row.metric, (row.higher_is_better, line))
        if better != row.higher_is_better:
            raise InputError(
                f"{where}: higher_is_better of '{row.metric}' is {_word(row.higher_is_better)}, but "
                f"{_word(better)} in line {said} (true where it is left out); say the same in all its rows"
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path} holds no scores; write one row per arm, prompt, seed and metric")
    if not partial:
        _require_complete(rows, known, path)
    return rows


def require_apart(tables: Mapping[str, Sequence[ExternalScore]]) -> None:
    """Refuses a metric that is in two of the tables, which go by their files' names.

    Raises:
        InputError: there is one.
    """
    said: dict[str, str] = {}
    for name, rows in tables.items():
        for metric in dict.fromkeys(row.metric for row in rows):
            if said.setdefault(metric, name) != name:
                raise InputError(
                    f"'{metric}' is in {said[metric]} and in {name}; rename one (a file takes the place of an earlier "
                    "one of its name)"
                )


def _records(path: Path) -> Iterator[tuple[int, Mapping[str, Any], bool]]:
    """Line number, fields, and whether the fields are texts that stand for numbers."""
    require_file(path)
    try:
        match path.suffix.lower():
            case ".csv":
                yield from ((line, record, True) for line, record in _csv(path))
            case ".jsonl":
                yield from ((line, record, False) for line, record in _jsonl(path))
            case _:
                raise InputError(f"{path} is no table of scores; give .csv (with a header) or .jsonl")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot read scores from {path}: {error}; save it as UTF-8 text") from error


def _csv(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        if len(set(header)) != len(header):
            raise InputError(f"{path} line 1 names a column twice; rename or remove one")
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{path} line {reader.line_num} has {len(cells)} cells, but the header has {len(header)}; "
                    "fill or remove what differs (a comma inside a cell needs quotes)"
                )
            record = dict(zip(header, cells, strict=True))
            # An empty cell says nothing, as a field that is left out does in JSONL.
            yield reader.line_num, {name: cell for name, cell in record.items() if cell != ""}


def _jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for line, content in enumerate(file, start=1):
            if not content.strip():
                continue
            text = content.decode("utf-8-sig")
            try:
                record = json.loads(text, object_pairs_hook=_object)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path} line {line} is not JSON ({error}); write one object a line"
                ) from error
            if not isinstance(record, dict):
                raise InputError(
                    f'{path} line {line} is no object; write {{"arm": ..., "prompt_id": ..., ...}}'
                )
            yield line, record


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a field is there twice")
    return dict(pairs)


def _parsed(record: Mapping[str, Any], texts: bool, where: str) -> ExternalScore:
    """A number stands as a number in JSON and as a text in CSV: neither is read as the other."""
    try:
        if texts:
            return ExternalScore.model_validate_strings(record)
        return ExternalScore.model_validate(record, strict=True)
    except ValidationError as error:
        raise InputError(f"{where}: {_problem(error.errors()[0])}") from error


def _problem(found: Mapping[str, Any]) -> str:
    field = ".".join(map(str, found["loc"]))
    fields = ", ".join(ExternalScore.model_fields)
    match found["type"]:
        case "missing":
            return f"there is no {field}; fill it in (the fields are {fields})"
        case "extra_forbidden":
            return f"'{field}' is no known field; remove or rename it (the fields are {fields})"
        case "finite_number":
            return f"{field} {found['input']} is no finite number; leave out what could not be measured"
        case "less_than_equal" | "greater_than_equal":
            return f"{field} {found['input']} is beyond {LARGEST:g} either way; rescale the metric"
        case "string_pattern_mismatch":
            return f"{field} {found['input']!r} may have letters, digits, _ and - only; rename it"
    return f"{field} {found['input']!r} does not fit: {found['msg']}; correct it"


def _by_arm(known: Collection[Key]) -> dict[str, dict[str, set[int]]]:
    """Seeds by arm and prompt."""
    videos: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for arm, prompt_id, seed in known:
        videos[arm][prompt_id].add(seed)
    return videos


def _require_known(row: ExternalScore, videos: Mapping[str, Mapping[str, set[int]]], where: str) -> None:
    if row.arm not in videos:
        raise InputError(f"{where}: unknown arm '{row.arm}'; use one of {_some(sorted(videos))}")
    prompts = videos[row.arm]
    if row.prompt_id not in prompts:
        raise InputError(
            f"{where}: unknown prompt '{row.prompt_id}'; use the evaluation's ids ({_some(sorted(prompts))})"
        )
    seeds = prompts[row.prompt_id]
    if row.seed not in seeds:
        raise InputError(
            f"{where}: arm '{row.arm}' has no seed {row.seed} of prompt '{row.prompt_id}'; "
            f"use one of {_some(sorted(seeds))}"
        )


def _require_complete(rows: Sequence[ExternalScore], known: Collection[Key], path: Path) -> None:
    by_metric: dict[str, set[Key]] = defaultdict(set)
    for row in rows:
        by_metric[row.metric].add(row.key)
    for metric, keys in by_metric.items():
        missing = sorted(set(known) - keys)
        if missing:
            raise InputError(
                f"{path}: '{metric}' has no value for {len(missing)} of {len(set(known))} videos, the first being "
                f"{_named(missing[0])}; add them, or allow a partial cover (--partial-scores)"
            )


def _named(key: Key) -> str:
    arm, prompt_id, seed = key
    return f"arm '{arm}', prompt '{prompt_id}', seed {seed}"


def _some(names: Sequence[str | int]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(map(str, names[:SHOWN])) + more


def _word(flag: bool) -> str:
    return "true" if flag else "false"
