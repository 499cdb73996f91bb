import errno
import functools
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from videogpa.engines.local import map_rows, steps
from videogpa.errors import CannotJudge, InputError, RowFailed, StageStopped


def make_worker(scale: float):
    def work(job):
        match job:
            case "refuse":
                raise RowFailed("no frames")
            case "no answer":
                raise CannotJudge("no texture")
            case "bug":
                raise KeyError("missing")
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "leave":
                os._exit(7)
            case "full":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            case "changed":
                raise StageStopped("a file was changed")
            case "unpicklable":
                return lambda: 0
            case "threads":
                return torch.get_num_threads()
        matrix = torch.randn(300, 300, generator=torch.Generator().manual_seed(job))
        return scale * torch.linalg.inv(matrix)

    return work


def make_nothing(error: Exception):
    raise error


def make_dead_worker():
    os._exit(1)


MAKE_WORKER = functools.partial(make_worker, 2.0)


def run(jobs, workers: int, make=MAKE_WORKER) -> dict:
    return dict(map_rows(make, jobs, workers=workers, description="test"))


def reasons(outcomes: dict) -> dict:
    return {job: str(outcome) for job, outcome in outcomes.items() if isinstance(outcome, RowFailed)}


def test_results_do_not_depend_on_the_number_of_workers():
    before = torch.get_num_threads()
    one, three = run([0, 1, 2, 3, 4, "threads"], 1), run([0, 1, 2, 3, 4, "threads"], 3)
    assert one.keys() == three.keys()
    assert one.pop("threads") == three.pop("threads") == 1
    assert all(torch.equal(one[job], three[job]) for job in one)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_is_that_row_alone(workers, caplog):
    with caplog.at_level(logging.DEBUG):
        outcomes = run(["refuse", 0, "no answer", "bug", 1], workers)
    assert reasons(outcomes) == {
        "refuse": "no frames",
        "no answer": "no texture",
        "bug": "KeyError: 'missing'",
    }
    assert isinstance(outcomes[0], torch.Tensor)
    assert isinstance(outcomes[1], torch.Tensor)
    assert 'raise KeyError("missing")' in caplog.text


def test_a_worker_that_dies_fails_its_row_and_the_rest_goes_on():
    outcomes = run(["die", 0, "leave", 1, "unpicklable", 2], 2)
    failed = reasons(outcomes)
    assert failed["die"] == "the worker process was killed by SIGKILL (out of memory?)"
    assert failed["leave"] == "the worker process exited with status 7"
    assert failed["unpicklable"].startswith("its result cannot be sent")
    assert set(outcomes) - set(failed) == {0, 1, 2}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_cannot_start_stops_everything(workers):
    with pytest.raises(InputError, match="no such model"):
        run([0, 1], workers, functools.partial(make_nothing, InputError("no such model")))
    with pytest.raises(InputError, match="at least 1"):
        run([0], 0)
    assert run([], workers, functools.partial(make_nothing, InputError("never called"))) == {}


def test_workers_that_die_while_loading_are_reported():
    with pytest.raises(RuntimeError, match="died while they started"):
        run([0, 1], 2, make_dead_worker)


def test_no_bar_where_standard_error_is_no_terminal(capfd):
    run([0, 1], 1)
    assert capfd.readouterr().err == ""


SCRIPT = """
import os, sys, time
from pathlib import Path
from videogpa.engines.local import map_rows, steps

def make_worker():
    def work(job):
        (Path(sys.argv[1]) / str(os.getpid())).touch()
        time.sleep(600)
    return work

if __name__ == "__main__":
    for outcome in map_rows(make_worker, [0, 1, 2], workers=2, description="test"):
        pass
"""


def wait_for(condition) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def running(process_id: int) -> bool:
    stat = Path(f"/proc/{process_id}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def start_script(folder: Path) -> subprocess.Popen:
    folder.mkdir()
    (folder / "script.py").write_text(SCRIPT)
    (folder / "pids").mkdir()
    return subprocess.Popen(
        [sys.executable, str(folder / "script.py"), str(folder / "pids")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # A shell's background jobs start with interrupts ignored, and their children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def worker_ids(folder: Path) -> list[int]:
    ids = [int(p.name) for p in (folder / "pids").iterdir()]
    assert all(map(running, ids))
    return ids


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_the_parent(tmp_path):
    folders = [tmp_path / "interrupted", tmp_path / "killed"]
    interrupted, killed = map(start_script, folders)
    wait_for(lambda: all(len(worker_ids(folder)) == 2 for folder in folders))
    workers = [id for folder in folders for id in worker_ids(folder)]
    os.killpg(interrupted.pid, signal.SIGINT)  # as a terminal does
    killed.kill()
    _, output = interrupted.communicate()
    killed.communicate()
    wait_for(lambda: not any(map(running, workers)))
    assert interrupted.returncode != 0
    assert output.count("Traceback") == 1  # the workers say nothing
    assert output.rstrip().endswith("KeyboardInterrupt")


def test_steps_go_through_everything_with_and_without_a_bar():
    assert list(steps(range(3), "parts")) == [0, 1, 2]
    jobs = map_rows(lambda: lambda job: list(steps(range(job), "parts")), [2, 4], workers=1, description="x")
    assert [found for _, found in jobs] == [[0, 1], [0, 1, 2, 3]]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_no_row_is_to_blame_for_stops_all_of_them(workers):
    with pytest.raises(StageStopped, match="No space left on device"):
        run([0, "full", 1], workers)
    with pytest.raises(StageStopped, match="was changed"):
        run(["changed", 0], workers)
