"""A trained LoRA as other programs read it: peft's folder, ComfyUI's key names, or fused into the model's weights.

Key names of ComfyUI follow its `comfy/lora.py` (a model's own module names after `diffusion_model.`; for HunyuanVideo
the diffusion-pipe names after `transformer.`) and, the other way round, the converters of diffusers
(`loaders/lora_conversion_utils.py`). ComfyUI adds alpha / rank * up @ down, and up @ down where no alpha is given.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from videogpa.artifact import atomic_path, require_file, write_json_atomic
from videogpa.dpo.lora import (
    AUTHORS_WAN,
    LORA_ADAPTER_METADATA_KEY,
    LORA_FILES,
    PEFT_CONFIG,
    PEFT_PREFIX,
    PEFT_WEIGHTS,
    PREFIX,
    find_weights,
    plain,
    read_peft,
    write_lora,
)
from videogpa.errors import InputError
from videogpa.families.base import require_finite, save_tensors

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
Matrix = Float[Tensor, "out into"]
SCALED = ("lora_alpha", "alpha_pattern")
COMFYUI_FILES = ("{}_high_noise.safetensors", "{}_low_noise.safetensors")
"""Of two experts; ComfyUI loads each onto the model of the same name."""


@dataclass(frozen=True, kw_only=True)
class Lora:
    """The LoRA of one transformer: `weights` by module and side (`blocks.0.attn1.to_q.lora_A.weight`, [rank, in], and
    `…lora_B.weight`, [out, rank]), and peft's configuration of it.
    """

    weights: dict[str, Tensor]
    config: dict[str, Any]

    @property
    def modules(self) -> list[str]:
        """Names of the modules that it changes, in the file's order."""
        return [key.removesuffix(DOWN) for key in self.weights if key.endswith(DOWN)]

    def scale(self, module: str) -> float:
        """What B A is multiplied by: alpha / rank, or alpha / sqrt(rank) of a rank-stabilised LoRA."""
        from peft.utils.other import get_pattern_key

        alphas = self.config.get("alpha_pattern") or {}
        alpha = alphas.get(get_pattern_key(list(alphas), module), self.config["lora_alpha"])
        rank = len(self.weights[module + DOWN])
        return alpha / (rank**0.5 if self.config.get("use_rslora") else rank)

    def change(self, module: str) -> Matrix:
        """What is added to the module's weight, float32."""
        down, up = self.weights[module + DOWN].float(), self.weights[module + UP].float()
        return self.scale(module) * (up @ down)


def read_loras(source: Path) -> list[Lora]:
    """The LoRA of a file or folder, of ours or diffusers' or peft's making; two where the folder has two experts'.

    Raises:
        InputError: missing, unreadable, or no plain LoRA of linear layers.
    """
    file = find_weights(source)
    second = source / LORA_FILES[1]
    return [_read(path) for path in (file, *([second] if second.is_file() else []))]


def at_strength(lora: Lora, strength: float) -> Lora:
    """The same LoRA scaled by `strength`, which alpha carries."""
    alphas = {module: strength * alpha for module, alpha in (lora.config.get("alpha_pattern") or {}).items()}
    alpha = strength * lora.config["lora_alpha"]
    return replace(lora, config=lora.config | dict(zip(SCALED, (alpha, alphas), strict=True)))


def stacked(loras: Sequence[Lora]) -> Lora:
    """The one LoRA whose change is the sum of theirs, in float32: of every module A below A and scaled B beside scaled
    B, which makes its rank the sum of theirs.
    """
    weights = {}
    for module in dict.fromkeys(module for lora in loras for module in lora.modules):
        parts = [lora for lora in loras if module + DOWN in lora.weights]
        weights[module + DOWN] = torch.cat([lora.weights[module + DOWN].float() for lora in parts])
        scaled = [lora.scale(module) * lora.weights[module + UP].float() for lora in parts]
        weights[module + UP] = torch.cat(scaled, dim=1)
    return Lora(weights=weights, config=_config_of(weights))


