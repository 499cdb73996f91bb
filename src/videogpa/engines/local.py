"""Rows computed on this machine: one function over many jobs, in worker processes, with one progress bar."""

import logging
import multiprocessing
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from videogpa.engines.base import Workers
from videogpa.errors import NO_ROOM, CannotJudge, InputError, RowFailed, StageStopped, disk_problem, told

Job = TypeVar("Job")
Result = TypeVar("Result")
Work = Callable[[Job], Result]
Item = TypeVar("Item")

logger = logging.getLogger(__name__)
_shown: Progress | None = None
"""The bars of this process, while there are any."""
_timings: "list[Timing] | None" = None


@dataclass
class Timing:
    """One `map_rows` with one worker: seconds until that was ready, and of each job."""

    description: str
    load: float = 0.0
    jobs: list[float] = field(default_factory=list)


@contextmanager
def timed() -> Iterator[list[Timing]]:
    """What every `map_rows` of the block with one worker takes, in order."""
    global _timings
    before, _timings = _timings, []
    try:
        yield _timings
    finally:
        _timings = before


def preload(*modules: str) -> None:
    """Import these once for all workers of this process, which are forked from a server that has them.

    Call it before the first `map_rows`. torch alone makes a worker start in 0.03 s instead of 4 to 7 s. Libraries ask
    while they are imported whether there is a GPU; asked of CUDA itself, no process that is forked later could use it.
    """
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    multiprocessing.get_context("forkserver").set_forkserver_preload(["torch", *modules])


preload()


def map_rows(
    make_worker: Callable[[], Work[Job, Result]], jobs: Sequence[Job], *, workers: Workers, description: str
) -> Iterator[tuple[Job, Result | RowFailed]]:
    """Pairs (job, result) as they finish, in any order; a job that fails gives (job, RowFailed).

    `make_worker` is called once per process (it loads the model) and returns the function that is called
    with each job; with more than one worker it must be picklable, such as a `functools.partial` of a
    top-level function, and so must jobs and results. Work runs on one thread per worker, so results are the
    same for any number of workers; randomness must come from a seed inside the job.

    A job's RowFailed, CannotJudge, InputError or OSError, any other exception (its traceback goes to the debug log)
    and the death of its process (out of memory) fail that row alone; StageStopped and a full disk end the loop.
    Leaving it, by Ctrl-C or otherwise, kills the workers at once; when this process is killed they exit by
    themselves. Workers of a cluster do the same elsewhere.

    Raises:
        InputError: `workers` is below 1, or `make_worker` raised it.
        StageStopped: no row is to blame.
        RuntimeError: all workers died while they started.
    """
    if _timings is not None and workers == 1:
        _timings.append(Timing(description))
        make_worker = _with_timing(make_worker, _timings[-1])
    with progress(description, len(jobs)) as advance:
        for job, outcome in _outcomes(make_worker, jobs, workers):
            if isinstance(outcome, StageStopped):
                raise outcome
            advance(outcome)
            if isinstance(outcome, RowFailed):
                logger.debug("%s\n%s", outcome, "\n".join(getattr(outcome, "__notes__", ())))
            yield job, outcome


def _outcomes(
    make_worker: Callable[[], Work[Job, Result]], jobs: Sequence[Job], workers: Workers
) -> Iterator[tuple[Job, Result | RowFailed | StageStopped]]:
    if not isinstance(workers, int):
        return workers.outcomes(make_worker, jobs)
    if workers < 1:
        raise InputError(f"the number of workers must be at least 1, not {workers}")
    workers = min(workers, len(jobs))
    return _run_here(make_worker, jobs) if workers <= 1 else _run_in_processes(make_worker, jobs, workers)


def _with_timing(
    make_worker: Callable[[], Work[Job, Result]], timing: Timing
) -> Callable[[], Work[Job, Result]]:
    def make() -> Work[Job, Result]:
        began = time.perf_counter()
        work = make_worker()
        timing.load = time.perf_counter() - began

        def timed_work(job: Job) -> Result:
            began = time.perf_counter()
            try:
                return work(job)
            finally:
                timing.jobs.append(time.perf_counter() - began)

        return timed_work

    return make


