"""The geometry of one video, in the formats of other programs."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from videogpa.errors import CannotJudge, RowFailed
from videogpa.geometry.base import GeometryPrediction, load_prediction
from videogpa.geometry.options import build
from videogpa.plugin import load
from videogpa.stages.score import ScoreConfig, check
from videogpa.video_io import read_video

SAVED = ".safetensors"


class ExportConfig(BaseModel):
    """What is exported. Of `score` only the geometry and the frames matter, and nothing where a saved prediction is
    given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    formats: tuple[str, ...] = ("ply",)
    score: ScoreConfig = ScoreConfig()
    min_confidence: float = Field(default=0.0, ge=0)


def run(cfg: ExportConfig, source: Path, out: Path) -> list[Path]:
    """Write every format of `source`, a video or a saved prediction (`geometry/<id>.safetensors` of a scores
    folder), into `out`; returns what was written.

    Raises:
        InputError: an unknown format or geometry model, a package that a format needs, or a file that is
            neither a video nor a prediction.
        RowFailed: the video cannot be read, or it has no geometry.
    """
    formats = [load("export", name) for name in cfg.formats]
    try:
        prediction = _prediction(cfg, source)
        return [f.write(out, source.stem, prediction, cfg.min_confidence) for f in formats]
    except CannotJudge as unknown:
        raise RowFailed(f"{source} cannot be exported: {unknown}") from unknown


def _prediction(cfg: ExportConfig, source: Path) -> GeometryPrediction:
    if source.suffix == SAVED:
        return load_prediction(source)
    check(cfg.score)
    backend = build(cfg.score.geometry, cfg.score.geometry_options)
    return backend.predict(read_video(source, max_frames=cfg.score.max_frames, max_side=cfg.score.max_side))
