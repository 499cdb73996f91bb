"""Parts of a stage that separate processes compute (a Slurm array), and how they become one folder.

Part 3 of 8 of what `--out x` names lies in `x.shards/3-of-8`, an artifact of its own with the rows of its part.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from videogpa.artifact import (
    CONFIG,
    LOCK,
    MANIFEST,
    ROWS,
    Artifact,
    hash_file,
    link_files,
    read_manifest,
    read_rows,
)
from videogpa.errors import InputError

Job = TypeVar("Job")
MERGE = "merge"
OWN = {CONFIG, MANIFEST, ROWS, LOCK}


class Shard(BaseModel):
    """Part `number` (from 1) of `of`; None puts the finished parts together and computes nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int | None = Field(ge=1)
    of: int = Field(ge=1)

    @model_validator(mode="after")
    def _is_one(self) -> "Shard":
        if self.number is not None and self.number > self.of:
            raise ValueError(f"there is no part {self.number} of {self.of}")
        return self

    @property
    def merges(self) -> bool:
        """Whether it is about all parts."""
        return self.number is None


def parse_shard(text: str) -> Shard:
    """From `3/8` or `merge/8`.

    Raises:
        InputError: anything else.
    """
    number, _, of = text.partition("/")
    try:
        return Shard(number=None if number == MERGE else int(number), of=int(of))
    except ValueError as error:
        raise InputError(f"--shard '{text}' is neither a part, such as 3/8, nor {MERGE}/8") from error


def part_of(shard: Shard | None, jobs: Sequence[Job], out: Path) -> tuple[list[Job], Path]:
    """The jobs of a part and its folder; all of them and `out` itself for the whole."""
    if shard is None or shard.number is None:
        return list(jobs), out
    return list(jobs[shard.number - 1 :: shard.of]), _folder(out, shard.number, shard.of)


def merge(artifact: Artifact[Any], row_type: type[Any], of: int) -> None:
    """Put the rows of all `of` parts, the failed ones too, into the open artifact, and link their files beside it.

    Raises:
        InputError: a part is missing, not finished, made differently, or a file of it was changed.
    """
    folders = [_folder(artifact.folder, number, of) for number in range(1, of + 1)]
    unfinished = [number for number, folder in enumerate(folders, 1) if not (folder / MANIFEST).exists()]
    if unfinished:
        commands = ", ".join(f"--shard {number}/{of}" for number in unfinished)
        raise InputError(f"{artifact.folder} cannot be put together before these have finished: {commands}")
    for folder in folders:
        made = read_manifest(folder)
        if made.config_sha256 != artifact.config_sha256:
            raise InputError(f"{folder} was made with another configuration or other inputs; run it again")
        for name, digest in made.files.items():
            if not (folder / name).is_file() or hash_file(folder / name) != digest:
                raise InputError(
                    f"{folder / name} is not the file that was made: delete {folder}, run it again"
                )
        link_files(folder, artifact.folder, without=OWN)
        rows = read_rows(folder, row_type)
        artifact.append(*(row for row in rows if row.id not in artifact.done))


def _folder(out: Path, number: int, of: int) -> Path:
    return out.with_name(f"{out.name}.shards") / f"{number}-of-{of}"
