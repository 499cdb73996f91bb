"""What a run has finished, in an object store (s3://, gs://, whatever fsspec knows), and back from there.

A stored folder is complete only with its `commit.json`, which is written last and has the hash of every file: an upload
that was cut off is there for nobody. Every artifact is committed by itself, so that another machine goes on after the
last stage that was finished, and the parts of a stage (`--shard`) need no file system in common.
"""

import errno
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from videogpa.artifact import (
    CONFIG,
    IDENTITY,
    MANIFEST,
    hash_file,
    lock,
    read_manifest,
    read_record,
    require_same,
)
from videogpa.engines.local import progress
from videogpa.errors import InputError, first_problem
from videogpa.types import Name

COMMIT = "commit.json"
TOGETHER = 64
"""Files that are under way at once."""
LASTING = (
    *(errno.EDQUOT, errno.ENOSPC, errno.EROFS),
    *(errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR),
)
"""What does not go away by waiting."""
PAUSES = (1.0, 5.0, 25.0)
"""Seconds until what a store did not answer is asked again."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Commit(BaseModel):
    """Hashes (SHA-256) of the files of one stored folder, by their names in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[Name, str]


@dataclass(frozen=True)
class Copied:
    """Folders that are now in both places, how many files travelled, and artifacts that are not finished."""

    folders: tuple[str, ...]
    files: int
    unfinished: tuple[str, ...] = ()


