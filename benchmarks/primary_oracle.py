"""Which oracle may decide? Candidate primaries against arms that cheat: by the one that is chosen they gain least.

    python benchmarks/primary_oracle.py RUN --out work/primary --result benchmarks/primary_oracle_cpu2_DATE

RUN is a folder of `videogpa run embedded`: on its pairs the two SFT arms are trained (on chosen videos, and on videos
taken at random). All cheats are drawn on development prompts with the base's noise, several seeds a prompt. A figure is
the relative change of the error against the base, its 95 % interval over prompts, and the share of prompts won.
`--lora NAME=FOLDER` measures further LoRAs the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from cheats import EDITS, filtered
from rows import write_rows

from videogpa.artifact import read_rows
from videogpa.dpo.config import TrainConfig
from videogpa.engines.local import map_rows
from videogpa.errors import RowFailed
from videogpa.metrics import dynamic_degree, oracle_flow_epe, oracle_psnr, oracle_ssim, oracle_warp, sharpness
from videogpa.metrics.base import Clip, Truth
from videogpa.metrics.between_seeds import Videos, bias2, flow_bias2, gradient_bias2, gradients, unexplained
from videogpa.metrics.warping import field_of, see, sources_of
from videogpa.stages import prompts, sample, train
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.statistics import bootstrap_interval, wins
from videogpa.tensors import Video
from videogpa.types import Candidate, Prompt
from videogpa.video_io import read_video
from videogpa.weights import model_folder
from videogpa.world.truth import true_continuation

STEPS = 8
SFT = TrainConfig(
    objective="sft", rank=16, alpha=16.0, steps=100, batch_pairs=4, learning_rate=4e-4, evaluation_draws=1,
    evaluate_every=100, stop_at_chosen_rise=None,
)  # fmt: skip


def psnr(videos: Videos, truth: Truth) -> float:
    return -_mean(oracle_psnr.measure, videos, truth)


def ssim(videos: Videos, truth: Truth) -> float:
    return 1 - _mean(oracle_ssim.measure, videos, truth)


def flow_error(videos: Videos, truth: Truth) -> float:
    return _mean(oracle_flow_epe.measure, videos, truth)


def warp_error(videos: Videos, truth: Truth) -> float:
    return _mean(oracle_warp.measure, videos, truth)


def warp_over_gradient(videos: Videos, truth: Truth) -> float:
    """The true warp's difference over the length of the image's gradient: about the pixels by which it is off."""
    return float(np.mean([_warp(video, truth) / _gradient(video) for video in videos]))


def census_warp(videos: Videos, truth: Truth) -> float:
    """Share of neighbour comparisons (brighter or not) that the true warp changes, where the truth has contrast."""
    return float(np.mean([_census(video, truth) for video in videos]))


CANDIDATES: dict[str, Callable[[Videos, Truth], float]] = {
    "psnr": psnr, "ssim": ssim, "flow_error": flow_error, "warp_error": warp_error,
    "warp_over_gradient": warp_over_gradient, "census_warp": census_warp, "bias2": bias2,
    "gradient_bias2": gradient_bias2, "flow_bias2": flow_bias2, "unexplained": unexplained,
}  # fmt: skip


def lost_sharpness(videos: Videos, truth: Truth) -> float:
    return -_mean(sharpness.measure, videos, truth)


def lost_dynamics(videos: Videos, truth: Truth) -> float:
    return -_mean(dynamic_degree.measure, videos, truth)


GUARDS = {"lost_sharpness": lost_sharpness, "lost_dynamics": lost_dynamics}


def main(
    run: Annotated[Path, typer.Argument(help="a folder of `videogpa run embedded`")],
    out: Annotated[Path, typer.Option(help="work folder; finished parts in it are kept")],
    count: int = 100,
    seeds: int = 4,
    workers: int = 2,
    model: str = "embedded",
    lora: Annotated[list[str] | None, typer.Option(help="NAME=FOLDER, repeatable")] = None,
    result: Annotated[Path | None, typer.Option(help="CSV to write, without suffix")] = None,
) -> None:
    torch.set_num_threads(1)
    asked = prompts.run_world(WorldPrompts(split="development", count=count), out / "prompts")
    drawn = SampleConfig(
        model=model, candidates=seeds, seed=1_000, steps=STEPS, keep_latents=False, previews=False
    )
    loras = {
        arm: train.run(
            SFT.model_copy(update={"labels": labels}),
            run / "pairs",
            run / "candidates",
            model_folder(model),
            out / arm,
        )
        for arm, labels in (("sft_chosen", "as_scored"), ("sft_random", "shuffled"))
    }
    arms = {"base": drawn}
    arms |= {f"{steps} steps": drawn.model_copy(update={"steps": steps}) for steps in (4, 6)}
    arms |= {arm: drawn.model_copy(update={"lora": str(folder / "lora")}) for arm, folder in loras.items()}
    arms |= {
        name: drawn.model_copy(update={"lora": folder})
        for name, folder in (entry.split("=", 1) for entry in lora or [])
    }
    folders = {
        arm: sample.run(cfg, asked, out / "samples" / arm, workers=workers) for arm, cfg in arms.items()
    }
    rows = table(asked, folders, workers)
    write_rows(rows, result or out / "primary")
    print_table(rows)


def table(asked: Path, folders: Mapping[str, Path], workers: int) -> list[dict[str, str]]:
    """A row for every cheat and candidate."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    make_worker = partial(_make_measurer, folders)
    jobs = [prompt for prompt in read_rows(asked, Prompt) if prompt.status == "ok"]
    for prompt, errors in map_rows(make_worker, jobs, workers=workers, description="measuring"):
        if isinstance(errors, RowFailed):
            raise errors
        found[prompt.id] = errors
    ordered = [found[prompt.id] for prompt in jobs]
    return [
        _compared(arm, name, [e[arm, name] for e in ordered], [e["base", name] for e in ordered])
        for arm, name in ordered[0]
        if arm != "base"
    ]


