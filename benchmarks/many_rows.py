"""What a run folder costs as it grows: seconds and memory of the process that writes and reads it, 100 to 100,000 rows.

    python benchmarks/many_rows.py --out work/many_rows --result benchmarks/many_rows_cpu2_DATE

The stages themselves run, with a cluster that computes nothing: of every candidate it links the files of one that was
really drawn and scored, and it makes up the scores. What is left is what the stages do beside the rows' own work. Every
phase is a process of its own: its seconds, without the imports that all share, and its largest memory.

`draw`, `score`, `pair`: the stages, from nothing. `reopen`: all three once more, finished. `resume`: scores of which
the last eight rows are missing. `evaluate`: two arms and two seeds, so many rows. `report`: the page of a run that has
so many candidates and rows of its evaluation.
"""

import csv
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from videogpa.artifact import MANIFEST, ROWS, read_rows
from videogpa.recipes import quick
from videogpa.run import run
from videogpa.stages import evaluate, pair, prompts, report, sample, score
from videogpa.stages.evaluate import Arm, EvaluateConfig
from videogpa.stages.prompts import FilePrompts
from videogpa.types import Candidate, Prompt, Score

PHASES = ("draw", "score", "pair", "reopen", "resume", "evaluate", "report")
CANDIDATES = 8
METRICS = ("consistency", "depth_agreement", "motion", "sharpness")


