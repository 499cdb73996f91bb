"""Commands of this package as processes that can be killed (`server.py` starts them)."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("HARDNESS_LONG"))
"""Whether there is time for more than the suite has time for."""
Fault = tuple[Any, ...]
"""The name of a function in `faults.py` and its arguments."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that was started, leader of a process group of its own."""

    server: "Server"
    process: int
    scratch: Path

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        return self.server.ask("poll", process=self.process)

    def wait(self) -> int:
        return self.server.ask("wait", process=self.process)

    def kill(self) -> bool:
        """Kill the whole group at once; whether the command was still running."""
        if self.poll() is None:
            # Right after its start it leads no group yet.
            with suppress(ProcessLookupError):
                os.killpg(self.process, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL

    @property
    def errors(self) -> str:
        """What it printed on standard error until its end."""
        status, file = self.wait(), self.scratch / "errors"
        return file.read_text() if file.exists() else f"ended with {status} before it began"


class Server:
    def __init__(self, process: subprocess.Popen, scratch: Path):
        self._process, self._scratch, self._count = process, scratch, 0

    def ask(self, what: str, **details: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"do": what, **details}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(
        self, arguments: Sequence[str | Path], *, folder: Path = ROOT, faults: Sequence[Fault] = ()
    ) -> Command:
        self._count += 1
        scratch = self._scratch / str(self._count)
        scratch.mkdir()
        process = self.ask(
            "start",
            arguments=[*map(str, arguments)],
            folder=str(folder),
            faults=faults,
            output=str(scratch / "output"),
            errors=str(scratch / "errors"),
        )
        return Command(server=self, process=process, scratch=scratch)

    def run(self, arguments: Sequence[str | Path], **options: Any) -> Command:
        """To its end, which must be a good one."""
        command = self.start(arguments, **options)
        status = command.wait()
        assert status == 0, f"{arguments} ended with {status}: {command.errors}"
        return command


@contextmanager
def server() -> Iterator[Server]:
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
    }
    with tempfile.TemporaryDirectory() as scratch:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.hardness.server"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield Server(process, Path(scratch))
        finally:
            assert process.stdin
            process.stdin.close()
            process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    """All that a finished folder says: hidden files and the board, which has the time of day, are not compared."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    named = {path.relative_to(folder): path for path in files}
    return {
        str(name): path.read_bytes()
        for name, path in sorted(named.items())
        if "tensorboard" not in name.parts and not any(part.startswith(".") for part in name.parts)
    }


def differences(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    return sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