def write_diffusers(loras: Sequence[Lora], folder: Path) -> list[Path]:
    """`pytorch_lora_weights.safetensors`, and a second file for a second expert (see `dpo/lora.py`)."""
    paths = [folder / name for name in LORA_FILES[: len(loras)]]
    return [write_lora(path, lora.weights, lora.config) for path, lora in zip(paths, loras, strict=True)]


def write_peft(lora: Lora, folder: Path, base_model: str | None = None) -> list[Path]:
    """What `PeftModel.from_pretrained(transformer, folder)` reads; `base_model` is the name that peft is told."""
    described = {key: plain(value) for key, value in sorted(lora.config.items())}
    given = {"peft_type": "LORA", "base_model_name_or_path": base_model, "inference_mode": True}
    write_json_atomic(folder / PEFT_CONFIG, described | given)
    weights = {PEFT_PREFIX + name: tensor for name, tensor in lora.weights.items()}
    save_tensors(folder / PEFT_WEIGHTS, weights, {"format": "pt"})
    return [folder / PEFT_CONFIG, folder / PEFT_WEIGHTS]


def write_comfyui(family: str, loras: Sequence[Lora], folder: Path, name: str) -> list[Path]:
    """A file for ComfyUI's LoRA loader; two for two experts.

    Raises:
        InputError: as `to_comfyui`.
    """
    names = [f"{name}.safetensors"] if len(loras) == 1 else [file.format(name) for file in COMFYUI_FILES]
    converted = [to_comfyui(family, lora) for lora in loras]
    for file, weights in zip(names, converted, strict=True):
        save_tensors(folder / file, weights, {"format": "pt"})
    return [folder / file for file in names]


def to_comfyui(family: str, lora: Lora) -> dict[str, Tensor]:
    """The weights under ComfyUI's names for the family.

    Raises:
        InputError: no such names are known for the family, or for one of the modules.
    """
    if family not in COMFYUI:
        known = ", ".join(COMFYUI)
        raise InputError(f"ComfyUI has no LoRA names of its own for the family '{family}', only for {known}")
    return COMFYUI[family](lora)


def merge(
    loras: Sequence[Lora],
    model: Path,
    experts: Sequence[str],
    out: Path,
    precision: torch.dtype | None = None,
) -> float:
    """Write the diffusers folder `model` with the LoRAs fused into the transformers `experts`, one for each.

    File by file, so that memory holds one of them; `model_index.json` comes last, so that an unfinished folder loads
    nowhere. Other weights are hard links where the file system can.

    Args:
        precision: in which the fused matrices are stored; by default that of the folder.

    Returns:
        how much of the change rounding took: the norm of the rounding error over the norm of the change. Below 1e-5 in
        float32; in bfloat16 a small change can vanish for the most part.

    Raises:
        InputError: the LoRA does not fit the model, or the transformer has no safetensors.
    """
    if len(loras) > len(experts):
        raise InputError(f"the LoRA has {len(loras)} experts, {model} has {len(experts)}")
    if os.path.realpath(out) == os.path.realpath(model):
        raise InputError(f"{out} is the model itself: write the merged one elsewhere")
    fused: set[Path] = set()
    lost = changed = 0.0
    for lora, expert in zip(loras, experts, strict=False):
        files = sorted((model / expert).glob("*.safetensors"))
        missing = set(lora.modules)
        for file in files:
            weights, metadata = _load(file)
            missing -= {key.removesuffix(".weight") for key in weights}
            weights, file_lost, file_changed = fuse(weights, lora, precision)
            save_tensors(out / file.relative_to(model), weights, metadata)
            lost, changed = lost + file_lost, changed + file_changed
        if missing:
            raise InputError(f"the LoRA does not fit {model}: {expert} has no '{min(missing)}.weight'")
        fused.update(files)
    others = [path for path in model.rglob("*") if path.is_file() and path not in fused]
    shown = [
        path for path in others if not any(part.startswith(".") for part in path.relative_to(model).parts)
    ]
    for path in sorted(shown, key=lambda path: path == model / "model_index.json"):
        _place(path, out / path.relative_to(model))
    return (lost / changed) ** 0.5 if changed else 0.0


