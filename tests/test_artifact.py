import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from videogpa import artifact
from videogpa.artifact import (
    atomic_path,
    hash_file,
    hash_input,
    hash_json,
    open_artifact,
    read_json,
    read_manifest,
    read_rows,
)
from videogpa.errors import InputError, StageStopped
from videogpa.types import PreferencePair, Score


class Settings(BaseModel):
    beta: float = 500
    seed: int = 0
    names: tuple[str, ...] = ("a", "b")


class Empty(BaseModel):
    pass


def score(id: str, value: float | None = 0.5, **fields) -> Score:
    return Score(id=id, video=f"{id}.mkv", metrics={"consistency": value}, **fields)


def failed(id: str) -> Score:
    return Score(id=id, video=f"{id}.mkv", status="failed", reason="unreadable")


def start(folder: Path, config: Settings | None = None, inputs: dict[str, Path] | None = None, **options):
    return open_artifact(
        folder, stage="score", config=config or Settings(), inputs=inputs or {}, row_type=Score, **options
    )


def complete(folder: Path, *rows: Score, **options) -> Path:
    with start(folder, **options) as opened:
        opened.append(*rows)
        opened.finish([row.id for row in rows])
    return folder


def test_rows_come_back_in_canonical_order(tmp_path):
    rows = [score("a"), failed("b"), score("c", None, reason="no texture"), score("ü\u2028", 1e-300)]
    with start(tmp_path / "out") as opened:
        for row in reversed(rows):
            opened.append(row)
        assert not opened.complete
        manifest = opened.finish([row.id for row in rows])
        assert opened.complete
    assert read_rows(tmp_path / "out", Score) == rows
    assert read_manifest(tmp_path / "out") == manifest
    assert (manifest.stage, manifest.ok, manifest.failed) == ("score", 3, 1)


def test_same_work_in_another_place_and_order_gives_the_same_manifest(tmp_path):
    first = complete(tmp_path / "one", score("a"), score("b"))
    with start(tmp_path / "deeper" / "two") as opened:
        opened.append(score("b"))
        opened.append(score("a"))
        opened.finish(["a", "b"])
    second = tmp_path / "deeper" / "two"
    assert (first / "manifest.json").read_bytes() == (second / "manifest.json").read_bytes()
    assert artifact.hash_input(first) == artifact.hash_input(second)


def test_resume_keeps_good_rows_and_retries_failed_ones(tmp_path):
    with start(tmp_path) as opened:
        opened.append(score("a"), failed("b"))
    with start(tmp_path) as opened:
        assert opened.done == {"a": score("a")}
        opened.append(score("b"))
        opened.finish(["a", "b"])
    with start(tmp_path) as opened:
        assert opened.complete
        assert list(opened.done) == ["a", "b"]
        with pytest.raises(ValueError, match="is complete"):
            opened.append(score("c"))
    assert read_rows(tmp_path, Score) == [score("a"), score("b")]


