"""Every file of a finished run, cut short or with one bit flipped: noticed by what reads it, or without influence.

By default a few files are damaged, each once; with HARDNESS_DAMAGE=3 every file is, so many times in each way, before
everything that reads it is run again (minutes).
"""

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tests.hardness.commands import contents, differences

ROUNDS = int(os.environ.get("HARDNESS_DAMAGE", "0"))
SEED = int(os.environ.get("HARDNESS_SEED", str(time.time_ns())))
LATER = {
    "prompts": ("candidates", "scores", "pairs", "lora", "evaluation", "report"),
    "candidates": ("scores", "pairs", "lora", "evaluation", "report"),
    "scores": ("pairs", "lora", "evaluation", "report"),
    "pairs": ("lora", "evaluation", "report"),
    "lora": ("evaluation", "report"),
    "evaluation": ("report",),
}
"""By the folder that is damaged, those made again, of a run."""
RECORDS = ("config.json", "manifest.json")
FEW = (
    "prompts/train/images/scene2000000.png",
    "candidates/videos/scene2000000-0.mkv",
    "scores/rows.jsonl",
    "lora/dpo/lora/pytorch_lora_weights.safetensors",
    "evaluation/summary.json",
)


def flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def damaged_copy(finished: Path, file: str, content: bytes, out: Path) -> None:
    """The run with one file damaged, without what was made of that file's folder."""
    shutil.copytree(finished, out, copy_function=os.link)
    for folder in LATER[file.split("/")[0]]:
        shutil.rmtree(out / folder, ignore_errors=True)
    (out / file).unlink()
    (out / file).write_bytes(content)


def outcome(commands, finished: Path, file: str, content: bytes, out: Path) -> str:
    """What comes of making all that is made of a damaged file again; AssertionError for other results, silently."""
    damaged_copy(finished, file, content, out)
    command = commands.start(["run", "tests.hardness.tiny", "--workers", "1", "--out", out])
    status = command.wait()
    lines = [line for line in command.errors.splitlines() if line.startswith("videogpa: ")]
    assert "Traceback" not in command.errors, command.errors
    if status == 0:
        wrong = set(differences(contents(out), contents(finished))) - {file}
        if file.endswith("manifest.json"):
            # Nothing vouches for a manifest's list of files; those made of it name another input.
            wrong = {name for name in wrong if not name.endswith((*RECORDS, ".html"))}
        assert not wrong, wrong
        return "no influence"
    assert len(lines) == 1, command.errors
    assert "internal error" not in lines[0], lines[0]
    assert status == 2, lines
    return "noticed"


@pytest.mark.parametrize("file", FEW)
def test_a_flipped_bit_is_noticed(commands, finished, tmp_path, file):
    rng = random.Random(SEED)
    assert (
        outcome(commands, finished, file, flipped((finished / file).read_bytes(), rng), tmp_path / "run")
        == "noticed"
    )


def files_read(finished: Path) -> list[str]:
    every = [path.relative_to(finished) for path in finished.rglob("*") if path.is_file()]
    return sorted(str(path) for path in every if path.parts[0] in LATER and not path.name.startswith("."))


@pytest.mark.skipif(not ROUNDS, reason="takes minutes: HARDNESS_DAMAGE=1 has it run")
def test_every_file(commands, finished, tmp_path, capsys):
    rng, counts, silent = random.Random(SEED), {}, []
    for file in files_read(finished):
        content = (finished / file).read_bytes()
        for number in range(ROUNDS):
            for how in (cut, flipped) if content else ():
                out = tmp_path / "run"
                try:
                    came = outcome(commands, finished, file, how(content, rng), out)
                except AssertionError as error:
                    came = "SILENT OR UNCLEAR"
                    silent.append(f"{file} {how.__name__} {number}: {str(error)[:500]}")
                    with capsys.disabled():
                        print(silent[-1])
                shutil.rmtree(out)
                counts[how.__name__, came] = counts.get((how.__name__, came), 0) + 1
                with capsys.disabled():
                    print(file, how.__name__, came, flush=True)
    with capsys.disabled():
        print(f"\n{counts} (seed {SEED})")
    assert silent == []