def fuse(
    weights: Mapping[str, Tensor], lora: Lora, precision: torch.dtype | None = None
) -> tuple[dict[str, Tensor], float, float]:
    """A state dict with W + scale B A in place of each W it has, in W's precision or the given one; and the sums of
    squares of what rounding to it took and of the change.

    Raises:
        InputError: a matrix has another size.
    """
    fused = dict(weights)
    lost = changed = 0.0
    for module in lora.modules:
        key = f"{module}.weight"
        if key not in fused:
            continue
        weight, change = fused[key], lora.change(module)
        if weight.shape != change.shape:
            sizes = f"{tuple(change.shape)}, the model {tuple(weight.shape)}"
            raise InputError(f"the LoRA does not fit the model: '{key}' has size {sizes}")
        exact = weight.double() + change.double()
        fused[key] = exact.to(precision or weight.dtype)
        lost += (fused[key].double() - exact).square().sum().item()
        changed += change.double().square().sum().item()
    return fused, lost, changed


def _read(file: Path) -> Lora:
    try:
        if file.name == PEFT_WEIGHTS:
            named, described = read_peft(file.parent)
        else:
            named, metadata = _load(file)
            described = json.loads(metadata.get(LORA_ADAPTER_METADATA_KEY, "{}"))
    except InputError:
        raise
    except (
        OSError,
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise InputError(f"cannot read the LoRA {file}: {error}") from error
    require_finite(named, file)
    weights = {key.removeprefix(PREFIX): tensor for key, tensor in named.items()}
    sides = {side: {key.removesuffix(side) for key in weights if key.endswith(side)} for side in (DOWN, UP)}
    odd = sides[DOWN] ^ sides[UP] | {key for key in weights if not key.endswith((DOWN, UP))}
    if odd or not weights:
        what = f"'{min(odd)}' is no pair of lora_A and lora_B" if odd else "it is empty"
        raise InputError(f"the LoRA {file} is not one of this package or of diffusers: {what}")
    config = {key.removeprefix(PREFIX): value for key, value in described.items()}
    return Lora(weights=weights, config=config or _config_of(weights))


def _config_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What diffusers takes where a file does not tell: alpha = rank."""
    ranks = {key.removesuffix(DOWN): len(tensor) for key, tensor in weights.items() if key.endswith(DOWN)}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    others = {re.escape(module): own for module, own in ranks.items() if own != rank}
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
    }


def _load(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        require_file(file)
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
        return load_file(file), metadata
    except (OSError, SafetensorError) as error:
        raise InputError(f"cannot read {file}: {error}") from error


def _place(source: Path, target: Path) -> None:
    """A copy; of weights, which nobody edits in place, a hard link where that can be."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        try:
            if source.suffix != ".safetensors":
                raise OSError("copied")
            os.link(source.resolve(), temporary)
        except OSError:
            shutil.copyfile(source, temporary)


COGVIDEOX = {
    "attn1.to_q": "q",
    "attn1.to_k": "k",
    "attn1.to_v": "v",
    "attn1.to_out.0": "attn_out",
    "ff.net.0.proj": "ff_proj",
    "ff.net.2": "ff_out",
}


def _by_block(lora: Lora, blocks: str, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The model's own names of what `blocks` holds, each with its alpha."""
    named = {}
    for module in lora.modules:
        block, _, rest = module.removeprefix(f"{blocks}.").partition(".")
        if rest not in names or not module.startswith(f"{blocks}."):
            raise _unnamed(module)
        name = f"diffusion_model.blocks.{block}.{names[rest]}"
        down, up = lora.weights[module + DOWN], lora.weights[module + UP]
        named[f"{name}.lora_down.weight"] = down
        named[f"{name}.lora_up.weight"] = up
        named[f"{name}.alpha"] = torch.tensor(lora.scale(module) * len(down))
    return named


def _wan(lora: Lora) -> dict[str, Tensor]:
    return _by_block(lora, "blocks", AUTHORS_WAN)


def _cogvideox(lora: Lora) -> dict[str, Tensor]:
    """For CogVideoX in ComfyUI itself; the older CogVideoX wrapper nodes take the file for diffusers."""
    return _by_block(lora, "transformer_blocks", COGVIDEOX)


def _ltx(lora: Lora) -> dict[str, Tensor]:
    """The names of LTX in ComfyUI are those of diffusers; its converter knows no alpha, so B carries the scale."""
    named = {}
    for module in lora.modules:
        if not module.startswith("transformer_blocks."):
            raise _unnamed(module)
        named[f"diffusion_model.{module}{DOWN}"] = lora.weights[module + DOWN]
        named[f"diffusion_model.{module}{UP}"] = _scaled_up(lora, module)
    return named


QKV = ("q", "k", "v")
HUNYUAN = (
    (r"transformer_blocks\.(\d+)\.attn\.to_(q|k|v)", r"double_blocks.{}.img_attn_qkv", 3),
    (r"transformer_blocks\.(\d+)\.attn\.add_(q|k|v)_proj", r"double_blocks.{}.txt_attn_qkv", 3),
    (r"transformer_blocks\.(\d+)\.attn\.to_out\.0()", r"double_blocks.{}.img_attn_proj", 1),
    (r"transformer_blocks\.(\d+)\.attn\.to_add_out()", r"double_blocks.{}.txt_attn_proj", 1),
    (r"single_transformer_blocks\.(\d+)\.attn\.to_(q|k|v)", r"single_blocks.{}.linear1", 7),
    (
        r"context_embedder\.token_refiner\.refiner_blocks\.(\d+)\.attn\.to_(q|k|v)",
        r"txt_in.individual_token_refiner.blocks.{}.self_attn_qkv",
        3,
    ),
    (
        r"context_embedder\.token_refiner\.refiner_blocks\.(\d+)\.attn\.to_out\.0()",
        r"txt_in.individual_token_refiner.blocks.{}.self_attn_proj",
        1,
    ),
)
"""Module, its name there, and how many times as high as it the matrix is there: q, k and v lie on each other, and in
single blocks the MLP, four times as wide, below them.
"""


def _hunyuan(lora: Lora) -> dict[str, Tensor]:
    """HunyuanVideo's own names: the LoRAs of q, k and v become one of the fused matrix, whose rank is their sum."""
    parts: dict[str, list[tuple[int, str]]] = {}
    heights = {}
    for module in lora.modules:
        name, slot, heights_here = _hunyuan_place(module)
        parts.setdefault(name, []).append((slot, module))
        heights[name] = heights_here
    named = {}
    for name, placed in parts.items():
        downs = [lora.weights[module + DOWN] for _, module in placed]
        ups = [_scaled_up(lora, module) for _, module in placed]
        height = len(ups[0])
        fused = ups[0].new_zeros(heights[name] * height, sum(len(down) for down in downs))
        column = 0
        for (slot, _), up in zip(placed, ups, strict=True):
            fused[slot * height : (slot + 1) * height, column : column + up.shape[1]] = up
            column += up.shape[1]
        named[f"transformer.{name}{DOWN}"] = torch.cat(downs)
        named[f"transformer.{name}{UP}"] = fused
    return named


def _hunyuan_place(module: str) -> tuple[str, int, int]:
    """Name of the matrix there, the module's place in it from the top, and how many such places it has."""
    for pattern, name, height in HUNYUAN:
        if found := re.fullmatch(pattern, module):
            block, side = found.groups()
            return name.format(block), QKV.index(side) if side else 0, height
    raise _unnamed(module)


def _scaled_up(lora: Lora, module: str) -> Matrix:
    up = lora.weights[module + UP]
    return (lora.scale(module) * up.float()).to(up.dtype)


def _unnamed(module: str) -> InputError:
    return InputError(f"no name in ComfyUI is known for '{module}': export this LoRA for diffusers or peft")


COMFYUI: dict[str, Callable[[Lora], dict[str, Tensor]]] = {
    "wan": _wan,
    "cogvideox": _cogvideox,
    "ltx": _ltx,
    "hunyuan_video": _hunyuan,
    "hunyuan_video_1_5": _hunyuan,
}
