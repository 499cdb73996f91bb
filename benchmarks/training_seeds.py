"""The embedded recipe with several seeds: does the gain come back?

    python benchmarks/training_seeds.py --out work/seeds --result benchmarks/training_seeds_cpu_DATE

Every seed draws its own candidates and trains its own LoRAs; held-out prompts and their seeds are the same. For every
run the table says whether DPO beats the base and its own shuffled-label control, with the interval clear of zero.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rows import write_rows

from videogpa.recipes.embedded import recipe
from videogpa.run import run

SHOWN = ("consistency", "oracle_flow_epe", "oracle_psnr", "oracle_ssim", "oracle_warp", "depth_agreement", "motion",
         "sharpness")  # fmt: skip


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    seeds: int = 3,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    rows = []
    for seed in range(seeds):
        run(recipe(seed), out / f"seed{seed}", workers=workers)
        summary = json.loads((out / f"seed{seed}" / "evaluation" / "summary.json").read_text())
        rows += [_row(seed, c) for c in summary["comparisons"] if c["metric"] in SHOWN]
        for row in rows[-3 * len(SHOWN) :]:
            print(row)
        print(f"seed {seed}: {verdict(summary) or 'every claim holds'}")
    write_rows(rows, result or out / "training_seeds")


def verdict(summary: dict[str, Any]) -> list[str]:
    """Which of the demo's claims do not hold; empty if all do."""
    found = {(c["arm"], c["against"], c["metric"]): c for c in summary["comparisons"]}
    view, oracles = found["dpo", "base", "consistency"], ("oracle_psnr", "oracle_ssim", "oracle_flow_epe")
    better = [m for m in oracles if _sign(found["dpo", "base", m]) > 0]
    worse = [m for m in oracles if _sign(found["dpo", "base", m]) < 0]
    against_control = [m for m in better if _sign(found["dpo", "dpo_random", m]) > 0]
    problems = list(summary["guards"]["dpo"])
    if view["win_rate"] < 0.68 or _sign(view) <= 0:
        problems.append(f"consistency win rate {view['win_rate']:.2f}")
    if worse or not better:
        problems.append(f"oracles better: {better}, worse: {worse}")
    if _sign(found["dpo", "dpo_random", "consistency"]) <= 0:
        problems.append("consistency no better than with shuffled labels")
    if not against_control:
        problems.append("no oracle better than with shuffled labels")
    return problems


def _sign(comparison: dict[str, Any]) -> int:
    """1 better, -1 worse, 0 when the interval holds zero."""
    low, high = comparison["ci95"]
    if low <= 0 <= high:
        return 0
    return 1 if (low > 0) == comparison["higher_is_better"] else -1


def _row(seed: int, c: dict[str, Any]) -> dict[str, Any]:
    values = {"mean_difference": c["mean_difference"], "low": c["ci95"][0], "high": c["ci95"][1]}
    return {
        "seed": seed,
        "arm": c["arm"],
        "against": c["against"],
        "metric": c["metric"],
        **{k: f"{v:.5f}" for k, v in values.items()},
        "win_rate": f"{c['win_rate']:.3f}",
        "n": c["n"],
        "verdict": {1: "better", -1: "worse", 0: "unclear"}[_sign(c)],
    }


if __name__ == "__main__":
    typer.run(main)
