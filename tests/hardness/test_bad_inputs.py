"""Bad inputs over every command: never a traceback, a hang, a wrong number, or damage to what was there.

The normal suite runs a small part. The long part, with other cases for every other SEED:

    BAD_INPUTS=2000 SEED=1 pytest -s tests/hardness/test_bad_inputs.py

prints progress, every broken rule with the line that shows it, and a table of outcomes by command. `ONLY=17` runs that
one case of a SEED and leaves its folder.
"""

import csv
import io
import itertools
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open

from tests.hardness import damage
from tests.hardness.entry_points import CALLS, WRONG, Call, commands, make
from videogpa import cli
from videogpa.artifact import hash_file

CASES, SEED, ONLY = (
    int(os.environ.get("BAD_INPUTS", 0)),
    int(os.environ.get("SEED", 0)),
    os.environ.get("ONLY"),
)
SHORT = 90
SECONDS = 30
MEMORY = 2 << 30
"""Bytes beyond what the process held before a case."""
INPUT_ERROR, SOME_FAILED = 2, 3
NOT_NUMBERS = re.compile(r"(?<![\w./])[-+]?(nan|inf|infinity)(?![\w./])", re.IGNORECASE)
UNEXPECTED = re.compile(r"\b(?!URLError|HTTPError)[A-Z][A-Za-z]*(Error|Exception|Warning)\b:")

EXPECTED = ("file://", "can't allocate memory", "is no address of a store", "cannot be reached")
"""What the machine, or a store, says in its own words."""
PROGRESS = re.compile(r"^\[\d+/\d+\] |━|^train +\d+/\d+ ")

INTEGERS = ("", "x", "1.5", "nan", "inf", "1e3", "0x10", "-1", "0", "9" * 30, "-" + "9" * 30)
FLOATS = ("", "x", "nan", "inf", "-inf", "1e400", "-1", "0", "1e-400", "1e308")
HOSTILE = (
    *(text for text in damage.STRINGS if "\0" not in text and text != "\ud800"),
    "nobody.nothing",
    "a=nan",
    "a=b=c",
)
NEVER = {"integer": INTEGERS[:7], "number": FLOATS[:6], "choice": ("", "nothing", "\n")}
"""What no option of a kind takes."""


class Hang(BaseException):
    """A case took too long."""


@dataclass
class Case:
    """One command line in its folder; `refused` where nothing but an error is right, `out_exists` where there is
    something at --out that must survive an error.
    """

    command: str
    label: str
    arguments: list[str]
    home: Path
    writes: tuple[str, ...] = ()
    refused: bool = False


@dataclass
class Outcome:
    """What a case did, and the rules that it broke."""

    status: int
    stderr: str
    seconds: float
    grown: int
    broken: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("material"))


@pytest.fixture
def alone(monkeypatch):
    """No network, no server that waits, and no end of the process."""
    import huggingface_hub.constants
    import uvicorn

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets=None: None)
    switching = sys.getswitchinterval()
    yield
    sys.setswitchinterval(switching)


def test_every_command_has_calls():
    assert set(CALLS) == set(commands())


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(CALLS))
def test_the_calls_are_good_ones(material, tmp_path, alone, monkeypatch, command):
    for i, call in enumerate(CALLS[command]):
        home = tmp_path / str(i)
        case = Case(command, "good", _arguments(call.line, material, home), home, call.writes)
        outcome = run(case, monkeypatch)
        assert outcome.status == (INPUT_ERROR if command in ("run", "plan") else 0), outcome
        assert not outcome.broken


@pytest.mark.skipif(bool(CASES or ONLY), reason="the long part runs instead")
def test_bad_inputs(material, tmp_path, alone, monkeypatch):
    wrong = [make_case for _, make_case in _wrong_lines()][SEED % 11 :: 11]
    drawn = (_drawn_case(number, costly=False) for number in range(SHORT))
    outcomes = _campaign([*wrong, *drawn], material, tmp_path, monkeypatch)
    assert not [told for told in outcomes if told[1].broken]


