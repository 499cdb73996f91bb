"""Build a release and try it: the same wheel twice, in an empty environment, with what it is made of written down.

    make release                # into dist/

The wheel and the source archive are built from the commit's own time, so building them again gives the same bytes. The
wheel is installed with the pinned versions into an environment that has nothing else, and the quick recipe runs there,
away from the repository. Of that environment come the bill of materials (CycloneDX) and the inventory of licences;
a licence that is not among those known to fit stops the release.
"""

import csv
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
KNOWN = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL|Mozilla Public|HPND|Unlicense|Zlib|CC0|0BSD", re.I
)
"""Licences that let the package be used together with a dependency, whatever it is used for."""


def main() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    wheel = build(DIST)
    again = build(DIST / "again")
    if digest(wheel) != digest(again):
        raise SystemExit(f"{wheel.name} is not the same when it is built again")
    shutil.rmtree(DIST / "again")
    python = installed(wheel, DIST / "environment")
    quick(python)
    sbom = DIST / f"{wheel.name.split('-py3')[0]}.cdx.json"
    run("cyclonedx-py", "environment", python, "--output-reproducible", "-o", sbom)
    inventory = DIST / "licenses.csv"
    run("pip-licenses", "--python", python, "--format", "csv", "--with-urls", "--output-file", inventory)
    check(inventory)
    shutil.rmtree(DIST / "environment")
    for file in sorted(DIST.iterdir()):
        print(digest(file), file.name)


def build(out: Path) -> Path:
    """The wheel; the source archive is beside it."""
    time = subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=ROOT, text=True).strip()
    run("python", "-m", "build", "--outdir", out, ROOT, SOURCE_DATE_EPOCH=time)
    return next(out.glob("*.whl"))


def installed(wheel: Path, environment: Path) -> Path:
    """The Python of a new environment with the wheel and what it needs, and nothing else."""
    run("python", "-m", "venv", environment)
    python = environment / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    return python


def quick(python: Path) -> None:
    """The quick recipe, where nothing of the repository is in sight."""
    out = DIST / "quick"
    run(python.with_name("videogpa"), "run", "quick", "--out", out, cwd=DIST)
    if not (out / "report" / "index.html").is_file():
        raise SystemExit("the quick recipe wrote no report")
    shutil.rmtree(out)


def check(inventory: Path) -> None:
    with inventory.open(newline="") as file:
        rows = list(csv.DictReader(file))
    unknown = [f"{row['Name']} ({row['License']})" for row in rows if not KNOWN.search(row["License"])]
    if unknown:
        raise SystemExit(f"look at the licence of {', '.join(unknown)}")


def run(program: str | Path, *arguments: str | Path, cwd: Path = ROOT, **environment: str) -> None:
    """One of this environment's programs, or any by its path; stops where it fails."""
    path = Path(sys.executable).with_name(program) if isinstance(program, str) else program
    subprocess.run([path, *arguments], cwd=cwd, env=os.environ | environment, check=True)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
