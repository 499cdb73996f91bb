"""What `videogpa score --full-size` is worth, against the same formula computed directly, and what it costs.

    python benchmarks/high_resolution.py same        # tiles against the direct sums, exact geometry
    python benchmarks/high_resolution.py agreement   # full size with coarse geometry against exact geometry
    python benchmarks/high_resolution.py edges       # exact geometry reduced and enlarged again, edges led or not
    python benchmarks/high_resolution.py clip FOLDER # a clip of 49x3840x2160 and the same with a fault
    python benchmarks/high_resolution.py cost CLIP   # the real command: wall time, peak memory, score

Each writes a CSV beside this file or to --out.
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from scipy.stats import spearmanr
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.fidelity.battery import Case, battery_scene, clean_clip, frames_of
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import resize_intrinsics
from videogpa.geometry.enlargement import enlarged
from videogpa.geometry.exact import from_render
from videogpa.geometry.movers import with_movers
from videogpa.geometry.options import build
from videogpa.metrics import consistency, full_size
from videogpa.metrics.base import Clip
from videogpa.tensors import Video
from videogpa.video_io import write_master
from videogpa.world.faults import warp
from videogpa.world.render import render_from, scene_path, world_intrinsics

SCENE, FRAMES, HEIGHT, WIDTH = 7, 49, 2160, 3840
BAND = 40
"""Rows rendered at a time."""
JITTER = 1.0
"""Root mean square of the fault, in percent of the longer side."""
KNOTS = 4
COARSE_SIZES = ((48, 88), (136, 240))
SAME_SIZES = ((360, 640), (720, 1280))
FAULTS = ("warp_jitter", "wobble", "texture_swim", "growing_blur")
STRENGTHS = (2, 4)

Out = Annotated[Path | None, typer.Option(help="CSV to write")]
app = typer.Typer(no_args_is_help=True)


@app.command()
def same(out: Out = None) -> None:
    """The sums over tiles against those over whole frames: all pairs of 9 frames, exact geometry."""
    rows = []
    for height, width in SAME_SIZES:
        geometry = from_render(clean_clip("development", SCENE, 9, height, width))
        direct = consistency.agreement(geometry)
        tiled = full_size.agreement(geometry, lambda t, g=geometry: g.images[t], key_frames=9)
        rows.append(
            {"height": height, "width": width, "direct": direct, "tiled": tiled, "gap": tiled - direct}
        )
        print(rows[-1], flush=True)
    _write(out, "same", rows)


@app.command()
def agreement(
    geometry: str = "embedded", scenes: int = 3, height: int = 270, width: int = 480, out: Out = None
) -> None:
    """Clean and spoiled clips: the reduced score, the full-size one, the direct one with exact geometry."""
    backend, rows = build(geometry, {}), []
    for scene in range(scenes):
        clean = clean_clip("development", scene, 9, height, width)
        for case in _cases(scene):
            frames = frames_of(case, clean)
            row = {"case": case.id, "change": case.change, "scene": scene, "strength": case.strength}
            row |= {"exact": _judged(from_render(clean, frames), frames)}
            rows.append(row | _hierarchical(backend.predict, frames, clean.depth))
            print(rows[-1], flush=True)
    _write(out, f"agreement_{geometry}", rows)
    for name in ("reduced", "full_size", "full_size_bilinear"):
        print(name, _summary(rows, name))


@app.command()
def edges(scenes: int = 3, height: int = 270, width: int = 480, out: Out = None) -> None:
    """What edges led by the picture are worth where the coarse geometry is otherwise right."""
    rows = []
    for scene in range(scenes):
        clean = clean_clip("development", scene, 9, height, width)
        for case in (Case(scene, "clean", "clean", 0), Case(scene, "fault", "wobble", 2)):
            exact = from_render(clean, frames_of(case, clean))
            for size in COARSE_SIZES:
                led = enlarged(_reduced(exact, size), exact.images)
                plain = _with_plain_depth(led, _reduced(exact, size))
                row = {
                    "case": case.id,
                    "coarse": "{}x{}".format(*size),
                    "direct": consistency.agreement(exact),
                }
                row |= {"bilinear": consistency.agreement(plain), "led": consistency.agreement(led)}
                row |= {"error_bilinear": _log_error(plain.depth, exact.depth)}
                rows.append(row | {"error_led": _log_error(led.depth, exact.depth)})
                print(rows[-1], flush=True)
    _write(out, "edges", rows)


def _reduced(geometry: GeometryPrediction, size: tuple[int, int]) -> GeometryPrediction:
    inverse = F.interpolate(1 / geometry.depth[:, None], size, mode="area")[:, 0]
    return GeometryPrediction(
        depth=1 / inverse,
        confidence=torch.ones_like(inverse),
        extrinsics_w2c=geometry.extrinsics_w2c,
        intrinsics=resize_intrinsics(geometry.intrinsics, tuple(geometry.depth.shape[1:]), size),
        images=F.interpolate(geometry.images, size, mode="area"),
        scale=geometry.scale,
    )


def _with_plain_depth(fine: GeometryPrediction, coarse: GeometryPrediction) -> GeometryPrediction:
    inverse = F.interpolate(1 / coarse.depth[:, None], fine.depth.shape[1:], mode="bilinear")[:, 0]
    return replace(fine, depth=1 / inverse)


def _cases(scene: int) -> Iterator[Case]:
    yield Case(scene, "clean", "clean", 0)
    yield from (Case(scene, "fault", fault, strength) for fault in FAULTS for strength in STRENGTHS)


def _hierarchical(predict, frames: Video, true_depth) -> dict[str, float | None]:
    try:
        coarse = with_movers(predict(frames))
    except CannotJudge:
        return {}
    ready = consistency.prepared(coarse)
    led = enlarged(ready, frames)
    plain = _with_plain_depth(led, ready)
    row = {"reduced": _judged(coarse, frames)}
    try:
        row["full_size"] = full_size.measure(Clip(frames=frames, geometry=coarse), lambda t: frames[t])
    except CannotJudge:
        row["full_size"] = None
    row["full_size_bilinear"] = _judged(plain, frames)
    row["error_bilinear"] = _log_error(plain.depth, true_depth)
    row["error_led"] = _log_error(led.depth, true_depth)
    return row


def _judged(geometry: GeometryPrediction, frames: Video) -> float | None:
    try:
        return consistency.measure(Clip(frames=frames, geometry=geometry))
    except CannotJudge:
        return None


def _log_error(depth, true) -> float:
    """Mean absolute error of log depth, each frame's median taken off; unknown pixels left out."""
    known = depth > 0
    error = torch.where(known, (depth / true).log(), torch.nan).flatten(1)
    return (error - error.nanmedian(1, keepdim=True).values).abs().nanmean().item()


