"""The weights that ship with the package: a small video model, a geometry network and a trained LoRA."""

from pathlib import Path

HERE = Path(__file__).parent
GENERATOR = HERE / "generator"
GEOMETRY = HERE / "geometry"
LORA = HERE / "lora"
EMBEDDED = "embedded"


def model_folder(model: str) -> Path:
    """The folder of a model given on the command line: `embedded`, or a diffusers folder."""
    return GENERATOR if model == EMBEDDED else Path(model)


def lora_folder(lora: str) -> Path:
    """The folder of a LoRA given on the command line: `embedded`, or a folder or safetensors file."""
    return LORA if lora == EMBEDDED else Path(lora)
