import builtins

import pytest

from tests.export.clips import small
from videogpa.errors import InputError
from videogpa.export import rerun


def test_a_recording_holds_the_cameras_and_the_points(tmp_path):
    pytest.importorskip("rerun")
    path = rerun.write(tmp_path, "clip", small())
    data = path.read_bytes()
    assert data[:3] == b"RRF"
    for entity in (b"/world/points", b"/world/camera/picture", b"/world/camera/depth"):
        assert entity in data


def test_without_rerun_the_message_says_what_to_install(tmp_path, monkeypatch):
    whole = builtins.__import__

    def without(name, *rest):
        if name == "rerun":
            raise ImportError("No module named 'rerun'")
        return whole(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install 'videogpa\[rerun\]'"):
        rerun.write(tmp_path, "clip", small())
