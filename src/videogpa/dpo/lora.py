"""LoRA adapters on a family's transformer, stored as the plain diffusers pipelines load them."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from videogpa.errors import InputError
from videogpa.families.base import VideoFamily, save_tensors

ADAPTER, EARLIER = "default", "earlier"
"""The LoRA that is trained or drawn with, and one that policy and reference carry as a part of their frozen base."""
# As diffusers has them; importing it takes seconds that commands without a model can do without.
LORA_WEIGHT_NAME_SAFE, LORA_ADAPTER_METADATA_KEY = "pytorch_lora_weights.safetensors", "lora_adapter_metadata"
LORA_FILES = (LORA_WEIGHT_NAME_SAFE, "pytorch_lora_weights_2.safetensors")
"""One for each expert: the plain pipeline loads the second with `load_into_transformer_2=True`."""
PREFIX = "transformer."
PEFT_CONFIG, PEFT_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PEFT_PREFIX = "base_model.model."
"""How peft itself writes an adapter, and VideoGPA publishes its LoRAs; diffusers does not read such folders."""
AUTHORS_WAN = {
    "attn1.to_q": "self_attn.q",
    "attn1.to_k": "self_attn.k",
    "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o",
    "attn2.to_q": "cross_attn.q",
    "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v",
    "attn2.to_out.0": "cross_attn.o",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
}
"""Modules of a Wan block here and in the authors' own code."""


def add_lora(family: VideoFamily, rank: int, alpha: float, seed: int) -> list[nn.Parameter]:
    """Put a fresh LoRA on the family's targets, beside an earlier one, and return its parameters: float32, trainable.

    A fresh LoRA changes nothing: B is zero (Hu et al. 2021, arXiv 2106.09685, section 4.1).
    """
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(family.lora_targets))
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Beside an earlier LoRA there are two on purpose.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        torch.manual_seed(seed)
        family.transformer.add_adapter(config, ADAPTER)
    switch(family.transformer, EARLIER, ADAPTER)
    parameters = lora_parameters(family)
    for parameter in parameters.values():
        parameter.data = parameter.data.float()
    return list(parameters.values())


def lora_parameters(family: VideoFamily) -> dict[str, nn.Parameter]:
    """The parameters of the LoRA that is trained by name, in the transformer's order."""
    return {
        name: p
        for name, p in family.transformer.named_parameters()
        if ".lora_" in name and f".{ADAPTER}." in name
    }


def switch(transformer: Any, *on: str) -> None:
    """Turn exactly these adapters on, as far as there are such; an earlier one never learns."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    there = [name for name in on if name in transformer.peft_config]
    for module in transformer.modules():
        if isinstance(module, BaseTunerLayer):
            module.set_adapter(there)
            # Peft lets all adapters learn that are on.
            module.set_requires_grad(EARLIER, False)


@torch.no_grad()
def adapted_norm(family: VideoFamily) -> float:
    """Root of the sum of squares of all matrices that a LoRA goes on."""
    squared = 0.0
    for name, module in family.transformer.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(
            tuple(f".{target}" for target in family.lora_targets)
        ):
            squared += module.weight.float().square().sum().item()
    return squared**0.5


def save_lora(family: VideoFamily, folder: Path, name: str = LORA_WEIGHT_NAME_SAFE) -> Path:
    """Write `pytorch_lora_weights.safetensors` for `pipe.load_lora_weights(folder)`.

    Equal weights give equal bytes. The metadata carries the adapter's configuration: without it diffusers
    takes alpha = rank.
    """
    from peft import get_peft_model_state_dict

    transformer = family.transformer
    weights = get_peft_model_state_dict(transformer, adapter_name=ADAPTER)
    return write_lora(folder / name, weights, transformer.peft_config[ADAPTER].to_dict())


def write_lora(path: Path, weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> Path:
    """Weights by the transformer's own module names, and peft's configuration of them, as diffusers reads both."""
    described = {PREFIX + key: plain(value) for key, value in config.items()}
    # One metadata key only: safetensors writes several in random order, which would change the file's hash.
    metadata = {LORA_ADAPTER_METADATA_KEY: json.dumps(described, indent=2, sort_keys=True)}
    save_tensors(path, {PREFIX + name: tensor for name, tensor in weights.items()}, metadata)
    return path


def load_lora(family: VideoFamily, source: Path, strength: float = 1.0) -> None:
    """Put a stored LoRA on the transformer in place of any other, scaled by `strength`: a file or folder of ours or of
    diffusers, or a folder that peft wrote. A second file in a folder is the second expert's.

    Raises:
        InputError: missing, no LoRA in safetensors, or made for another model; never falls back to the base.
    """
    file, second = find_weights(source), source / LORA_FILES[1]
    parts = [(family.transformer, file)]
    if second.is_file():
        experts = getattr(family, "transformers", {})
        if len(experts) < 2:
            raise InputError(f"{source} holds LoRAs of two experts, but the model has one")
        parts.append((list(experts.values())[1], second))
    # All are read before anything changes.
    read = [(transformer, path, *_read(family, transformer, path)) for transformer, path in parts]
    remove_lora(family)
    for transformer, path, weights, metadata in read:
        _put(family, transformer, ADAPTER, path, weights, metadata)
        transformer.set_adapters([ADAPTER], weights=[strength])


def load_earlier(family: VideoFamily, file: Path) -> None:
    """Put a stored LoRA on the transformer as a part of the frozen base; `add_lora` puts the one that learns beside it.

    Raises:
        InputError: as `load_lora`.
    """
    _put(family, family.transformer, EARLIER, file, *_read(family, family.transformer, file))
    switch(family.transformer, EARLIER)


def _put(
    family: VideoFamily,
    transformer: nn.Module,
    adapter: str,
    file: Path,
    weights: dict[str, Tensor],
    metadata: dict[str, object] | None,
) -> None:
    try:
        family.lora_loader.load_lora_into_transformer(
            weights, transformer, adapter_name=adapter, metadata=metadata, low_cpu_mem_usage=True
        )
    except (ValueError, TypeError, KeyError, RuntimeError, re.error) as error:
        raise InputError(f"the LoRA {file} does not fit the model: {error}") from error


def remove_lora(family: VideoFamily) -> None:
    """Back to the base model."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for transformer in getattr(family, "transformers", {"transformer": family.transformer}).values():
        if any(isinstance(module, BaseTunerLayer) for module in transformer.modules()):
            transformer.unload_lora()