class Store:
    """An address below which folders are stored.

    Raises:
        InputError: no such kind of address, the library for it is not installed, or nothing answers there.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")
        try:
            # Others write there, too: what was listed once may not be true any more.
            self._files, self._root = fsspec.core.url_to_fs(self.url, use_listings_cache=False)
            if isinstance(self._files, LocalFileSystem):
                self._files.auto_mkdir = True
        except ImportError as error:
            raise InputError(f"{url}: {_in_a_line(error)} (docs/cluster.md)") from error
        except ValueError as error:
            raise InputError(f"{url} is no address of a store: {_in_a_line(error)}") from error
        try:
            self._files.exists(self._root)
        except Exception as error:
            raise InputError(f"{url} cannot be reached: {_in_a_line(error)}") from error

    def upload(self, folder: Path, *, overwrite: bool = False) -> Copied:
        """Store the finished artifacts at or below `folder` and the files around them; what is there is not sent again.

        Raises:
            InputError: nothing is finished, an artifact that is stored already was made differently (`overwrite`
                replaces it), a file was changed after its artifact was finished, or the store stops answering.
        """
        finished, unfinished = _artifacts(folder)
        if not finished:
            raise InputError(f"{folder} holds nothing that is finished")
        sent = sum(self._upload_one(folder / home, home, names, overwrite) for home, names in finished)
        return Copied(tuple(home for home, _ in finished), sent, unfinished)

    def homes(self) -> list[str]:
        """The complete folders below the address, the innermost first; `.` is the address itself.

        Raises:
            InputError: the store stops answering.
        """
        names = [PurePosixPath(name) for name in self._insist(partial(self._files.find, self._root))]
        homes = [name.parent.relative_to(self._root) for name in names if name.name == COMMIT]
        for home in homes:
            # Keys of an object store are any text.
            if ".." in home.parts:
                raise InputError(f"{self.url} holds '{home}', which leads out of it: remove that")
        return [home.as_posix() for home in sorted(homes, key=lambda home: (-len(home.parts), home))]

    def download(self, folder: Path, *, overwrite: bool = False) -> Copied:
        """Bring every complete folder below the address to `folder`; files that are there already stay.

        Raises:
            InputError: nothing complete is stored, something else is in its place (`overwrite` replaces it), what
                comes is not what was stored, or the store stops answering.
        """
        homes = self.homes()
        if not homes:
            raise InputError(f"nothing complete is stored at {self.url}")
        received = sum(self._download_one(home, folder / home, overwrite) for home in homes)
        return Copied(tuple(homes), received)

    def _upload_one(self, source: Path, home: str, names: Sequence[str], overwrite: bool) -> int:
        before = self._commit(home)
        known = {} if before is None else before.files
        if MANIFEST in names:
            if known.get(MANIFEST) == hash_file(source / MANIFEST):
                return 0
            if known and not overwrite:
                raise InputError(
                    f"{self._path(home)} was made differently from {source}: use --overwrite, or another address"
                )
        commit = Commit(files={name: hash_file(source / name) for name in names})
        if MANIFEST in names:
            _require_unchanged(source, commit)
        new = [name for name, digest in commit.files.items() if known.get(name) != digest]
        if commit.files == known:
            return 0
        if known:
            self._insist(partial(self._files.rm_file, self._path(home, COMMIT)))
        for batch in _batches(new, f"storing {home}"):
            here = [str(source / name) for name in batch]
            there = [self._path(home, name) for name in batch]
            self._insist(partial(self._files.put, here, there))
        content = commit.model_dump_json(indent=1).encode()
        self._insist(partial(self._files.pipe_file, self._path(home, COMMIT), content))
        return len(new)

    def _download_one(self, home: str, target: Path, overwrite: bool) -> int:
        commit = self._commit(home)
        if commit is None:
            return 0
        target.mkdir(parents=True, exist_ok=True)
        with lock(target):
            replaced = overwrite or self._goes_on(home, target, commit)
            coming = [
                name
                for name, digest in commit.files.items()
                if not (target / name).is_file() or (replaced and hash_file(target / name) != digest)
            ]
            if MANIFEST in coming:
                (target / MANIFEST).unlink(missing_ok=True)
            # What says that the folder is complete comes last.
            last = [name for name in coming if name == MANIFEST]
            for batch in _batches([name for name in coming if name != MANIFEST], f"fetching {home}"):
                self._receive(home, target, batch, commit)
            if last:
                self._receive(home, target, last, commit)
        return len(coming)

    def _goes_on(self, home: str, target: Path, commit: Commit) -> bool:
        """Whether an artifact was begun here that the stored one finishes; what else is here must be the same one.

        Raises:
            InputError: it is not.
        """
        if MANIFEST not in commit.files:
            return False
        here, there = read_record(target), self._record(home)
        if here is None:
            if any((target / name).exists() for name in commit.files):
                raise InputError(f"{target} holds other files: choose another folder, or use --overwrite")
            return False
        require_same(target, here, there)
        if not (target / MANIFEST).exists():
            return True
        if hash_file(target / MANIFEST) != commit.files[MANIFEST]:
            raise InputError(
                f"{target} and what is stored at {self._path(home)} were both made, and differ: use --overwrite"
            )
        return False

    def _receive(self, home: str, target: Path, names: Sequence[str], commit: Commit) -> None:
        paths = [target / name for name in names]
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        arriving = [path.with_name(f".{path.name}.tmp") for path in paths]
        there = [self._path(home, name) for name in names]
        try:
            self._insist(partial(self._files.get, there, [str(path) for path in arriving]))
            for name, path, arrived in zip(names, paths, arriving, strict=True):
                if hash_file(arrived) != commit.files[name]:
                    raise InputError(f"{self._path(home, name)} is not what was stored: upload it again")
                arrived.replace(path)
        finally:
            for arrived in arriving:
                arrived.unlink(missing_ok=True)

    def _commit(self, home: str) -> Commit | None:
        content = self._content(home, COMMIT)
        try:
            return None if content is None else Commit.model_validate_json(content)
        except ValidationError as error:
            raise InputError(f"{self._path(home, COMMIT)} is damaged: {first_problem(error)}") from error

    def _record(self, home: str) -> dict[str, Any]:
        try:
            record = TypeAdapter(dict[str, Any]).validate_json(self._content(home, CONFIG) or b"")
            if record.keys() >= {*IDENTITY}:
                return record
            raise InputError(f"{self._path(home, CONFIG)} is damaged: upload it again")
        except ValidationError as error:
            raise InputError(f"{self._path(home, CONFIG)} is damaged: {first_problem(error)}") from error

    def _content(self, home: str, name: str) -> bytes | None:
        def read() -> bytes | None:
            try:
                return self._files.cat_file(self._path(home, name))
            except FileNotFoundError:
                return None

        return self._insist(read)

    def _path(self, *names: str) -> str:
        return str(PurePosixPath(self._root, *names))

    def _insist(self, action: Callable[[], T]) -> T:
        """Ask again where nothing answers; what is refused for good is not asked again."""
        pauses = iter(PAUSES)
        while True:
            try:
                return action()
            except Exception as error:
                refused = isinstance(error, FileNotFoundError | PermissionError)
                if refused or (isinstance(error, OSError) and error.errno in LASTING):
                    raise InputError(f"{self.url}: {_in_a_line(error)}") from error
                pause = next(pauses, None)
                if pause is None:
                    raise InputError(
                        f"{self.url} does not answer ({_in_a_line(error)}); run the same command again to go on"
                    ) from error
                logger.debug("%s: %s", self.url, error)
                time.sleep(pause)


class Keeping:
    """Stores what a run has finished, whenever called; a store that does not answer does not stop the run."""

    def __init__(self, folder: Path, store: Store, *, overwrite: bool = False):
        self._folder, self._store, self._overwrite = folder, store, overwrite

    def __call__(self) -> None:
        """Store what is new, or say that it could not be."""
        try:
            self.finish()
        except InputError as error:
            logger.warning("not stored yet: %s", error)

    def finish(self) -> None:
        """Store what is new.

        Raises:
            InputError: it could not be stored.
        """
        self._store.upload(self._folder, overwrite=self._overwrite)


def copy(source: str, target: str, *, overwrite: bool = False) -> Copied:
    """Store a folder at an address (`upload`), or bring what is stored there to a folder (`download`).

    Raises:
        InputError: neither or both are addresses, or the copy cannot be made.
    """
    if is_address(source) == is_address(target):
        raise InputError("one of the two is a folder and the other an address, such as s3://bucket/run")
    if is_address(target):
        if not Path(source).is_dir():
            raise InputError(f"{source} does not exist or is not a folder")
        return Store(target).upload(Path(source), overwrite=overwrite)
    return Store(source).download(Path(target), overwrite=overwrite)


def is_address(text: str) -> bool:
    """Whether it names a place in a store, and not a folder."""
    return "://" in text


def _artifacts(folder: Path) -> tuple[list[tuple[str, list[str]]], tuple[str, ...]]:
    """Finished folders at or below this one, the innermost first, with the names of their files; unfinished artifacts.

    A file belongs to the innermost artifact around it, or else to `folder` itself.
    """
    homes = {path.parent for path in folder.rglob(CONFIG) if read_record(path.parent) is not None}
    names: dict[Path, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and path.name != COMMIT and not any(part.startswith(".") for part in inside.parts):
            home = next((above for above in path.parents if above in homes), folder)
            names.setdefault(home, []).append(path.relative_to(home).as_posix())
    unfinished = {home for home in homes if not (home / MANIFEST).exists()}
    finished = sorted(names.keys() - unfinished, key=lambda home: (-len(home.parts), home))
    return (
        [(home.relative_to(folder).as_posix(), names[home]) for home in finished],
        tuple(sorted(home.relative_to(folder).as_posix() for home in unfinished)),
    )


def _require_unchanged(folder: Path, commit: Commit) -> None:
    """What is stored is what the artifact was finished with."""
    for name, digest in read_manifest(folder).files.items():
        if commit.files.get(name) != digest:
            raise InputError(f"{folder / name} is not the file that was made: redo its stage")


def _batches(names: Sequence[str], description: str) -> Iterator[Sequence[str]]:
    """So many names at once, under a bar that counts them when they have been dealt with."""
    with progress(description, len(names)) as advance:
        for start in range(0, len(names), TOGETHER):
            batch = names[start : start + TOGETHER]
            yield batch
            for name in batch:
                advance(name)


def _in_a_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
