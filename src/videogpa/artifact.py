"""A stage's output folder: `config.json` first, `rows.jsonl` while it works, `manifest.json` last.

No manifest, not complete. A rerun with the same configuration and inputs continues where the last one
stopped; with others it is refused. Killing the process at any instant loses at most the row being written.
`docs/artifacts.md` describes the files for readers in other languages.
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

import videogpa
from videogpa.errors import InputError, StageStopped, disk_problem, first_problem
from videogpa.types import Row

RowT = TypeVar("RowT", bound=Row)

CONFIG, ROWS, MANIFEST, LOCK = "config.json", "rows.jsonl", "manifest.json", ".lock"
ABSENT = "(absent)"
IDENTITY = ("stage", "config", "inputs")
"""Of `config.json`, what makes an artifact another one."""
SEAL = "environments_sha256"
RECORDED_LIBRARIES = (
    "accelerate",
    "av",
    "diffusers",
    "kornia",
    "numpy",
    "opencv-python-headless",
    "peft",
    "scipy",
    "torch",
    "transformers",
)


class Manifest(BaseModel):
    """What a complete artifact says about itself; the same work gives the same manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    ok: int
    failed: int
    config_sha256: str
    rows_sha256: str
    files: dict[str, str] = {}


class Artifact(Generic[RowT]):
    """An artifact open for writing, made by `open_artifact`; a context manager that holds the folder's lock.

    `done` maps ids to the rows that need no more work: the good rows of earlier, interrupted runs and all
    rows of this one; of a complete artifact, all rows.
    """

    def __init__(self, folder: Path, stage: str, config_sha256: str, row_type: type[RowT], lock: BinaryIO):
        self.folder = folder
        self.done = _StoredRows(folder / ROWS, row_type)
        self._stage = stage
        self._config_sha256 = config_sha256
        self._lock = lock
        if self.complete:
            self.done.places = {row.id: place for place, row in _complete_rows(folder, row_type)}
            return
        _drop_unfinished_line(folder / ROWS)
        if (folder / ROWS).exists():
            rows = _parse_rows(folder / ROWS, row_type)
            self.done.places = {row.id: place for place, row in rows if row.status == "ok"}

    def __enter__(self) -> "Artifact[RowT]":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    @property
    def config_sha256(self) -> str:
        """Of stage, configuration and inputs: artifacts with the same one were made the same way."""
        return self._config_sha256

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to do."""
        return (self.folder / MANIFEST).exists()

    def append(self, *rows: RowT) -> None:
        """Store finished rows, ok or failed; they are on disk when this returns.

        Raises:
            ValueError: a value is NaN or infinite (a failure is never a number), or the artifact is complete.
            StageStopped: the disk is full.
        """
        if self.complete:
            raise ValueError(f"{self.folder} is complete")
        lines = [_to_line(row) for row in rows]
        with writing(self.folder / ROWS), (self.folder / ROWS).open("ab") as file:
            place = file.seek(0, os.SEEK_END)
            file.write(b"".join(lines))
            file.flush()
            os.fsync(file.fileno())
        for row, line in zip(rows, lines, strict=True):
            self.done.places[row.id] = place
            place += len(line)

    def finish(self, order: Sequence[str], files: Sequence[str] = ()) -> Manifest:
        """Rewrite the rows in canonical order and write the manifest: the artifact is complete.

        `order` is the ids of all rows. `files` are paths, relative to the folder, of what the rows refer to
        (videos, weights): their hashes go into the manifest, so that later stages notice a change.

        Raises:
            ValueError: `order` is not exactly the ids of the rows.
        """
        if len(set(order)) != len(order) or set(order) != set(self.done):
            missing, extra = sorted(set(order) - set(self.done)), sorted(set(self.done) - set(order))
            raise ValueError(f"{self.folder}: rows missing {missing}, unexpected {extra}, or ids repeated")
        places, failed = {}, 0
        with atomic_path(self.folder / ROWS) as temporary, temporary.open("wb") as file:
            for id in order:
                row = self.done[id]
                places[id] = file.tell()
                failed += row.status == "failed"
                file.write(_to_line(row))
        self.done.places = places
        manifest = Manifest(
            stage=self._stage,
            ok=len(order) - failed,
            failed=failed,
            config_sha256=self._config_sha256,
            rows_sha256=hash_file(self.folder / ROWS),
            files={name: hash_file(self.folder / name) for name in sorted(files)},
        )
        write_json_atomic(self.folder / MANIFEST, manifest.model_dump(mode="json"))
        return manifest


def open_artifact(
    folder: Path,
    *,
    stage: str,
    config: BaseModel,
    inputs: Mapping[str, Path],
    row_type: type[RowT],
    overwrite: bool = False,
    check: Callable[[Mapping[str, Any]], None] = lambda identity: None,
) -> Artifact[RowT]:
    """Start an artifact, or continue an interrupted one made with the same configuration and inputs.

    `config` is the resolved configuration, seeds included; what lies on disk belongs into `inputs`, which
    are compared by content: an artifact by its manifest, any other folder or file by its bytes. Library
    versions are recorded, not compared. `overwrite` empties the folder first. `check` is given stage, configuration and
    hashes of inputs before anything is written or emptied, and may refuse them.

    Raises:
        InputError: another configuration or input, an input that is missing, incomplete or lies in the folder, a
            folder that is something else or cannot be written, or another process writing to it.
    """
    for path in inputs.values():
        require_outside(path, folder)
    identity: dict[str, Any] = {
        "stage": stage,
        "config": config.model_dump(mode="json"),
        "inputs": {name: hash_input(path) for name, path in inputs.items()},
    }
    _require_own(folder)
    check(identity)
    held = lock(folder)
    try:
        if overwrite:
            _clear(folder)
        for leftover in folder.rglob(".*.tmp"):
            leftover.unlink()
        record = read_record(folder) or identity | {"environments": []}
        require_same(folder, record, identity)
        environment = library_versions()
        if environment not in record["environments"] and not (folder / MANIFEST).exists():
            record["environments"].append(environment)
            record[SEAL] = hash_json(record["environments"])
            write_json_atomic(folder / CONFIG, record)
        return Artifact(folder, stage, hash_json(identity), row_type, held)
    except BaseException:
        held.close()
        raise


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete artifact whose configuration and rows are those it was written for.

    Raises:
        InputError: missing, not an artifact, not complete, or changed afterwards.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist or is not a folder")
    if not (folder / MANIFEST).exists():
        unfinished = read_record(folder) is not None
        state = "is not complete: run its stage again to finish it" if unfinished else "is not an artifact"
        raise InputError(f"{folder} {state} (no {MANIFEST})")
    for name in (MANIFEST, ROWS):
        require_file(folder / name)
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except ValidationError as error:
        raise InputError(f"{folder / MANIFEST} is damaged: {first_problem(error)}") from error
    record = read_record(folder)
    if record is None or (record["stage"], _hash_of_read({key: record[key] for key in IDENTITY})) != (
        manifest.stage,
        manifest.config_sha256,
    ):
        raise InputError(f"{folder / CONFIG} is not the file that {MANIFEST} was written for; redo the stage")
    if hash_file(folder / ROWS) != manifest.rows_sha256:
        raise InputError(f"{folder / ROWS} is not the file that {MANIFEST} was written for; redo the stage")
    return manifest


def read_rows(folder: Path, row_type: type[RowT]) -> list[RowT]:
    """All rows of a complete artifact, failed ones included, in canonical order.

    Raises:
        InputError: missing, not complete, changed afterwards, or rows of another kind.
    """
    return list(iter_rows(folder, row_type))


def iter_rows(folder: Path, row_type: type[RowT]) -> Iterator[RowT]:
    """As `read_rows`, one after the other; what is wrong with their number is said at the end."""
    for _, row in _complete_rows(folder, row_type):
        yield row


def require_as_made(path: Path) -> Path:
    """The path itself, once its bytes are those that the complete artifact around it lists; a file that none lists is
    not compared.

    Raises:
        StageStopped: the file was changed since, or is gone.
    """
    digest = hash_as_made(path)
    if digest is not None and not (path.is_file() and hash_file(path) == digest):
        raise StageStopped(
            f"{path} is not the file that its stage made: restore it, or redo the stage with --overwrite"
        )
    return path


def hash_as_made(path: Path) -> str | None:
    """What the complete artifact around a file lists as its hash; None where none does."""
    for folder in path.absolute().parents:
        manifest = folder / MANIFEST
        if manifest.is_file():
            listed = _listed(manifest, manifest.stat().st_mtime_ns)
            return listed.get(path.absolute().relative_to(folder).as_posix())
    return None


def read_record(folder: Path) -> dict[str, Any] | None:
    """The content of `config.json`, or None where it is not what this module has written: the folder is no artifact."""
    if not (folder / CONFIG).is_file():
        return None
    try:
        record = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    keys = {*IDENTITY, "environments"}
    if not (isinstance(record, dict) and keys <= record.keys()):
        return None
    # The manifest vouches for the rest alone, so that other libraries that make the same leave it the same.
    sealed = SEAL not in record or record[SEAL] == _hash_of_read(record["environments"])
    return record if sealed else None


def recorded(folder: Path) -> dict[str, Any]:
    """The content of an artifact's `config.json`.

    Raises:
        InputError: missing, or not what this module writes.
    """
    record = read_record(folder)
    if record is None or not isinstance(record["config"], dict) or not isinstance(record["inputs"], dict):
        raise InputError(f"{folder / CONFIG} is missing or damaged; redo the stage")
    return record


def _hash_of_read(value: Any) -> str | None:
    """As `hash_json`; what was read may hold NaN, which is nothing that was written."""
    try:
        return hash_json(value)
    except ValueError:
        return None


def require_same(folder: Path, record: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Stage, configuration and inputs in two records of `config.json` are the same.

    Raises:
        InputError: they differ; the message says in what.
    """
    found = [line for key in IDENTITY for line in differences(record[key], identity[key], key)]
    if found:
        raise InputError(
            f"{folder} was made differently: {'; '.join(found)}. "
            "Use --overwrite to redo it, or choose another output folder"
        )


