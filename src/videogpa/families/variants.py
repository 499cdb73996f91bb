"""What a family's file and a model folder say about themselves: published variants, licence, experts. No model library
is loaded.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from videogpa import plugin
from videogpa.artifact import read_json
from videogpa.licenses import UNKNOWN, folder_license, require_accepted


class Variant(BaseModel):
    """What a family's file says in its literal `VARIANTS`.

    `architecture` is what the published transformer's configuration has that is not its class's default. A folder whose
    pipeline is one of `pipelines` and whose transformer agrees in the keys `told_by` is this variant, in any size.
    `parameters` counts one transformer's, in billions; `license` is the model hub's name of the weights' licence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    pipelines: tuple[str, ...]
    told_by: tuple[str, ...] = ()
    architecture: dict[str, Any] = {}
    parameters: float
    license: str


def variants_of(family: str) -> dict[str, Variant]:
    """A family's published variants by name; none where the plug-in does not tell."""
    told = plugin.declared("families", family).get("VARIANTS", {})
    return {name: Variant(**says) for name, says in told.items()}


def license_of(family: str, folder: Path) -> str:
    """The licence of a folder's weights: what its own card says, else that of the variant it is."""
    own = folder_license(folder)
    if own != UNKNOWN:
        return own
    pipeline = _read(folder / "model_index.json").get("_class_name")
    config = _read(folder / "transformer" / "config.json")
    for variant in variants_of(family).values():
        alike = all(config.get(key) == variant.architecture[key] for key in variant.told_by)
        if pipeline in variant.pipelines and alike:
            return variant.license
    return UNKNOWN


def require_licensed(family: str, folder: Path, accepted: Collection[str]) -> None:
    """Stop unless the licence of the folder's weights is permissive or accepted.

    Raises:
        InputError: it is neither.
    """
    require_accepted({f"{family} in {folder}": license_of(family, folder)}, accepted)


def experts_of(family: str, folder: Path) -> list[str]:
    """The folder's transformers that share the timesteps among them, by the name of their subfolder."""
    index = _read(folder / "model_index.json")
    names = plugin.declared("families", family).get("EXPERTS", ["transformer"])
    return [name for name in names if (index.get(name) or [None])[0] is not None] or ["transformer"]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
