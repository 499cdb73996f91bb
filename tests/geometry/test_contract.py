"""What every geometry model owes, whatever it is; networks are replaced by stand-ins that know the clip."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from tests.geometry import tiny_networks
from tests.geometry.stand_ins import ExactDepthAnything3, ExactMonocular, ExactVGGT, exact_clip
from videogpa import plugin
from videogpa.errors import CannotJudge, InputError
from videogpa.geometry import depth_anything_3, embedded, exact, marigold, monocular, sfm, vggt
from videogpa.geometry.base import GeometryPrediction, load_prediction, save_prediction
from videogpa.geometry.cameras import unproject

BACKENDS = {
    "depth_anything_3": lambda _: depth_anything_3.Backend(Path("unused"), longer_side=70),
    "embedded": lambda _: embedded.Backend(),
    "exact": lambda _: exact.Backend(exact_clip()),
    "marigold": lambda folder: marigold.Backend(folder, base="embedded", steps=1, resolution=0),
    "monocular": lambda _: monocular.Backend(Path("unused")),
    "sfm": lambda _: sfm.Backend(),
    "vggt": lambda _: vggt.Backend(Path("unused"), longer_side=70),
}


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    """Each backend with what it said about the clip, twice, made when first asked for."""
    folder = tmp_path_factory.mktemp("contract")
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vggt, "load_network", lambda folder: ExactVGGT(exact_clip()))
        patch.setattr(
            depth_anything_3, "load_network", lambda folder, size: ExactDepthAnything3(exact_clip())
        )
        patch.setattr(monocular, "DepthNetwork", lambda *_: ExactMonocular(exact_clip(), "metric"))

        def of(name):
            if name not in made:
                weights = tiny_networks.marigold(folder / name, ("albedo",)) if name == "marigold" else None
                backend, frames = BACKENDS[name](weights), exact_clip().rgb
                made[name] = backend, backend.predict(frames), backend.predict(frames)
                assert_close(frames, exact_clip().rgb)
            return made[name]

        yield of


def tensors(prediction: GeometryPrediction) -> dict[str, torch.Tensor]:
    return {name: value for name, value in vars(prediction).items() if isinstance(value, torch.Tensor)}


def test_every_backend_is_held_to_the_contract():
    assert sorted(BACKENDS) == plugin.available("geometry")


@pytest.mark.parametrize("name", BACKENDS)
def test_shapes_ranges_and_cameras(predictions, name):
    _, found, _ = predictions(name)
    count, _, height, width = found.images.shape
    assert count == len(exact_clip().rgb)
    assert found.depth.shape == found.confidence.shape == (count, height, width)
    assert found.depth.isfinite().all()
    assert found.depth.min() >= 0
    assert (found.depth > 0).float().mean() > 0.5
    assert found.confidence.isfinite().all()
    assert found.confidence.min() >= 0
    assert 0 <= found.images.min() <= found.images.max() <= 1
    rotation = found.extrinsics_w2c[:, :, :3]
    assert_close(rotation @ rotation.mT, torch.eye(3).expand_as(rotation), atol=1e-4, rtol=0)
    assert (torch.linalg.det(rotation) > 0).all()
    centre = torch.tensor([(width - 1) / 2, (height - 1) / 2]).expand(count, 2)
    assert_close(found.intrinsics[:, :2, 2], centre, atol=1e-3, rtol=0)
    if found.normals is not None:
        assert_close(found.normals.norm(dim=1), torch.ones_like(found.depth), atol=1e-3, rtol=0)
        rays = unproject(torch.ones_like(found.depth), found.intrinsics).movedim(-1, 1)
        assert ((found.normals * rays).sum(1) < 0).float().mean() > 0.95
    if found.albedo is not None:
        assert 0 <= found.albedo.min() <= found.albedo.max() <= 1


@pytest.mark.parametrize("name", BACKENDS)
def test_the_declaration_is_kept(predictions, name):
    backend, found, _ = predictions(name)
    says = plugin.declared("geometry", name)
    assert found.scale == backend.scale
    assert says["SCALE"] in (backend.scale, "either")
    assert backend.license == says["LICENSE"]
    assert backend.needs == says["NEEDS"]
    assert "INSTALL" in says or not says["NEEDS"]
    assert ("normals" in says["PREDICTS"]) <= (found.normals is not None)
    assert ("albedo" in says["PREDICTS"]) == (found.albedo is not None) or name == "marigold"
    assert set(says["PREDICTS"]) <= {"depth", "poses", "normals", "albedo", "confidence"}


@pytest.mark.parametrize("name", BACKENDS)
def test_the_same_frames_give_the_same_bits(predictions, name):
    _, once, again = predictions(name)
    assert all(torch.equal(value, tensors(again)[key]) for key, value in tensors(once).items())


@pytest.mark.parametrize("name", BACKENDS)
def test_predictions_survive_the_disk(predictions, name, tmp_path):
    _, found, _ = predictions(name)
    save_prediction(tmp_path / "p.safetensors", found)
    read = load_prediction(tmp_path / "p.safetensors")
    assert read.scale == found.scale
    assert all(torch.equal(value, tensors(read)[key]) for key, value in tensors(found).items())


@pytest.mark.parametrize("name", BACKENDS)
def test_one_frame_is_no_video(predictions, name):
    backend, _, _ = predictions(name)
    with pytest.raises((CannotJudge, InputError)):
        backend.predict(exact_clip().rgb[:1])
