"""What scoring a clip costs, against a plain implementation of the published scorer, on one thread.

    taskset -c 1 python benchmarks/scorer_speed.py

Both get the exact geometry of rendered clips; the geometry model is not counted, nor is LPIPS. The plain scorer is
written here from the published description: the cloud of all pixels is projected into every frame, sorted by
depth and written with duplicate indices, the nearest last; MSE and SSIM follow, MVCS frame by frame, and SIFT matches
with a fundamental matrix fitted to all of them. Processor time, the best of several rounds. Writes a CSV and a plot
beside this file or to --out.
"""

import csv
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from matplotlib.figure import Figure
from torch.nn import functional as F

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import world_points
from videogpa.geometry.exact import from_render
from videogpa.metrics import cross_view, epipolar, mvcs_published
from videogpa.metrics.base import Clip
from videogpa.metrics.perceptual import ssim_terms
from videogpa.metrics.reprojection import paper_reprojection
from videogpa.world.paths import CameraMove
from videogpa.world.render import render
from videogpa.world.scene import sample_scene

SIZES = ((240, 360), (392, 518))
FRAMES = 10
GROWTH_SIZES = ((60, 90), (120, 180), (240, 360))
GROWTH_FRAMES = (3, 5, 10, 15)
SEED = 3
SSIM_WINDOW = 11


def clip(height: int, width: int, frames: int) -> GeometryPrediction:
    move = CameraMove("orbits left", "steadily")
    return from_render(render(sample_scene(SEED, move=move), frames, height, width))


def plain_reprojection(geometry: GeometryPrediction) -> torch.Tensor:
    height, width = geometry.depth.shape[1:]
    points = world_points(geometry.depth, geometry.extrinsics_w2c, geometry.intrinsics).view(-1, 3)
    colors = geometry.images.permute(0, 2, 3, 1).reshape(-1, 3)
    images = []
    for pose, camera in zip(geometry.extrinsics_w2c, geometry.intrinsics, strict=True):
        projected = (points @ pose[:, :3].T + pose[:, 3]) @ camera.T
        z = projected[:, 2]
        column = (projected[:, 0] / z).round().long()
        row = (projected[:, 1] / z).round().long()
        seen = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
        farthest_first = torch.argsort(z[seen], descending=True)
        image = torch.zeros(height, width, 3)
        image[row[seen][farthest_first], column[seen][farthest_first]] = colors[seen][farthest_first]
        images.append(image)
    return torch.stack(images).permute(0, 3, 1, 2)


def plain_mvcs(geometry: GeometryPrediction) -> float:
    _, height, width = geometry.depth.shape
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).float().view(3, -1)
    bottom = torch.tensor([[0, 0, 0, 1.0]])
    errors = []
    for i in range(len(geometry.depth) - 1):
        first, second = (torch.cat([pose, bottom]) for pose in geometry.extrinsics_w2c[i : i + 2])
        motion = second @ first.inverse()
        points = geometry.intrinsics[i].inverse() @ pixels * geometry.depth[i].view(1, -1)
        moved = motion[:3, :3] @ points + motion[:3, 3:]
        u, v, _ = (geometry.intrinsics[i + 1] @ moved / moved[2]).view(3, height, width)
        grid = torch.stack([2 * u / (width - 1) - 1, 2 * v / (height - 1) - 1], -1)
        sampled = F.grid_sample(geometry.depth[i + 1][None, None], grid[None], align_corners=True)[0, 0]
        z = moved[2].view(height, width)
        seen = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > 0)
        errors.append((sampled[seen] - z[seen]).square().mean().item())
    return float(np.exp(-np.mean(errors)))


def plain_epipolar(geometry: GeometryPrediction) -> float:
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in _bytes(geometry.images)]
    sift = cv2.SIFT_create()
    errors = []
    for first, second in pairwise(gray):
        points_1, descriptors_1 = sift.detectAndCompute(first, None)
        points_2, descriptors_2 = sift.detectAndCompute(second, None)
        nearest = cv2.BFMatcher().knnMatch(descriptors_1, descriptors_2, k=2)
        good = [a for a, b in nearest if a.distance < 0.75 * b.distance]
        matches = epipolar.Matches(
            np.array([points_1[m.queryIdx].pt for m in good]),
            np.array([points_2[m.trainIdx].pt for m in good]),
        )
        matrix, _ = cv2.findFundamentalMat(*matches, method=cv2.FM_8POINT)
        errors.append(epipolar.sampson_distance(matrix, matches).mean())
    return float(np.mean(errors))


