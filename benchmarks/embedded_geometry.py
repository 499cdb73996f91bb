"""The embedded geometry against the truth on held-out scenes, and what a clip costs.

    python benchmarks/embedded_geometry.py --scenes 200

Writes a row a clip to embedded_geometry_<hardware>_<date>.csv beside this file and the summary to the .md.
"""

import csv
import math
import time
from datetime import UTC, datetime
from pathlib import Path

import torch
import typer
from rich.progress import track

from videogpa.errors import CannotJudge
from videogpa.geometry.base import GeometryPrediction
from videogpa.geometry.cameras import camera_centers, relative_pose, rotation_angle
from videogpa.geometry.embedded import Backend
from videogpa.world.render import Render, render
from videogpa.world.scene import sample_scene

FIRST_SEED = 6_000_000
FRAMES, SIZE = 9, 48
TARGETS = {"abs_rel": 0.08, "normals_deg": 15, "rotation_deg": 1, "direction_deg": 10}


def errors(found: GeometryPrediction, clip: Render) -> dict[str, float]:
    """Depth after one scale a clip (mean); normals and poses (medians over pixels and frames), in degrees."""
    ratio = found.depth / clip.depth
    cosine = (found.normals * clip.normals).sum(1)
    true = relative_pose(clip.extrinsics_w2c[:1].expand(len(ratio), 3, 4), clip.extrinsics_w2c)
    turn = rotation_angle(found.extrinsics_w2c[1:, :, :3] @ true[1:, :, :3].mT)
    path, true_path = camera_centers(found.extrinsics_w2c)[1:], camera_centers(true)[1:]
    direction = torch.nn.functional.cosine_similarity(path, true_path, dim=-1).clamp(-1, 1).acos()
    translates = true_path[-1].norm() > 1e-3
    return {
        "abs_rel": (ratio / ratio.median() - 1).abs().mean().item(),
        "normals_deg": cosine.clamp(-1, 1).acos().rad2deg().median().item(),
        "rotation_deg": turn.rad2deg().median().item(),
        "direction_deg": direction.rad2deg().median().item() if translates else math.nan,
        "albedo_l1": (found.albedo - clip.albedo).abs().mean().item(),
    }


def main(scenes: int = 200, hardware: str = "cpu1", threads: int = 1) -> None:
    """Measure every scene with its own camera move."""
    torch.set_num_threads(threads)
    backend = Backend()
    rows, refused = [], []
    for seed in track(range(FIRST_SEED, FIRST_SEED + scenes), description="scenes"):
        clip = render(sample_scene(seed), FRAMES, SIZE, SIZE)
        start = time.process_time()
        try:
            found = backend.predict(clip.rgb)
        except CannotJudge as reason:
            refused.append(f"- {seed}: {reason}")
            continue
        seconds = time.process_time() - start
        rows.append({"seed": seed, "move": clip.scene.move.text, **errors(found, clip), "seconds": seconds})
    stem = Path(__file__).with_name(f"embedded_geometry_{hardware}_{datetime.now(UTC):%Y-%m-%d}")
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(
            {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()} for row in rows
        )
    stem.with_suffix(".md").write_text(summary(rows, refused, scenes))
    print(stem.with_suffix(".md").read_text())


def summary(rows: list[dict], refused: list[str], scenes: int) -> str:
    """A table of medians, means and 95th percentiles over the clips."""
    lines = [
        f"# Embedded geometry on {scenes} held-out scenes, {FRAMES}x{SIZE}x{SIZE}",
        "",
        f"`python benchmarks/embedded_geometry.py --scenes {scenes}`; {len(refused)} clips refused.",
        "Direction over the clips whose camera translates; seconds are processor time on one thread.",
        "",
        "| | median | mean | 95 % below | target (median) |",
        "|---|---|---|---|---|",
    ]
    for name in list(rows[0])[2:]:
        values = torch.tensor([row[name] for row in rows])
        values = values[~values.isnan()]
        figures = (values.median(), values.mean(), values.quantile(0.95))
        lines.append(f"| {name} | {' | '.join(f'{v:.3f}' for v in figures)} | {TARGETS.get(name, '')} |")
    return "\n".join([*lines, "", *refused]).rstrip() + "\n"


if __name__ == "__main__":
    typer.run(main)
