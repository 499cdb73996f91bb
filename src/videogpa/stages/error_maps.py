"""Where every scored video is inconsistent, kept for dense preferences (`dpo/dense.py`)."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from videogpa.artifact import open_artifact, read_rows, require_as_made
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import CannotJudge, InputError, RowFailed
from videogpa.stages.score import GEOMETRY
from videogpa.types import Row, Score


class ErrorMapConfig(BaseModel):
    """Nothing to choose: the maps are those of `consistency` on the geometry that the score stage kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def run(scores: Path, out: Path, *, workers: Workers = 1, overwrite: bool = False) -> Path:
    """One file `<id>.safetensors` for each good score: `error` [t h w] in [0, 1) and `judged` [t h w].

    A video of which nothing could be judged is a failed row with its reason.

    Raises:
        InputError: the scores are missing or keep no geometry.
    """
    rows = [row for row in read_rows(scores, Score) if row.status == "ok"]
    if not (scores / GEOMETRY).is_dir():
        raise InputError(f"{scores} keeps no geometry: score the candidates with `videogpa score-candidates`")
    with open_artifact(
        out,
        stage="error_maps",
        config=ErrorMapConfig(),
        inputs={"scores": scores},
        row_type=Row,
        overwrite=overwrite,
    ) as artifact:
        if artifact.complete:
            return out
        todo = [row.id for row in rows if row.id not in artifact.done]
        for id, result in map_rows(
            partial(_make_worker, scores, out), todo, workers=workers, description="error maps"
        ):
            failed = isinstance(result, RowFailed)
            artifact.append(Row(id=id, status="failed", reason=str(result)) if failed else Row(id=id))
        good = [row.id for row in rows if artifact.done[row.id].status == "ok"]
        artifact.finish([row.id for row in rows], [f"{id}.safetensors" for id in good])
    return out


def _make_worker(scores: Path, out: Path) -> Callable[[str], None]:
    from videogpa.families.base import save_tensors
    from videogpa.geometry.base import load_prediction
    from videogpa.metrics.consistency import error_maps

    def write(id: str) -> None:
        path = require_as_made(scores / GEOMETRY / f"{id}.safetensors")
        if not path.is_file():
            raise RowFailed("no geometry was recovered")
        try:
            error, judged = error_maps(load_prediction(path))
        except CannotJudge as unknown:
            raise RowFailed(str(unknown)) from unknown
        save_tensors(out / f"{id}.safetensors", {"error": error, "judged": judged})

    return write
