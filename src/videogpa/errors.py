"""Errors that a user can act on; the command line prints them as one line."""

from pydantic import ValidationError


class InputError(ValueError):
    """Something the user gave cannot be used. The message names the input, what is wrong and the fix."""


class RowFailed(Exception):
    """One row (a video, a prompt) cannot be processed; it is recorded with this reason and the rest goes on."""


class CannotJudge(Exception):
    """The input is fine, but the measurement has no answer for it (no texture, no motion, no overlap)."""


def first_problem(error: ValidationError) -> str:
    """Of what pydantic found wrong, the first: where it is and what is wrong with it."""
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))} {problem['msg']}".strip()
