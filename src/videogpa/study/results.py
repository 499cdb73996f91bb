"""The results of a study as files: everything in JSON, the comparisons and the votes as tables, and a page."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from videogpa.artifact import read_rows, write_json_atomic
from videogpa.report.page import PAGE, render, replacing
from videogpa.study.analysis import analyse
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
        InputError: the study or the evaluation is not complete, or `out` holds something else.
    """
    items = read_rows(study, StudyItem)
    measured = [] if evaluation is None else read_rows(evaluation, EvalRow)
    found = analyse(cfg, items, votes, measured)
    with replacing(out) as page:
        write_json_atomic(page / RESULTS, found)
        _write_table(page / COMPARISONS, found["comparisons"])
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


def _write_table(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)
