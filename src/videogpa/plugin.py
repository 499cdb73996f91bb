"""Plug-ins by file name: `families/wan.py` is the family `wan`; third parties pass a dotted module path."""

import ast
import importlib
import pkgutil
from pathlib import Path
from types import ModuleType
from typing import Literal

from videogpa.errors import InputError

Kind = Literal["families", "geometry", "metrics", "recipes"]
SHARED_MODULES = {
    "families": {"base"},
    "geometry": {
        *("base", "cameras", "splat", "alignment", "embedded_network"),
        *("matching", "bundle", "bootstrap", "triangulation"),
    },
    "metrics": {"base", "warping", "perceptual", "reprojection", "flow"},
    "recipes": set(),
}


def available(kind: Kind) -> list[str]:
    """Names of the plug-ins that ship with the package, sorted; nothing is imported."""
    package = importlib.import_module(f"videogpa.{kind}")
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(names - SHARED_MODULES[kind])


def describe(kind: Kind, name: str) -> str:
    """The first line of a plug-in's documentation, without importing it."""
    package = importlib.import_module(f"videogpa.{kind}")
    source = Path(package.__path__[0]) / f"{name}.py"
    return (ast.get_docstring(ast.parse(source.read_text())) or "").split("\n")[0]


def load(kind: Kind, name: str) -> ModuleType:
    """The plug-in module `name`, or any importable module when `name` contains a dot.

    Raises:
        InputError: no such plug-in, or the dotted module cannot be imported.
    """
    if "." not in name and name not in available(kind):
        raise InputError(f"no {kind} plug-in named '{name}'; choose from: {', '.join(available(kind))}")
    path = name if "." in name else f"videogpa.{kind}.{name}"
    try:
        return importlib.import_module(path)
    except ImportError as error:
        raise InputError(f"cannot import {kind} plug-in '{name}': {error}") from error
