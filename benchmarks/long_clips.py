"""Long walks of a quick camera, scored whole and in windows.

    python benchmarks/long_clips.py

The world's own paths are one move long; here six follow each other, 24 frames each. Writes a CSV beside this file or to
--out.
"""

import csv
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import torch
import typer

from videogpa.fidelity.battery import battery_scene
from videogpa.geometry.cameras import compose
from videogpa.stages.score import ScoreConfig, jobs_for_paths, score_videos
from videogpa.tensors import Extrinsics
from videogpa.video_io import write_master
from videogpa.world.paths import CameraMove, Motion, camera_path
from videogpa.world.render import render_from, scene_path, world_intrinsics
from videogpa.world.scene import Scene

WALKS: dict[str, list[Motion]] = {
    "pan": ["pans left"] * 6,
    "there_and_back": ["trucks left", "trucks right"] * 3,
    "wander": ["trucks left", "pans right", "dollies forward", "pans left", "trucks right", "tilts up"],
    "circle": ["orbits left"] * 6,
}
SCENES = (7, 3)
FRAMES_A_MOVE = 25
HEIGHT, WIDTH = 96, 160
WAYS = ({}, {"max_frames": 49}, {"window": 24}, {"window": 49}, {"window": 97})


def walk(scene: Scene, moves: list[Motion]) -> Extrinsics:
    """The moves one after the other, each starting from where the camera is by then."""
    path = scene_path(replace(scene, move=CameraMove(moves[0], "quickly")), FRAMES_A_MOVE)
    for move in moves[1:]:
        step = camera_path(CameraMove(move, "quickly"), FRAMES_A_MOVE)[1:]
        path = torch.cat([path, compose(step, path[-1:].expand(len(step), 3, 4))])
    return path


def rendered(scene: Scene, path: Extrinsics) -> Iterator[torch.Tensor]:
    camera, start = world_intrinsics(HEIGHT, WIDTH, 1), torch.zeros(1)
    for pose in path:
        yield render_from(scene, pose[None], camera, start, HEIGHT, WIDTH).rgb[0]


def judged(video: Path, **way: int) -> dict[str, object]:
    cfg = ScoreConfig(geometry="embedded", metrics=("consistency",), **way)
    (row,) = score_videos(cfg, jobs_for_paths([video]), workers=1)
    values = [w.metrics["consistency"] for w in row.windows]
    return {
        "max_frames": cfg.max_frames,
        "window": cfg.window,
        "consistency": row.metrics["consistency"],
        "windows": len(values) or None,
        "windows_judged": sum(v is not None for v in values) if values else None,
        "values": " ".join("-" if v is None else f"{v:.3f}" for v in values),
    }


def main(out: Path | None = None) -> None:
    """Render, score, print, write the CSV."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, moves in WALKS.items():
            for number in SCENES:
                scene = battery_scene("development", number)
                path = walk(scene, moves)
                video = Path(folder) / f"{name}_{number}.mkv"
                write_master(video, rendered(scene, path))
                for way in WAYS:
                    rows.append({"walk": name, "scene": number, "frames": len(path)} | judged(video, **way))
                    print(rows[-1], flush=True)
    path = out or Path(__file__).with_name(f"long_clips_cpu1_{datetime.now(UTC):%Y-%m-%d}.csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in r.items()} for r in rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    typer.run(main)