@settings(max_examples=10)
@given(st.integers(min_value=0, max_value=10_000))
def test_a_file_cut_anywhere_loses_only_the_row_being_written(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    rows = [score("a"), score("b"), score("c")]
    with start(folder) as opened:
        opened.append(*rows)
    content = (folder / "rows.jsonl").read_bytes()
    content = content[: cut % (len(content) + 1)]
    (folder / "rows.jsonl").write_bytes(content)
    with start(folder) as opened:
        assert list(opened.done.values()) == rows[: content.count(b"\n")]
        opened.append(*(row for row in rows if row.id not in opened.done))
        opened.finish(["a", "b", "c"])
    assert read_rows(folder, Score) == rows


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_failure_is_never_a_number(tmp_path, value):
    with start(tmp_path) as opened:
        with pytest.raises(ValueError, match="JSON compliant"):
            opened.append(score("a").model_copy(update={"metrics": {"consistency": value}}))
        opened.append(score("b"))
        assert list(opened.done) == ["b"]
        opened.finish(["b"])
    assert [row.id for row in read_rows(tmp_path, Score)] == ["b"]


@pytest.mark.parametrize("order", [["a"], ["a", "b", "c"], ["a", "b", "b"]])
def test_finish_wants_exactly_the_rows(tmp_path, order):
    with start(tmp_path) as opened:
        opened.append(score("a"), score("b"))
        with pytest.raises(ValueError, match="missing"):
            opened.finish(order)
        assert not opened.complete


def test_changed_configuration_is_refused_key_by_key(tmp_path):
    complete(tmp_path, score("a"))
    with pytest.raises(InputError) as refusal:
        start(tmp_path, Settings(beta=250, names=("a",)))
    message = str(refusal.value)
    assert "config.beta 500.0 -> 250.0; config.names" in message
    assert "seed" not in message
    assert "--overwrite" in message
    assert "\n" not in message
    assert read_rows(tmp_path, Score) == [score("a")]


def test_changed_input_is_refused(tmp_path):
    captions = tmp_path / "captions.txt"
    captions.write_text("one")
    upstream = complete(tmp_path / "upstream", score("x"))
    inputs = {"captions": captions, "upstream": upstream}
    complete(tmp_path / "out", score("a"), inputs=inputs)
    captions.rename(tmp_path / "moved.txt")
    with start(tmp_path / "out", inputs={**inputs, "captions": tmp_path / "moved.txt"}) as opened:
        assert opened.complete
    (tmp_path / "moved.txt").write_text("two")
    with pytest.raises(InputError, match=r"inputs\.captions has changed\. Use --overwrite"):
        start(tmp_path / "out", inputs={**inputs, "captions": tmp_path / "moved.txt"})
    captions.write_text("one")
    with pytest.raises(InputError, match=r'inputs\.extra \(absent\) -> "'):
        start(tmp_path / "out", inputs={**inputs, "extra": captions})
    complete(upstream, score("x", 0.25), overwrite=True)
    with pytest.raises(InputError, match=r"inputs\.upstream has changed"):
        start(tmp_path / "out", inputs=inputs)


def test_files_named_in_the_manifest_are_part_of_the_input(tmp_path):
    def make(content: bytes) -> str:
        with start(tmp_path / "out", overwrite=True) as opened:
            (tmp_path / "out" / "a.mkv").write_bytes(content)
            opened.append(score("a"))
            opened.finish(["a"], files=["a.mkv"])
        return artifact.hash_input(tmp_path / "out")

    assert make(b"one") == make(b"one") != make(b"two")


def test_inputs_must_be_whole(tmp_path):
    with start(tmp_path / "upstream") as opened:
        opened.append(score("a"))
    with pytest.raises(InputError, match="is not complete"):
        start(tmp_path / "out", inputs={"scores": tmp_path / "upstream"})
    with pytest.raises(InputError, match="does not exist"):
        start(tmp_path / "out", inputs={"scores": tmp_path / "nowhere"})
    assert not (tmp_path / "out").exists()


def test_a_plain_folder_is_compared_by_its_content(tmp_path):
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    (folder / "more" / "a.mp4").write_bytes(b"a")
    before = artifact.hash_input(folder)
    (folder / ".hidden").write_bytes(b"x")
    assert artifact.hash_input(folder) == before
    (folder / "config.json").write_text("{}")
    assert artifact.hash_input(folder) != before


@pytest.mark.parametrize("inside", [".", "part"])
def test_overwrite_does_not_empty_what_it_is_made_of(tmp_path, inside):
    out = tmp_path / "out"
    (out / "part").mkdir(parents=True)
    (out / "part" / "weights").write_text("kept")
    with pytest.raises(InputError, match="choose another output folder"):
        start(out, inputs={"model": out / inside}, overwrite=True)
    assert (out / "part" / "weights").read_text() == "kept"


def test_overwrite_empties_the_folder(tmp_path):
    complete(tmp_path, score("a"))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "a.mkv").write_bytes(b"x")
    with start(tmp_path, Settings(beta=1), overwrite=True) as opened:
        assert not opened.done
        assert not opened.complete
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "config.json"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_folders_of_somebody_else_are_left_alone(tmp_path, overwrite):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="holds other files"):
        start(tmp_path, overwrite=overwrite)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(InputError, match="is a file"):
        start(tmp_path / "config.json", overwrite=overwrite)


def test_one_writer_at_a_time(tmp_path):
    with start(tmp_path), pytest.raises(InputError, match="held by another process"):
        start(tmp_path)
    with start(tmp_path) as opened:
        assert not opened.complete


