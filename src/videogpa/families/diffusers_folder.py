"""What all families do with a model folder in diffusers format."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import logging
from torch import Tensor, nn

from videogpa.artifact import read_json
from videogpa.errors import UNREADABLE, InputError
from videogpa.families.base import Conditioning


def read_index(folder: Path, family: str, pipelines: Collection[str]) -> dict[str, Any]:
    """The folder's `model_index.json`, if it is one of the `pipelines` (class names) of a family.

    Raises:
        InputError: no folder, no diffusers folder, or another pipeline's.
    """
    if not folder.is_dir():
        raise InputError(f"no model folder at {folder}: give a folder in diffusers format")
    try:
        index = read_json(folder / "model_index.json")
        name = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is no diffusers folder: model_index.json is missing or broken") from error
    if name not in pipelines:
        raise InputError(f"{folder} holds a {name}, but the {family} family takes {' or '.join(pipelines)}")
    return index


def load_frozen(
    model: Any, folder: Path, subfolder: str, dtype: torch.dtype, device: torch.device | str = "cpu"
) -> nn.Module:
    """A model of the class `model`, frozen. Weights that are missing or left over are an error, never a warning.

    On the device `meta` it is built from its configuration alone, without memory for weights.

    Raises:
        InputError: the files are missing or broken, or do not fit their configuration.
    """
    if torch.device(device).type == "meta":
        return _without_weights(model, folder, subfolder, dtype)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        loaded, info = model.from_pretrained(
            folder, subfolder=subfolder, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except UNREADABLE as error:
        raise cannot_load(folder, error) from error
    finally:
        logging.set_verbosity(verbosity)
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[problem]:
            first = sorted(info[problem])[0]
            raise InputError(
                f"cannot load the model folder {folder}: {subfolder}: {problem.replace('_', ' ')}, first {first}"
            )
    return loaded.requires_grad_(False).eval().to(device)


def _without_weights(model: Any, folder: Path, subfolder: str, dtype: torch.dtype) -> nn.Module:
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with torch.device("meta"):
            built = model.from_config(model.load_config(folder, subfolder=subfolder))
        return built.to(dtype).requires_grad_(False).eval()
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise cannot_load(folder, error) from error
    finally:
        logging.set_verbosity(verbosity)


def load_pipeline(
    pipeline: Any, folder: Path, dtype: torch.dtype, device: torch.device, **components: Any
) -> DiffusionPipeline:
    """The folder's pipeline around `components` that are loaded already; the VAE stays float32 as diffusers advises.

    Raises:
        InputError: a part is missing or broken.
    """
    try:
        # By its own class: DiffusionPipeline.from_pretrained ignores a given transformer.
        loaded = pipeline.from_pretrained(
            folder, **components, dtype={"vae": torch.float32, "default": dtype}, use_safetensors=True
        )
        # Weights that were missing show here.
        loaded.to(device)
    except UNREADABLE as error:
        raise cannot_load(folder, error) from error
    loaded.set_progress_bar_config(disable=True)
    return loaded


def load_scheduler(folder: Path, index: dict[str, Any]) -> Any:
    """The scheduler that the folder's index names.

    Raises:
        InputError: its class is unknown, or its configuration is missing or broken.
    """
    try:
        return getattr(diffusers, index["scheduler"][1]).from_pretrained(folder, subfolder="scheduler")
    except UNREADABLE as error:
        raise cannot_load(folder, error) from error


def cannot_load(folder: Path, error: Exception) -> InputError:
    """The error in one line."""
    reason = str(error).strip().split("\n")[0]
    return InputError(f"cannot load the model folder {folder}: {reason}")


def repeat_batch(conditioning: Conditioning, count: int) -> dict[str, Tensor]:
    """Conditioning of one video for `count` of them."""
    return {name: tensor.repeat(count, *[1] * (tensor.ndim - 1)) for name, tensor in conditioning.items()}