@pytest.mark.skipif(not CASES, reason="BAD_INPUTS says how many")
def test_many_bad_inputs(material, tmp_path, alone, monkeypatch):
    wrong = [make_case for _, make_case in _wrong_lines()]
    numbers = range(1_000_000 * SEED, 1_000_000 * SEED + CASES - len(wrong))
    outcomes = _campaign([*wrong, *map(_drawn_case, numbers)], material, tmp_path, monkeypatch, show=True)
    _print_table(outcomes)
    assert not [told for told in outcomes if told[1].broken]


@pytest.mark.skipif(not ONLY, reason="ONLY names the case")
def test_one_bad_input(material, tmp_path, alone, monkeypatch):
    case = _drawn_case(int(str(ONLY)))(material, tmp_path / "case")
    print(shlex.join(case.arguments), case.label, case.home, sep="\n")
    outcome = run(case, monkeypatch)
    print(outcome)
    assert not outcome.broken


MakeCase = Callable[[Path, Path], Case]


def _campaign(
    makers: list[MakeCase], material: Path, tmp_path: Path, monkeypatch, show: bool = False
) -> list[tuple[Case, Outcome]]:
    outcomes, began = [], time.monotonic()
    for i, make_case in enumerate(makers):
        case = make_case(material, tmp_path / f"case{i}")
        outcome = run(case, monkeypatch)
        outcomes.append((case, outcome))
        if outcome.broken:
            print(f"BROKEN {'; '.join(outcome.broken[:5])}")
            print(f"   {case.label}: videogpa {shlex.join(a[:300] for a in case.arguments)}")
            print(f"   {outcome.status}: {outcome.stderr[:400]}", flush=True)
        shutil.rmtree(case.home)
        if show and i % 50 == 49:
            print(f"{i + 1}/{len(makers)} in {time.monotonic() - began:.0f} s", flush=True)
    return outcomes


def _print_table(outcomes: list[tuple[Case, Outcome]]) -> None:
    names = {0: "done", INPUT_ERROR: "refused", SOME_FAILED: "rows failed"}
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for case, outcome in outcomes:
        counts[case.command][names.get(outcome.status, f"status {outcome.status}")] += 1
        counts[case.command]["broken rules"] += bool(outcome.broken)
    columns = [*names.values(), "broken rules"]
    print(f"\n{'command':20}" + "".join(f"{column:>14}" for column in ["cases", *columns]))
    for command in [*sorted(counts), "all"]:
        row = sum(counts.values(), Counter()) if command == "all" else counts[command]
        total = sum(row.values()) - row["broken rules"]
        print(f"{command:20}" + "".join(f"{n:14}" for n in [total, *(row[column] for column in columns)]))
    slowest = max(outcomes, key=lambda told: told[1].seconds)
    largest = max(outcomes, key=lambda told: told[1].grown)
    print(f"slowest {slowest[1].seconds:.1f} s: {slowest[0].command}, {slowest[0].label}")
    print(f"most memory {largest[1].grown / 2**20:.0f} MiB: {largest[0].command}, {largest[0].label}")


def _wrong_lines() -> Iterator[tuple[str, MakeCase]]:
    names = sorted(commands(), key=len, reverse=True)
    for line in WRONG.strip().splitlines():
        command = next((name for name in names if f"{line} ".startswith(f"{name} ")), "(none)")

        def make_case(material: Path, home: Path, line: str = line, command: str = command) -> Case:
            arguments = _arguments(line, material, home)
            if command != "plan" and command in CALLS and "--workers" not in arguments:
                takes = any("--workers" in parameter.opts for parameter in commands()[command].params)
                arguments += ["--workers", "1"] if takes else []
            return Case(command, "wrong in itself", arguments, home, refused=True)

        yield line, make_case


def _drawn_case(number: int, costly: bool = True) -> MakeCase:
    def make_case(material: Path, home: Path) -> Case:
        rng = random.Random(number)
        command = sorted(CALLS)[number % len(CALLS)]
        calls = [call for call in CALLS[command] if costly or not call.costly] or CALLS[command]
        call = rng.choice(calls)
        arguments = _arguments(call.line, material, home)
        case = Case(command, f"{number}", arguments, home, call.writes)
        inputs = sorted((home / "in").glob("*"))
        if inputs and call.costly and not costly:
            damage.removed(rng.choice(inputs), rng)
            case.label += " removed an input"
        elif inputs and rng.random() < 0.72:
            _damage_an_input(case, call, inputs, rng)
        else:
            rng.choice((_bad_option, _bad_option, _bad_option, _bad_out, _bad_argument))(case, call, rng)
        return case

    return make_case


