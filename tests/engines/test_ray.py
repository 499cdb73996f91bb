"""On a cluster that Ray starts on this machine."""

import functools
import os
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.engines.test_local import MAKE_WORKER, make_dead_worker, make_nothing, reasons, run
from videogpa.cli import app
from videogpa.engines.base import Cluster
from videogpa.engines.ray import RayWorkers
from videogpa.errors import InputError, StageStopped


@pytest.fixture(scope="module", autouse=True)
def ray():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


TWO = RayWorkers(count=2)


def make_killer(folder: str):
    """A worker that one job always kills, and one where no file says that it has."""

    def work(job):
        mark = Path(folder) / "killed"
        if job == "die" or (job == "kill" and not mark.exists()):
            if job == "kill":
                mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return job

    return work


def test_it_is_a_cluster():
    assert isinstance(TWO, Cluster)
    assert not isinstance(2, Cluster)


def test_results_are_those_of_this_machines_workers():
    jobs = [0, 1, 2, 3, 4, "refuse", "no answer", "bug", "unpicklable", "threads"]
    # More workers than there is room for share the work.
    here, there = run(jobs, 1), run(jobs, RayWorkers(count=3))
    assert here.keys() == there.keys()
    assert here.pop("threads") == there.pop("threads") == 1
    # Locally nothing has to be sent with one worker.
    assert here.pop("unpicklable")() == 0
    assert reasons(there).pop("unpicklable").startswith("its result cannot be sent")
    del there["unpicklable"]
    assert reasons(here) == reasons(there)
    assert all(torch.equal(here[job], there[job]) for job in range(5))


def test_a_job_whose_worker_dies_is_tried_again_and_fails_alone_if_that_does_not_help(tmp_path):
    jobs = [0, "kill", "die", 2]
    outcomes = run(jobs, RayWorkers(count=2, attempts=2), functools.partial(make_killer, str(tmp_path)))
    assert reasons(outcomes).keys() == {"die"}
    assert reasons(outcomes)["die"].startswith("its worker died 2 times")
    assert all(outcomes[job] == job for job in (0, "kill", 2))


def test_workers_that_cannot_start_stop_everything(monkeypatch):
    monkeypatch.setattr("videogpa.engines.ray.FAILED_STARTS", 2)
    with pytest.raises(InputError, match="no such model"):
        run([0, 1], RayWorkers(count=1), functools.partial(make_nothing, InputError("no such model")))
    with pytest.raises(RuntimeError, match="die while they start"):
        run([0, 1], RayWorkers(count=1), make_dead_worker)
    with pytest.raises(InputError, match="at least 1"):
        run([0], RayWorkers(count=0))
    assert run([], TWO, functools.partial(make_nothing, InputError("never called"))) == {}


def test_what_no_row_is_to_blame_for_stops_all_of_them():
    with pytest.raises(StageStopped, match="No space left on device"):
        run(["full", 0, 1], RayWorkers(count=1))


def test_what_no_machine_has_is_refused_instead_of_waited_for():
    with pytest.raises(InputError, match="has the 1 CPUs and 1 GPUs of one worker"):
        run([0], RayWorkers(count=1, gpus=1.0))


def on_the_command_line(home: Path, *engine: str, everything: bool = False) -> dict[str, bytes]:
    """Stages of three prompts; the manifests, which have the hashes of all files."""

    def stage(*arguments: str | Path) -> None:
        app([*map(str, arguments), "--workers", "2", *engine], standalone_mode=False)

    asked, sampled, evaluated = home / "prompts", home / "sampled", home / "evaluated"
    app(
        ["prompts", "world", "--split", "held_out", "--count", "3", "--out", str(asked)],
        standalone_mode=False,
    )
    stage("sample", "--prompts", asked, "--candidates", "2", "--steps", "2", "--out", sampled)
    stage("score-candidates", sampled / "candidates", "--metric", "motion", "--out", home / "scores")
    if everything:
        drawing = ("--best-of", "2", "--seeds", "1", "--steps", "2")
        stage("evaluate", asked, *drawing, "--out", evaluated)
        # Without latents, as videos from elsewhere are.
        stage("encode", evaluated / "samples" / "base", asked, "--out", home / "encoded")
    return {
        path.relative_to(home).as_posix(): path.read_bytes() for path in sorted(home.rglob("manifest.json"))
    }


def kill_a_worker_once(marks: Path, over: threading.Event) -> None:
    """As soon as there are actors at work, from outside."""
    while not over.is_set():
        named = {
            process: " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])
        }
        actors = [process for process, name in named.items() if "ray::_Actor.attempt" in name]
        if actors:
            actors[0].kill()
            marks.touch()
            return
        time.sleep(0.02)


def test_stages_give_the_same_rows_and_files_though_a_worker_is_killed(tmp_path):
    here = on_the_command_line(tmp_path / "here")
    over = threading.Event()
    killer = threading.Thread(target=kill_a_worker_once, args=(tmp_path / "killed", over))
    killer.start()
    try:
        there = on_the_command_line(tmp_path / "there", "--engine", "ray")
    finally:
        over.set()
    killer.join()
    assert (tmp_path / "killed").exists()
    assert len(here) == 3
    assert there == here


@pytest.mark.slow
def test_evaluations_and_latents_are_the_same_too(tmp_path):
    here = on_the_command_line(tmp_path / "here", everything=True)
    assert len(here) > 9
    assert on_the_command_line(tmp_path / "there", "--engine", "ray", everything=True) == here


def test_leaving_early_leaves_no_worker(ray):
    from videogpa.engines.local import map_rows

    outcomes = map_rows(MAKE_WORKER, list(range(50)), workers=TWO, description="test")
    next(outcomes)
    outcomes.close()
    available = ray.available_resources
    for _ in range(100):
        if available().get("CPU") == 2:
            break
        time.sleep(0.1)
    assert available().get("CPU") == 2