def require_outside(path: Path, folder: Path) -> None:
    """What a result is made of does not lie where it goes.

    Raises:
        InputError: it does.
    """
    if path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"{path} is what the result is made of: choose another output folder than {folder}")


def differences(before: Any, now: Any, key: str) -> Iterator[str]:
    """What became of every part of a configuration or of inputs, which are under `key` in `config.json`."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            yield from differences(before.get(name, ABSENT), now.get(name, ABSENT), f"{key}.{name}")
    elif before != now:
        changed = key.startswith("inputs.") and ABSENT not in (before, now)
        yield f"{key} has changed" if changed else f"{key} {_short(before)} -> {_short(now)}"


def lock(folder: Path) -> BinaryIO:
    """Hold a folder, which is made where it is missing, as its only writer until what is returned is closed, or the
    process ends, however that happens.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    with writing(folder / LOCK):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise InputError(f"{folder} is held by another process; wait for it or stop it") from error
    return file


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well and vanishes when not."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around what writes a file.

    Raises:
        StageStopped: its disk is full or lets nothing be written.
    """
    try:
        yield
    except Exception as error:
        read = getattr(error, "filename", None)
        # What was to be copied there and cannot be read is another matter.
        if (read is None or Path(os.fsdecode(read)).parent == path.parent) and (
            why := disk_problem(error, path)
        ):
            raise why from error
        raise


def write_text_atomic(path: Path, text: str) -> None:
    """UTF-8 text in one step."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_atomic(path: Path, value: Any) -> None:
    """Indented UTF-8 JSON in one step. Raises ValueError on NaN or infinity."""
    write_text_atomic(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def copy_atomic(source: Path, target: Path) -> None:
    """The content of a file, which is as it was made, in one step."""
    require_as_made(source)
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def link_files(source: Path, target: Path, *, without: Collection[str] = ()) -> None:
    """All files of a folder but those at the paths `without`, as hard links, which cost nothing; copies where the file
    system has none.
    """
    for file in source.rglob("*"):
        relative = file.relative_to(source)
        if file.is_file() and relative.as_posix() not in without:
            linked = target / relative
            linked.parent.mkdir(parents=True, exist_ok=True)
            linked.unlink(missing_ok=True)
            try:
                os.link(file, linked)
            except OSError:
                copy_atomic(file, linked)


def require_file(path: Path) -> None:
    """A file whose bytes can be read: opening a pipe would wait for somebody to write to it.

    Raises:
        InputError: it does not exist, or is a folder, a pipe or a device.
    """
    if not path.is_file():
        kind = "is a folder, not a file" if path.is_dir() else "is no file"
        raise InputError(f"{path} {kind if path.exists() else 'does not exist'}")


def is_text(value: str) -> bool:
    """Whether it can be stored: JSON, and names of files, can have halves of characters, which no text file can."""
    return not any("\ud800" <= character <= "\udfff" for character in value)


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        InputError: there is no such file, or it is not JSON.
    """
    require_file(path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def read_as_made(path: Path) -> bytes:
    """The content of a file.

    Raises:
        StageStopped: as `require_as_made`.
    """
    require_file(require_as_made(path))
    return path.read_bytes()


def hash_file(path: Path) -> str:
    """SHA-256 of the content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(value: Any) -> str:
    """SHA-256 of the value as JSON, whatever the order of its keys. Raises ValueError on NaN or infinity."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hash_input(path: Path) -> str:
    """What identifies an input: the manifest of an artifact, the bytes of a file or of all files in a folder.

    Raises:
        InputError: missing, an artifact that is not complete, or a file of one that was changed since.
    """
    if path.is_file():
        return hash_file(require_as_made(path))
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if read_record(path) is not None:
        return hash_json(read_manifest(path).model_dump(mode="json"))
    inside = [p for p in path.rglob("*") if not p.name.startswith(".")]
    # Whoever opened a pipe, as libraries do with what lies in a model's folder, would wait.
    if odd := [p for p in inside if p.exists() and not (p.is_file() or p.is_dir())]:
        raise InputError(f"{min(odd)} is no file: remove it from {path}")
    files = sorted(p for p in inside if p.is_file())
    return hash_json({p.relative_to(path).as_posix(): hash_file(require_as_made(p)) for p in files})


def library_versions() -> dict[str, str]:
    """Versions of Python, of this package and of the libraries that results depend on."""
    versions = {"python": platform.python_version(), "videogpa": videogpa.__version__}
    for name in RECORDED_LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


@lru_cache(maxsize=16)
def _listed(manifest: Path, changed: int) -> dict[str, str]:
    """Hashes of an artifact's files; none where it is somebody else's file that has this name."""
    try:
        return Manifest.model_validate_json(manifest.read_bytes()).files
    except ValidationError:
        return {}


def _require_own(folder: Path) -> None:
    """Refuses a folder with files that are not an artifact's: a stage could delete them."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; give an output folder")
    files = [p.name for p in folder.iterdir() if not p.name.startswith(".")] if folder.exists() else []
    if files and read_record(folder) is None:
        raise InputError(f"{folder} holds other files ({min(files)}); choose another output folder")


def _clear(folder: Path) -> None:
    # The manifest and the rows first and the configuration last: stopped half-way, nothing looks finished.
    rank = {MANIFEST: 0, ROWS: 1, CONFIG: 3}
    for path in sorted(folder.iterdir(), key=lambda p: rank.get(p.name, 2)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def _short(value: Any) -> str:
    text = value if value == ABSENT else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _to_line(row: Row) -> bytes:
    return (json.dumps(row.model_dump(mode="json"), ensure_ascii=False, allow_nan=False) + "\n").encode()


class _StoredRows(Mapping[str, RowT]):
    """Rows of a file by id, read when they are asked for: in memory are only their ids and where their lines begin."""

    def __init__(self, path: Path, row_type: type[RowT]):
        self.places: dict[str, int] = {}
        self._path, self._row_type = path, row_type

    def __getitem__(self, id: str) -> RowT:
        with self._path.open("rb") as file:
            file.seek(self.places[id])
            return self._row_type.model_validate_json(file.readline())

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, id: object) -> bool:
        return id in self.places


def _drop_unfinished_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _complete_rows(folder: Path, row_type: type[RowT]) -> Iterator[tuple[int, RowT]]:
    """As `_parse_rows`, of an artifact whose manifest counts them."""
    manifest = read_manifest(folder)
    ids, failed, count = set(), 0, 0
    for place, row in _parse_rows(folder / ROWS, row_type):
        ids.add(row.id)
        count += 1
        failed += row.status == "failed"
        yield place, row
    if len(ids) < count or (manifest.ok, manifest.failed) != (count - failed, failed):
        raise InputError(
            f"{folder / ROWS} has not the rows that {MANIFEST} counts, or an id twice; redo the stage"
        )


def _parse_rows(path: Path, row_type: type[RowT]) -> Iterator[tuple[int, RowT]]:
    """Where each line begins and its row; a line that does not end is left out."""
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield place, row_type.model_validate_json(line)
            except ValidationError as error:
                raise InputError(
                    f"{path} line {number} is not a {row_type.__name__} row: {first_problem(error)}"
                ) from error
            place += len(line)