def _damage_an_input(case: Case, call: Call, inputs: list[Path], rng: random.Random) -> None:
    source = rng.choice(inputs)
    if source.is_file() or rng.random() < 0.06:
        victim = source
    else:
        pattern = rng.choice(call.files)
        files = sorted(p for p in source.rglob(pattern) if p.is_file() and p.name != ".lock")
        files = files or sorted(p for p in source.rglob("*") if p.is_file())
        victim = rng.choice(files)
    options = damage.damages_of(victim)
    if victim.is_dir():
        options = (damage.removed, damage.folder_instead, damage.pipe_instead, damage.link_to_itself)
    how = rng.choice(options)
    if case.command == "copy" and how is damage.pipe_instead:
        # A store holds no pipes.
        how = damage.folder_instead
    try:
        fatal = how(victim, rng)
    except (ValueError, OSError):
        # Not of the kind that its name says.
        how, fatal = damage.noise, damage.noise(victim, rng)
    if victim.name == "rows.jsonl" and rng.random() < 0.8:
        damage.sealed(victim.parent)
    named = victim in inputs and not victim.is_dir() and len(inputs) == 1
    case.refused = fatal and (named or victim.name in ("rows.jsonl", "manifest.json"))
    # Only what belongs to the folder itself, not to an artifact inside of it.
    if case.command == "copy" or (
        victim.name in ("rows.jsonl", "manifest.json") and victim.parent not in inputs
    ):
        case.refused = False
    case.label += f" {how.__name__} {victim.relative_to(case.home / 'in')}"


def _bad_option(case: Case, call: Call, rng: random.Random) -> None:
    parameters = [p for p in commands()[case.command].params if p.opts[0].startswith("--")]
    parameters = [
        p for p in parameters if not getattr(p, "is_flag", False) and p.name not in ("workers", "help")
    ]
    if not parameters:
        _bad_argument(case, call, rng)
        return
    parameter = rng.choice(parameters)
    kind = _kind(parameter)
    if kind == "path":
        value, case.refused = _bad_path(case, parameter.opts[0], rng), False
    elif kind in NEVER and rng.random() < 0.7:
        value, case.refused = rng.choice(NEVER[kind]), True
    else:
        value = rng.choice({"integer": INTEGERS, "number": FLOATS}.get(kind, HOSTILE))
    option = parameter.opts[0]
    if option in case.arguments:
        at = case.arguments.index(option)
        case.arguments[at + 1] = value
    else:
        case.arguments += [option, value]
    if value.startswith("-") and kind not in ("integer", "number"):
        case.refused = False
    if option == "--engine" and value == "ray":
        case.arguments[-1] = "nothing"
    case.label += f" {option} {value[:60]!r}"


def _kind(parameter: Any) -> str:
    told = str(parameter.type_descriptor.annotation)
    for word, kind in (("Literal", "choice"), ("Path", "path"), ("int", "integer"), ("float", "number")):
        if word in told:
            return kind
    return "text"


def _bad_path(case: Case, option: str, rng: random.Random) -> str:
    (case.home / "in").mkdir(parents=True, exist_ok=True)
    odd = case.home / "in" / "odd"
    how = rng.choice(
        ("nothing", "file", "folder", "pipe", "loop", "long", "below a file", "surrogate", "empty")
    )
    if how == "file":
        odd.write_bytes(rng.randbytes(100))
    elif how == "folder":
        odd.mkdir()
        (odd / "kept.txt").write_text("kept")
    elif how == "pipe":
        os.mkfifo(odd)
    elif how == "loop":
        odd.symlink_to("odd")
    elif how == "long":
        return str(odd) + "x" * 5000
    elif how == "below a file":
        odd.write_text("kept")
        return str(odd / "below")
    elif how == "surrogate":
        return str(odd) + "\udcff"
    elif how == "empty":
        return ""
    return str(odd)


