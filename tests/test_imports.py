"""The house has one staircase: a module imports its own package and the floors below, nothing else."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import videogpa

SOURCE = Path(videogpa.__file__).parent
FLOORS = (
    {"errors", "types", "tensors"},
    {"artifact", "licenses", "opencv", "plugin", "statistics", "video_io", "weights"},
    {"families", "geometry", "metrics", "dpo", "world", "engines"},
    {"false_colors", "contact_sheet", "report", "export", "fidelity"},
    {"stages"},
    {"run", "plan", "recipes", "study"},
    {"cli"},
)
# Doors between rooms of one floor: (from, to).
DOORS = {
    ("video_io", "artifact"),
    ("dpo", "families"),
    ("metrics", "geometry"),
    ("geometry", "world"),
    ("world", "geometry"),
    ("world", "metrics"),
    ("contact_sheet", "false_colors"),
    ("report", "false_colors"),
    ("report", "contact_sheet"),
    ("plan", "run"),
    ("recipes", "run"),
}
METRICS_MAY_USE = {
    "geometry.base",
    "geometry.blur",
    "geometry.cameras",
    "geometry.enlargement",
    "geometry.flow",
    "geometry.splat",
}


def imported(path: Path) -> set[str]:
    """Names below `videogpa` that a file imports anywhere, such as `geometry.base`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    below = {name.removeprefix("videogpa.") for name in names if name.startswith("videogpa.")}
    return {name for name in below if name.split(".")[0] in set().union(*FLOORS)}


def floor(room: str) -> int:
    return next(level for level, rooms in enumerate(FLOORS) if room in rooms)


def test_every_room_has_a_floor():
    rooms = {p.stem for p in SOURCE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__"} <= set().union(*FLOORS)


MODULES = sorted(p for p in SOURCE.rglob("*.py") if p.relative_to(SOURCE).parts != ("__init__.py",))


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(SOURCE).as_posix())
def test_imports_go_down(path):
    room = path.relative_to(SOURCE).with_suffix("").parts[0]
    for name in imported(path):
        other = name.split(".")[0]
        allowed = other == room or floor(other) < floor(room) or (room, other) in DOORS
        assert allowed, f"{room} must not import {name}"
        if (room, other) == ("metrics", "geometry"):
            assert ".".join(name.split(".")[:2]) in METRICS_MAY_USE, f"metrics must not import {name}"


def test_light_modules_stay_light():
    code = """
import sys
import videogpa.types, videogpa.artifact, videogpa.plugin, videogpa.engines.local, videogpa.cli
print(*sys.modules)
"""
    path = {"PYTHONPATH": str(SOURCE.parent)}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=path
    )
    assert not {"torch", "diffusers", "transformers", "cv2"} & set(result.stdout.split())
