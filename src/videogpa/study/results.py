"""The results of a study as files: everything in JSON, the comparisons and the votes as tables, and a page."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from videogpa.artifact import CONFIG, read_manifest, read_rows, write_json_atomic
from videogpa.errors import InputError
from videogpa.report.findings import read_summary
from videogpa.report.page import PAGE, render, replacing
from videogpa.stages.evaluate import SUMMARY, read_evaluation
from videogpa.study.analysis import analyse
from videogpa.study.material import SHOWN_ROWS
from videogpa.study.plan import StudyConfig, StudyItem
from videogpa.study.progress import by_rater, chosen, conduct
from videogpa.study.votes import Vote
from videogpa.types import EvalRow

RESULTS, COMPARISONS, VOTES = "results.json", "comparisons.csv", "votes.csv"


def write_results(
    study: Path, cfg: StudyConfig, votes: Sequence[Vote], out: Path, *, evaluation: Path | None = None
) -> Path:
    """Write `results.json`, `comparisons.csv`, `votes.csv` and `index.html` into `out`, replaced in one step.

    Args:
        evaluation: the one whose videos were shown; with it, metrics are compared with the raters.

    Raises:
        InputError: the study or the evaluation is not complete, the evaluation is not the one that the study was made
            from, or `out` holds something else.
    """
    items = read_rows(study, StudyItem)
    found = analyse(cfg, items, votes, *_measured(study, evaluation))
    with replacing(out) as page:
        write_json_atomic(page / RESULTS, found)
        _write_table(page / COMPARISONS, map(_flat, found["comparisons"]))
        _write_table(page / VOTES, vote_table(cfg, items, votes))
        files = {"results": RESULTS, "comparisons": COMPARISONS, "votes": VOTES}
        (page / PAGE).write_text(render("study.html", found | {"files": files}), encoding="utf-8")
    return out


def vote_table(
    cfg: StudyConfig, items: Sequence[StudyItem], votes: Sequence[Vote]
) -> Iterable[dict[str, Any]]:
    """One row a vote and question, with the arms by name."""
    known = {item.id: item for item in items}
    excluded = {name: conduct(cfg, known, own).excluded for name, own in by_rater(votes).items()}
    for vote in votes:
        item = known[vote.item]
        for question in cfg.questions:
            choice = chosen(vote, question.key)
            yield {
                "rater": vote.rater.name,
                "excluded": excluded[vote.rater.name] or "",
                "position": vote.position,
                "item": vote.item,
                "kind": "again" if vote.again else item.kind,
                "prompt_id": item.prompt_id,
                "seed": item.seed,
                "first": item.arms[0],
                "second": item.arms[1],
                "left": vote.left,
                "question": question.key,
                "answer": vote.answers[question.key],
                "chosen": "tie" if choice is None else item.arms[0 if choice == "first" else 1],
                "reasons": "; ".join(vote.tags),
                "seconds": round(vote.seconds, 3),
                "received": vote.received.isoformat(timespec="milliseconds"),
            }


def _measured(study: Path, evaluation: Path | None) -> tuple[list[EvalRow], dict[str, bool]]:
    """The evaluation's rows, and of metrics from outside whether higher is better."""
    if evaluation is None:
        return [], {}
    rows, outside = read_evaluation(evaluation), read_summary(evaluation / SUMMARY).external
    inputs = json.loads((study / CONFIG).read_bytes())["inputs"]
    if inputs.get(SHOWN_ROWS) != read_manifest(evaluation).rows_sha256:
        raise InputError(f"{evaluation} is not the evaluation that {study} was made from")
    return rows, {name: told.higher_is_better for name, told in outside.items()}


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Intervals as two columns."""
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if key.endswith("95"):
            flat[f"{key}_low"], flat[f"{key}_high"] = value or ("", "")
        else:
            flat[key] = value
    return flat


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
