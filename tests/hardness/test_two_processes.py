"""Two processes on one run: the second is turned away and the first is not disturbed. Parts go beside each other.

With HARDNESS_LONG=1 the first one goes on to its end while others try again and again.
"""

import time

import pytest

from tests.hardness.commands import LONG, contents, differences

RUN = ["run", "tests.hardness.tiny", "--workers", "1", "--out", "run"]


def test_the_second_process_on_a_run_is_turned_away(commands, finished, tmp_path):
    first = commands.start(RUN, folder=tmp_path)
    turned_away = 0
    while first.poll() is None and (LONG or not turned_away):
        if (tmp_path / "run/candidates/rows.jsonl").exists():
            second = commands.start(RUN, folder=tmp_path)
            status = second.wait()
            if first.poll() is None:
                assert status == 2, second.errors
                (line,) = second.errors.splitlines()
                assert line == "videogpa: run is held by another process; wait for it or stop it"
                turned_away += 1
        time.sleep(0.1)
    assert turned_away
    if LONG:
        assert first.wait() == 0, first.errors
        assert differences(contents(tmp_path / "run"), contents(finished)) == []
    first.kill()


@pytest.mark.skipif(not LONG, reason="parts are tested one after the other elsewhere")
def test_parts_are_computed_beside_each_other(commands, finished, tmp_path):
    given = [
        "sample",
        "--prompts",
        finished / "prompts/train",
        "--candidates",
        "2",
        "--frames",
        "5",
        "--steps",
        "2",
    ]
    given += ["--workers", "1"]
    parts = [
        commands.start([*given, "--out", "parts", "--shard", f"{part}/2"], folder=tmp_path) for part in (1, 2)
    ]
    assert [part.wait() for part in parts] == [0, 0]
    commands.run([*given, "--out", "parts", "--shard", "merge/2"], folder=tmp_path)
    commands.run([*given, "--out", "whole"], folder=tmp_path)
    whole, parts = (contents(tmp_path / name / "candidates") for name in ("whole", "parts"))
    assert differences(parts, whole) == []
