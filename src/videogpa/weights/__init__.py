"""The weights that ship with the package: two small video models, a geometry network and a trained LoRA.

The video model `embedded` learnt from clips of which two fifths are not consistent in 3D, as collected clips are not
either: it is what preferences have something to correct in. `embedded-clean` learnt from consistent clips alone; the
other one began with its weights.
"""

from pathlib import Path

HERE = Path(__file__).parent
GENERATOR = HERE / "generator"
GENERATOR_CLEAN = HERE / "generator_clean"
GEOMETRY = HERE / "geometry"
LORA = HERE / "lora"
EMBEDDED = "embedded"
MODELS = {EMBEDDED: GENERATOR, "embedded-clean": GENERATOR_CLEAN}


def model_folder(model: str) -> Path:
    """The folder of a model given on the command line: `embedded`, `embedded-clean`, or a diffusers folder."""
    return MODELS.get(model, Path(model))


def lora_folder(lora: str) -> Path:
    """The folder of a LoRA given on the command line: `embedded`, or a folder or safetensors file."""
    return LORA if lora == EMBEDDED else Path(lora)
