"""Finished folders in an object store: an S3 server on the loopback, and plain folders as addresses."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import pytest
from pydantic import BaseModel

from videogpa.artifact import MANIFEST, open_artifact, read_rows
from videogpa.cli import app
from videogpa.errors import InputError
from videogpa.stages import store
from videogpa.stages.store import COMMIT, Keeping, Store, copy
from videogpa.types import Prompt

BUCKET = "videos"


class Config(BaseModel):
    wording: str = "first"


@pytest.fixture(scope="module")
def server():
    moto = pytest.importorskip("moto.server")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def address(server, monkeypatch):
    """An empty bucket's, for s3fs in this process and in others."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "anybody",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = boto3.resource("s3").Bucket(BUCKET)
    if bucket in boto3.resource("s3").buckets.all():
        bucket.objects.all().delete()
    bucket.create()
    return f"s3://{BUCKET}/run"


@pytest.fixture
def local(tmp_path):
    """A folder as an address; what is done with it costs nothing."""
    return f"file://{tmp_path}/store"


def artifact(folder: Path, *ids: str, wording: str = "first", finished: bool = True, files: int = 2) -> Path:
    with open_artifact(
        folder, stage="prompts", config=Config(wording=wording), inputs={}, row_type=Prompt
    ) as made:
        names = [f"files/{id}-{k}.bin" for id in ids for k in range(files)]
        for number, name in enumerate(names):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(bytes([number % 256]) * 1000)
        made.append(*(Prompt(id=id, text=f"{wording} {id}") for id in ids))
        if finished:
            made.finish(ids, names)
    return folder


@pytest.fixture
def run(tmp_path):
    """Two finished artifacts, one in the other, one that is not finished, and a page beside them."""
    folder = tmp_path / "run"
    artifact(folder / "evaluation", "a", "b")
    artifact(folder / "evaluation" / "samples", "c")
    artifact(folder / "lora", "d", finished=False)
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("a page")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", COMMIT))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def without(files: dict[str, bytes], start: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.startswith(start)}


def test_what_is_finished_comes_back_from_a_store(run, address, tmp_path):
    sent = copy(str(run), address)
    assert sent.folders == ("evaluation/samples", "evaluation", ".")
    assert (sent.files, sent.unfinished) == (7 + 5 + 1, ("lora",))
    assert copy(str(run), address).files == 0
    back = tmp_path / "back"
    assert copy(address, str(back)).files == 13
    assert content(back) == without(content(run), "lora/")
    assert copy(address, str(back)).files == 0
    assert [row.id for row in read_rows(back / "evaluation", Prompt)] == ["a", "b"]


def test_from_the_command_line(run, address, tmp_path, capsys):
    app(["copy", str(run), address], standalone_mode=False)
    said = capsys.readouterr()
    assert said.out.strip() == address
    assert "3 finished folders, 13 files copied" in said.err
    assert "not finished, so not copied: lora" in said.err
    app(["copy", address, str(tmp_path / "back")], standalone_mode=False)
    assert content(tmp_path / "back") == without(content(run), "lora/")


def test_killed_while_it_copies_and_copied_again(address, tmp_path):
    source = artifact(tmp_path / "run", *"abcdefgh", files=20)
    command = [sys.executable, "-m", "videogpa.cli", "copy", str(source), address]
    process = subprocess.Popen(command, start_new_session=True)
    there = Store(address)
    while not there._files.find(there._root):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert there.homes() == []
    with pytest.raises(InputError, match="nothing complete"):
        copy(address, str(tmp_path / "back"))
    copy(str(source), address)
    copy(address, str(tmp_path / "back"))
    assert content(tmp_path / "back") == content(source)


