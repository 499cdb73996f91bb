"""Plug-ins by file name: `families/wan.py` is the family `wan`; third parties pass a dotted module path."""

import ast
import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from videogpa.errors import InputError

Kind = Literal["families", "geometry", "metrics", "recipes", "export"]
SHARED_MODULES = {
    "families": {
        *("base", "diffusers_folder", "first_frame", "flow_matching", "schedule", "shared_noise"),
        "variants",
    },
    "geometry": {
        *("base", "blur", "cameras", "cloud", "splat", "alignment", "embedded_network", "movers", "flow"),
        *("matching", "bundle", "bootstrap", "triangulation"),
        *("options", "multi_view", "poses", "one_scale", "normals"),
        *("depth_network", "network_folder", "marigold_pipeline", "enlargement"),
    },
    "metrics": {
        *("base", "warping", "perceptual", "reprojection", "exposure", "fusion", "full_size"),
        "between_seeds",
    },
    "recipes": {"published"},
    "export": {"base"},
}


OFFERED = {
    "families": "Family",
    "geometry": "Backend",
    "metrics": "measure",
    "recipes": "recipe",
    "export": "write",
}
"""What a module of a kind has, whoever wrote it."""


def available(kind: Kind) -> list[str]:
    """Names of the plug-ins that ship with the package, sorted; nothing is imported."""
    package = importlib.import_module(f"videogpa.{kind}")
    names = {module.name for module in pkgutil.iter_modules(package.__path__)}
    return sorted(names - SHARED_MODULES[kind])


def describe(kind: Kind, name: str) -> str:
    """The first line of a plug-in's documentation, without importing it."""
    return (ast.get_docstring(_source(kind, name)) or "").split("\n")[0]


def declared(kind: Kind, name: str) -> dict[str, Any]:
    """The constants that a plug-in's file sets to a literal, without importing it."""
    constants = {}
    for node in _source(kind, name).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                constants[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return constants


def installed(modules: Iterable[str]) -> bool:
    """Whether all these modules can be found; nothing is imported."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def load(kind: Kind, name: str) -> ModuleType:
    """The plug-in module `name`, or any importable module when `name` contains a dot.

    Raises:
        InputError: no such plug-in, or the dotted module cannot be imported or is no plug-in of this kind.
    """
    try:
        module = importlib.import_module(_module(kind, name))
    except ImportError as error:
        raise InputError(f"cannot import {kind} plug-in '{name}': {error}") from error
    if not hasattr(module, OFFERED[kind]):
        raise InputError(f"the module '{name}' is no {kind} plug-in: it has no '{OFFERED[kind]}'")
    return module


def _module(kind: Kind, name: str) -> str:
    """The name of a plug-in's module.

    Raises:
        InputError: neither a plug-in that ships with the package nor the dotted name of a module.
    """
    if name in available(kind):
        return f"videogpa.{kind}.{name}"
    if "." not in name or not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"no {kind} plug-in named '{name}'; choose from: {', '.join(available(kind))}")
    return name


def _source(kind: Kind, name: str) -> ast.Module:
    try:
        spec = importlib.util.find_spec(_module(kind, name))
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise InputError(f"no {kind} plug-in named '{name}'; choose from: {', '.join(available(kind))}")
    return ast.parse(Path(spec.origin).read_text())
