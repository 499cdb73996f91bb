"""Arms that an earlier evaluation drew and scored, which one with more arms need not make again."""

import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from videogpa import __version__
from videogpa.artifact import (
    LOCK,
    MANIFEST,
    differences,
    hash_json,
    link_files,
    read_as_made,
    read_manifest,
    read_record,
    read_rows,
    recorded,
    require_as_made,
    write_json_atomic,
)
from videogpa.engines.local import progress
from videogpa.errors import InputError, first_problem
from videogpa.metrics.between_seeds import BETWEEN_SEEDS
from videogpa.stages.against_truth import BETWEEN, BetweenSeedsRow, Together, together
from videogpa.stages.comparison import BASE, TRUTH
from videogpa.types import EvalRow

KINDS = ("samples", "scores")
REUSED = "reused.json"
"""The finished evaluations that one has taken over arms from, and what these had been taken over from."""
SHARED = {"config": ("sample", "score"), "inputs": ("prompts", "model")}
"""What all arms of an evaluation have in common."""
JUDGING = ("trained_by", "best_by")
"""What an arm's videos and their scores do not depend on."""


class Reused(BaseModel):
    """A finished evaluation: a hash of how it was made, and the metric that decided there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluation: str
    primary: str | None


def take_over(earlier: Path, out: Path) -> None:
    """Link finished videos and scores of an evaluation into one that has begun: those of the base, of the truth and of
    every arm that is made of the same, whatever it is called there.

    What `out` already has of an arm stays. `earlier` need not be finished. `out` keeps a record of it (`reused.json`).

    Raises:
        InputError: as `require_alike`.
        StageStopped: what it has of an arm was changed since.
    """
    now = recorded(out)
    require_alike(earlier, now)
    before = recorded(earlier)
    _record(earlier, out)
    known = {made_of: name for name, made_of in _arms(before).items()}
    both = [(name, known[made_of]) for name, made_of in _arms(now).items() if made_of in known]
    with progress("arms reused", len(both)) as advance:
        for name, theirs in both:
            _link(earlier, theirs, out, name)
            advance(name)


def require_alike(earlier: Path, now: Mapping[str, Any]) -> None:
    """Arms of the two can be the same. `now` has stage, configuration and hashes of inputs of the later one.

    Raises:
        InputError: `earlier` is no evaluation, or its prompts, its model, how it draws or how it scores are others, or
            another version of this package made it.
    """
    if found := made_differently(earlier, now):
        raise InputError(
            f"{earlier} was made differently, so none of its arms can be reused: {'; '.join(found)}"
        )


def made_differently(earlier: Path, now: Mapping[str, Any]) -> list[str]:
    """What sets all arms of an evaluation apart from those of another; nothing where they are alike.

    Raises:
        InputError: `earlier` is no evaluation.
    """
    if (read_record(earlier) or {}).get("stage") != now["stage"]:
        raise InputError(f"{earlier} is no evaluation: give one that has drawn some of the arms")
    before = recorded(earlier)
    versions = {made["videogpa"] for made in before["environments"]} - {__version__}
    found = [line for part in SHARED for line in differences(_shared(before, part), _shared(now, part), part)]
    return [*found, *(f"videogpa {version} -> {__version__}" for version in sorted(versions))]


def primaries_before(out: Path) -> list[str | None]:
    """The primaries of the finished evaluations that one has taken over arms from."""
    return [before.primary for before in _reused(out)]


def _record(earlier: Path, out: Path) -> None:
    """Of one that is not finished nobody has seen who wins."""
    known, found = _reused(out), _reused(earlier)
    if (earlier / MANIFEST).exists():
        primary = recorded(earlier)["config"]["primary"]
        found.append(Reused(evaluation=read_manifest(earlier).config_sha256, primary=primary))
    new = [each for each in found if each not in known]
    if new:
        write_json_atomic(out / REUSED, [each.model_dump(mode="json") for each in (*known, *new)])


def _reused(evaluation: Path) -> list[Reused]:
    path = evaluation / REUSED
    if not path.exists():
        return []
    try:
        return TypeAdapter(list[Reused]).validate_json(read_as_made(path))
    except ValidationError as error:
        raise InputError(f"{path} is damaged: {first_problem(error)}; redo the evaluation") from error


def measured_together(earlier: Path) -> dict[Together, BetweenSeedsRow]:
    """What a finished evaluation measured of a prompt's seeds together, by their videos; of another one nothing.

    Raises:
        StageStopped: it was changed since.
    """
    if not (earlier / MANIFEST).exists():
        return {}
    videos = videos_of(read_rows(earlier, EvalRow), earlier)
    lines = read_as_made(earlier / BETWEEN).decode().splitlines()
    rows = [BetweenSeedsRow.model_validate_json(line) for line in lines]
    whole = (row for row in rows if row.status == "ok" and row.metrics.keys() == BETWEEN_SEEDS.keys())
    return {
        key: row
        for row in whole
        if row.arm != TRUTH and (key := together(row.prompt_id, videos[row.arm, row.prompt_id])) is not None
    }


def videos_of(rows: Sequence[EvalRow], evaluation: Path) -> dict[tuple[str, str], list[Path]]:
    """By arm and prompt."""
    videos: dict[tuple[str, str], list[Path]] = defaultdict(list)
    for row in rows:
        if row.status == "ok" and row.video is not None:
            videos[row.arm, row.prompt_id].append(evaluation / row.video)
    return videos


def _shared(record: Mapping[str, Any], part: str) -> dict[str, Any]:
    return {name: record[part].get(name) for name in SHARED[part]}


def _arms(record: Mapping[str, Any]) -> dict[str, str]:
    """A hash of what makes the videos of each, by its name."""
    of_record = {BASE: {}, TRUTH: {TRUTH: True}} | record["config"]["arms"]
    return {
        name: hash_json(
            {key: value for key, value in arm.items() if key not in JUDGING}
            | {kind: record["inputs"].get(f"{kind}_{name}") for kind in ("lora", "model")}
        )
        for name, arm in of_record.items()
    }


def _link(earlier: Path, theirs: str, out: Path, name: str) -> None:
    for kind in KINDS:
        source, target = earlier / kind / theirs, out / kind / name
        if not (source / MANIFEST).exists():
            return
        made = read_manifest(source)
        if target.exists():
            # Scores are of the very videos that the manifest lists.
            if not (target / MANIFEST).exists() or read_manifest(target) != made:
                return
            continue
        for file in made.files:
            require_as_made(source / file)
        # All at once, so that a process that is killed leaves nothing that looks finished.
        part = target.with_name(f".{name}.part")
        if part.exists():
            shutil.rmtree(part)
        link_files(source, part, without=(LOCK,))
        part.rename(target)
