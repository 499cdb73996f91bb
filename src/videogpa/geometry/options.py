"""A geometry model chosen by name and options: whether they fit, which weights they mean, under which licences."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from videogpa.artifact import hash_input
from videogpa.errors import InputError
from videogpa.geometry.base import GeometryBackend
from videogpa.plugin import load

Options = Mapping[str, str | int | float | bool]


def build(name: str, options: Options) -> GeometryBackend:
    """The backend with its weights loaded.

    Raises:
        InputError: no such geometry model, options that it does not take, or weights that cannot be used.
    """
    return load("geometry", name).Backend(**resolved(name, options))


def resolved(name: str, options: Options) -> dict[str, Any]:
    """All options of the backend, defaults included, in the types that its constructor declares.

    Raises:
        InputError: no such geometry model, an unknown or missing option, or a value of another type.
    """
    fields = _fields(load("geometry", name).Backend)
    allowed = ", ".join(fields) or "none"
    model: type[BaseModel] = create_model("Options", __config__=_CONFIG, **fields)
    try:
        return dict(model(**options))
    except ValidationError as error:
        problem = error.errors()[0]
        option = problem["loc"][0]
        if problem["type"] == "extra_forbidden":
            reason = f"has no option '{option}'"
        elif problem["type"] == "missing":
            reason = f"needs the option '{option}'"
        else:
            reason = f"cannot use {option}={options[str(option)]}: {problem['msg']}"
        raise InputError(f"geometry '{name}' {reason}; its options are: {allowed}") from error


def weights(name: str, options: Options) -> dict[str, Path]:
    """The files and folders of weights that the options name, by option.

    Raises:
        InputError: as `resolved`, or weights that do not exist.
    """
    values = resolved(name, options)
    named = getattr(load("geometry", name), "WEIGHT_OPTIONS", ())
    found = {option: Path(values[option]) for option in named if values[option] is not None}
    for option, path in found.items():
        if not path.exists():
            raise InputError(f"geometry '{name}': {option}={path} does not exist")
    return found


def licenses(name: str, options: Options) -> dict[str, str]:
    """Licence of the weights, by model: what the backend says about these options, or its `LICENSE`.

    Raises:
        InputError: as `weights`.
    """
    weights(name, options)
    backend = load("geometry", name)
    if hasattr(backend, "licenses"):
        return backend.licenses(**resolved(name, options))
    return {name: getattr(backend, "LICENSE", backend.Backend.license)}


def predicts(name: str, options: Options) -> set[str] | None:
    """What the backend gives with these options (`GeometryPrediction`'s depth, poses, normals, albedo, confidence);
    None where it does not say.

    Raises:
        InputError: as `resolved`.
    """
    backend = load("geometry", name)
    if hasattr(backend, "predicts"):
        return backend.predicts(**resolved(name, options))
    says = getattr(backend, "PREDICTS", None)
    return None if says is None else set(says)


def protocol(name: str, options: Options) -> dict[str, Any]:
    """What of the options decides the geometry: all of them, with weights by their content, not by their path."""
    content: dict[str, Any] = {option: hash_input(path) for option, path in weights(name, options).items()}
    if (shipped := getattr(load("geometry", name), "WEIGHTS", None)) is not None:
        content["shipped"] = hash_input(shipped)
    values = {option: value for option, value in resolved(name, options).items() if option not in content}
    return {"options": {option: _plain(value) for option, value in values.items()}, "weights": content}


_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)


def _fields(backend: type) -> dict[str, Any]:
    parameters = list(inspect.signature(backend.__init__).parameters.values())[1:]  # type: ignore[misc]
    return {
        p.name: (p.annotation, ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