def plain_ssim(a: torch.Tensor, b: torch.Tensor) -> float:
    """The window of 11×11 as one two-dimensional filter, every moment by itself."""
    line = torch.exp(-((torch.arange(SSIM_WINDOW) - SSIM_WINDOW // 2.0) ** 2) / (2 * 1.5**2))
    window = torch.outer(line, line)
    kernel = (window / window.sum()).expand(3, 1, -1, -1)

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, kernel, groups=3)

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    top = (2 * mean_a * mean_b + 0.01**2) * (2 * covariance + 0.03**2)
    bottom = (mean_a**2 + mean_b**2 + 0.01**2) * (variance_a + variance_b + 0.03**2)
    return (top / bottom).mean().item()


def fast_ssim(a: torch.Tensor, b: torch.Tensor) -> float:
    luminance, structure = ssim_terms(a, b)
    return (luminance * structure).mean().item()


def best_seconds(work: Callable[[], object], rounds: int) -> float:
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def same_up_to_ties(
    ours: torch.Tensor, plain: torch.Tensor, geometry: GeometryPrediction
) -> tuple[float, float]:
    """Share of pixels with another colour, and the largest difference of the two mean squared errors.

    Where two points of one pixel are equally deep to within rounding, either may be drawn.
    """
    other = ((ours - plain).abs().amax(1) > 1e-6).float().mean().item()
    errors = [(image - geometry.images).square().mean((1, 2, 3)) for image in (ours, plain)]
    return other, (errors[0] - errors[1]).abs().max().item()


def compare(height: int, width: int, rounds: int) -> list[dict]:
    geometry = clip(height, width, FRAMES)
    whole = Clip(frames=geometry.images, geometry=geometry)
    ours, plain = paper_reprojection(geometry), plain_reprojection(geometry)
    other, mse_gap = same_up_to_ties(ours, plain, geometry)
    mvcs_gap = abs(mvcs_published.measure(whole) - plain_mvcs(geometry))
    print(
        f"{height}x{width}: {other:.2%} of the pixels differ (equal depths), the mean squared errors by at most "
        f"{mse_gap:.1e}, MVCS by {mvcs_gap:.1e}"
    )
    parts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "reprojection": (lambda: plain_reprojection(geometry), lambda: paper_reprojection(geometry)),
        "mse": (
            lambda: F.mse_loss(plain, geometry.images).item(),
            lambda: (ours - geometry.images).square().mean().item(),
        ),
        "ssim": (
            lambda: plain_ssim(plain, geometry.images),
            lambda: fast_ssim(ours, geometry.images),
        ),
        "mvcs": (lambda: plain_mvcs(geometry), lambda: mvcs_published.measure(whole)),
        "epipolar": (lambda: plain_epipolar(geometry), lambda: epipolar.measure(whole)),
    }
    rows = [
        _row("compare", name, height, width, FRAMES, *(best_seconds(w, rounds) for w in work))
        for name, work in parts.items()
    ]
    totals = [sum(row[side] for row in rows) for side in ("plain_seconds", "our_seconds")]
    return [*rows, _row("compare", "all", height, width, FRAMES, *totals)]


def growth(rounds: int) -> list[dict]:
    """Our time over sizes and numbers of frames: linear in pixels and in pairs of frames."""
    rows = []
    shapes = {(h, w, FRAMES) for h, w in GROWTH_SIZES} | {(*GROWTH_SIZES[1], t) for t in GROWTH_FRAMES}
    for height, width, frames in sorted(shapes):
        geometry = clip(height, width, frames)
        whole = Clip(frames=geometry.images, geometry=geometry)
        for name, work in (
            ("reprojection", lambda g=geometry: paper_reprojection(g)),
            ("cross_view", lambda c=whole: _measured(c)),
        ):
            rows.append(_row("growth", name, height, width, frames, None, best_seconds(work, rounds)))
    return rows


def _measured(whole: Clip) -> float | None:
    try:
        return cross_view.measure(whole)
    except CannotJudge:
        return None


def _row(
    part: str, name: str, height: int, width: int, frames: int, plain: float | None, ours: float
) -> dict:
    return {
        "part": part,
        "what": name,
        "height": height,
        "width": width,
        "frames": frames,
        "plain_seconds": plain,
        "our_seconds": ours,
        "times_faster": None if plain is None else plain / ours,
        "ns_per_pixel_and_pair": ours * 1e9 / (height * width * frames**2),
    }


def _bytes(images: torch.Tensor) -> np.ndarray:
    return (images.permute(0, 2, 3, 1) * 255).round().byte().numpy()


def plot(rows: list[dict], path: Path) -> None:
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    by_pixels, by_pairs = figure.subplots(1, 2)
    for name in ("reprojection", "cross_view"):
        own = [r for r in rows if r["part"] == "growth" and r["what"] == name]
        sizes = sorted((r["height"] * r["width"], r["our_seconds"]) for r in own if r["frames"] == FRAMES)
        pairs = sorted((r["frames"] ** 2, r["our_seconds"]) for r in own if r["height"] == GROWTH_SIZES[1][0])
        by_pixels.plot(*zip(*sizes, strict=True), "o-", label=name)
        by_pairs.plot(*zip(*pairs, strict=True), "o-", label=name)
    by_pixels.set(xlabel="pixels a frame", ylabel="seconds", title=f"{FRAMES} frames")
    by_pairs.set(xlabel="pairs of frames", title="{}x{} pixels".format(*GROWTH_SIZES[1]))
    for axes in (by_pixels, by_pairs):
        axes.set(xlim=0, ylim=0)
        axes.legend()
    figure.savefig(path, dpi=120)


def main(
    rounds: Annotated[int, typer.Option(min=1)] = 5, hardware: str = "cpu1", out: Path | None = None
) -> None:
    """Measure, print a table, write CSV and PNG."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    rows = [row for size in SIZES for row in compare(*size, rounds)] + growth(rounds)
    for row in rows:
        plain = "" if row["plain_seconds"] is None else f"{row['plain_seconds']:7.3f} s plain"
        times = "" if row["times_faster"] is None else f"{row['times_faster']:5.1f}x"
        shape = f"{row['height']}x{row['width']}x{row['frames']}"
        print(f"{row['what']:13} {shape:12} {row['our_seconds']:7.3f} s {plain} {times}")
    stem = out or Path(__file__).with_name(f"scorer_speed_{hardware}_{datetime.now(UTC):%Y-%m-%d}")
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in r.items()} for r in rows)
    plot(rows, stem.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
