"""Disks that are full, that take no writes, and folders of somebody else: one line that says so, and later the same.

Needs the right to mount. HARDNESS_DISKS=10 fills the disk at so many instants of every stage, by default at one of
one stage.
"""

import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hardness.commands import Command, contents, differences
from tests.hardness.test_kills import STAGES, TRAINING, undisturbed  # noqa: F401  (a fixture)
from videogpa.recipes.embedded import REWARD

FILLS = int(os.environ.get("HARDNESS_DISKS", "0"))
SEED = int(os.environ.get("HARDNESS_SEED", str(time.time_ns())))
PAGE, ROOM = 4096, 1 << 28
RUN = ["run", "tests.hardness.tiny", "--workers", "1", "--out"]


@contextmanager
def disk(folder: Path, size: int) -> Iterator[Path]:
    folder.mkdir()
    try:
        mount("-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def mount(*options: str) -> None:
    subprocess.run(["mount", *options], check=True, capture_output=True)


def resize(folder: Path, size: int) -> None:
    mount("-o", f"remount,size={size}", str(folder))


def size_of(folder: Path) -> int:
    """As a disk counts: whole pages, and one for every folder."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE + PAGE for path in folder.rglob("*"))


def the_one_line(command: Command) -> str:
    """What a command that stopped said; nothing else looks like an error."""
    assert command.wait() == 2, command.errors
    assert "Traceback" not in command.errors, command.errors
    (line,) = (line for line in command.errors.splitlines() if line.startswith("videogpa: "))
    assert "internal error" not in line
    return line


def test_a_training_goes_on_when_there_is_room_again(commands, finished, tmp_path):
    (tmp_path / "training.json").write_text(json.dumps(TRAINING))
    command = ["train", finished / "pairs", finished / "candidates", "--config", tmp_path / "training.json"]
    commands.run([*command, "--out", tmp_path / "lora"])
    whole = size_of(tmp_path / "lora")
    with disk(tmp_path / "disk", round(random.Random(SEED).uniform(0.1, 0.9) * whole)) as small:
        out = small / "lora"
        line = the_one_line(commands.start([*command, "--out", out]))
        assert f"the disk {small}: No space left on device" in line
        resize(small, ROOM)
        commands.run([*command, "--out", out])
        assert differences(contents(out), contents(tmp_path / "lora")) == []


@pytest.mark.skipif(not FILLS, reason="takes minutes: HARDNESS_DISKS=10 has it run")
@pytest.mark.parametrize("name", [name for name in STAGES if name != "report"])
def test_a_stage_goes_on_when_there_is_room_again(commands, undisturbed, tmp_path, name, capsys):  # noqa: F811
    made, _ = undisturbed
    stage, rng = STAGES[name], random.Random(f"{SEED} {name}")
    (written,) = stage.writes
    whole, stopped = size_of(made / written), 0
    for number in range(FILLS):
        # The smallest one first: of what takes a few pages, most random sizes are enough.
        size = round(rng.uniform(0, 1) * whole) if number else 0
        with disk(tmp_path / str(number), max(PAGE, size)) as small:
            for source in made.iterdir():
                if not source.name.startswith(written):
                    (small / source.name).symlink_to(source)
            for command in stage.commands:
                running = commands.start(command.split(), folder=small)
                if running.wait():
                    stopped += 1
                    assert "No space left on device" in the_one_line(running)
                    resize(small, ROOM)
                    commands.run(command.split(), folder=small)
            wrong = differences(contents(small / written), contents(made / written))
            assert wrong == [], f"{size} of {whole} bytes"
    with capsys.disabled():
        print(f"\n{name}: stopped by a full disk {stopped} times of {FILLS} (seed {SEED})")
    assert stopped


def test_a_disk_that_takes_no_writes_is_named(commands, finished, tmp_path):
    with disk(tmp_path / "disk", 4 * size_of(finished)) as fixed:
        subprocess.run(["cp", "-a", str(finished), str(fixed / "run")], check=True)
        mount("-o", "remount,ro", str(fixed))
        line = the_one_line(commands.start([*RUN, fixed / "run"]))
        assert f"the disk {fixed}: Read-only file system" in line
        line = the_one_line(commands.start(["pair", fixed / "run/scores", "--out", fixed / "pairs"]))
        assert f"the disk {fixed}: Read-only file system" in line
        # What is only read may lie there.
        commands.run(["pair", fixed / "run/scores", "--reward", REWARD, "--out", tmp_path / "pairs"])
        assert differences(contents(tmp_path / "pairs"), contents(finished / "pairs")) == []


@pytest.mark.skipif(os.getuid() != 0, reason="wants the right to become somebody else")
def test_a_folder_of_somebody_else_is_named(commands, finished):
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        home.chmod(0o755)
        subprocess.run(["cp", "-a", str(finished), place], check=True)
        for denied in ("run/prompts", "run/pairs"):
            command = ["pair", home / "run/scores", "--out", home / denied]
            line = the_one_line(commands.start(command, faults=[("as_nobody",)]))
            assert "Permission denied" in line or "holds other files" in line or "made differently" in line
        (home / "run/scores/rows.jsonl").chmod(0)
        command = ["pair", home / "run/scores", "--out", home / "out"]
        line = the_one_line(commands.start(command, faults=[("as_nobody",)]))
        assert "rows.jsonl" in line
        assert "Permission denied" in line