def test_a_download_that_was_cut_off_is_not_complete_and_goes_on(run, local, tmp_path, monkeypatch):
    copy(str(run), local)
    back = tmp_path / "back"
    monkeypatch.setattr(store, "TOGETHER", 2)
    received = Store._receive
    batches = 0

    def cut_off(*arguments):
        nonlocal batches
        batches += 1
        if batches > 2:
            raise KeyboardInterrupt
        received(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_receive", cut_off)
        with pytest.raises(KeyboardInterrupt):
            copy(local, str(back))
    assert not list(back.rglob(MANIFEST))
    assert copy(local, str(back)).files == 13 - 4
    assert content(back) == without(content(run), "lora/")


@pytest.mark.parametrize("name", ["evaluation/files/a-1.bin", "evaluation/rows.jsonl", "report/index.html"])
def test_what_was_damaged_in_the_store_does_not_come(run, local, tmp_path, name):
    copy(str(run), local)
    stored = Path(local.removeprefix("file://")) / name
    stored.write_bytes(b"x" + stored.read_bytes()[1:])
    back = tmp_path / "back"
    with pytest.raises(InputError, match=f"{name} is not what was stored"):
        copy(local, str(back))
    assert not (back / name).exists()
    assert not list(back.rglob("*.tmp"))


def test_what_was_changed_after_it_was_finished_is_not_stored(run, local):
    (run / "evaluation/files/a-0.bin").write_bytes(b"other")
    with pytest.raises(InputError, match=r"a-0\.bin is not the file that was made"):
        copy(str(run), local)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/../../b", "", "..\\outside"])
def test_a_commit_cannot_reach_out_of_the_folder(run, local, tmp_path, name):
    copy(str(run), local)
    commit = Path(local.removeprefix("file://")) / COMMIT
    commit.write_text(json.dumps({"files": {name: "0" * 64}}))
    with pytest.raises(InputError, match="is damaged: files"):
        copy(local, str(tmp_path / "back"))


def test_no_folder_in_a_store_leads_out_of_it(run, local, tmp_path, monkeypatch):
    there = Store(local)
    there.upload(run)
    monkeypatch.setattr(there._files, "find", lambda root: [f"{root}/../../outside/{COMMIT}"])
    with pytest.raises(InputError, match="leads out of it"):
        there.download(tmp_path / "back")
    assert not (tmp_path / "outside").exists()


def test_what_lies_in_the_place_is_not_written_over(run, local, tmp_path):
    copy(str(run), local)
    back = tmp_path / "back"
    (back / "report").mkdir(parents=True)
    (back / "report/index.html").write_text("my own page")
    (back / "evaluation").mkdir()
    (back / "evaluation/rows.jsonl").write_text("my own rows")
    with pytest.raises(InputError, match="holds other files"):
        copy(local, str(back))
    assert (back / "evaluation/rows.jsonl").read_text() == "my own rows"
    (back / "evaluation/rows.jsonl").unlink()
    copy(local, str(back))
    assert (back / "report/index.html").read_text() == "my own page"
    copy(local, str(back), overwrite=True)
    assert content(back) == without(content(run), "lora/")


def test_two_that_were_made_apart_are_not_mixed(tmp_path, local):
    """As on machines whose rounding differs."""
    here, there = (artifact(tmp_path / name, "a", files=files) for name, files in (("here", 1), ("there", 2)))
    copy(str(there), local)
    before = content(here)
    with pytest.raises(InputError, match="both made, and differ"):
        copy(local, str(here))
    assert content(here) == before


def test_another_artifact_is_replaced_only_when_asked(tmp_path, local):
    first, second = (artifact(tmp_path / wording, "a", wording=wording) for wording in ("first", "second"))
    copy(str(first), local)
    with pytest.raises(InputError, match="made differently"):
        copy(str(second), local)
    with pytest.raises(InputError, match=r"made differently: config.wording \"second\" -> \"first\""):
        copy(local, str(second))
    copy(local, str(second), overwrite=True)
    assert content(second) == content(first)
    third = artifact(tmp_path / "third", "b", wording="third")
    copy(str(third), local, overwrite=True)
    copy(local, str(tmp_path / "back"))
    assert content(tmp_path / "back") == content(third)


def test_an_unfinished_artifact_is_finished_by_what_is_stored(tmp_path, local):
    finished = artifact(tmp_path / "finished", "a", "b")
    copy(str(finished), local)
    begun = artifact(tmp_path / "begun", "a", finished=False)
    copy(local, str(begun))
    assert content(begun) == content(finished)


def test_a_page_made_anew_replaces_the_stored_one(run, local, tmp_path):
    copy(str(run), local)
    (run / "report/index.html").write_text("a better page")
    assert copy(str(run), local).files == 1
    copy(local, str(tmp_path / "back"))
    assert (tmp_path / "back/report/index.html").read_text() == "a better page"


def test_a_store_that_answers_again_is_waited_for(run, local, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "PAUSES", (0.0, 0.0))
    there = Store(local)
    failures = iter([ConnectionError("no route"), TimeoutError("no answer")])
    put = there._files.put

    def unreliable(*arguments):
        for failure in failures:
            raise failure
        return put(*arguments)

    monkeypatch.setattr(there._files, "put", unreliable)
    assert there.upload(run).files == 13


def test_a_lost_store_does_not_stop_a_run_but_is_said(run, local, monkeypatch, caplog):
    monkeypatch.setattr(store, "PAUSES", (0.0,))
    there = Store(local)
    keeping = Keeping(run, there)

    def lost(*_):
        raise ConnectionError("no route")

    with monkeypatch.context() as patched:
        patched.setattr(there._files, "put", lost)
        keeping()
        assert "not stored yet" in caplog.text
        with pytest.raises(InputError, match=r"does not answer \(ConnectionError: no route\); run the same"):
            keeping.finish()
    keeping.finish()
    assert there.homes() == ["evaluation/samples", "evaluation", "."]


def test_what_cannot_be_an_address_is_refused(run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="one of the two is a folder"):
        copy(str(run), str(tmp_path / "other"))
    with pytest.raises(InputError, match="one of the two is a folder"):
        copy("s3://a/b", "s3://c/d")
    with pytest.raises(InputError, match="is no address of a store"):
        copy(str(run), "nowhere://a/b")
    with pytest.raises(InputError, match="does not exist"):
        copy(str(tmp_path / "nothing"), f"file://{tmp_path}/store")
    with pytest.raises(InputError, match="nothing that is finished"):
        copy(str(artifact(tmp_path / "begun", "a", finished=False)), f"file://{tmp_path}/store")


def test_a_server_that_is_not_there(run, address, monkeypatch):
    monkeypatch.setattr(store, "PAUSES", ())
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(InputError, match="cannot be reached"):
        copy(str(run), address)


def test_a_bucket_that_is_not_there(run, address):
    with pytest.raises(InputError, match="FileNotFoundError"):
        copy(str(run), "s3://nobodys-bucket/run")