def _bad_out(case: Case, call: Call, rng: random.Random) -> None:
    """Something is at the place of the output already, or nothing can be there."""
    if "--out" not in case.arguments:
        _bad_option(case, call, rng)
        return
    at = case.arguments.index("--out") + 1
    if call.writes:
        case.refused = True
        case.arguments[at] = _bad_path(case, "--out", rng)
    else:
        case.arguments[at] = rng.choice((_bad_path(case, "--out", rng), case.arguments[1]))
    case.label += f" --out {case.arguments[at][:60]!r}"
    case.refused = False


def _bad_argument(case: Case, call: Call, rng: random.Random) -> None:
    """A word too much, or one in another's place."""
    at = rng.randrange(1, len(case.arguments) + 1)
    word = rng.choice((*HOSTILE, "--", "--unknown", "-x", "--out"))
    case.arguments.insert(at, word)
    case.label += f" {word[:60]!r} at {at}"


def _arguments(line: str, material: Path, home: Path) -> list[str]:
    """The words of a line, with copies of the materials that it names."""
    (home / "out").mkdir(parents=True)
    (home / "in").mkdir()
    for name in set(re.findall(r"{([\w.]+)}", line)) - {"out"}:
        _copied(material, name, home / "in")
    # Entries of tables name files beside them.
    filled = re.sub(r"{([\w.]+)}", lambda found: str(_place(found[1], home)), line)
    return shlex.split(filled)


BESIDE = {"prompts.json": "picture.png", "prompts.jsonl": "picture.png", "prompts.csv": "picture.png"}
ENDINGS = {"clip": ".mkv", "mp4": ".mp4", "geometry": ".safetensors"}


def _place(name: str, home: Path) -> Path:
    if name == "out":
        return home / "out"
    end = {"published": "meta_data.json", "comma": "metadata.csv"}
    return home / "in" / (name + ENDINGS.get(name, "")) / end.get(name, "")


def _copied(material: Path, name: str, to: Path) -> None:
    for one in (name, BESIDE.get(name)):
        if one is None or (to / one).exists():
            continue
        file = one + ENDINGS.get(one, "")
        if (material / file).is_dir():
            shutil.copytree(material / file, to / file)
        else:
            shutil.copyfile(material / file, to / file)


def run(case: Case, monkeypatch) -> Outcome:
    """Run the command in this process and hold it against the rules."""
    # What is written to a relative path lands here, and is noticed.
    elsewhere = case.home / "elsewhere"
    elsewhere.mkdir()
    before = _content(case.home)
    outs = [case.home / "out", *(case.home / "in" / name for name in case.writes), *_given_outs(case)]
    # A file to write to is written.
    written = [Path(value) for option, value in itertools.pairwise(case.arguments) if option == "--json"]
    monkeypatch.setattr(sys, "argv", ["videogpa", *case.arguments])
    out, err, status = io.StringIO(), io.StringIO(), 0
    held = _forget_peak()
    began = time.monotonic()
    previous = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(SECONDS)
    escaped: BaseException | None = None
    try:
        with chdir(elsewhere), redirect_stdout(out), redirect_stderr(err):
            cli.main()
    except SystemExit as stop:
        status = int(stop.code or 0)
    except BaseException as error:
        escaped, status = error, 1
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    # Progress is not a message.
    told = "\n".join(line for line in err.getvalue().splitlines() if not PROGRESS.search(line))
    outcome = Outcome(status, told, time.monotonic() - began, _peak() - held)
    if isinstance(escaped, KeyboardInterrupt):
        raise escaped
    if escaped is not None:
        outcome.broken.append(f"escaped: {type(escaped).__name__}: {escaped}")
    outcome.broken += _broken(
        case, outcome, out.getvalue(), {p: h for p, h in before.items() if p not in written}, outs
    )
    return outcome


def _given_outs(case: Case) -> Iterator[Path]:
    for option, value in itertools.pairwise(case.arguments):
        if option in ("--out", "--json", "--heatmaps", "--report", "--reference-cache"):
            yield case.home / "elsewhere" / value
    if case.command == "copy":
        yield Path(case.arguments[-1].removeprefix("file://"))


def _hang(*_: object) -> None:
    raise Hang(f"longer than {SECONDS} s")


