"""An evaluation as a dataset that others can look through: every arm's videos, their numbers, and a card."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from videogpa.artifact import copy_atomic, open_artifact, read_rows, require_as_made, write_text_atomic
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import InputError, RowFailed
from videogpa.report.findings import Comparison, Summary, caveat, naming, read_summary, remarks
from videogpa.stages.against_truth import BETWEEN
from videogpa.stages.comparison import GUARDED
from videogpa.stages.evaluate import SUMMARY, read_evaluation
from videogpa.stages.export_pairs import DATASET, METADATA
from videogpa.types import EvalRow, Prompt
from videogpa.video_io import frame_rate, read_video, write_preview


class ExportEvaluationConfig(BaseModel):
    """What is written. `video` "lossless" copies the masters (H.264 RGB, which browsers do not play); "mp4" encodes
    them for browsers. `license` and `title` go on the card; without a licence it names none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    video: Literal["lossless", "mp4"] = "mp4"
    license: str | None = None
    title: str = "Evaluation of video models"


def run(
    cfg: ExportEvaluationConfig,
    evaluation: Path,
    prompts: Path,
    out: Path,
    *,
    workers: Workers = 1,
    overwrite: bool = False,
) -> Path:
    """Write the folder `out/dataset` and return it; its layout is that of the hub's `videofolder`.

    Raises:
        InputError: an input is missing or wrong, prompts that are not the evaluation's, or not one video that can be
            exported.
    """
    rows = [row for row in read_evaluation(evaluation) if row.status == "ok" and row.video is not None]
    texts = {prompt.id: prompt.text for prompt in read_rows(prompts, Prompt)}
    if unknown := sorted({row.prompt_id for row in rows} - texts.keys()):
        raise InputError(f"{prompts} has no prompt '{unknown[0]}', of which {evaluation} has videos")
    summary = read_summary(evaluation / SUMMARY)
    inputs = {"evaluation": evaluation, "prompts": prompts}
    with open_artifact(
        out, stage="evaluation_export", config=cfg, inputs=inputs, row_type=EvalRow, overwrite=overwrite
    ) as artifact:
        folder = out / DATASET
        if artifact.complete:
            return folder
        todo = [row for row in rows if row.id not in artifact.done]
        make_worker = partial(_make_worker, cfg, evaluation, folder)
        for row, failed in map_rows(make_worker, todo, workers=workers, description="exporting"):
            update = {"status": "failed", "reason": str(failed)} if isinstance(failed, RowFailed) else {}
            artifact.append(row.model_copy(update=update))
        exported = [row for row in rows if artifact.done[row.id].status == "ok"]
        if not exported:
            raise InputError(f"not one video of {evaluation} could be exported")
        metrics = list(dict.fromkeys(name for row in exported for name in row.metrics))
        table = [_line(cfg, row, texts[row.prompt_id], metrics) for row in exported]
        lines = [json.dumps(line, ensure_ascii=False, allow_nan=False) for line in table]
        write_text_atomic(folder / METADATA["huggingface"], "\n".join(lines) + "\n")
        for name in (SUMMARY, BETWEEN):
            copy_atomic(require_as_made(evaluation / name), folder / name)
        write_text_atomic(folder / "README.md", _card(cfg, summary, table))
        written = sorted(file.relative_to(out).as_posix() for file in folder.rglob("*") if file.is_file())
        artifact.finish([row.id for row in rows], written)
    return folder


def _make_worker(cfg: ExportEvaluationConfig, evaluation: Path, folder: Path) -> Callable[[EvalRow], None]:
    def store(row: EvalRow) -> None:
        source = evaluation / str(row.video)
        if not source.is_file():
            raise RowFailed(f"{source} is missing")
        if cfg.video == "lossless":
            copy_atomic(source, folder / _file(cfg, row))
        else:
            write_preview(folder / _file(cfg, row), read_video(source), fps=frame_rate(source), scale=1)

    return store


def _file(cfg: ExportEvaluationConfig, row: EvalRow) -> str:
    end = ".mkv" if cfg.video == "lossless" else ".mp4"
    return f"videos/{row.arm}/{row.prompt_id}-{row.seed}{end}"


def _line(cfg: ExportEvaluationConfig, row: EvalRow, text: str, metrics: Sequence[str]) -> dict[str, Any]:
    told = {"file_name": _file(cfg, row), "arm": row.arm, "prompt": text, "prompt_id": row.prompt_id}
    return {**told, "seed": row.seed, **{name: row.metrics.get(name) for name in metrics}}


def _card(cfg: ExportEvaluationConfig, summary: Summary, table: Sequence[Mapping[str, Any]]) -> str:
    front = {"pretty_name": cfg.title, "tags": ["video", "evaluation", "3d-consistency", "videogpa"]}
    front |= {"license": cfg.license} if cfg.license else {}
    columns, prompts = list(table[0]), len({line["prompt_id"] for line in table})
    metrics = columns[columns.index("seed") + 1 :]
    rows = "\n".join(
        _row(compared) for compared in summary.comparisons if compared.higher_is_better is not None
    )
    kept = [name for name in GUARDED if name in metrics]
    asked = f"{len(table)} videos of {len(summary.arms)} arms on the same {prompts} prompts and seeds."
    said = "\n".join(f"- {sentence}" for sentence in (caveat(prompts), *remarks(summary, kept)) if sentence)
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {cfg.title}\n\n"
        f"{asked} {naming(summary)}".rstrip()
        + "\n\n"
        "| arm | against | metric | better is | difference | 95 % interval | prompts won | verdict |\n"
        f"|---|---|---|---|---|---|---|---|\n{rows}\n\n{said}\n\n"
        f"Columns: `file_name` (the video), `arm`, `prompt`, `prompt_id`, `seed`, and the metrics "
        f"{', '.join(f'`{name}`' for name in metrics)}. `{SUMMARY}` has all comparisons, `{BETWEEN}` what the seeds "
        "of a prompt say together.\n\nWritten by `videogpa export-evaluation`.\n"
    )


def _row(compared: Comparison) -> str:
    low, high = (_signed(value) for value in compared.ci95)
    won = "" if compared.win_rate is None else f"{100 * compared.win_rate:.0f} %"
    better = "higher" if compared.higher_is_better else "lower"
    difference = _signed(compared.mean_difference)
    cells = (
        compared.arm,
        compared.against,
        f"`{compared.metric}`",
        better,
        difference,
        f"{low} to {high}",
        won,
        compared.verdict,
    )
    return f"| {' | '.join(cells)} |"


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−")