def _read(
    family: VideoFamily, transformer: nn.Module, file: Path
) -> tuple[dict[str, Tensor], dict[str, object] | None]:
    """Weights and configuration, named as diffusers names them; they fit the transformer."""
    try:
        if file.name == PEFT_WEIGHTS:
            named, config = read_peft(file.parent)
            weights = {PREFIX + key: tensor for key, tensor in named.items()}
            metadata = {PREFIX + key: value for key, value in config.items()}
        else:
            weights, metadata = family.lora_loader.lora_state_dict(
                file.parent, weight_name=file.name, use_safetensors=True, return_lora_metadata=True
            )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read the LoRA {file}: {error}") from error
    _require_fit(transformer, weights, file)
    return weights, metadata


def read_peft(folder: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    """Weights and configuration of a folder that peft wrote, by diffusers' names of the modules.

    Raises:
        ValueError: another kind of adapter, or one that changes the base model, too.
    """
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(folder)
    if not isinstance(config, LoraConfig) or config.use_dora:
        raise ValueError(f"{PEFT_CONFIG} describes another kind of adapter than LoRA")
    if config.init_lora_weights not in (True, False, "gaussian"):
        raise ValueError(
            f"'{config.init_lora_weights}' changes the base model, too: convert it to a plain LoRA"
        )
    weights = load_file(folder / PEFT_WEIGHTS)
    named = {key.removeprefix(PEFT_PREFIX): tensor for key, tensor in weights.items()}
    return _in_diffusers_names(named, config.to_dict())


def _in_diffusers_names(
    weights: dict[str, Tensor], config: dict[str, object]
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The same LoRA, if it was trained on the authors' own transformer (Wan: blocks.0.self_attn.q).

    Raises:
        ValueError: it has ranks or alphas of single modules, by their names there.
    """
    ours = {theirs: module for module, theirs in AUTHORS_WAN.items()}
    names = {}
    for key in weights:
        found = re.fullmatch(r"(blocks\.\d+\.)(.+?)(\.lora_[AB]\.weight)", key)
        if not found or found[2] not in ours:
            return weights, config
        names[key] = found[1] + ours[found[2]] + found[3]
    if config.get("alpha_pattern") or config.get("rank_pattern"):
        raise ValueError("ranks or alphas of single modules are not converted from the authors' names")
    targets = sorted({name.partition(".lora_")[0] for name in names.values()})
    return {names[key]: tensor for key, tensor in weights.items()}, config | {"target_modules": targets}


def find_weights(source: Path) -> Path:
    """The LoRA file that a path means: itself, or the one in a folder.

    Raises:
        InputError: there is none, or none in safetensors.
    """
    if source.is_file() and source.suffix == ".safetensors":
        return source
    if not source.is_dir():
        raise InputError(f"no LoRA at {source}: give a folder with {LORA_WEIGHT_NAME_SAFE}")
    for name in (LORA_WEIGHT_NAME_SAFE, PEFT_WEIGHTS):
        if (source / name).is_file():
            return source / name
    if (source / PEFT_CONFIG).is_file():
        raise InputError(f"{source} has no {PEFT_WEIGHTS}: other formats than safetensors are not loaded")
    files = sorted(source.glob("*.safetensors"))
    if len(files) != 1:
        raise InputError(f"{source} holds {len(files)} safetensors files and no {LORA_WEIGHT_NAME_SAFE}")
    return files[0]


def expert_file(source: Path, number: int, experts: int) -> Path | None:
    """The LoRA of one of the experts, counted from 0; None where there is none for the second.

    Raises:
        InputError: as `find_weights`, or LoRAs of two experts for a model that has one.
    """
    if experts == 1 and (source / LORA_FILES[1]).is_file():
        raise InputError(f"{source} holds LoRAs of two experts, but the model has one")
    file = find_weights(source) if number == 0 else source / LORA_FILES[number]
    return file if file.is_file() else None


def _require_fit(transformer: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    """Every matrix must belong to a module of its size; diffusers itself only warns about strangers."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not weights:
        raise InputError(f"the LoRA {file} is empty")
    modules = dict(transformer.named_modules())
    for key, tensor in weights.items():
        name, _, side = key.removeprefix(PREFIX).partition(".lora_")
        module = modules.get(name)
        if isinstance(module, BaseTunerLayer):
            module = module.get_base_layer()
        if not key.startswith(PREFIX) or not side or not isinstance(module, nn.Linear):
            raise InputError(f"the LoRA {file} does not fit the model: nothing there takes '{key}'")
        expected = {"A.weight": module.in_features, "B.weight": module.out_features}.get(side)
        found = tensor.shape[1] if side == "A.weight" else tensor.shape[0]
        if expected != found:
            raise InputError(
                f"the LoRA {file} does not fit the model: '{key}' has size {found}, the model {expected}"
            )


def plain(value: object) -> object:
    """A value of peft's configuration as JSON knows it."""
    return sorted(value) if isinstance(value, set) else value
