"""A stage on a Ray cluster whose actors, and whose command, are killed at random instants: the same bytes.

Starting clusters takes minutes: HARDNESS_RAY=5 has it run so many times.
"""

import os
import random
import time

import psutil
import pytest

from tests.hardness.commands import Command, contents, differences

ROUNDS = int(os.environ.get("HARDNESS_RAY", "0"))
SEED = int(os.environ.get("HARDNESS_SEED", str(time.time_ns())))
SAMPLE = ["sample", "--candidates", "2", "--frames", "5", "--steps", "2", "--prompts"]
DEATHS = 2
"""Of actors, of which a job survives as many."""


def processes(command: Command, working: bool) -> list[psutil.Process]:
    """Of a cluster that the command started: all, or the actors that have a job."""
    try:
        started = psutil.Process(command.process).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    named = []
    for process in started:
        try:
            named.append((process, " ".join(process.cmdline())))
        except psutil.Error:
            continue
    return [process for process, name in named if not working or "ray::_Actor.attempt" in name]


def kill_actors(command: Command, rng: random.Random, most: int) -> int:
    killed = 0
    while killed < most and command.poll() is None:
        time.sleep(rng.uniform(0.01, 0.2))
        for actor in processes(command, working=True)[:1]:
            actor.kill()
            killed += 1
    return killed


@pytest.mark.skipif(not ROUNDS, reason="starts clusters: HARDNESS_RAY=5 has it run")
def test_kills_of_actors_and_of_the_command_change_nothing(commands, tmp_path, capsys):
    pytest.importorskip("ray")
    asked = tmp_path / "prompts"
    commands.run(["prompts", "world", "--split", "train", "--count", "6", "--out", asked])
    commands.run([*SAMPLE, asked, "--workers", "1", "--out", tmp_path / "expected"])
    rng, actors, drivers = random.Random(SEED), 0, 0
    for number in range(ROUNDS):
        command = [*SAMPLE, asked, "--workers", "2", "--engine", "ray", "--out", tmp_path / str(number)]
        first = commands.start(command)
        actors += kill_actors(first, rng, 1)
        time.sleep(rng.uniform(0, 1))
        cluster = processes(first, working=False)
        drivers += first.kill()
        for process in cluster:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        second = commands.start(command)
        actors += kill_actors(second, rng, DEATHS)
        assert second.wait() == 0, second.errors
        found, expected = (contents(tmp_path / name) for name in (str(number), "expected"))
        assert differences(found, expected) == []
    with capsys.disabled():
        print(f"\n{actors} actors and {drivers} commands were killed in {ROUNDS} rounds (seed {SEED})")