def _make_measurer(folders: Mapping[str, Path]) -> Callable[[Prompt], dict[tuple[str, str], float]]:
    """Every candidate and guard of every arm and cheat, of one prompt."""

    def measure(prompt: Prompt) -> dict[tuple[str, str], float]:
        by_arm = {arm: _videos(folder, prompt.id) for arm, folder in folders.items()}
        by_arm |= {name: edit(by_arm["base"]) for name, edit in EDITS.items()}
        by_arm["all of 6 steps"] = filtered(by_arm["6 steps"])
        truth = true_continuation(prompt.world, *(by_arm["base"].shape[i] for i in (1, 3, 4)))
        return {
            (arm, name): candidate(videos, truth)
            for arm, videos in by_arm.items()
            for name, candidate in (CANDIDATES | GUARDS).items()
        }

    return measure


def _compared(arm: str, name: str, errors: Sequence[float], of_base: Sequence[float]) -> dict[str, str]:
    ours, base = np.array(errors), np.array(of_base)
    level = abs(base.mean())
    low, high = bootstrap_interval((ours - base) / level, [str(i) for i in range(len(base))], 10_000, 0)
    return {
        "arm": arm,
        "candidate": name,
        "change": f"{(ours - base).mean() / level:+.4f}",
        "low": f"{low:+.3g}",
        "high": f"{high:+.3g}",
        "won": f"{wins(base - ours).mean():.3f}",
    }


def print_table(rows: list[dict[str, str]]) -> None:
    """Changes in per cent; * = interval clear of zero."""
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = [row for row in rows if row["arm"] == arm]
        shown = [
            f"{row['candidate']} {100 * float(row['change']):+.1f}%{'*' * (float(row['low']) * float(row['high']) > 0)}"
            f" ({row['won']})"
            for row in cells
        ]
        print(f"{arm:12}", "  ".join(shown))


def _videos(folder: Path, prompt_id: str) -> Videos:
    rows = [row for row in read_rows(folder, Candidate) if row.prompt_id == prompt_id]
    return torch.stack(
        [read_video(folder / row.video) for row in sorted(rows, key=lambda row: row.seed or 0)]
    )


def _mean(measure: Callable[[Clip], float], videos: Videos, truth: Truth) -> float:
    return float(np.mean([measure(Clip(frames=video, truth=truth)) for video in videos]))


def _gradient(video: Video) -> float:
    return gradients(video)[1:].square().sum(1).sqrt().mean().item()


def _warp(video: Video, truth: Truth) -> float:
    return oracle_warp.measure(Clip(frames=video, truth=truth))


def _census(video: Video, truth: Truth) -> float:
    """Ranks of a pixel against its right and lower neighbour, both pixels warped alike."""
    field = field_of(truth.geometry, video)
    clear = gradients(truth.frames).abs() > 0.02
    changed, count = 0.0, 0
    for target in range(len(video)):
        views = see(field, target, sources_of(target, len(video)))
        visible = views.inside & (views.depth_gap.abs() < oracle_warp.SAME_SURFACE)
        there, here = gradients(views.values), gradients(video[target : target + 1])
        both = (
            torch.stack([visible & visible.roll(-1, -1), visible & visible.roll(-1, -2)], 1) & clear[target]
        )
        both[..., -1] = False
        both[..., -1, :] = False
        changed += ((there > 0) != (here > 0))[both].float().sum().item()
        count += int(both.sum())
    return changed / max(count, 1)


if __name__ == "__main__":
    typer.run(main)
