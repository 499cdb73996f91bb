"""What a stage asks of whatever computes its rows."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

from videogpa.errors import RowFailed

MakeWorker = Callable[[], Callable[[Any], Any]]


@runtime_checkable
class Cluster(Protocol):
    """Workers on other machines, too; `engines.local.map_rows` says what is asked of them."""

    def outcomes(self, make_worker: MakeWorker, jobs: Sequence[Any]) -> Iterator[tuple[Any, Any | RowFailed]]:
        """Pairs (job, result or RowFailed) as they finish."""
        ...


Workers = int | Cluster
"""So many processes of this machine, or a cluster."""
