"""The reference's errors at fixed draws of timestep and noise, kept: the base does not change, so once is enough.

One JSON line a (pair, draw). Its key holds everything that the errors depend on, so a file may serve several trainings.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch

from videogpa.dpo.diffusion import Sides


class ReferenceCache:
    """Errors of chosen and rejected by key, in memory and in a file."""

    def __init__(self, path: Path, device: torch.device | str = "cpu"):
        self.path = path
        self.device = device
        self.known: dict[str, tuple[float, float]] = {}
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            whole = [json.loads(line) for line in lines if line.endswith("\n")]
            self.known = {row["key"]: (row["chosen"], row["rejected"]) for row in whole}
            if len(whole) != len(lines):
                path.write_text("".join(lines[:-1]))

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
            if key not in self.known
        }
        self.known |= new
        if write and new:
            rows = (
                {"key": key, "chosen": chosen, "rejected": rejected}
                for key, (chosen, rejected) in new.items()
            )
            with self.path.open("a") as file:
                file.write("".join(json.dumps(row) + "\n" for row in rows))
