"""Every disease that the doctor names, caught on purpose on the embedded model: which verdicts does each get?

    python benchmarks/doctor_diseases.py --out work/diseases --result benchmarks/doctor_diseases_cpu_DATE.csv

All trainings share the candidates, scores and pairs of the embedded recipe with seed 0; the seeds here are those of the
trainings (labels, held-out pairs, noise). Each LoRA is probed on held-out prompts.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from videogpa.artifact import open_artifact, read_rows
from videogpa.dpo.doctor import Change, Figures, new_accuracy, wilson
from videogpa.errors import InputError
from videogpa.recipes.embedded import recipe
from videogpa.stages import doctor, pair, prompts, sample, score, train
from videogpa.stages.pair import PairConfig
from videogpa.types import PreferencePair, Score
from videogpa.weights import GENERATOR


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a training does otherwise than the embedded recipe, and with which seeds."""

    changes: dict[str, Any]
    pairs: str = "pairs"
    seeds: tuple[int, ...] = (0,)


PROBED = 24
WATCHED = {"stop_at_chosen_rise": None, "stop_when_hopeless": False, "evaluate_every": 20}
LOOSE = {"beta": 100.0, "learning_rate": 1e-3, "steps": 200, **WATCHED}
RUNS = {
    "healthy": Run(changes={}, seeds=tuple(range(6))),
    "random_pairs": Run(changes={"labels": "shuffled"}, seeds=tuple(range(6))),
    "beta_too_small": Run(changes={"beta": 1.0}),
    "beta_a_tenth": Run(changes={"beta": 200.0}),
    "beta_tenfold": Run(changes={"beta": 2e4}),
    "beta_too_large": Run(changes={"beta": 1e6, "stop_when_hopeless": False}),
    "no_op": Run(changes={"learning_rate": 1e-9}),
    "static_pairs": Run(changes={}, pairs="static_pairs", seeds=(0, 1)),
    "static_pairs_longer": Run(
        changes={"learning_rate": 1e-3, "steps": 200, **WATCHED}, pairs="static_pairs", seeds=(0, 1)
    ),
    "static_collapse": Run(changes=LOOSE, pairs="static_pairs", seeds=(0, 1)),
    "static_collapse_control": Run(changes=LOOSE),
    "blur": Run(changes={"objective": "sft", "learning_rate": 2e-3, "steps": 200, **WATCHED}),
    "overfitting": Run(
        changes={"held_out_fraction": 0.9, "evaluation_draws": 1, "steps": 200, **WATCHED}, seeds=(0, 1)
    ),
    "loser_driven": Run(changes={"objective": "dpo", "learning_rate": 1e-3, **WATCHED}, seeds=(0, 1)),
    "rate_too_high": Run(changes={"objective": "dpo", "learning_rate": 3e-3, **WATCHED}, seeds=(0, 1)),
    "diverged": Run(changes={"learning_rate": 1.0, **WATCHED}),
}


def main(
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    result: Annotated[Path | None, typer.Option(help="CSV to write")] = None,
    only: Annotated[list[str] | None, typer.Option(help="only these diseases, repeatable")] = None,
) -> None:
    folders = _shared(out)
    runs = [(name, seed) for name in only or RUNS for seed in RUNS[name].seeds]
    rows = []
    # The first seed of all, then the second.
    for name, seed in sorted(runs, key=lambda run: run[1]):
        folder = _train(name, seed, folders, out)
        rows.append(_row(name, seed, folder, _probe(folder, folders["held_out"], out)))
        print(rows[-1]["verdicts"], rows[-1]["figures"], flush=True)
        with (result or out / "diseases.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


def _shared(out: Path) -> dict[str, Path]:
    """Candidates and both kinds of pairs."""
    cfg = recipe(0)
    train_prompts = prompts.run_world(cfg.train_prompts, out / "prompts" / "train")
    candidates = sample.run(cfg.sample, train_prompts, out / "candidates")
    scores = score.run(cfg.score, candidates, out / "scores")
    return {
        "held_out": prompts.run_world(cfg.held_out_prompts, out / "prompts" / "held_out"),
        "candidates": candidates,
        "pairs": pair.run(cfg.pair, scores, out / "pairs"),
        "static_pairs": _static_pairs(scores, out / "static_pairs"),
    }


def _static_pairs(scores: Path, out: Path) -> Path:
    """Within a prompt the calmer video is the better one."""
    cfg = PairConfig(metric="motion", pairs_per_prompt=3)
    groups: dict[str, list[Score]] = {}
    for row in read_rows(scores, Score):
        groups.setdefault(row.prompt_id or row.id, []).append(row)
    rows = [
        PreferencePair(id=f"{p.rejected}>{p.chosen}", prompt_id=prompt, chosen=p.rejected, rejected=p.chosen)
        for prompt, group in groups.items()
        for p in pair.form_pairs(cfg, prompt, group)
    ]
    with open_artifact(
        out, stage="pairs", config=cfg, inputs={"scores": scores}, row_type=PreferencePair
    ) as artifact:
        if not artifact.complete:
            artifact.append(*(row for row in rows if row.id not in artifact.done))
            artifact.finish([row.id for row in rows])
    return out


def _train(name: str, seed: int, folders: dict[str, Path], out: Path) -> Path:
    run = RUNS[name]
    cfg = recipe(seed).trainings["dpo"].model_copy(update=run.changes)
    folder = out / "lora" / f"{name}_{seed}"
    try:
        train.run(cfg, folders[run.pairs], folders["candidates"], GENERATOR, folder)
    except InputError as error:
        print(f"{folder.name}: {error}")
    return folder


def _probe(folder: Path, held_out: Path, out: Path) -> dict[str, Change]:
    """Nothing of a training that ended without a LoRA."""
    if not (folder / train.SUMMARY).exists():
        return {}
    return doctor.probe(folder, held_out, out / "probes" / folder.name, count=PROBED)


def _row(name: str, seed: int, folder: Path, probes: dict[str, Change]) -> dict[str, Any]:
    [(_, verdicts)] = doctor.examine(folder, probes)
    [training] = doctor.trainings(folder).values()
    log, late = training.rows, training.late
    last, held_out = log[-1], training.evaluations[-1] if training.evaluations else {}
    accuracy, count = new_accuracy(training) or (None, 0)
    return {
        "run": name,
        "seed": seed,
        "verdicts": " ".join(verdict.name for verdict in verdicts) or "healthy",
        "steps": int(last["step"]),
        "effect": _short(last["effect"]),
        "saturation_steps_11_30": _short(_mean(log[10:30], "saturation")),
        "saturation_late": _short(_mean(late, "saturation")),
        "accuracy_late": _short(_mean(late, "accuracy")),
        "accuracy_new": _short(accuracy),
        "accuracy_new_high": _short(None if accuracy is None else wilson(accuracy, count)[1]),
        "new_pairs": count,
        "chosen_change_late": _short(_mean(late, "chosen_change")),
        "rejected_change_late": _short(_mean(late, "rejected_change")),
        **{
            f"held_out_{figure}": _short(held_out.get(f"held_out_{figure}"))
            for figure in ("accuracy", "margin", "chosen_change", "rejected_change")
        },
        **{
            f"{measure}{end}": _short(getattr(probes[measure], field)) if measure in probes else ""
            for measure in ("motion", "sharpness")
            for end, field in (("_change", "median"), ("_low", "low"), ("_high", "high"))
        },
        "figures": " | ".join(verdict.figure for verdict in verdicts),
    }


def _mean(rows: Sequence[Figures], figure: str) -> float | None:
    return sum(row[figure] for row in rows) / len(rows) if rows else None


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    typer.run(main)
