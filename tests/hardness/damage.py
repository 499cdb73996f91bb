"""Ways in which a file that somebody gives can be wrong, each derived from a good file and a random state.

A damage is `(path, rng) -> bool`: it changes what lies at `path` and says whether no reader of the file may accept it.
"""

import json
import os
import pickle
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from videogpa.artifact import MANIFEST, ROWS, hash_file

Damage = Callable[[Path, random.Random], bool]

LONG = "x" * 10_000
DEEP = 100_000
STRINGS = (
    "", " ", "\n", "a\nb", "a\0b", LONG, "../../outside", "/etc/passwd", "../" * 40 + "etc/passwd", "$(touch outside)",
    "; touch outside", "`touch outside`", "\u202egnp.exe", "e\u0301\u200b", "\ud800", "nan", "-", "..", ".", "%s{0}",
    "<script>alert(1)</script>", "a/b", "a\\b", "é" * 300, "NULL", "~", "a=b", "CON",
)  # fmt: skip
NUMBERS = (
    float("nan"),
    float("inf"),
    float("-inf"),
    -1,
    0,
    1e308,
    -1e308,
    10**30,
    -(10**30),
    10**400,
    0.5,
    2**63,
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], {"": None}, ["a", 1], {"text": {"text": 1}})


class _Opens:
    """A pickle of this makes a folder where it is loaded."""

    def __init__(self, folder: Path):
        self._folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._folder),)


def _gone(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def removed(path: Path, rng: random.Random) -> bool:
    _gone(path)
    return True


def empty(path: Path, rng: random.Random) -> bool:
    path.write_bytes(b"")
    return path.suffix != ".txt"


def folder_instead(path: Path, rng: random.Random) -> bool:
    _gone(path)
    path.mkdir()
    if rng.random() < 0.5:
        (path / "inside.txt").write_text("a room\n")
    return True


def pipe_instead(path: Path, rng: random.Random) -> bool:
    """Nobody writes to it: who opens it to read waits for ever."""
    _gone(path)
    os.mkfifo(path)
    return True


def link_to_itself(path: Path, rng: random.Random) -> bool:
    _gone(path)
    path.symlink_to(path.name)
    return True


def link_to_nothing(path: Path, rng: random.Random) -> bool:
    _gone(path)
    path.symlink_to("nowhere/nothing")
    return True


def truncated(path: Path, rng: random.Random) -> bool:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(max(1, len(content)))])
    # What is left of a table or of lines may be whole lines.
    return path.suffix in (".json", ".safetensors", ".png", ".mkv")


def flipped(path: Path, rng: random.Random) -> bool:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3, 30))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return False


def noise(path: Path, rng: random.Random) -> bool:
    path.write_bytes(rng.randbytes(rng.choice((1, 100, 5000))))
    return path.suffix not in (".txt", ".csv")


def zeros(path: Path, rng: random.Random) -> bool:
    path.write_bytes(bytes(rng.choice((1, 8, 4096))))
    return path.suffix not in (".txt", ".csv")


def doubled(path: Path, rng: random.Random) -> bool:
    content = path.read_bytes()
    path.write_bytes(content + content)
    return path.suffix == ".json"


def pickled(path: Path, rng: random.Random) -> bool:
    """Whoever loads it leaves a trace beside it."""
    path.write_bytes(pickle.dumps(_Opens(path.parent / "unpickled"), protocol=rng.choice((0, 2, 4))))
    return path.suffix not in (".txt", ".csv")


ANY: tuple[Damage, ...] = (
    removed, empty, folder_instead, pipe_instead, link_to_itself, link_to_nothing, truncated, truncated, flipped,
    flipped, noise, zeros, doubled, pickled,
)  # fmt: skip


def not_utf8(path: Path, rng: random.Random) -> bool:
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    path.write_bytes(content[:at] + rng.choice((b"\xff", b"\xc3\x28", b"\xed\xa0\x80")) + content[at:])
    return True


def byte_order_mark(path: Path, rng: random.Random) -> bool:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    return False


def utf16(path: Path, rng: random.Random) -> bool:
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    return path.suffix != ".txt"


def nested(path: Path, rng: random.Random) -> bool:
    """Deeper than any reader should follow."""
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}")))
    text = opening * DEEP + "1" + (closing * DEEP if rng.random() < 0.7 else "")
    path.write_text(text + "\n")
    return path.suffix not in (".txt", ".csv")


def wrong_value(path: Path, rng: random.Random) -> bool:
    """One value of a JSON document, or of one line of it, becomes another."""
    documents, lines = _documents(path)
    at = rng.randrange(len(documents))
    places = list(_places(documents[at], documents, at))
    holder, key = rng.choice(places)
    value = rng.choice((*STRINGS, *NUMBERS, *OTHERS))
    if isinstance(holder[key], int | float) and rng.random() < 0.5:
        value = rng.choice(NUMBERS)
    holder[key] = value
    _write(path, documents, lines)
    return False


