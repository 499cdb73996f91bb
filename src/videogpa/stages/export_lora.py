"""A trained LoRA, in the formats of other programs, with a card that says where it comes from.

The output folder is what the model hub takes: `README.md`, the diffusers file(s) beside it with what their training
says of itself, `peft/`, `comfyui/`, `merged/`.
"""

import json
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from videogpa.artifact import (
    CONFIG,
    MANIFEST,
    hash_file,
    hash_input,
    read_json,
    read_manifest,
    write_json_atomic,
    write_text_atomic,
)
from videogpa.dpo.lora import LORA_FILES
from videogpa.dpo.lora_formats import (
    Lora,
    at_strength,
    merge,
    read_loras,
    to_comfyui,
    write_comfyui,
    write_diffusers,
    write_peft,
)
from videogpa.errors import InputError, first_problem
from videogpa.families.variants import experts_of, license_of, variants_of
from videogpa.licenses import PERMISSIVE, UNKNOWN
from videogpa.plugin import available
from videogpa.report.findings import Summary, caveat, naming, read_summary, remarks
from videogpa.stages.comparison import GUARDED
from videogpa.stages.train import LORA, SUMMARY
from videogpa.weights import GENERATOR

Format = Literal["diffusers", "peft", "comfyui", "merged"]
EVALUATION = "summary.json"
FIGURES = {
    "accuracy": "pairs whose chosen video it prefers to the rejected one, against the base",
    "margin": "mean logit",
    "chosen_change": "relative change of the chosen videos' error against the base",
    "rejected_change": "relative change of the rejected videos' error",
    "saturation": "how far the loss has run out of gradient, 0 to 1",
}


class ExportLoraConfig(BaseModel):
    """What is written. All formats hold the LoRA at `strength`, so that a reader who asks for 1 gets this one.

    `base_model` is what the model is called on the hub; `family` is told by the model folder unless it is given.
    `merged_precision` is that of the fused matrices: as the model is stored, or float32, which loses nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    formats: tuple[Format, ...] = Field(default=("diffusers",), min_length=1)
    strength: float = 1.0
    name: str = Field(default="videogpa", pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]{0,99}$")
    base_model: str | None = None
    family: str | None = None
    merged_precision: Literal["stored", "float32"] = "stored"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known about a LoRA; None where nothing tells.

    training: `training.json`; config: of the training; pairs: the configuration of the pairs; evaluation:
    `summary.json`; arms: those of the evaluation that are this LoRA, by name, and their strengths.
    """

    training: dict[str, Any] | None = None
    config: dict[str, Any] | None = None
    pairs: dict[str, Any] | None = None
    evaluation: Summary | None = None
    arms: dict[str, float] | None = None


def run(
    cfg: ExportLoraConfig, lora: Path, out: Path, *, model: Path, evaluation: Path | None = None
) -> list[Path]:
    """Write the formats and the card into `out`; returns what was written, the card last.

    Args:
        lora: a LoRA folder or file, or the folder of a training.
        model: the folder of the model that it was trained on.
        evaluation: an evaluation's folder, or that of a run, in which the LoRA is an arm.

    Raises:
        InputError: no LoRA, one that does not fit the model or was changed since its training, a family without names
            in ComfyUI, or an evaluation of others.
    """
    if (lora / SUMMARY).is_file() and (lora / LORA).is_dir():
        lora = lora / LORA
    family = cfg.family or family_of(model)
    loras = [at_strength(one, cfg.strength) for one in read_loras(lora)]
    # Not by Path.resolve, which raises at a link to itself.
    if os.path.realpath(out) == os.path.realpath(lora if lora.is_dir() else lora.parent):
        raise InputError(f"{out} is where the LoRA itself lies: write the exported one elsewhere")
    if (out / CONFIG).exists():
        raise InputError(f"{out} holds what a stage made: write the exported LoRA elsewhere")
    origin = origin_of(lora, evaluation)
    if "comfyui" in cfg.formats:
        # Before anything is written.
        to_comfyui(family, loras[0])
    written: list[Path] = []
    lost = None
    if "diffusers" in cfg.formats:
        written += write_diffusers(loras, out)
    if "peft" in cfg.formats:
        for folder, one in zip(_peft_folders(out, len(loras)), loras, strict=True):
            written += write_peft(one, folder, cfg.base_model)
    if "comfyui" in cfg.formats:
        written += write_comfyui(family, loras, out / "comfyui", cfg.name)
    if origin.training is not None and written:
        write_json_atomic(out / SUMMARY, origin.training)
        written.append(out / SUMMARY)
    elif written:
        # Of another LoRA that was exported here before.
        (out / SUMMARY).unlink(missing_ok=True)
    if "merged" in cfg.formats:
        precision = torch.float32 if cfg.merged_precision == "float32" else None
        lost = merge(loras, model, experts_of(family, model), out / "merged", precision)
        written.append(out / "merged")
    write_text_atomic(out / "README.md", card(cfg, loras, model, family, origin, lost))
    return [*written, out / "README.md"]