def _broken(
    case: Case, outcome: Outcome, stdout: str, before: dict[Path, str], outs: list[Path]
) -> Iterator[str]:
    stderr = outcome.stderr
    if outcome.status not in (0, INPUT_ERROR, SOME_FAILED):
        yield f"exit status {outcome.status}"
    if outcome.seconds > SECONDS:
        yield f"hang: {outcome.seconds:.0f} s"
    if outcome.grown > MEMORY:
        yield f"memory: {outcome.grown / 2**20:.0f} MiB"
    unexpected = UNEXPECTED.search(stderr) and not any(words in stderr for words in EXPECTED)
    if "Traceback" in stderr or "internal error" in stderr or unexpected:
        yield "an error that nobody expected"
    if "errors.pydantic.dev" in stderr:
        yield "an error in the words of a library"
    # Called without arguments, a command shows its help instead.
    helped = outcome.status == INPUT_ERROR and not stderr and "Usage" in stdout
    if outcome.status in (INPUT_ERROR, SOME_FAILED) and len(stderr.strip().splitlines()) != 1 and not helped:
        yield f"{len(stderr.splitlines())} lines on standard error"
    if outcome.status == 0 and stderr.strip() and case.command != "copy":
        yield "a remark on standard error"
    if case.refused and outcome.status == 0:
        yield "accepted"
    if "unpickled" in "".join(path.name for path in case.home.rglob("unpickled")):
        yield "a pickle was loaded"
    after = _content(case.home)
    for path in sorted(before.keys() | after.keys()):
        own = any(path.is_relative_to(out) for out in outs[: 1 + len(case.writes)])
        # At another place that is asked for there may be new files, but what was there stays.
        own = own or (path not in before and any(path.is_relative_to(out) for out in outs))
        # The lock of a folder that is asked for as the output, and what SQLite keeps beside a database in use.
        own = own or path.name in (".lock", "votes.sqlite3-shm", "votes.sqlite3-wal")
        if before.get(path) != after.get(path) and not own:
            yield f"{path.relative_to(case.home)} was {'changed' if path in before else 'written'}"
    # What is copied as it is may be broken as it was.
    if case.command != "copy" and "merged" not in case.arguments:
        yield from _not_numbers(case, outcome, stdout, outs)


def _not_numbers(case: Case, outcome: Outcome, stdout: str, outs: list[Path]) -> Iterator[str]:
    if (
        outcome.status == 0
        and "nan" not in " ".join(case.arguments)
        and NOT_NUMBERS.search(_without_paths(stdout))
    ):
        yield f"no number: {NOT_NUMBERS.search(_without_paths(stdout))}"
    for path in (path for out in outs[:1] for path in sorted(out.rglob("*")) if path.is_file()):
        if path.suffix in (".json", ".jsonl"):
            try:
                _finite_json(path)
            except ValueError as error:
                yield f"{path.name}: {error}"
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8", errors="replace") as file:
                numbers = [cell for row in csv.reader(file) for cell in row if _is_number(cell)]
            if not all(math.isfinite(float(cell)) for cell in numbers):
                yield f"{path.name} has cells that are not finite"
        elif path.suffix == ".safetensors":
            yield from _not_finite_tensors(path)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _without_paths(text: str) -> str:
    return re.sub(r"\S*/\S*", "", text)


def _finite_json(path: Path) -> None:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no number")

    text = path.read_text(encoding="utf-8")
    for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
        json.loads(line, parse_constant=refuse)


def _not_finite_tensors(path: Path) -> Iterator[str]:
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                tensor = file.get_tensor(name)
                if tensor.is_floating_point() and not torch.isfinite(tensor).all():
                    yield f"{path.name}: {name} is not finite"
    except SafetensorError as error:
        yield f"{path.name}: {error}"


def _content(home: Path) -> dict[Path, str]:
    """A hash of every file, and of everything else what it is."""
    found = {}
    for path in home.rglob("*"):
        if path.is_symlink():
            found[path] = f"link to {path.readlink()}"
        elif path.is_file():
            found[path] = hash_file(path)
        else:
            found[path] = "folder" if path.is_dir() else "other"
    return found


def _forget_peak() -> int:
    """Bytes held now; from here on the peak counts anew (proc(5), clear_refs)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _told("VmRSS")


def _peak() -> int:
    return _told("VmHWM")


def _told(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+) kB", status)[0]) * 1024
