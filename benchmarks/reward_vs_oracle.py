"""Does a metric rank a prompt's samples as the truth ranks them? Within-prompt Spearman against the oracles.

    python benchmarks/reward_vs_oracle.py SCORES [--result FILE.csv]

SCORES is a scores folder made with the prompts folder given, so that it holds oracle metrics. `picks_better` is the
share of prompts in which the best by the metric is truly better than the worst by it.
"""

import csv
from collections import defaultdict
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from scipy.stats import spearmanr

from videogpa.artifact import read_rows
from videogpa.stages.score import higher_is_better
from videogpa.types import Score


def main(
    scores: Annotated[Path, typer.Argument()],
    result: Annotated[Path | None, typer.Option(help="CSV to write")] = None,
) -> None:
    groups = defaultdict(list)
    for row in read_rows(scores, Score):
        groups[row.prompt_id].append(row.metrics)
    names = list(next(iter(groups.values()))[0])
    oracles = [n for n in names if n.startswith("oracle_")]
    table = []
    for metric in names:
        for oracle in oracles:
            if metric == oracle:
                continue
            correlations, picks = [], []
            for group in groups.values():
                both = [
                    (g[metric], g[oracle]) for g in group if g[metric] is not None and g[oracle] is not None
                ]
                if len(both) < 3 or len({b[0] for b in both}) < 2:
                    continue
                ours, truth = np.array(both).T
                ours = ours if higher_is_better(metric) else -ours
                truth = truth if higher_is_better(oracle) else -truth
                correlations.append(spearmanr(ours, truth).statistic)
                picks.append(float(truth[ours.argmax()] > truth[ours.argmin()]))
            if correlations:
                table.append(
                    {
                        "metric": metric,
                        "oracle": oracle,
                        "spearman": float(np.mean(correlations)),
                        "picks_better": float(np.mean(picks)),
                        "prompts": len(correlations),
                    }
                )
    for row in table:
        print(
            f"{row['metric']:18} {row['oracle']:18} {row['spearman']:+.3f} {row['picks_better']:.2f} {row['prompts']}"
        )
    if result:
        with result.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(table[0]))
            writer.writeheader()
            writer.writerows(table)


if __name__ == "__main__":
    typer.run(main)