def family_of(model: Path) -> str:
    """The family whose pipelines the model folder is for.

    Raises:
        InputError: no diffusers folder, or of no family that ships with the package.
    """
    try:
        pipeline = read_json(model / "model_index.json")["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{model} is no diffusers folder: model_index.json is missing or broken") from error
    for family in available("families"):
        if any(pipeline in variant.pipelines for variant in variants_of(family).values()):
            return family
    raise InputError(f"no family is known for the {pipeline} in {model}: give its name (--family)")


def origin_of(lora: Path, evaluation: Path | None = None) -> Origin:
    """What lies beside a LoRA and in an evaluation's folder.

    Raises:
        InputError: the LoRA was changed since its training, or the evaluation is of others.
    """
    # `Path.resolve` raises of its own where a link leads to itself; here what reads the file says so.
    lora = Path(os.path.realpath(lora))
    folder = lora if lora.is_dir() else lora.parent
    training = next((path for path in (folder, folder.parent) if (path / SUMMARY).is_file()), None)
    if training is None:
        return Origin(**_evaluated(lora, evaluation))
    if (training / MANIFEST).is_file():
        _require_unchanged(folder, training)
    recorded = _json(training / CONFIG)
    return Origin(
        training=_outcome(training / SUMMARY),
        # Beside a stack of rounds lies how it was stacked.
        config=recorded["config"] if recorded and recorded["stage"] == "train" else None,
        pairs=_pairs_config(training, recorded),
        **_evaluated(lora, evaluation),
    )