def not_finite(path: Path, rng: random.Random) -> bool:
    """A number becomes NaN or infinite; where there is none, it is added."""
    documents, lines = _documents(path)
    at = rng.randrange(len(documents))
    numbers = [
        (holder, key)
        for holder, key in _places(documents[at], documents, at)
        if isinstance(holder[key], int | float) and not isinstance(holder[key], bool)
    ]
    if not numbers:
        return wrong_value(path, rng)
    holder, key = rng.choice(numbers)
    holder[key] = rng.choice(NUMBERS[:3])
    _write(path, documents, lines)
    return path.name == ROWS


def without_a_key(path: Path, rng: random.Random) -> bool:
    documents, lines = _documents(path)
    at = rng.randrange(len(documents))
    keyed = [
        (holder, key) for holder, key in _places(documents[at], documents, at) if isinstance(holder, dict)
    ]
    if keyed:
        holder, key = rng.choice(keyed)
        del holder[key]
    _write(path, documents, lines)
    return False


def with_a_key(path: Path, rng: random.Random) -> bool:
    documents, lines = _documents(path)
    at = rng.randrange(len(documents))
    holders = [holder for holder, _ in _places(documents[at], documents, at) if isinstance(holder, dict)]
    if holders:
        rng.choice(holders)[rng.choice(("unknown", "__class__", "", LONG))] = rng.choice(OTHERS)
    _write(path, documents, lines)
    return False


def repeated(path: Path, rng: random.Random) -> bool:
    """One line, or one entry of a list, twice: ids that are not unique."""
    documents, lines = _documents(path)
    if lines or not isinstance(documents[0], list):
        documents.insert(0, rng.choice(documents))
        _write(path, documents, True)
    else:
        documents[0].insert(0, rng.choice(documents[0] or [None]))
        _write(path, documents, False)
    return path.name == ROWS


def no_entries(path: Path, rng: random.Random) -> bool:
    path.write_text("" if path.suffix == ".jsonl" else rng.choice(("[]", "{}", "null", "0", '""')))
    return False


OF_JSON: tuple[Damage, ...] = (
    not_utf8, byte_order_mark, utf16, nested, wrong_value, wrong_value, wrong_value, wrong_value, not_finite,
    not_finite, without_a_key, without_a_key, with_a_key, repeated, no_entries,
)  # fmt: skip


def _documents(path: Path) -> tuple[list[Any], bool]:
    """The values in a JSON file or in its lines, and whether they are lines."""
    lines = path.suffix == ".jsonl"
    text = path.read_text(encoding="utf-8")
    return (
        [json.loads(line) for line in text.splitlines() if line] or [{}] if lines else [json.loads(text)]
    ), lines


def _write(path: Path, documents: list[Any], lines: bool) -> None:
    # A lone surrogate can be written as an escape only.
    texts = [json.dumps(document) for document in documents]
    path.write_text("".join(text + "\n" for text in texts) if lines else "\n".join(texts))


