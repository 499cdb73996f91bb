"""The reference's errors at fixed draws of timestep and noise, kept: the base does not change, so once is enough.

One JSON line a (pair, draw). Its key holds everything that the errors depend on, so a file may serve several trainings;
its check tells a line that was changed or cut off.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from videogpa.artifact import hash_json, require_file, writing
from videogpa.dpo.diffusion import Sides
from videogpa.errors import InputError

BEGINNING = b'{"key": "'


class ReferenceCache:
    """Errors of chosen and rejected by key, in memory and in a file.

    Raises:
        InputError: the file holds something else.
    """

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        self.path = path
        self.device = device
        self.known: dict[str, tuple[float, float]] = {}
        if path.exists():
            require_file(path)
            content = path.read_bytes()
            if content[: len(BEGINNING)] != BEGINNING[: len(content)]:
                raise InputError(f"{path} is no file of a base's errors: name another, or delete it")
            for line in content.split(b"\n"):
                self.known |= _whole(line)
            if content and not content.endswith(b"\n"):
                with writing(path), path.open("a") as file:
                    file.write("\n")

    def find(self, keys: Sequence[str]) -> Sides | None:
        """The errors of all these pairs, or None if one of them is not known."""
        if not all(key in self.known for key in keys):
            return None
        chosen, rejected = zip(*(self.known[key] for key in keys), strict=True)
        return torch.tensor(chosen, device=self.device), torch.tensor(rejected, device=self.device)

    def add(self, keys: Sequence[str], sides: Sides, *, write: bool) -> None:
        """Remember errors; `write` puts those that are new into the file, too."""
        new = {
            key: (chosen, rejected)
            for key, chosen, rejected in zip(keys, sides[0].tolist(), sides[1].tolist(), strict=True)
            if key not in self.known and math.isfinite(chosen) and math.isfinite(rejected)
        }
        self.known |= new
        if write and new:
            with writing(self.path), self.path.open("a") as file:
                file.write("".join(f"{_line(key, errors)}\n" for key, errors in new.items()))


def _line(key: str, errors: tuple[float, float]) -> str:
    row: dict[str, Any] = {"key": key, "chosen": errors[0], "rejected": errors[1]}
    return json.dumps(row | {"check": hash_json(row)[:16]})


def _whole(line: bytes) -> dict[str, tuple[float, float]]:
    """What a line says; nothing where it is cut off or was changed: its errors are computed again."""
    try:
        row = json.loads(line)
        found = row["key"], (row["chosen"], row["rejected"])
        return dict([found]) if line.decode() == _line(*found) else {}
    except (KeyError, TypeError, ValueError):
        return {}
