"""Sample K candidates a prompt: lossless master, preview for pages, latents and conditioning for training."""

import hashlib
import logging
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from videogpa.artifact import open_artifact, read_rows
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows, preload
from videogpa.errors import RowFailed
from videogpa.families.variants import require_licensed
from videogpa.plugin import load
from videogpa.stages.shards import Shard, merge, part_of
from videogpa.types import Candidate, Prompt
from videogpa.video_io import read_image, write_master, write_preview
from videogpa.weights import lora_folder, model_folder

logger = logging.getLogger(__name__)

COMMON = -1
"""In the place of a candidate's index: the noise that all candidates of a prompt share."""


class SampleConfig(BaseModel):
    """What to draw with which model. The defaults fit the embedded model.

    `accepted_licenses` are those of model weights that need consent (`videogpa list families`).

    `previews` adds an MP4 for every video, for eyes only; nothing else needs them. `shared_noise` is the share of the
    noise that all candidates of a prompt have in common (`families/shared_noise.py`): pairs that differ less.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    family: str = "wan"
    model: str = "embedded"
    lora: str | None = None
    lora_strength: float = 1.0
    candidates: int = Field(default=4, ge=1)
    seed: int = 0
    frames: int = Field(default=9, ge=1)
    height: int = Field(default=48, ge=1)
    width: int = Field(default=48, ge=1)
    steps: int = Field(default=8, ge=1)
    guidance_scale: float = Field(default=1.0, ge=0)
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = "cpu"
    fps: float = Field(default=8, gt=0)
    previews: bool = True
    keep_latents: bool = True
    shared_noise: float = Field(default=0.0, ge=0, lt=1)
    accepted_licenses: tuple[str, ...] = ()


def candidate_seed(seed: int, prompt_id: str, index: int) -> int:
    """The noise seed of candidate `index` of a prompt: the same for every model and LoRA, unrelated between
    prompts.
    """
    digest = hashlib.sha256(f"{seed}:{prompt_id}:{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def run(
    cfg: SampleConfig,
    prompts: Path,
    out: Path,
    *,
    workers: Workers = 1,
    overwrite: bool = False,
    shard: Shard | None = None,
) -> Path:
    """Draw all candidates of all prompts, or of a part of them; finished ones are kept on a rerun."""
    _preload(cfg.family)
    rows = [p for p in read_rows(prompts, Prompt) if p.status == "ok"]
    inputs = {"prompts": prompts, "model": model_folder(cfg.model)}
    if inputs["model"].is_dir():
        require_licensed(cfg.family, inputs["model"], cfg.accepted_licenses)
    if cfg.lora is not None:
        inputs["lora"] = lora_folder(cfg.lora)
    rows, out = part_of(shard, rows, out)
    # What lies on disk is compared by content, not by where it lies.
    named = cfg.model_copy(update={"model": "given", "lora": cfg.lora and "given"})
    with open_artifact(
        out, stage="candidates", config=named, inputs=inputs, row_type=Candidate, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        if shard is not None and shard.merges:
            merge(artifact, Candidate, shard.of)
        ids = {p.id: [f"{p.id}-{k}" for k in range(cfg.candidates)] for p in rows}
        todo = [p for p in rows if any(i not in artifact.done for i in ids[p.id])]
        make_worker = partial(_make_worker, cfg, prompts, out)
        for prompt, result in map_rows(make_worker, todo, workers=workers, description="sampling"):
            drawn: list[Candidate]
            if isinstance(result, RowFailed):
                drawn = [
                    Candidate(
                        id=row_id, status="failed", reason=str(result), prompt_id=prompt.id,
                        seed=candidate_seed(cfg.seed, prompt.id, k),
                    )
                    for k, row_id in enumerate(ids[prompt.id])
                ]  # fmt: skip
            else:
                drawn = result
            artifact.append(*drawn)
        order = [i for p in rows for i in ids[p.id]]
        files = {
            f for i in order for r in [artifact.done[i]] for f in (r.video, r.latents, r.conditioning) if f
        }
        artifact.finish(order, files=sorted(files))
    return out


def _preload(family: str) -> None:
    # Sampling comes first; this and every later stage start workers of their own, and what they need is imported once.
    module = family if "." in family else f"videogpa.families.{family}"
    preload(module, "videogpa.geometry.embedded", "videogpa.metrics.consistency", "kornia", "peft")


def _make_worker(cfg: SampleConfig, prompts: Path, out: Path) -> Callable[[Prompt], list[Candidate]]:
    import torch
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    from videogpa.dpo.lora import load_lora
    from videogpa.families.base import SamplerSettings, require_device, save_tensors
    from videogpa.families.shared_noise import SharedNoise

    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    family = load("families", cfg.family).Family(
        model_folder(cfg.model), dtype=getattr(torch, cfg.dtype), device=require_device(cfg.device)
    )
    if cfg.lora is not None:
        load_lora(family, lora_folder(cfg.lora), cfg.lora_strength)
    settings = SamplerSettings(
        frames=cfg.frames,
        height=cfg.height,
        width=cfg.width,
        steps=cfg.steps,
        guidance_scale=cfg.guidance_scale,
    )

    together = Together(family, settings, cfg.candidates)

    def draw(prompt: Prompt) -> list[Candidate]:
        image = read_image(prompts / prompt.image) if prompt.image else None
        seeds = [candidate_seed(cfg.seed, prompt.id, k) for k in range(cfg.candidates)]
        common = candidate_seed(cfg.seed, prompt.id, COMMON)
        with SharedNoise(cfg.shared_noise, common) if cfg.shared_noise else nullcontext():
            samples = together(prompt.text, image, seeds)
        # Nothing is written of a prompt with which a model overflows.
        for k, seed in enumerate(seeds):
            parts = (samples.videos[k], samples.latents[k], *samples.conditioning.values())
            if not all(part.isfinite().all() for part in parts):
                raise RowFailed(
                    f"the model drew values that are not numbers for prompt {prompt.id}, seed {seed}"
                )
        conditioning = f"conditioning/{prompt.id}.safetensors" if cfg.keep_latents else None
        if conditioning:
            save_tensors(out / conditioning, {k: v[0] for k, v in samples.conditioning.items()})
        drawn = []
        for k, seed in enumerate(seeds):
            row_id = f"{prompt.id}-{k}"
            video = f"videos/{row_id}.mkv"
            preview = f"previews/{row_id}.mp4" if cfg.previews else None
            latents = f"latents/{row_id}.safetensors" if cfg.keep_latents else None
            frames = samples.videos[k].cpu()
            write_master(out / video, frames, fps=cfg.fps)
            if preview:
                write_preview(out / preview, frames, fps=cfg.fps)
            if latents:
                save_tensors(out / latents, {"latents": samples.latents[k]})
            drawn.append(
                Candidate(
                    id=row_id,
                    prompt_id=prompt.id,
                    seed=seed,
                    video=video,
                    preview=preview,
                    latents=latents,
                    conditioning=conditioning,
                )
            )
        return drawn

    return draw


class Together:
    """Draws a prompt's videos at once; where memory is too small for that, half as many, from then on."""

    def __init__(self, family: Any, settings: Any, at_once: int):
        self.family, self.settings, self.at_once = family, settings, at_once

    def __call__(self, text: str, image: Any, seeds: Sequence[int]) -> Any:
        """The family's `Samples`, one video a seed.

        Raises:
            OutOfMemoryError: (torch's) memory is too small for one video alone.
        """
        import torch

        from videogpa.families.base import joined

        while True:
            parts = [seeds[start : start + self.at_once] for start in range(0, len(seeds), self.at_once)]
            try:
                return joined([self.family.sample(text, image, part, self.settings) for part in parts])
            except torch.OutOfMemoryError:
                if self.at_once == 1:
                    raise
            # Outside the handler: what failed is held by its traceback until then.
            self.at_once = math.ceil(self.at_once / 2)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            logger.warning("out of memory: drawing %d videos of a prompt at once from now on", self.at_once)
