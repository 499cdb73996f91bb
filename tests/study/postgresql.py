"""A PostgreSQL server of the tests' own, from the binaries of the system's package."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import create_engine, text

PACKAGED = Path("/usr/lib/postgresql")
USER = "postgres"


def binaries() -> Path | None:
    """The folder with `initdb` and `pg_ctl`, which Debian keeps off the path; None where there is none."""
    here = shutil.which("initdb")
    found = sorted(PACKAGED.glob("*/bin/initdb")) if here is None else [Path(here)]
    return found[-1].parent if found else None


class Server:
    """Listens on a free port of the loopback alone, for as long as the block lasts."""

    def __init__(self, bin: Path):
        # Not in pytest's folder, which every new session closes to other users.
        self._home = tempfile.TemporaryDirectory(prefix="postgresql-")
        self.bin, self.data = bin, Path(self._home.name) / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._number = 0
        # The server refuses to run as root.
        self._as = ["runuser", "-u", USER, "--"] if os.getuid() == 0 else []
        if self._as:
            shutil.chown(self._home.name, USER)

    def __enter__(self) -> "Server":
        self._run("initdb", "-D", self.data, "-U", USER, "--auth=trust", "--no-sync")
        # What a killed process has written is kept by the system; only a loss of power would need more.
        options = (
            f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.data} -c max_connections=100 -c fsync=off"
        )
        self._run("pg_ctl", "-D", self.data, "-w", "-l", self.data / "log", "-o", options, "start")
        return self

    def __exit__(self, *_: object) -> None:
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "stop")
        self._home.cleanup()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{database}"

    def database(self) -> Iterator[str]:
        """The URL of a new, empty database."""
        self._number += 1
        name = f"study{self._number}"
        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
        engine.dispose()
        yield self.url(name)

    def _run(self, program: str, *arguments: object) -> None:
        command = [*self._as, str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}")