def steps(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Goes through the parts of one long job; where jobs run in this process, under a bar of its own."""
    if _shown is None:
        yield from items
        return
    task = _shown.add_task(description, total=len(items), failed="")
    try:
        for item in items:
            yield item
            _shown.update(task, advance=1)
    finally:
        _shown.remove_task(task)


def _run_here(
    make_worker: Callable[[], Work[Job, Result]], jobs: Sequence[Job]
) -> Iterator[tuple[Job, Result | RowFailed | StageStopped]]:
    if not jobs:
        return
    with one_thread():
        work = make_worker()
        for job in jobs:
            yield job, attempt(work, job)


@dataclass(kw_only=True)
class _Worker:
    """A process, our end of its pipe, and the index of the job it works on (None: it is still loading)."""

    process: BaseProcess
    pipe: Connection
    job: int | None = None


def _run_in_processes(
    make_worker: Callable[[], Work[Job, Result]], jobs: Sequence[Job], workers: int
) -> Iterator[tuple[Job, Result | RowFailed | StageStopped]]:
    waiting = list(reversed(range(len(jobs))))
    pool: dict[Connection, _Worker] = {}

    def start() -> None:
        worker = _start(make_worker)
        pool[worker.pipe] = worker

    try:
        for _ in range(workers):
            start()
        while pool and (waiting or any(worker.job is not None for worker in pool.values())):
            for pipe in wait(list(pool)):
                assert isinstance(pipe, Connection)
                worker = pool[pipe]
                done = worker.job
                try:
                    message = pickle.loads(pipe.recv_bytes())
                except (EOFError, ConnectionError):
                    del pool[pipe]
                    pipe.close()
                    message = _death(worker.process)
                    if done is not None and waiting:
                        start()
                else:
                    if done is None and message is not None:
                        raise message
                    if waiting:
                        worker.job = waiting.pop()
                        _send(pipe, jobs[worker.job])
                    else:
                        del pool[pipe]
                        pipe.close()
                if done is not None:
                    yield jobs[done], message
        if waiting:
            raise RuntimeError("all worker processes died while they started (out of memory?)")
    finally:
        for worker in pool.values():
            worker.process.kill()
            worker.process.join()


def _start(make_worker: Callable[[], Work[Job, Result]]) -> _Worker:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(make_worker, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process=process, pipe=ours)


def _send(pipe: Connection, job: Any) -> None:
    message = pickle.dumps(job)
    try:
        pipe.send_bytes(message)
    except ConnectionError:
        # The worker has died meanwhile; reading from the pipe reports it.
        logger.debug("a worker died while idle")


def _death(process: BaseProcess) -> RowFailed:
    process.join()
    code = process.exitcode or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return RowFailed(f"the worker process {how}{hint}")


def _serve(make_worker: Callable[[], Work[Job, Result]], pipe: Connection) -> None:
    """The worker process: None (or why not) once loaded, then one outcome for every job."""
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with one_thread():
        try:
            work = make_worker()
        except Exception as error:
            pipe.send_bytes(pickle.dumps(portable(error)))
            return
        pipe.send_bytes(pickle.dumps(None))
        while True:
            try:
                job = pickle.loads(pipe.recv_bytes())
            except EOFError:
                return
            pipe.send_bytes(pickled(attempt(work, job)))


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def attempt(work: Work[Job, Result], job: Job) -> Result | RowFailed | StageStopped:
    """The outcome of one job, whatever happens short of the process's death."""
    try:
        return work(job)
    except StageStopped as stopped:
        return stopped
    except (RowFailed, CannotJudge, InputError) as failure:
        return RowFailed(str(failure))
    except OSError as error:
        full = disk_problem(error) if error.errno in NO_ROOM else None
        return full or RowFailed(told(error))
    except Exception as error:
        unexpected = RowFailed(f"{type(error).__name__}: {error}")
        unexpected.add_note(traceback.format_exc())
        return unexpected


def pickled(outcome: Any) -> bytes:
    """To be sent to another process; a failure where the outcome cannot be."""
    try:
        return pickle.dumps(outcome)
    except Exception as error:
        return pickle.dumps(RowFailed(f"its result cannot be sent between processes: {error}"))


def portable(error: Exception) -> Exception:
    """The exception itself, or its text where it does not survive pickling."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch and OpenCV use one thread inside the block."""
    import cv2
    import torch

    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[Any], None]]:
    """A function to call with every outcome; draws a bar where standard error is a terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]}"),
    )
    global _shown
    failed = 0
    with Progress(*columns, console=console, disable=not console.is_terminal) as shown:
        _shown, before = shown, _shown
        task = shown.add_task(description, total=total, failed="")

        def advance(outcome: Any) -> None:
            nonlocal failed
            failed += isinstance(outcome, RowFailed)
            shown.update(task, advance=1, failed=f"{failed} failed" if failed else "")

        try:
            yield advance
        finally:
            _shown = before


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed or 0.0
        return Text(f"{speed:.1f}/s" if speed >= 1 else f"{60 * speed:.1f}/min")