def _places(value: Any, holder: Any, key: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in a document as (what holds it, where in it)."""
    yield holder, key
    if isinstance(value, dict | list):
        for inner in list(value) if isinstance(value, dict) else range(len(value)):
            yield from _places(value[inner], value, inner)


def cells(path: Path, rng: random.Random) -> bool:
    """One cell of a table becomes something else."""
    lines = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    row = rng.choice(lines)
    row[rng.randrange(len(row))] = rng.choice(
        (
            "",
            "nan",
            "inf",
            "-1",
            "1e999",
            '"',
            "a\0b",
            "../../outside",
            "/etc/passwd",
            "x" * 200_000,
            "9" * 400,
        )
    )
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return False


def ragged(path: Path, rng: random.Random) -> bool:
    lines = path.read_text(encoding="utf-8").splitlines()
    at = rng.randrange(len(lines))
    lines[at] = rng.choice(
        (lines[at] + ",more,and,more", lines[at].split(",")[0], '"' + lines[at], ",,,,", lines[0])
    )
    path.write_text("\n".join(lines) + "\n")
    return False


OF_TABLES: tuple[Damage, ...] = (not_utf8, byte_order_mark, utf16, cells, cells, cells, ragged, ragged)


def giant_header(path: Path, rng: random.Random) -> bool:
    """The header of a safetensors file announces more bytes than there are."""
    content = path.read_bytes()
    length = rng.choice((2**63 - 1, 2**64 - 1, 2**40, len(content) + 1, 0, 1))
    path.write_bytes(struct.pack("<Q", length) + content[8:])
    return True


def other_header(path: Path, rng: random.Random) -> bool:
    """Types, shapes and places of tensors that are not those of the bytes, or names that nobody expects."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    name = rng.choice([name for name in header if name != "__metadata__"])
    entry = header[name]
    match rng.randrange(7):
        case 0:
            entry["dtype"] = rng.choice(("F64", "I8", "U8", "BOOL", "F999", "", 1))
        case 1:
            entry["shape"] = rng.choice(([2**40, 2**40], [-1], [0], [], "x", [10**30], [1] * 1000))
        case 2:
            entry["data_offsets"] = rng.choice(([0, 2**60], [5, 1], [0, 0], [], [-1, 4]))
        case 3:
            header[rng.choice((LONG, "", "x", "../../outside"))] = header.pop(name)
        case 4:
            del header[name]
        case 5:
            header["__metadata__"] = rng.choice(
                ({}, {"scale": "light years"}, {"scale": 1}, None, {"x": LONG})
            )
        case 6:
            header = rng.choice(([], {}, None, {"a": 1}))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return False


def not_finite_tensors(path: Path, rng: random.Random) -> bool:
    """Every float32 of the file is NaN."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:start] + struct.pack("<f", float("nan")) * ((len(content) - start) // 4))
    return False


def huge_tensors(path: Path, rng: random.Random) -> bool:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    path.write_bytes(content[:start] + struct.pack("<f", 3e38) * ((len(content) - start) // 4))
    return False


OF_TENSORS: tuple[Damage, ...] = (
    giant_header, giant_header, other_header, other_header, other_header, not_finite_tensors, huge_tensors,
)  # fmt: skip


def png(width: int, height: int, *, honest: bool) -> bytes:
    """A black picture of one bit a pixel; where not honest, the pixels that it announces are not there."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        )

    packer = zlib.compressobj(9)
    line = bytes(1 + (width + 7) // 8)
    packed = b"".join(packer.compress(line) for _ in range(height if honest else 1)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def picture_bomb(path: Path, rng: random.Random) -> bool:
    """A few kilobytes that unpack to gigabytes, or announce that they do."""
    width, height, honest = rng.choice(
        (
            (12_000, 12_000, True),
            (30_000, 30_000, True),
            (2**31 - 1, 2**31 - 1, False),
            (100_000, 1, True),
            (0, 0, False),
        )
    )
    path.write_bytes(png(width, height, honest=honest))
    return (width, height) != (100_000, 1)


OF_PICTURES: tuple[Damage, ...] = (picture_bomb,)


def giant_frames(path: Path, rng: random.Random) -> bool:
    """The container's header announces frames that are not those of the stream."""
    content = bytearray(path.read_bytes())
    size = rng.choice((65_535, 32_767, 1, 0))
    for box in (b"avc1", b"tkhd"):
        at = content.find(box)
        if at >= 0:
            at += 28 if box == b"avc1" else 80
            content[at : at + 4] = struct.pack(">HH", size, size)
    for element in (b"\xb0", b"\xba"):
        # PixelWidth and PixelHeight (RFC 9559) in two bytes.
        at = content.find(element + b"\x81")
        if path.suffix == ".mkv" and at >= 0:
            content[at + 2] = size & 0xFF
    path.write_bytes(content)
    return False


def other_container(path: Path, rng: random.Random) -> bool:
    """What FFmpeg reads as a video by itself: text, playlists, sequences of other files."""
    path.write_text(
        rng.choice(
            (
                "ffconcat version 1.0\nfile /etc/passwd\n", "#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
                "1\n00:00:00,000 --> 00:00:01,000\na room\n", "YUV4MPEG2 W100000 H100000 F25:1 Ip C420jpeg\nFRAME\n",
                "YUV4MPEG2 W-1 H0 F0:0 Ip\nFRAME\n", "<?xml version='1.0'?><MPD></MPD>",
            )
        )
    )  # fmt: skip
    return True


OF_VIDEOS: tuple[Damage, ...] = (giant_frames, giant_frames, other_container)

BY_KIND: dict[str, tuple[Damage, ...]] = {
    ".json": OF_JSON,
    ".jsonl": OF_JSON,
    ".csv": OF_TABLES,
    ".txt": (not_utf8, byte_order_mark, utf16),
    ".safetensors": OF_TENSORS,
    ".png": OF_PICTURES,
    ".jpg": OF_PICTURES,
    ".mkv": OF_VIDEOS,
    ".mp4": OF_VIDEOS,
}


def damages_of(path: Path) -> tuple[Damage, ...]:
    """The damages that make sense for a file: those of its kind as often as those of all."""
    own = BY_KIND.get(path.suffix, ())
    return (*own, *own, *ANY) if len(own) < len(ANY) else (*own, *ANY)


def sealed(artifact: Path) -> None:
    """A manifest for rows that were changed: what was altered with care is read like any other."""
    manifest = artifact / MANIFEST
    try:
        told = json.loads(manifest.read_text())
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(told, dict) and (artifact / ROWS).is_file():
        manifest.write_text(json.dumps(told | {"rows_sha256": hash_file(artifact / ROWS)}))
