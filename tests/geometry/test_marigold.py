import pytest
import torch
from torch.testing import assert_close

from tests.geometry import tiny_networks
from tests.geometry.stand_ins import exact_clip
from videogpa.errors import InputError
from videogpa.geometry import embedded
from videogpa.geometry.marigold import Backend, licenses


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return tiny_networks.marigold(tmp_path_factory.mktemp("marigold") / "m", ("material", "albedo"))


def test_albedo_is_added_to_the_bases_geometry(folder):
    clip = exact_clip("orbits left")
    backend = Backend(folder, base="embedded", steps=2, resolution=32)
    found, base = backend.predict(clip.rgb), embedded.Backend().predict(clip.rgb)
    assert found.albedo.shape == found.images.shape
    assert 0 <= found.albedo.min() < found.albedo.max() <= 1
    assert_close(found.depth, base.depth)
    assert_close(found.extrinsics_w2c, base.extrinsics_w2c)
    assert backend.scale == base.scale
    assert torch.equal(found.albedo, backend.predict(clip.rgb).albedo)


def test_the_target_named_albedo_is_taken_and_equal_frames_give_equal_albedo(folder):
    backend = Backend(folder, base="embedded", steps=2, resolution=0)
    frame = torch.rand(1, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    backend.base.predict = lambda frames: embedded.Backend().predict(exact_clip().rgb[:2])
    once = backend.predict(frame.expand(2, -1, -1, -1))
    backend.target = 0
    assert not torch.equal(once.albedo, backend.predict(frame).albedo)


def test_a_pipeline_without_albedo_is_refused(tmp_path):
    folder = tiny_networks.marigold(tmp_path / "m", ("shading",))
    with pytest.raises(InputError, match="no albedo"):
        Backend(folder)
    with pytest.raises(InputError, match="cannot load"):
        Backend(tmp_path / "nowhere")
    with pytest.raises(InputError, match="magic"):
        Backend(tiny_networks.marigold(tmp_path / "a"), base="magic")


def test_the_licences_are_the_cards_and_the_bases(folder, tmp_path):
    assert licenses(folder) == {"marigold": "apache-2.0", "sfm": "no weights"}
    assert licenses(folder, "vggt", tmp_path) == {"marigold": "apache-2.0", "vggt": "CC-BY-NC-4.0"}
