import pytest
from huggingface_hub import constants

from tests.stages.fake_hub import Hub
from videogpa.cli import app
from videogpa.errors import InputError
from videogpa.stages.push import push


@pytest.fixture
def hub(monkeypatch):
    with Hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        yield hub


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "dataset"
    (made / "videos").mkdir(parents=True)
    (made / "README.md").write_text("---\nlicense: mit\n---\n\n# A dataset\n")
    (made / "videos" / "a.mkv").write_bytes(bytes(range(256)) * 40)
    (made / "metadata.jsonl").write_text('{"x": 1}\n')
    (made / ".lock").write_text("mine")
    return made


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_a_folder_arrives_whole_and_unseen_by_others(hub, folder, kind):
    address = push(folder, "somebody/things", kind)
    assert address == f"{hub.address}/{'datasets/' if kind == 'dataset' else ''}somebody/things"
    written = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("[!.]*") if p.is_file()}
    assert {k: v for k, v in hub.files["somebody/things"].items() if k != ".gitattributes"} == written
    assert hub.kinds["somebody/things"] == kind
    assert hub.private["somebody/things"]


def test_pushing_again_updates(hub, folder):
    push(folder, "somebody/things", "dataset", public=True)
    (folder / "metadata.jsonl").write_text('{"x": 2}\n')
    push(folder, "somebody/things", "dataset")
    assert hub.files["somebody/things"]["metadata.jsonl"] == b'{"x": 2}\n'
    assert not hub.private["somebody/things"]


def test_who_is_not_logged_in_is_told(hub, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(InputError, match="nobody is logged in"):
        push(folder, "somebody/things", "dataset")
    assert hub.files == {}


def test_what_the_hub_refuses_is_said(hub, folder):
    hub.refuse = "out of space"
    with pytest.raises(InputError, match=r"cannot push to somebody/things: .*out of space"):
        push(folder, "somebody/things", "dataset")


@pytest.mark.parametrize("name", ["a b/c", "a/b/c", "../x"])
def test_a_bad_name_is_refused(hub, folder, name):
    with pytest.raises(InputError, match="cannot push to"):
        push(folder, name, "dataset")


def test_a_bad_name_is_refused_before_the_export(tmp_path):
    given = ["export-evaluation", "nothing", "nothing", "--out", str(tmp_path / "out"), "--push", "a/b/c"]
    with pytest.raises(InputError, match="cannot push to a/b/c"):
        app(given, standalone_mode=False)


def test_a_hub_that_is_not_there_is_said(hub, folder, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="cannot push to somebody/things"):
        push(folder, "somebody/things", "dataset")


def test_what_no_export_wrote_is_not_pushed(hub, tmp_path):
    with pytest.raises(InputError, match=r"holds no README\.md"):
        push(tmp_path, "somebody/things", "dataset")
