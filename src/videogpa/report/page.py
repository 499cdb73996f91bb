"""Static pages: templates become HTML, and a finished folder takes the place of the old one in one step."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from videogpa.errors import InputError
from videogpa.report.findings import number

PAGE = "index.html"


def render(template: str, context: Mapping[str, Any]) -> str:
    """The template of this package with all its names filled in; an unknown name is an error."""
    environment = Environment(
        loader=PackageLoader("videogpa.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["places"] = number
    return environment.get_template(template).render(context)


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """A fresh folder that takes the place of `out` when the block ends well, and vanishes when not.

    Raises:
        InputError: `out` holds something that is not a report.
    """
    if out.exists() and not (out / PAGE).exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds other files than a report; choose another output folder")
    fresh, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        yield fresh
        if out.exists():
            out.rename(old)
        fresh.rename(out)
    finally:
        for leftover in (fresh, old):
            shutil.rmtree(leftover, ignore_errors=True)
