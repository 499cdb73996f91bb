"""What a training run shows: a CSV file, TensorBoard, and a progress bar on stderr."""

import csv
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from videogpa.artifact import require_as_made, require_file, write_text_atomic, writing
from videogpa.dpo.health import Health
from videogpa.errors import InputError

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


def read_log(path: Path, done: int | None = None, digest: str | None = None) -> list[dict[str, float]]:
    """The lines of a log, up to step `done` where that is given; one that is being written is left out.

    Args:
        digest: SHA-256 of the log when it ended with that step.

    Raises:
        InputError: it is not what it was then, or was changed since the training's end.
    """
    try:
        require_file(require_as_made(path))
        text = _until(path, done)
        rows = [
            {name: float(value) for name, value in row.items() if value not in ("", None)}
            for row in csv.DictReader(text.splitlines())
        ]
    except (TypeError, ValueError, csv.Error) as error:
        raise InputError(f"{path} is damaged: restore it, or begin anew with --overwrite") from error
    if digest is not None and hashlib.sha256(text.encode()).hexdigest() != digest:
        raise InputError(f"{path} was changed since step {done}: restore it, or begin anew with --overwrite")
    return rows


@contextmanager
def training_log(
    path: Path, board_folder: Path, done: int
) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """A function that writes a step's figures as a CSV line and to TensorBoard.

    What an interrupted run logged after step `done`, where its checkpoint stands, is dropped first.
    """
    from torch.utils.tensorboard import SummaryWriter

    write_text_atomic(path, _until(path, done))
    board = SummaryWriter(board_folder, purge_step=done + 1)
    with writing(path), path.open("a", newline="") as file, board:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")

        def write(row: Mapping[str, float]) -> None:
            step = int(row["step"])
            writer.writerow({**row, "step": step})
            file.flush()
            for name, value in row.items():
                if name != "step":
                    board.add_scalar(name, value, step)

        yield write


def _until(path: Path, done: int | None) -> str:
    # At step 0 whatever is there is of no account.
    lines = path.read_text().splitlines(keepends=True)[1:] if path.exists() and done != 0 else []
    whole = [line for line in lines if line.endswith("\n")]
    kept = [line for line in whole if done is None or int(line.partition(",")[0]) <= done]
    return ",".join(COLUMNS) + "\n" + "".join(kept)


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
