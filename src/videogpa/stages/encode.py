"""Videos that came without latents: latents and conditioning of a model, so that it can be trained on them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from videogpa.artifact import copy_atomic, open_artifact, read_rows
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import InputError, RowFailed
from videogpa.families.variants import require_licensed
from videogpa.plugin import load
from videogpa.stages.shards import Shard, merge, part_of
from videogpa.types import Candidate, Prompt
from videogpa.video_io import frame_rate, read_image, read_video, write_master, write_preview
from videogpa.weights import model_folder

if TYPE_CHECKING:
    from videogpa.tensors import Video


class EncodeConfig(BaseModel):
    """Which model's latents. `frames`, `height` and `width` fit videos that do not have the model's size.

    `frames` keeps the first so many. `height` and `width`, given together, cut the largest centred part of that shape
    out of every frame (and out of the prompt's first frame) and resize it. Without them a video is encoded as it is, or
    fails with what the model says. `accepted_licenses` are those of model weights that need consent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str = "wan"
    model: str = "embedded"
    frames: int | None = Field(default=None, ge=1)
    height: int | None = Field(default=None, ge=1)
    width: int | None = Field(default=None, ge=1)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    accepted_licenses: tuple[str, ...] = ()


class _Job(NamedTuple):
    candidate: Candidate
    prompt: Prompt


def run(
    cfg: EncodeConfig,
    candidates: Path,
    prompts: Path,
    out: Path,
    *,
    workers: Workers = 1,
    overwrite: bool = False,
    shard: Shard | None = None,
) -> Path:
    """The same candidates, or a part of them, with latents and conditioning; finished ones are kept on a rerun.

    A candidate that failed before, whose prompt failed, or that the model cannot take is a failed row.

    Raises:
        InputError: an input is missing or wrong, or only one of height and width is given.
    """
    if (cfg.height is None) != (cfg.width is None):
        raise InputError("give height and width together")
    by_id = {p.id: p for p in read_rows(prompts, Prompt)}
    rows, out = part_of(shard, read_rows(candidates, Candidate), out)
    inputs = {"candidates": candidates, "prompts": prompts, "model": model_folder(cfg.model)}
    if inputs["model"].is_dir():
        require_licensed(cfg.family, inputs["model"], cfg.accepted_licenses)
    # What lies on disk is compared by content, not by where it lies.
    named = cfg.model_copy(update={"model": "given"})
    with open_artifact(
        out, stage="candidates", config=named, inputs=inputs, row_type=Candidate, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        if shard is not None and shard.merges:
            merge(artifact, Candidate, shard.of)
        jobs = []
        for row in rows:
            if row.id in artifact.done:
                continue
            reason = _why_not(row, by_id, prompts)
            if reason is None:
                jobs.append(_Job(row, by_id[row.prompt_id]))
            else:
                artifact.append(_failed(row, reason))
        make_worker = partial(_make_worker, cfg, candidates, prompts, out)
        for job, result in map_rows(make_worker, jobs, workers=workers, description="encoding"):
            artifact.append(_failed(job.candidate, str(result)) if isinstance(result, RowFailed) else result)
        done = [artifact.done[row.id] for row in rows]
        files = {f for r in done for f in (r.video, r.latents, r.conditioning) if f}
        artifact.finish([row.id for row in rows], files=sorted(files))
    return out


def fit(video: "Video", frames: int | None, height: int | None, width: int | None) -> "Video":
    """The first `frames` frames, and of each the largest centred part of the shape height:width, resized to it
    (antialiased bicubic).

    video: [t 3 h w] in [0, 1], rounded to 8 bits where it was resized: what a master keeps.

    Raises:
        RowFailed: the video has fewer frames.
    """
    import torch

    from videogpa.video_io import from_uint8, to_uint8

    if frames is not None:
        if len(video) < frames:
            raise RowFailed(f"the video has {len(video)} frames, fewer than {frames}")
        video = video[:frames]
    if height is None or width is None or video.shape[2:] == (height, width):
        return video
    tall, wide = video.shape[2:]
    scale = max(height / tall, width / wide)
    part_height, part_width = min(tall, round(height / scale)), min(wide, round(width / scale))
    top, left = (tall - part_height) // 2, (wide - part_width) // 2
    part = video[:, :, top : top + part_height, left : left + part_width]
    resized = torch.nn.functional.interpolate(part, (height, width), mode="bicubic", antialias=True)
    return from_uint8(to_uint8(resized.clamp(0, 1)))


def _why_not(row: Candidate, prompts: dict[str, Prompt], folder: Path) -> str | None:
    prompt = prompts.get(row.prompt_id)
    if row.status == "failed" or row.video is None:
        return row.reason or "it has no video"
    if prompt is None:
        return f"its prompt {row.prompt_id} is not in {folder}"
    return f"its prompt failed: {prompt.reason}" if prompt.status == "failed" else None


def _failed(row: Candidate, reason: str) -> Candidate:
    return Candidate(id=row.id, status="failed", reason=reason, prompt_id=row.prompt_id, seed=row.seed)


def _make_worker(
    cfg: EncodeConfig, candidates: Path, prompts: Path, out: Path
) -> Callable[[_Job], Candidate]:
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from videogpa.families.base import require_device, save_tensors

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    family = load("families", cfg.family).Family(
        model_folder(cfg.model), dtype=getattr(torch, cfg.dtype), device=require_device(cfg.device)
    )

    def encode(job: _Job) -> Candidate:
        row, prompt = job
        source = candidates / str(row.video)
        whole = read_video(source)
        video = fit(whole, cfg.frames, cfg.height, cfg.width)
        image = None
        if prompt.image is not None:
            image = fit(read_image(prompts / prompt.image)[None], None, cfg.height, cfg.width)[0]
            if image.shape[1:] != video.shape[2:]:
                (tall, wide), (height, width) = image.shape[1:], video.shape[2:]
                raise RowFailed(
                    f"the first frame is {wide}x{tall} but the video {width}x{height}: give a height and a width to fit"
                )
        try:
            latents, conditioning = family.encode(video[None], prompt.text, image)
        except InputError as misfit:
            raise RowFailed(str(misfit)) from misfit
        if not latents.isfinite().all():
            raise RowFailed("the model made latents that are not numbers of it")
        stored = row.model_copy(
            update={
                "latents": f"latents/{row.id}.safetensors",
                "conditioning": f"conditioning/{row.id}.safetensors",
            }
        )
        save_tensors(out / str(stored.latents), {"latents": latents[0]})
        save_tensors(out / str(stored.conditioning), {k: v[0] for k, v in conditioning.items()})
        if video is whole:
            copy_atomic(source, out / str(row.video))
            if row.preview:
                copy_atomic(candidates / row.preview, out / row.preview)
            return stored
        fps = frame_rate(source)
        write_master(out / str(row.video), video, fps=fps)
        if row.preview:
            write_preview(out / row.preview, video, fps=fps)
        return stored

    return encode
