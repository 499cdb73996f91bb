from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from videogpa.errors import InputError
from videogpa.geometry import embedded, sfm
from videogpa.geometry.options import build, licenses, predicts, protocol, resolved, weights
from videogpa.stages.score import ScoreConfig, measurable
from videogpa.weights import GEOMETRY


def test_options_reach_the_constructor_in_its_types():
    backend = build("embedded", {"field_of_view_degrees": 50})
    assert isinstance(backend, embedded.Backend)
    assert backend.field_of_view_degrees == 50
    assert isinstance(build("sfm", {}), sfm.Backend)
    assert resolved("vggt", {"weights": "somewhere", "longer_side": "280"}) == {
        "weights": Path("somewhere"), "longer_side": 280, "poses": "learned", "device": "cpu"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "embedded",
            {"colour": 1},
            "'embedded' has no option 'colour'; its options are: weights, field_of_view",
        ),
        ("vggt", {}, "'vggt' needs the option 'weights'"),
        ("vggt", {"weights": "w", "poses": "guessed"}, "cannot use poses=guessed"),
        ("sfm", {"working_side": "wide"}, "cannot use working_side=wide"),
        ("sfm", {"field_of_view_deg": float("nan")}, "cannot use field_of_view_deg=nan"),
        ("magic", {}, "no geometry plug-in named 'magic'"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(name, options, message):
    with pytest.raises(InputError, match=message):
        resolved(name, options)


def test_weights_are_found_by_their_options(tmp_path):
    assert weights("embedded", {}) == {}
    assert weights("vggt", {"weights": str(tmp_path)}) == {"weights": tmp_path}
    with pytest.raises(InputError, match=r"base_weights=.*nowhere does not exist"):
        weights("marigold", {"weights": str(tmp_path), "base_weights": str(tmp_path / "nowhere")})


def test_the_protocol_knows_weights_by_content_and_options_by_value(tmp_path):
    shipped = GEOMETRY / "network.safetensors"
    copies = [tmp_path / name for name in ("a", "b", "c")]
    for copy in copies:
        copy.write_bytes(shipped.read_bytes())
    changed = load_file(shipped)
    save_file({name: value + 1 for name, value in changed.items()}, copies[2])
    a, b, c = (protocol("embedded", {"weights": str(copy)}) for copy in copies)
    assert a == b != c
    assert protocol("embedded", {}) == protocol("embedded", {"field_of_view_degrees": 58})
    assert protocol("embedded", {}) != protocol("embedded", {"field_of_view_degrees": 57})


def test_licences_follow_the_options(tmp_path):
    assert licenses("embedded", {}) == {"embedded": "Apache-2.0"}
    assert licenses("sfm", {}) == {"sfm": "no weights"}
    options = {"weights": str(tmp_path), "size": "large"}
    assert licenses("depth_anything_3", options) == {"depth_anything_3 large": "CC-BY-NC-4.0"}
    with pytest.raises(InputError, match="does not exist"):
        licenses("depth_anything_3", options | {"weights": "nowhere"})


def test_what_is_predicted_follows_the_options(tmp_path):
    assert "normals" in predicts("embedded", {})
    assert not {"normals", "albedo"} & predicts("sfm", {})
    options = {"weights": str(tmp_path)}
    assert {"normals", "albedo"} & predicts("marigold", options) == {"albedo"}
    assert {"normals", "albedo"} <= predicts("marigold", options | {"base": "embedded"})


def test_modules_of_others_need_declare_nothing(tmp_path, monkeypatch):
    (tmp_path / "their_depth.py").write_text(
        "class Backend:\n    license = 'MIT'\n    def __init__(self, near: float = 1.0):\n        self.near = near\n"
    )
    (tmp_path / "lab").mkdir()
    (tmp_path / "their_depth.py").rename(tmp_path / "lab" / "depth.py")
    monkeypatch.syspath_prepend(tmp_path)
    assert licenses("lab.depth", {}) == {"lab.depth": "MIT"}
    assert predicts("lab.depth", {}) is None
    judges = ScoreConfig(geometry="lab.depth", metrics=("normal_agreement", "oracle_psnr"))
    assert measurable(judges, truth=False) == {"normal_agreement"}
    assert resolved("lab.depth", {"near": 2}) == {"near": 2.0}