def test_reading_refuses_what_is_not_whole(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_rows(tmp_path / "nowhere", Score)
    with pytest.raises(InputError, match="is not an artifact"):
        read_rows(tmp_path, Score)
    with start(tmp_path / "half") as opened:
        opened.append(score("a"))
    with pytest.raises(InputError, match=r"is not complete.*no manifest\.json"):
        read_rows(tmp_path / "half", Score)
    folder = complete(tmp_path / "whole", score("a"))
    with pytest.raises(InputError, match="line 1 is not a PreferencePair row"):
        read_rows(folder, PreferencePair)
    with (folder / "rows.jsonl").open("a") as file:
        file.write(score("b").model_dump_json() + "\n")
    with pytest.raises(InputError, match=r"not the file that manifest\.json was written for"):
        read_rows(folder, Score)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        read_rows(folder, Score)


def test_a_damaged_line_is_named(tmp_path):
    with start(tmp_path) as opened:
        opened.append(score("a"))
    with (tmp_path / "rows.jsonl").open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(InputError, match="line 2 is not a Score row"):
        start(tmp_path)
    with start(tmp_path, overwrite=True) as opened:
        assert not opened.done


def test_configuration_versions_and_seeds_are_recorded(tmp_path, monkeypatch):
    with start(tmp_path, Settings(seed=7)):
        pass
    monkeypatch.setattr(artifact, "RECORDED_LIBRARIES", ("numpy", "no-such-library"))
    with start(tmp_path, Settings(seed=7)):
        pass
    record = json.loads((tmp_path / "config.json").read_bytes())
    assert record["config"] == {"beta": 500.0, "seed": 7, "names": ["a", "b"]}
    assert record["stage"] == "score"
    first, second = record["environments"]  # resumed under other libraries: both are named
    assert "torch" in first
    assert set(second) == {"python", "videogpa", "numpy"}


def test_changed_versions_are_noticed_though_they_make_no_artifact_another(tmp_path):
    with start(tmp_path) as opened:
        opened.finish([])
    path = tmp_path / "config.json"
    versions = path.read_text()
    path.write_text(versions.replace('"torch": "2', '"torch": "3'))
    with pytest.raises(InputError, match=r"config\.json is not the file that manifest\.json was written for"):
        read_manifest(tmp_path)
    path.write_text(versions)
    assert read_manifest(tmp_path).ok == 0


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "sub" / "value.json"
    artifact.write_json_atomic(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        artifact.write_json_atomic(path, {"a": float("nan")})
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(path.parent.iterdir()) == [path]


def test_hashes(tmp_path):
    assert hash_json({"a": 1, "b": [1, 2]}) == hash_json({"b": [1, 2], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})
    (tmp_path / "empty").write_bytes(b"")
    assert hash_file(tmp_path / "empty").startswith("e3b0c44298fc1c14")


WRITER = """
import sys, time
from pathlib import Path
from pydantic import BaseModel
from videogpa.artifact import atomic_path, open_artifact
from videogpa.types import Row

class Empty(BaseModel):
    pass

with open_artifact(
    Path(sys.argv[1]), stage="s", config=Empty(), inputs={}, row_type=Row, overwrite=False
) as opened:
    for i in range(1000):
        if str(i) not in opened.done:
            opened.append(Row(id=str(i)))
        if i == 5:
            with atomic_path(Path(sys.argv[1]) / "video.mkv") as temporary:
                temporary.write_bytes(b"half")
                print("writing", flush=True)
                time.sleep(60)
"""


def test_a_killed_writer_releases_the_folder_and_loses_nothing_finished(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout.readline() == "writing\n"
    options = {"stage": "s", "config": Empty(), "inputs": {}, "row_type": artifact.Row}
    with pytest.raises(InputError, match="another process"):
        open_artifact(tmp_path, **options)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with open_artifact(tmp_path, **options) as opened:
        assert list(opened.done) == ["0", "1", "2", "3", "4", "5"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "config.json", "rows.jsonl"]


def make_with_a_file(folder: Path) -> Path:
    """A complete artifact with one file that its manifest lists and one that it does not."""
    with start(folder) as opened:
        for name in ("listed", "other"):
            with atomic_path(folder / "videos" / name) as temporary:
                temporary.write_bytes(b"content")
        opened.append(score("a"))
        opened.finish(["a"], ["videos/listed"])
    return folder / "videos"


def test_a_listed_file_that_was_changed_is_noticed_by_whatever_reads_it(tmp_path, monkeypatch):
    videos = make_with_a_file(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    readers = (
        artifact.read_as_made,
        artifact.require_as_made,
        artifact.hash_input,
        lambda path: artifact.hash_input(path.parent),
        lambda path: artifact.copy_atomic(path, tmp_path / "copy"),
    )
    for place in (videos, Path("videos")):
        for read in readers:
            read(place / "listed")
    for change in (b"c0ntent", b"cont", None):
        (videos / "listed").unlink()
        if change is not None:
            (videos / "listed").write_bytes(change)
        for place in (videos, Path("videos")):
            for read in readers[: None if change else 2]:
                with pytest.raises(StageStopped, match="listed is not the file that its stage made"):
                    read(place / "listed")
    (videos / "other").write_bytes(b"whatever")
    assert artifact.read_as_made(videos / "other") == b"whatever"


def test_files_of_somebody_elses_manifest_are_not_compared(tmp_path):
    (tmp_path / "manifest.json").write_text('{"files": {"a": "0"}}')
    (tmp_path / "a").write_bytes(b"a")
    assert artifact.read_as_made(tmp_path / "a") == b"a"


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("config.json", '"beta": 500.0', '"beta": 508.0'),
        ("config.json", '"score"', '"scare"'),
        ("manifest.json", '"stage": "score"', '"stage": "scare"'),
        ("manifest.json", '"ok": 1', '"ok": 3'),
        ("manifest.json", '"failed": 0', '"failed": 1'),
    ],
)
def test_records_that_were_changed_are_noticed(tmp_path, file, before, after):
    folder = complete(tmp_path / "out", score("a"))
    content = (folder / file).read_text()
    assert before in content
    (folder / file).write_text(content.replace(before, after))
    with pytest.raises(InputError, match=rf"{file}|rows\.jsonl has not"):
        read_rows(folder, Score)


def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path, monkeypatch):
    with start(tmp_path / "out") as opened:
        opened.append(score("a"))
    artifact.write_text_atomic(tmp_path / "text", "before")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StageStopped, match=r"text on the disk /.*: No space left on device; make room"):
            artifact.write_text_atomic(tmp_path / "text", "after")
        with start(tmp_path / "out") as opened, pytest.raises(StageStopped, match=r"rows\.jsonl on the disk"):
            opened.append(score("b"))
    assert (tmp_path / "text").read_text() == "before"
    assert not list(tmp_path.rglob(".*.tmp"))


