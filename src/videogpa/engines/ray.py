"""Rows computed by actors of a Ray cluster, each of which holds the model (`pip install 'videogpa[ray]'`).

Ray starts a cluster of this machine where `RAY_ADDRESS` names none. All machines have this package and see the run's
folders under the same paths; actors write there, as local workers do.
"""

import logging
import os
import pickle
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videogpa.engines.base import MakeWorker
from videogpa.engines.local import attempt, one_thread, pickled, portable
from videogpa.errors import InputError, RowFailed

FAILED_STARTS = 3
"""Of actors, without one in between that worked, after which nothing more is tried."""


@dataclass(frozen=True, kw_only=True)
class RayWorkers:
    """So many actors, each with its share of a machine: `gpus` may be a fraction.

    A job whose actor dies under it (out of memory, a lost machine) is tried again on a new one, `attempts` times in
    all; then the job alone fails.
    """

    count: int
    cpus: float = 1.0
    gpus: float = 0.0
    attempts: int = 3

    def outcomes(self, make_worker: MakeWorker, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any | RowFailed]]:
        """Pairs (job, result or RowFailed) as they finish.

        Raises:
            InputError: Ray is not installed, no cluster can be reached, `count` is below 1, or `make_worker` raised it.
            RuntimeError: all actors died while they started.
        """
        if self.count < 1:
            raise InputError(f"the number of workers must be at least 1, not {self.count}")
        if jobs:
            yield from _Pool(self, make_worker, jobs).run()


class _Actor:
    """In a process of its own, on some machine."""

    def load(self, make_worker: bytes, folder: str) -> bytes:
        """Make the worker where the driver is, as paths may be relative; returns why not, if so."""
        with one_thread():
            try:
                os.chdir(folder)
                self._work = pickle.loads(make_worker)()
            except Exception as error:
                return pickle.dumps(portable(error))
        return pickle.dumps(None)

    def attempt(self, job: bytes) -> bytes:
        """One job's outcome."""
        with one_thread():
            return pickled(attempt(self._work, pickle.loads(job)))


class _Pool:
    """The actors of one stage; what is under way is kept by Ray's reference of it."""

    def __init__(self, cluster: RayWorkers, make_worker: MakeWorker, jobs: Sequence[Any]):
        self._ray = _connected()
        self._cluster, self._jobs = cluster, jobs
        _require_resources(self._ray, cluster)
        self._load = self._ray.cloudpickle.dumps(make_worker)
        self._actor = self._ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_restarts=0)(_Actor)
        self._waiting = deque(range(len(jobs)))
        self._tried: Counter[int] = Counter()
        self._under_way: dict[Any, tuple[Any, int | None]] = {}
        self._failed_starts = 0

    def run(self) -> Iterator[tuple[Any, Any | RowFailed]]:
        try:
            for _ in range(min(self._cluster.count, len(self._jobs))):
                self._start()
            while self._waiting or any(job is not None for _, job in self._under_way.values()):
                (reference,), _ = self._ray.wait(list(self._under_way), num_returns=1)
                actor, job = self._under_way.pop(reference)
                try:
                    message = pickle.loads(self._ray.get(reference))
                except self._ray.exceptions.RayError as lost:
                    self._ray.kill(actor)
                    yield from self._lost(job, lost)
                    continue
                if job is not None:
                    yield self._jobs[job], message
                elif message is not None:
                    raise message
                self._failed_starts = 0
                self._next(actor)
        finally:
            for actor, _ in self._under_way.values():
                self._ray.kill(actor)

    def _start(self) -> None:
        actor = self._actor.remote()
        self._under_way[actor.load.remote(self._load, str(Path.cwd()))] = (actor, None)

    def _next(self, actor: Any) -> None:
        if self._waiting:
            job = self._waiting.popleft()
            self._under_way[actor.attempt.remote(pickle.dumps(self._jobs[job]))] = (actor, job)
        else:
            self._ray.kill(actor)

    def _lost(self, job: int | None, why: Exception) -> Iterator[tuple[Any, RowFailed]]:
        """An actor died: its job is tried again or, having killed as many as allowed, fails."""
        if job is None:
            self._failed_starts += 1
            if self._failed_starts >= FAILED_STARTS:
                raise RuntimeError(f"workers die while they start: {_first_line(why)}")
        else:
            self._tried[job] += 1
            if self._tried[job] < self._cluster.attempts:
                self._waiting.appendleft(job)
            else:
                times = self._cluster.attempts
                yield self._jobs[job], RowFailed(f"its worker died {times} times: {_first_line(why)}")
        if self._waiting:
            self._start()


def _connected() -> Any:
    try:
        import ray
        import ray.cloudpickle
    except ModuleNotFoundError as error:
        raise InputError("--engine ray wants Ray: pip install 'videogpa[ray]'") from error
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError(f"no Ray cluster can be reached: {_first_line(error)}") from error
    return ray


def _require_resources(ray: Any, cluster: RayWorkers) -> None:
    """Ray itself would wait for ever."""
    wanted = {"CPU": cluster.cpus, "GPU": cluster.gpus}
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(has.get(kind, 0) >= many for kind, many in wanted.items()) for has in machines):
        raise InputError(
            f"no machine of the Ray cluster has the {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs of one worker"
        )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