def _summary(rows: list[dict], name: str) -> dict[str, float]:
    judged = [(r["exact"], r[name]) for r in rows if r.get(name) is not None]
    exact, found = np.array(judged).T
    orders = []
    for row in rows:
        if row["strength"] != STRENGTHS[0]:
            continue
        line = [r for r in rows if r["scene"] == row["scene"] and r["change"] in ("clean", row["change"])]
        values = [r.get(name) for r in sorted(line, key=lambda r: r["strength"])]
        orders += [a > b for a, b in pairwise(values) if a is not None and b is not None]
    return {
        "clips": len(judged),
        "spearman": float(spearmanr(exact, found).statistic),
        "mean_difference": float((found - exact).mean()),
        "ranked_right": float(np.mean(orders)),
    }


@app.command()
def clip(folder: Path) -> None:
    """Render a clip of 49x3840x2160 band by band, and bend every frame of a copy by a smooth field of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    write_master(folder / "clean.mkv", _rendered(), fps=24)
    write_master(folder / "jitter.mkv", _jittered(_rendered()), fps=24)


def _rendered() -> Iterator[torch.Tensor]:
    scene = battery_scene("development", SCENE)
    path, cameras = scene_path(scene, FRAMES), world_intrinsics(HEIGHT, WIDTH, FRAMES)
    progress = torch.linspace(0, 1, FRAMES)
    for t in range(FRAMES):
        bands = []
        for top in range(0, HEIGHT, BAND):
            camera = cameras[t, None].clone()
            camera[:, 1, 2] -= top
            band = render_from(
                scene, path[t, None], camera, progress[t, None], min(BAND, HEIGHT - top), WIDTH
            )
            bands.append(band.rgb[0])
        yield torch.cat(bands, 1)


def _jittered(frames: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    rng = np.random.default_rng(SCENE)
    for frame in frames:
        drawn = torch.from_numpy(rng.normal(size=(1, 2, KNOTS, KNOTS))).float()
        field = F.interpolate(drawn, frame.shape[-2:], mode="bicubic", align_corners=True)
        field *= JITTER / 100 * max(frame.shape[-2:]) / field.square().sum(1).mean().sqrt()
        yield warp(frame[None], field)[0]


PEAK = """
import atexit, resource, sys
from videogpa.cli import main
def peak():
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_maxrss, used.ru_utime + used.ru_stime, file=sys.stderr)
atexit.register(peak)
sys.argv[0] = "videogpa"
main()
"""


@app.command()
def cost(videos: list[Path], geometry: str = "embedded", out: Out = None) -> None:
    """`videogpa score VIDEO --full-size` in a fresh process."""
    rows = []
    for video in videos:
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "scores.json"
            command = ["score", str(video), "--full-size", "--geometry", geometry, "--json", str(found)]
            start = time.monotonic()
            run = subprocess.run([sys.executable, "-c", PEAK, *command], capture_output=True, text=True)
            seconds = time.monotonic() - start
            peak, processor = run.stderr.split()[-2:]
            scored = json.loads(found.read_text())["videos"][0]
        rows.append(
            {
                "video": video.stem,
                "geometry": geometry,
                "frames": scored["frames"],
                "wall_seconds": seconds,
                "processor_seconds": float(processor),
                "peak_gib": int(peak) / 2**20,
                "consistency": scored["metrics"]["consistency"],
                "reason": scored["reason"],
            }
        )
        print(rows[-1], flush=True)
    _write(out, f"cost_{geometry}", rows)


def _write(out: Path | None, part: str, rows: list[dict]) -> None:
    path = out or Path(__file__).with_name(f"high_resolution_{part}_cpu1_{datetime.now(UTC):%Y-%m-%d}.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, {key: None for row in rows for key in row})
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in r.items()} for r in rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    app()
