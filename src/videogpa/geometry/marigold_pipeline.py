"""Marigold pipelines (Ke et al., CVPR 2024; arXiv 2505.09358) from local diffusers folders, a frame at a time."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from videogpa.errors import UNREADABLE, InputError
from videogpa.tensors import Video


def load_pipeline(pipeline_type: Any, folder: Path, device: str) -> Any:
    """A pipeline of that diffusers class; safetensors only, nothing downloaded.

    Raises:
        InputError: the folder is missing, is another pipeline, or its weights do not fit.
    """
    try:
        pipeline = pipeline_type.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except UNREADABLE as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"cannot load a {pipeline_type.__name__} from '{folder}': {reason}") from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


@torch.inference_mode()
def predict_frames(
    pipeline: Any, frames: Video, steps: int | None, resolution: int | None, seed: int
) -> Float[Tensor, "t m 3 h w"]:
    """What the pipeline predicts for every frame [t 3 h w] in [0, 1]: its m target maps, at the frames' size.

    Every frame starts from the same noise, so that equal frames get equal answers. `steps` and `resolution`
    (pixels of the longer side) None are the folder's own defaults.
    """
    generator = torch.Generator(pipeline.device)
    return torch.stack(
        [
            pipeline(
                frame[None],
                num_inference_steps=steps,
                processing_resolution=resolution,
                generator=generator.manual_seed(seed),
                output_type="pt",
            )
            .prediction.float()
            .cpu()
            for frame in frames
        ]
    )
