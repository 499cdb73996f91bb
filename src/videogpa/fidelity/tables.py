"""The benchmark's figures as tables and plots."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from videogpa.artifact import atomic_path

PLOTS = "plots"
HEADLINE = ("judged", "ranking", "monotone", "above_clean", "false_alarms", "threshold")


def write_tables(out: Path, summary: Mapping[str, Any]) -> None:
    """`metrics.csv`, `changes.csv`, `shifts.csv`, `oracles.csv` and `plots/<metric>.png` from a summary."""
    _write_csv(out / "metrics.csv", headline_rows(summary))
    _write_csv(
        out / "changes.csv",
        [{"metric": m} | _spread(c) for m, figures in summary.items() for c in figures["changes"]],
    )
    for table, parts in (("shifts", ("invariance", "gloss")), ("oracles", ("oracles",))):
        rows = [
            {"metric": m} | row for m, figures in summary.items() for part in parts for row in figures[part]
        ]
        if rows:
            _write_csv(out / f"{table}.csv", rows)
    (out / PLOTS).mkdir(exist_ok=True)
    for metric, figures in summary.items():
        if any(any(d is not None for d in c["drops"]) for c in figures["changes"]):
            with atomic_path(out / PLOTS / f"{metric}.png") as temporary:
                _plot(temporary, metric, figures)


def headline_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a metric: the battery's figures and the rank correlations with the oracles."""
    rows = []
    for metric, figures in summary.items():
        row: dict[str, Any] = {"metric": metric} | {k: figures["battery"][k] for k in HEADLINE}
        for found in figures["oracles"]:
            row[f"{found['oracle']} by {found['geometry']}"] = found["spearman"]
        rows.append(row)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return [{column: row.get(column) for column in columns} for row in rows]


def _spread(change: Mapping[str, Any]) -> dict[str, Any]:
    drops = list(change["drops"]) + [None] * (4 - len(change["drops"]))
    return {k: v for k, v in change.items() if k != "drops"} | {
        f"drop_{i + 1}": drop for i, drop in enumerate(drops)
    }


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in row.items()})


def _plot(path: Path, metric: str, figures: Mapping[str, Any]) -> None:
    """Left: median drop of every fault against its strength. Right: what must not drop, or must not rise."""
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    changes = figures["changes"]
    for change in (c for c in changes if c["kind"] == "fault"):
        drops = [0.0, *(float("nan") if d is None else d for d in change["drops"])]
        left.plot(range(len(drops)), drops, marker="o", label=change["change"].replace("_", " "))
    left.set(xlabel="strength (0 = clean)", ylabel="median drop of the score", title=f"{metric}: faults")
    left.legend(frameon=False, fontsize=8)
    others = [c for c in changes if c["kind"] != "fault"]
    for place, change in enumerate(others):
        known = [d for d in change["drops"] if d is not None]
        color = "tab:green" if change["kind"] == "legitimate" else "tab:gray"
        right.plot([place] * len(known), known, "o", color=color)
    right.set_xticks(
        range(len(others)), [c["change"].replace("_", " ") for c in others], rotation=60, ha="right"
    )
    right.set_title("degradations (grey, must not be below 0), legitimate (green)")
    threshold = figures["battery"]["threshold"]
    if threshold is not None:
        right.axhline(threshold, color="tab:red", linewidth=1, label="false alarm above")
        right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        axes.axhline(0, color="black", linewidth=0.6)
    figure.savefig(path, dpi=110, format="png")
