"""Licences of weights: which need nobody's consent, what a model folder says about itself, and the gate."""

from collections.abc import Collection, Mapping
from pathlib import Path

import yaml
from huggingface_hub import metadata_load
from huggingface_hub.errors import EntryNotFoundError

from videogpa.errors import InputError

NO_WEIGHTS = "no weights"
UNKNOWN = "unknown"
PERMISSIVE = {
    *("apache-2.0", "mit", "isc", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "unlicense"),
    NO_WEIGHTS,
}
"""Lower-case names. All others restrict who may use the weights or what for, and have to be accepted."""


def folder_license(folder: Path) -> str:
    """The licence in the front matter of a model folder's README.md, as the model hub writes it; else `UNKNOWN`.

    A licence of its own ("other") goes by its `license_name`.
    """
    try:
        card = metadata_load(folder / "README.md") or {}
    except (OSError, EntryNotFoundError, ValueError, yaml.YAMLError):
        return UNKNOWN
    name = card.get("license")
    if name == "other":
        name = card.get("license_name")
    return name if isinstance(name, str) and name else UNKNOWN


def require_accepted(licenses: Mapping[str, str], accepted: Collection[str]) -> None:
    """Stop unless every model's licence is permissive or accepted; letter case does not matter.

    Args:
        licenses: licence by model.
        accepted: names of licences.

    Raises:
        InputError: a licence is neither; the message names the model, the licence and the flag that accepts it.
    """
    agreed = PERMISSIVE | {name.lower() for name in accepted}
    for model, license in licenses.items():
        if license.lower() not in agreed:
            what = (
                "nothing in their folder tells the licence"
                if license == UNKNOWN
                else f"their licence is {license}"
            )
            raise InputError(
                f"the weights of {model} need your consent: {what}; if you may use them, "
                f"add --accept-license {license} (accepted_licenses in a configuration)"
            )
