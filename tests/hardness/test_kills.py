"""Every stage, killed at random instants and run again until it ends: the same bytes as undisturbed.

HARDNESS_KILLS=20 kills every stage at least so many times while it works (minutes); without it only a whole run is, a
few times. HARDNESS_SEED repeats the instants of an earlier campaign, as far as a machine repeats anything.
"""

import json
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hardness.commands import Command, contents, differences

KILLS = int(os.environ.get("HARDNESS_KILLS", "0"))
SEED = int(os.environ.get("HARDNESS_SEED", str(time.time_ns())))
KILLS_OF_ONE = 6
"""Of the same folder; then it is let run to its end."""
LATE = 0.03
"""Seconds after a change of the folder within which a command is killed."""
TRAINING = {
    "steps": 6,
    "batch_pairs": 1,
    "rank": 2,
    "beta": None,
    "evaluate_every": 2,
    "evaluation_draws": 1,
    "checkpoint_every": 2,
    "reference_draws": 2,
    "stop_at_chosen_rise": None,
}
DRAWN = "--frames 5 --steps 2 --workers 1"


@dataclass(frozen=True)
class Stage:
    """Commands, one after the other, that write folders; in a fresh folder that has everything they read."""

    writes: tuple[str, ...]
    commands: tuple[str, ...]


STAGES = {
    "prompts": Stage(("prompts",), ("prompts world --split train --count 2 --out prompts",)),
    "sample": Stage(("sampled",), (f"sample --prompts prompts --candidates 2 {DRAWN} --out sampled",)),
    "score-candidates": Stage(
        ("scores",),
        (
            "score-candidates sampled/candidates --metric consistency --metric motion --workers 1 --out scores",
        ),
    ),
    "pair": Stage(("pairs",), ("pair scores --out pairs",)),
    "error-maps": Stage(("maps",), ("error-maps scores --workers 1 --out maps",)),
    "train": Stage(("lora",), ("train pairs sampled/candidates --config training.json --out lora",)),
    "evaluate": Stage(
        ("evaluated",), (f"evaluate prompts --lora dpo=lora/lora --seeds 1 {DRAWN} --out evaluated",)
    ),
    "strength-sweep": Stage(
        ("sweep",),
        (
            "strength-sweep prompts --lora lora/lora --strengths 1 --seeds 1 --steps 2 --workers 1 --out sweep",
        ),
    ),
    "encode": Stage(("encoded",), ("encode evaluated/samples/base prompts --workers 1 --out encoded",)),
    "study create": Stage(
        ("study",),
        ("study create evaluated prompts --items 1 --checks 1 --repeats 0 --workers 1 --out study",),
    ),
    "shards and merge": Stage(
        ("sharded",),
        tuple(
            f"sample --prompts prompts --candidates 2 {DRAWN} --out sharded --shard {part}/2"
            for part in ("1", "2", "merge")
        ),
    ),
    "best of": Stage(("best",), (f"sample --prompts prompts --best-of 2 {DRAWN} --out best",)),
    "run": Stage(("run",), ("run tests.hardness.tiny --workers 1 --out run",)),
    "run with workers": Stage(("run",), ("run tests.hardness.tiny --workers 2 --out run",)),
    "rounds": Stage(("rounds",), ("run tests.hardness.tiny --rounds 2 --workers 1 --out rounds",)),
    "report": Stage(("run/report",), ("report run --workers 1",)),
}


@pytest.fixture(scope="module")
def undisturbed(commands, tmp_path_factory):
    """All stages in one folder, and the seconds that each took."""
    folder = tmp_path_factory.mktemp("stages")
    (folder / "training.json").write_text(json.dumps(TRAINING))
    seconds = {}
    for name, stage in STAGES.items():
        began = time.monotonic()
        for command in stage.commands:
            commands.run(command.split(), folder=folder)
        seconds[name] = time.monotonic() - began
    return folder, seconds


def prepared(undisturbed: Path, stage: Stage, folder: Path) -> Path:
    """A folder with all that the stage reads and nothing of what it writes."""
    folder.mkdir(parents=True)
    for source in undisturbed.iterdir():
        if source.name in stage.writes:
            continue
        if any(name.startswith(f"{source.name}/") for name in stage.writes):
            shutil.copytree(source, folder / source.name)
        else:
            (folder / source.name).symlink_to(source)
    for name in stage.writes:
        shutil.rmtree(folder / name, ignore_errors=True)
    return folder


def listing(folders: list[Path]) -> list[tuple[str, int]]:
    found = []
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                try:
                    found.append((f"{place}/{name}", Path(place, name).stat().st_mtime_ns))
                except FileNotFoundError:
                    continue
    return sorted(found)


def wait_for_changes(command: Command, folders: list[Path], count: int) -> None:
    """Until files appeared, grew or vanished so many times, or the command ended."""
    before = listing(folders)
    while count and command.poll() is None:
        time.sleep(0.001)
        if (now := listing(folders)) != before:
            before, count = now, count - 1


def wait_for_instant(command: Command, folders: list[Path], seconds: float, rng: random.Random) -> None:
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, seconds))
    else:
        wait_for_changes(command, folders, rng.randint(1, 12))
        time.sleep(rng.uniform(0, LATE))


def killed_to_its_end(
    start: Callable[[str], Command],
    stage: Stage,
    folder: Path,
    kills: int,
    seconds: float,
    rng: random.Random,
) -> int:
    """Kill the stage at most `kills` times, then let it end; how many times it was killed at work."""
    killed = 0
    written = [folder / name for name in stage.writes]
    # A report is written beside its place.
    watched = [path.parent if path.name == "report" else path for path in written]
    for command in stage.commands:
        share = seconds / len(stage.commands)
        for _ in range(-(-kills // len(stage.commands))):
            running = start(command)
            wait_for_instant(running, watched, share, rng)
            if not running.kill():
                assert running.wait() == 0, running.errors
                break
            killed += any(path.exists() for path in watched)
        ended = start(command)
        assert ended.wait() == 0, ended.errors
    return killed


def test_a_run_killed_at_random_instants_is_the_same_run(commands, finished, tmp_path):
    rng = random.Random(SEED)
    stage = Stage(("run",), STAGES["run"].commands)
    killed_to_its_end(
        lambda command: commands.start(command.split(), folder=tmp_path), stage, tmp_path, 2, 5.0, rng
    )
    assert differences(contents(tmp_path / "run"), contents(finished)) == []


@pytest.mark.skipif(not KILLS, reason="takes minutes: HARDNESS_KILLS=20 has it run")
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_killed_at_random_instants_gives_the_same_bytes(
    commands, undisturbed, tmp_path, name, capsys
):
    made, seconds = undisturbed
    stage, rng = STAGES[name], random.Random(f"{SEED} {name}")
    killed = folders = 0
    wrong: set[str] = set()
    while killed < KILLS:
        folder = prepared(made, stage, tmp_path / str(folders))
        killed += killed_to_its_end(
            lambda command, folder=folder: commands.start(command.split(), folder=folder),
            stage,
            folder,
            KILLS_OF_ONE,
            seconds[name],
            rng,
        )
        for written in stage.writes:
            expected = contents(made / written)
            wrong |= {f"{folders}: {file}" for file in differences(contents(folder / written), expected)}
        folders += 1
    with capsys.disabled():
        print(f"\n{name}: {killed} kills of {folders} folders, {len(wrong)} files differ (seed {SEED})")
    assert wrong == set()
