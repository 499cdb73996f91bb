"""What a training run shows: a CSV file, TensorBoard, and a progress bar on stderr."""

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from videogpa.artifact import atomic_path
from videogpa.dpo.health import Health

FIGURES = tuple(field.name for field in fields(Health))
COLUMNS = ("step", "loss", *FIGURES, "grad_norm", "lr", "effect", *(f"held_out_{name}" for name in FIGURES))


def figures(
    step: int,
    loss: float,
    health: Health,
    grad_norm: float,
    lr: float,
    effect: float,
    evaluation: Health | None,
) -> dict[str, float]:
    """One line of the log, by `COLUMNS`; without an evaluation its columns are absent."""
    row = {"step": float(step), "loss": loss, **asdict(health)}
    row |= {"grad_norm": grad_norm, "lr": lr, "effect": effect}
    held_out = asdict(evaluation) if evaluation else {}
    return row | {f"held_out_{name}": value for name, value in held_out.items()}


def read_log(path: Path) -> list[dict[str, float]]:
    """The lines of a log; one that is being written is left out."""
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [
        {name: float(value) for name, value in row.items() if value not in ("", None)}
        for row in csv.DictReader(lines)
    ]


@contextmanager
def training_log(
    path: Path, board_folder: Path, done: int
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A function that writes a step's figures as a CSV line and to TensorBoard.

    What an interrupted run logged after step `done`, where its checkpoint stands, is dropped first.
    """
    from torch.utils.tensorboard import SummaryWriter

    _truncate(path, done)
    board = SummaryWriter(board_folder, purge_step=done + 1)
    with path.open("a", newline="") as file, board:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")

        def write(row: Mapping[str, float]) -> None:
            step = int(row["step"])
            writer.writerow({**row, "step": step})
            file.flush()
            for name, value in row.items():
                if name != "step":
                    board.add_scalar(name, value, step)

        yield write


def _truncate(path: Path, done: int) -> None:
    lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() else []
    kept = [line for line in lines if line.endswith("\n") and int(line.partition(",")[0]) <= done]
    with atomic_path(path) as temporary:
        temporary.write_text(",".join(COLUMNS) + "\n" + "".join(kept))


@contextmanager
def progress_bar(
    steps: int, done: int, what: str = "train", *, quiet: bool = False
) -> Iterator[Callable[[Health], None]]:
    """A function that advances a progress bar on stderr by one step."""
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=quiet) as progress:
        task = progress.add_task(what, total=steps, completed=done, figures="")

        def tick(health: Health) -> None:
            rate = progress.tasks[task].speed
            figures = f"accuracy {health.accuracy:.2f}" + (f", {rate:.2f} steps/s" if rate else "")
            progress.update(task, advance=1, figures=figures)

        yield tick
