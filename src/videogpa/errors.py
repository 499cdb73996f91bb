"""Errors that a user can act on; the command line prints them as one line."""

import errno
import os
import re
from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError

UNREADABLE = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    SafetensorError,
)
"""What the libraries raise of folders that are damaged or another model's."""


class InputError(ValueError):
    """Something the user gave cannot be used. The message names the input, what is wrong and the fix."""


class StageStopped(Exception):
    """No row is to blame, so none fails for it and all of them stop: a full disk, a file that was changed since it was
    made. The same command goes on once that is mended.
    """


class RowFailed(Exception):
    """One row (a video, a prompt) cannot be processed; it is recorded with this reason and the rest goes on."""


class CannotJudge(Exception):
    """The input is fine, but the measurement has no answer for it (no texture, no motion, no overlap)."""


def told(error: OSError) -> str:
    """What the operating system refused, and for which files."""
    files = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{files}: {error.strerror}" if files else str(error)


NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
REFUSED = {errno.EROFS, errno.EACCES, errno.EPERM}


def disk_problem(error: BaseException, path: Path | None = None) -> StageStopped | None:
    """What to say where it was the disk that did not do what was asked of `path`; None where it was something else."""
    # safetensors has the system's number in its text alone.
    stated = re.search(r"\(os error (\d+)\)|Os \{ code: (\d+)", str(error))
    code = getattr(error, "errno", None) or (int(stated[1] or stated[2]) if stated else 0)
    if code not in NO_ROOM | REFUSED:
        return None
    named = path or getattr(error, "filename", None)
    where = "a file"
    if named is not None:
        disk = next(place for place in Path(os.fsdecode(named)).absolute().parents if place.is_mount())
        where = f"{named} on the disk {disk}"
    fix = "make room" if code in NO_ROOM else "change that"
    return StageStopped(f"{where}: {os.strerror(code)}; {fix} and run the same command again")


def first_problem(error: ValidationError) -> str:
    """Of what pydantic found wrong, the first: where it is and what is wrong with it."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))} {problem['msg']}".strip()
