"""How well the embedded video model draws: oracle error, direction of motion and sharpness on held-out prompts.

    python benchmarks/base_quality.py --out work/base_quality

Every sample is compared with the one true continuation of its first frame and caption. The direction is right when
the sample's flow is nearer (end-point error) to the true flow of its caption's camera move than to that of the
opposite move at the same speed; `ten_way` asks for the nearest of all ten moves.
"""

from pathlib import Path
from typing import Annotated, get_args

import numpy as np
import torch
import typer
from rich.progress import track
from rows import write_rows

from videogpa.artifact import read_rows, write_json_atomic
from videogpa.geometry.flow import flow_from_first
from videogpa.metrics import oracle_flow_epe, oracle_psnr, oracle_ssim, sharpness
from videogpa.metrics.base import Clip
from videogpa.stages import prompts, sample
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.types import Candidate, Prompt
from videogpa.video_io import read_video, write_image
from videogpa.world.paths import CameraMove, Motion, parse_move
from videogpa.world.render import forward_flow, render
from videogpa.world.scene import scene_from_spec
from videogpa.world.truth import true_continuation

OPPOSITE = {
    "left": "right",
    "right": "left",
    "forward": "backward",
    "backward": "forward",
    "up": "down",
    "down": "up",
}


def main(
    out: Annotated[Path, typer.Option(help="work folder")],
    model: str = "embedded",
    count: int = 210,
    steps: int = 8,
    workers: int = 2,
    result: Annotated[Path | None, typer.Option(help="where the CSV and JSON go, without suffix")] = None,
) -> None:
    rows = prompts.run_world(WorldPrompts(split="held_out", count=count), out / "prompts")
    drawn = sample.run(
        SampleConfig(model=model, candidates=1, steps=steps, keep_latents=False),
        rows,
        out / "candidates",
        workers=workers,
    )
    torch.set_num_threads(1)
    worlds = {p.id: p for p in read_rows(rows, Prompt)}
    measured = [
        _measure(worlds[c.prompt_id], read_video(drawn / c.video))
        for c in track(read_rows(drawn, Candidate), description="measuring")
    ]
    means = {k: float(np.mean([m[k] for m in measured])) for k in measured[0] if k != "prompt"}
    means["sharpness_of_truth"] = means["sharpness"] / means["true_sharpness"]
    result = result or out / "base_quality"
    write_rows(measured, result)
    write_json_atomic(result.with_suffix(".json"), {"prompts": count, "steps": steps, **means})
    _picture(worlds, drawn, out / "samples.png")
    for name, value in means.items():
        print(f"{name:20} {value:.4f}")


def _measure(prompt: Prompt, frames: torch.Tensor) -> dict[str, float | str]:
    truth = true_continuation(prompt.world, *(frames.shape[i] for i in (0, 2, 3)))
    clip = Clip(frames=frames, truth=truth)
    error = (frames - truth.frames).square().mean(dim=(1, 2, 3))
    epe = _epe_by_motion(prompt, frames)
    move = parse_move(prompt.text)
    verb, direction = move.motion.split()
    return {
        "prompt": prompt.text,
        "psnr": oracle_psnr.measure(clip),
        "psnr_frame1": float(-10 * error[1].log10()),
        "psnr_last": float(-10 * error[-1].log10()),
        "ssim": oracle_ssim.measure(clip),
        "flow_epe": oracle_flow_epe.measure(clip),
        "flow_epe_of_truth": oracle_flow_epe.measure(Clip(frames=truth.frames, truth=truth)),
        "direction_right": float(epe[move.motion] < epe[f"{verb} {OPPOSITE[direction]}"]),
        "ten_way": float(min(epe, key=epe.get) == move.motion),
        "sharpness": sharpness.measure(clip),
        "true_sharpness": sharpness.measure(Clip(frames=truth.frames)),
    }


def _epe_by_motion(prompt: Prompt, frames: torch.Tensor) -> dict[str, float]:
    """End-point error of the sample's last-frame flow against the true flow of each of the ten motions."""
    last = len(frames) - 1
    drawn = flow_from_first(frames)[last]
    speed = parse_move(prompt.text).speed
    errors = {}
    for motion in get_args(Motion):
        spec = prompt.world | {"move": CameraMove(motion, speed).text}
        clip = render(scene_from_spec(spec), len(frames), *frames.shape[-2:])
        flow, visible = forward_flow(clip, 0, last)
        errors[motion] = float((drawn - flow[0]).norm(dim=0)[visible[0]].mean())
    return errors


def _picture(worlds: dict[str, Prompt], drawn: Path, path: Path, count: int = 12) -> None:
    """Sample above truth, every second frame, for evenly spaced prompts."""
    rows = read_rows(drawn, Candidate)
    strips = []
    for candidate in [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]:
        frames = read_video(drawn / candidate.video)
        truth = true_continuation(worlds[candidate.prompt_id].world, *(frames.shape[i] for i in (0, 2, 3)))
        strips.append(torch.cat([torch.cat(list(v[::2]), -1) for v in (frames, truth.frames)], -2))
    half = (len(strips) + 1) // 2
    sheet = torch.cat([torch.cat(strips[:half], -2), torch.cat(strips[half:], -2)], -1)
    write_image(path, sheet.repeat_interleave(3, -1).repeat_interleave(3, -2))


if __name__ == "__main__":
    typer.run(main)
