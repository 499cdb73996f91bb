"""The time of day changes no result: it jumps by an hour while a run is at work, and files are from other years.

With HARDNESS_LONG=1 of a whole run, else of a stage.
"""

import os
import time

from tests.hardness.commands import LONG, contents, differences
from videogpa.recipes.embedded import recipe

RUN = ["run", "tests.hardness.tiny", "--workers", "1", "--out", "run"]
YEARS = 365 * 24 * 3600


def at_work(commands, folder, command, until: str, faults):
    """A command that has got so far."""
    running = commands.start(command, folder=folder, faults=faults)
    while not (folder / until).exists():
        assert running.poll() is None, running.errors
        time.sleep(0.005)
    return running


def test_results_do_not_depend_on_the_time_of_day(commands, finished, tmp_path):
    scores = ["score-candidates", finished / "candidates", "--workers", "1", "--out", "scores"]
    for metric in recipe().score.metrics:
        scores += ["--metric", metric]
    command, out, until = (RUN, "run", "pairs/manifest.json") if LONG else (scores, "scores", "rows.jsonl")
    at_work(commands, tmp_path, command, f"{out}/{until}", [("clock_jumps", -3600)]).kill()
    for number, path in enumerate(sorted((tmp_path / out).rglob("*"))):
        moment = time.time() + 10 * YEARS if number % 2 else 0
        os.utime(path, (moment, moment))
    commands.run(command, folder=tmp_path, faults=[("clock_jumps", 3600)])
    expected = contents(finished if LONG else finished / "scores")
    assert differences(contents(tmp_path / out), expected) == []