def test_other_errors_while_writing_are_not_taken_for_the_disks(tmp_path):
    with pytest.raises(FileNotFoundError):
        artifact.copy_atomic(tmp_path / "nowhere", tmp_path / "sub/copy")
    with pytest.raises(PermissionError), atomic_path(tmp_path / "sub/copy"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "source"))


def test_what_is_no_json_and_no_file_is_refused(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    os.mkfifo(tmp_path / "pipe.json")
    for name, message in (("deep", "is not JSON"), ("pipe", "is no file"), ("none", "does not exist")):
        with pytest.raises(InputError, match=message):
            read_json(tmp_path / f"{name}.json")
    with pytest.raises(InputError, match=r"pipe\.json is no file: remove it"):
        hash_input(tmp_path)


def test_rows_that_are_not_those_counted_are_refused(tmp_path):
    with open_artifact(tmp_path / "a", stage="s", config=Settings(), inputs={}, row_type=Score) as artifact:
        artifact.append(Score(id="one", video="v"), Score(id="two", video="v"))
        artifact.finish(["one", "two"])
    rows, manifest = tmp_path / "a/rows.jsonl", tmp_path / "a/manifest.json"
    lines, told = rows.read_bytes().splitlines(keepends=True), json.loads(manifest.read_bytes())
    for content in (lines[0] * 2, lines[0], lines[0] + lines[1].rstrip(), b""):
        rows.write_bytes(content)
        manifest.write_text(json.dumps(told | {"rows_sha256": hash_file(rows)}))
        with pytest.raises(InputError, match=r"has not the rows that manifest.json counts, or an id twice"):
            read_rows(tmp_path / "a", Score)