def card(
    cfg: ExportLoraConfig, loras: Sequence[Lora], model: Path, family: str, origin: Origin, lost: float | None
) -> str:
    """The model card, in Markdown with the front matter of the hub. What is not known is called unknown."""
    license = license_of(family, model)
    base = cfg.base_model or ("the model that ships with videogpa" if model == GENERATOR else UNKNOWN)
    sections = [
        f"# {cfg.name}",
        "A LoRA, trained by preferences so that what the model draws holds together in 3D"
        + (f", at {cfg.strength:g} times the strength it was trained with." if cfg.strength != 1 else "."),
        "## Origin\n\n" + _table(("", ""), _origin_rows(base, license, family, loras, origin)),
        *_training_sections(origin),
        "## Evaluation\n\n" + _evaluation_text(origin),
        "## Use\n\n" + _usage(cfg, len(loras), family, lost),
    ]
    front = yaml.safe_dump(_front(cfg, license, model), sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front(cfg: ExportLoraConfig, license: str, model: Path) -> dict[str, Any]:
    pipeline = read_json(model / "model_index.json")["_class_name"]
    task = "image-to-video" if "ImageToVideo" in pipeline else "text-to-video"
    named = license.lower() in PERMISSIVE or license == UNKNOWN
    return {
        **({"base_model": cfg.base_model, "base_model_relation": "adapter"} if cfg.base_model else {}),
        **({"license": license.lower()} if named else {"license": "other", "license_name": license}),
        "library_name": "diffusers",
        "pipeline_tag": task,
        "tags": [task, "lora", "dpo", "3d-consistency", "videogpa"],
    }


def _origin_rows(
    base: str, license: str, family: str, loras: Sequence[Lora], origin: Origin
) -> list[tuple[str, str]]:
    training = origin.training or {}
    judges = training.get("licenses")
    metric = (origin.pairs or {}).get("metric") or training.get("preferred_by")
    ranks = sorted({len(one.weights[f"{module}.lora_A.weight"]) for one in loras for module in one.modules})
    return [
        ("base model", f"{base} (family `{family}`)"),
        ("licence of the base model's weights", license),
        ("rank", ", ".join(map(str, ranks))),
        ("preference pairs", str(training.get("pairs", UNKNOWN))),
        ("pairs held out", str(training.get("held_out_pairs", UNKNOWN))),
        ("pairs ordered by", f"`{metric}`" if metric else UNKNOWN),
        (
            "weights that judged, and their licences",
            "; ".join(f"{name}: {its}" for name, its in sorted(judges.items())) if judges else UNKNOWN,
        ),
    ]


def _training_sections(origin: Origin) -> Iterator[str]:
    if origin.config is None:
        yield "## Training\n\nIts configuration is unknown."
    else:
        rows = [(f"`{name}`", f"`{json.dumps(value)}`") for name, value in origin.config.items()]
        yield "## Training\n\n" + _table(("setting", "value"), rows)
    training = origin.training or {}
    for name, says in training.get("experts", {"": training}).items():
        title = f"### Outcome{f' of `{name}`' if name else ''}\n\n"
        rows = [
            (label, str(says.get(key, UNKNOWN)))
            for key, label in (
                ("exported_step", "exported step"),
                ("last_step", "last step"),
                ("stopped_early", "stopped early"),
                *([("stop_reason", "why")] if says.get("stop_reason") else []),
                ("beta", "beta"),
            )
        ]
        health = says.get("health") or {}
        rows += [(meaning, _number(health.get(figure))) for figure, meaning in FIGURES.items()]
        yield title + _table(("on held-out pairs where there are any", ""), rows)


def _evaluation_text(origin: Origin) -> str:
    if origin.evaluation is None or origin.arms is None:
        return "None is known."
    about = _about(origin.evaluation, origin.arms)
    rows = [
        (
            f"{origin.arms[found.arm]:g}", found.against, f"`{found.metric}`",
            "higher" if found.higher_is_better else "lower", f"{found.mean_difference:+.4f}",
            "{:+.4f} to {:+.4f}".format(*found.ci95),
            "" if found.win_rate is None else f"{found.win_rate:.1%}", str(found.n), found.verdict,
        )
        for found in about.comparisons
        if found.higher_is_better is not None
    ]  # fmt: skip
    kept = [name for name in GUARDED if any(name in about.arms.get(arm, {}) for arm in origin.arms)]
    prompts = max((found.prompts for found in about.comparisons), default=0)
    said = [
        *(f"{arm} is this LoRA at strength {strength:g}." for arm, strength in origin.arms.items()),
        caveat(prompts),
        *remarks(about, kept),
    ]
    columns = (
        "strength", "against", "metric", "better is", "difference", "95 % interval", "wins", "videos", "verdict",
    )  # fmt: skip
    return "\n\n".join([
        "Same prompts and seeds as what it is compared with; intervals resample whole prompts; strengths are those "
            f"of the LoRA as it was trained. {naming(about)}".rstrip(),
        _table(columns, rows),
        "\n".join(f"- {sentence}" for sentence in said if sentence),
    ])  # fmt: skip


def _about(summary: Summary, arms: Collection[str]) -> Summary:
    """What an evaluation says of some arms alone."""
    return summary.model_copy(
        update={
            "comparisons": [found for found in summary.comparisons if found.arm in arms],
            "guards": {arm: problems for arm, problems in summary.guards.items() if arm in arms},
            "circular": {arm: metrics for arm, metrics in summary.circular.items() if arm in arms},
        }
    )


def _usage(cfg: ExportLoraConfig, count: int, family: str, lost: float | None) -> str:
    parts = []
    if "diffusers" in cfg.formats:
        parts.append(f"```python\n{usage_code(cfg.base_model, count, family)}```")
    if "peft" in cfg.formats:
        folders = " and ".join(f"`{folder}`" for folder in _peft_folders(Path(), count))
        parts.append(f"peft: `PeftModel.from_pretrained(pipe.transformer, folder)` with {folders}.")
    if "comfyui" in cfg.formats:
        parts.append("ComfyUI: the files in `comfyui/`, with the node that loads a LoRA for the model alone.")
    if lost is not None:
        parts.append(
            "`merged/` is the whole model with the LoRA in its weights, for "
            f"`DiffusionPipeline.from_pretrained`. Rounding took {lost:.2g} of the LoRA's change (norm of the error "
            "over norm of the change)."
        )
    return "\n\n".join(parts)


def usage_code(base_model: str | None, count: int, family: str) -> str:
    """Lines of Python that load the LoRA from a folder or repository `lora` into the plain pipeline."""
    load = 'pipe.load_lora_weights(lora, weight_name="{}"{})'
    if family == "hunyuan_video_1_5":
        lines = [
            "# These pipelines have no load_lora_weights.",
            f'weights = dict(weight_name="{LORA_FILES[0]}", use_safetensors=True)',
            'pipe.transformer.load_lora_adapter(lora, prefix="transformer", **weights)',
        ]
    elif count > 1:
        lines = [load.format(LORA_FILES[0], ""), load.format(LORA_FILES[1], ", load_into_transformer_2=True")]
    else:
        lines = [load.format(LORA_FILES[0], "")]
    return "\n".join([
        "import torch",
        "from diffusers import DiffusionPipeline",
        "",
        f'pipe = DiffusionPipeline.from_pretrained("{base_model or "the base model"}", torch_dtype=torch.bfloat16)',
        'lora = "."  # the folder of this card, or its name on the hub',
        *lines,
        "",
    ])  # fmt: skip


def _evaluated(lora: Path, evaluation: Path | None) -> dict[str, Any]:
    """The evaluation and which of its arms are this LoRA, by content."""
    if evaluation is None:
        return {}
    folder = evaluation if (evaluation / EVALUATION).is_file() else evaluation / "evaluation"
    recorded = _json(folder / CONFIG)
    if recorded is None:
        raise InputError(f"{evaluation} holds no evaluation: give the folder of one, or that of a run")
    read_manifest(folder)
    own = lora if lora.is_dir() else lora.parent
    ours = {hash_input(path) for path in (lora, own, own / LORA_FILES[0]) if path.exists()}
    # A best-of-N of it says what selection adds, not what the LoRA does.
    arms = {
        name: arm["strength"]
        for name, arm in recorded["config"]["arms"].items()
        if recorded["inputs"].get(f"lora_{name}") in ours and arm["best_of"] == 1
    }
    if not arms:
        raise InputError(f"none of the arms of {folder} is {lora}")
    return {"evaluation": read_summary(folder / EVALUATION), "arms": arms}


def _pairs_config(training: Path, recorded: dict[str, Any] | None) -> dict[str, Any] | None:
    """The configuration of the pairs beside a training, if they are those it was made with."""
    for folder in (training.parent / "pairs", training.parent.parent / "pairs"):
        config = _json(folder / CONFIG)
        if config and recorded and (folder / MANIFEST).is_file():
            return config["config"] if hash_input(folder) == recorded["inputs"].get("pairs") else None
    return None


def _require_unchanged(folder: Path, training: Path) -> None:
    for name, digest in read_manifest(training).files.items():
        file = training / name
        if file.parent == folder and file.suffix == ".safetensors" and hash_file(file) != digest:
            raise InputError(f"{file} was changed since its training: what {SUMMARY} says is not about it")


def _peft_folders(out: Path, count: int) -> list[Path]:
    return (
        [out / "peft"] if count == 1 else [out / "peft" / name for name in ("transformer", "transformer_2")]
    )


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


class _Outcome(BaseModel):
    """What the card says of a training; what else there is stays."""

    model_config = ConfigDict(extra="allow")

    pairs: int | None = None
    held_out_pairs: int | None = None
    licenses: dict[str, str] | None = None
    health: dict[str, FiniteFloat | None] | None = None
    experts: "dict[str, _Outcome]" = {}


def _outcome(path: Path) -> dict[str, Any] | None:
    told = _json(path)
    if told is None:
        return None
    try:
        _Outcome.model_validate(told)
    except ValidationError as error:
        raise InputError(f"{path} is damaged: {first_problem(error)}") from error
    return told


def _number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.4g}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