@dataclass(frozen=True)
class Linked:
    """A cluster whose rows are links to one that exists."""

    like: Path

    def outcomes(self, make_worker: Callable[[], Any], jobs: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
        given = make_worker.args
        for job in jobs:
            if isinstance(job, Prompt):
                yield job, self._drawn(given[0], given[2], job)
            else:
                yield job, self._scored(given[1], job)

    def _drawn(self, cfg: Any, out: Path, prompt: Prompt) -> list[Candidate]:
        first = read_rows(self.like / "candidates", Candidate)[0]
        conditioning = self._link(
            self.like / "candidates" / first.conditioning, out, f"conditioning/{prompt.id}"
        )
        return [
            Candidate(
                id=(id := f"{prompt.id}-{k}"),
                prompt_id=prompt.id,
                seed=sample.candidate_seed(cfg.seed, prompt.id, k),
                video=self._link(self.like / "candidates" / first.video, out, f"videos/{id}"),
                latents=self._link(self.like / "candidates" / first.latents, out, f"latents/{id}"),
                conditioning=conditioning,
            )
            for k in range(cfg.candidates)
        ]

    def _scored(self, keep: Path, job: Any) -> Score:
        geometry = next((self.like / "scores" / "geometry").iterdir())
        self._link(geometry, keep, job.id)
        # As good as random, and the same for the same video.
        digest = hashlib.sha256(str(job.video).encode()).digest()
        values = {name: 0.1 + byte / 255 for name, byte in zip(METRICS, digest, strict=False)}
        return Score(
            id=job.id, prompt_id=job.prompt_id, video=job.shown, frames=5, metrics=values, geometry="embedded"
        )

    def _link(self, source: Path, folder: Path, name: str) -> str:
        name += source.suffix
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:
            # A file has no more than so many names (65,000 on ext4).
            fresh = source.with_name(f"fresh-{source.name}")
            shutil.copyfile(source, fresh)
            fresh.replace(source)
            os.link(source, target)
        return name


def main(
    out: Annotated[Path, typer.Option(help="work folder; the largest takes 1 GB")],
    rows: Annotated[list[int] | None, typer.Option(help="repeatable; 100 to 100,000 by default")] = None,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
    phase: Annotated[str | None, typer.Option(help="this one in this process, of one number of rows")] = None,
) -> None:
    if phase is not None and rows:
        print(json.dumps(measured(phase, out, rows[0])))
        return
    if not (out / "like" / "report").exists():
        run(quick.recipe(), out / "like", workers=2)
    table = []
    for count in rows or (100, 1_000, 10_000, 100_000):
        shutil.rmtree(out / str(count), ignore_errors=True)
        for name in PHASES:
            command = [sys.executable, __file__, "--out", str(out), "--rows", str(count), "--phase", name]
            told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            table.append({"rows": count, "phase": name, **json.loads(told.splitlines()[-1])})
            print(table[-1], flush=True)
        shutil.rmtree(out / str(count))
    path = (result or out / "many_rows").with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    for name in PHASES:
        print(name, *fitted([row for row in table if row["phase"] == name]))


def measured(phase: str, out: Path, rows: int) -> dict[str, float]:
    """Seconds of this process (what it waits for the disk is not among them), and MiB above what it takes to start."""
    work = {
        "draw": draw, "score": judge, "pair": choose, "reopen": reopen, "resume": resume,
        "evaluate": hold_out, "report": show,
    }[phase]  # fmt: skip
    before, used = _largest_memory(), time.process_time()
    work(out / "like", out / str(rows), rows)
    return {
        "cpu_seconds": round(time.process_time() - used, 3),
        "mib": round(_largest_memory() - before, 1),
        "mib_in_all": round(_largest_memory(), 1),
    }


def draw(like: Path, home: Path, rows: int) -> None:
    home.mkdir(parents=True, exist_ok=True)
    source = home / "prompts.txt"
    source.write_text("".join(f"a room number {i}\n" for i in range(rows // CANDIDATES)))
    asked = prompts.run_files(FilePrompts(), source, home / "prompts" / "train")
    cfg = quick.recipe().sample.model_copy(update={"candidates": CANDIDATES})
    sample.run(cfg, asked, home / "candidates", workers=Linked(like))


def judge(like: Path, home: Path, rows: int) -> None:
    score.run(quick.recipe().score, home / "candidates", home / "scores", workers=Linked(like))


def choose(like: Path, home: Path, rows: int) -> None:
    pair.run(quick.recipe().pair, home / "scores", home / "pairs")


def reopen(like: Path, home: Path, rows: int) -> None:
    draw(like, home, rows)
    judge(like, home, rows)
    choose(like, home, rows)


def resume(like: Path, home: Path, rows: int) -> None:
    (home / "scores" / MANIFEST).unlink()
    path = home / "scores" / ROWS
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-CANDIDATES]))
    judge(like, home, rows)


def hold_out(like: Path, home: Path, rows: int) -> None:
    source = home / "held_out.txt"
    source.write_text("".join(f"a hall number {i}\n" for i in range(rows // 4)))
    asked = prompts.run_files(FilePrompts(), source, home / "prompts" / "held_out")
    full = quick.recipe().evaluate
    cfg = EvaluateConfig(
        sample=full.sample, score=full.score, arms={"dpo": Arm(lora=str(like / "lora" / "dpo" / "lora"))}
    )
    evaluate.run(cfg, asked, home / "evaluation", workers=Linked(like))


def show(like: Path, home: Path, rows: int) -> None:
    shutil.copytree(like / "lora", home / "lora", dirs_exist_ok=True)
    report.run(home, home / "evaluation", home / "report", workers=1)


def fitted(rows: Sequence[dict[str, float]]) -> tuple[str, str]:
    """Exponents of seconds and of all memory in the number of rows, over the three largest numbers."""
    last = rows[-3:]
    counts = np.log([row["rows"] for row in last])
    seconds, memory = (
        np.polyfit(counts, np.log([max(row[name], 1e-3) for row in last]), 1)[0]
        for name in ("cpu_seconds", "mib_in_all")
    )
    return f"seconds ~ rows^{seconds:.2f}", f"memory ~ rows^{memory:.2f}"


def _largest_memory() -> float:
    # Not `getrusage`: what the parent had counts there.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else math.nan


if __name__ == "__main__":
    typer.run(main)
