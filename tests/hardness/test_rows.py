"""Something of a model fails in one row: that row says why, the others are as ever, and the exit status is 3.

With HARDNESS_LONG=1 the system kills a worker process, too.
"""

import json
from pathlib import Path

import pytest

from tests.hardness.commands import LONG, Command

SAMPLE = "sample --prompts RUN/prompts/train --candidates 2 --frames 5 --steps 2 --workers 1 --out sampled"
SCORE = "score-candidates RUN/candidates --metric motion --metric sharpness --workers 1 --out scores"
ENCODE = "encode RUN/candidates RUN/prompts/train --workers 1 --out encoded"


def run(commands, finished: Path, folder: Path, command: str, *faults) -> Command:
    return commands.start(command.replace("RUN", str(finished)).split(), folder=folder, faults=faults)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


CASES = {
    "nan video": (SAMPLE, "sampled/candidates", ("sample", "nan", 2), 2, "not numbers"),
    "memory": (SAMPLE, "sampled/candidates", ("sample", "memory", 2), 2, "MemoryError"),
    "nan latents": (ENCODE, "encoded", ("encode", "nan", 2), 1, "not numbers"),
    "memory while scoring": (SCORE, "scores", ("predict", "memory", 2), 1, "MemoryError"),
}


@pytest.fixture(scope="module")
def undisturbed(commands, finished, tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    for command in (SAMPLE, SCORE, ENCODE):
        assert run(commands, finished, folder, command).wait() == 0
    return folder


@pytest.mark.parametrize("case", CASES)
def test_one_row_fails_with_its_reason(commands, finished, undisturbed, tmp_path, case):
    command, out, (what, kind, call), count, reason = CASES[case]
    ended = run(commands, finished, tmp_path, command, ("failing", what, kind, call))
    assert ended.wait() == 3
    assert f"{count} of 4 rows failed" in ended.errors
    assert reason in ended.errors
    assert "Traceback" not in ended.errors
    found, expected = rows(tmp_path / out), rows(undisturbed / out)
    failed = [row for row in found if row["status"] == "failed"]
    assert len(failed) == count
    assert all(reason in row["reason"] for row in failed)
    assert [row for row in found if row not in failed] == [
        row for row in expected if row["id"] not in {r["id"] for r in failed}
    ]


@pytest.mark.parametrize("what", ["predict", "measure"])
def test_what_cannot_be_judged_for_want_of_numbers_is_no_number(commands, finished, tmp_path, what):
    ended = run(commands, finished, tmp_path, SCORE, ("failing", what, "nan", 2))
    assert "Traceback" not in ended.errors
    assert ended.wait() in (0, 3), ended.errors
    found, expected = rows(tmp_path / "scores"), rows(finished / "scores")
    (row,) = (row for row in found if row["reason"])
    assert row["metrics"].get("motion") is None
    assert "finite" in row["reason"] or "nan" in row["reason"]
    motions = {row["id"]: row["metrics"]["motion"] for row in expected}
    assert all(other["metrics"]["motion"] == motions[other["id"]] for other in found if other is not row)


@pytest.mark.skipif(not LONG, reason="starts worker processes: HARDNESS_LONG=1 has it run")
def test_a_worker_that_the_system_kills_costs_its_row_alone(commands, finished, undisturbed, tmp_path):
    prompt = rows(finished / "prompts/train")[0]
    command = SAMPLE.replace(
        "--workers 1", "--workers 2 --family tests.hardness.broken --accept-license unknown"
    )
    ended = run(commands, finished, tmp_path, command, ("environment", "BROKEN", prompt["text"]))
    assert ended.wait() == 3, ended.errors
    found, expected = (rows(folder / "sampled/candidates") for folder in (tmp_path, undisturbed))
    lost = [row for row in found if row["status"] == "failed"]
    assert {row["prompt_id"] for row in lost} == {prompt["id"]}
    assert {row["reason"] for row in lost} == {"the worker process was killed by SIGKILL (out of memory?)"}
    assert [row for row in found if row not in lost] == [
        r for r in expected if r["prompt_id"] != prompt["id"]
    ]
