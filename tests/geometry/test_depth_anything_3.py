import resource
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model
from torch import nn
from torch.testing import assert_close

from tests.geometry.stand_ins import CONFIDENCE, ExactDepthAnything3, exact_clip
from videogpa.errors import InputError
from videogpa.geometry import depth_anything_3
from videogpa.geometry.cameras import camera_centers, relative_pose, rotation_angle
from videogpa.geometry.depth_anything_3 import NEEDS, Backend, build_network, licenses, load_network
from videogpa.plugin import installed


@pytest.fixture
def exact(monkeypatch):
    """A backend whose network answers with the exact geometry of the clip."""

    def backend(clip, **options) -> Backend:
        monkeypatch.setattr(depth_anything_3, "load_network", lambda folder, size: ExactDepthAnything3(clip))
        return Backend(Path("unused"), longer_side=70, **options)

    return backend


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The real smallest network with random weights, and a folder of them as published."""
    if not installed(NEEDS):
        pytest.skip("depth-anything-3 is not installed")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network("small").eval()
    folder = tmp_path_factory.mktemp("da3")
    save_model(nn.ModuleDict({"model": network}), str(folder / "model.safetensors"))
    return network, folder


def test_exact_native_output_gives_the_exact_geometry(exact):
    clip = exact_clip("orbits left")
    found = exact(clip).predict(clip.rgb)
    assert_close(found.images, clip.rgb)
    assert_close(found.depth, clip.depth)
    assert_close(found.extrinsics_w2c, clip.extrinsics_w2c)
    assert_close(found.intrinsics, clip.intrinsics)
    assert_close(found.confidence, torch.full_like(clip.depth, 1 - 1 / CONFIDENCE))


@pytest.mark.parametrize("motion", ["orbits left", "dollies backward", "pans right"])
def test_poses_by_alignment_are_the_true_ones_too(exact, motion):
    clip = exact_clip(motion)
    learned = exact(clip).predict(clip.rgb).extrinsics_w2c
    aligned = exact(clip, poses="alignment").predict(clip.rgb).extrinsics_w2c
    learned = relative_pose(learned[:1].expand_as(learned), learned)
    assert rotation_angle(aligned[:, :, :3] @ learned[:, :, :3].mT).rad2deg().max() < 0.5
    assert (camera_centers(aligned) - camera_centers(learned)).norm(dim=-1).max() < 0.03


def test_the_licence_goes_by_the_size():
    assert licenses(size="small") == {"depth_anything_3 small": "Apache-2.0"}
    assert licenses(size="giant") == {"depth_anything_3 giant": "CC-BY-NC-4.0"}


def test_without_the_packages_the_error_says_how_to_install_them(monkeypatch):
    monkeypatch.setitem(sys.modules, "depth_anything_3.cfg", None)
    with pytest.raises(InputError, match="pip install --no-deps depth-anything-3"):
        build_network("small")


def test_the_real_network_is_loaded_from_a_folder(small):
    network, folder = small
    found = load_network(folder, "small").state_dict()
    assert all(torch.equal(found[name], value) for name, value in network.state_dict().items())


def test_weights_that_do_not_fit_are_refused(small, tmp_path):
    _, folder = small
    with pytest.raises(InputError, match=r"option size"):
        load_network(folder, "base")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_network(tmp_path, "small")
    weights = load_file(folder / "model.safetensors")
    del weights["model.cam_dec.fc_t.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match="1 tensors are missing, 0 too many"):
        load_network(tmp_path, "small")


def test_the_real_network_answers_in_the_native_output_that_the_adapter_reads(small):
    network, _ = small
    with torch.inference_mode():
        answer = network(torch.rand(1, 3, 3, 42, 56, generator=torch.Generator().manual_seed(0)))
    assert answer["depth"].shape == answer["depth_conf"].shape == (1, 3, 42, 56)
    assert answer["depth_conf"].min() >= 1
    assert answer["extrinsics"].shape == (1, 3, 3, 4)
    rotation = answer["extrinsics"][0, :, :3, :3]
    assert_close(rotation @ rotation.mT, torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    assert_close(answer["intrinsics"][0, :, :2, 2], torch.tensor([28.0, 21.0]).expand(3, 2))


@pytest.mark.slow
def test_the_real_size(small):
    _, folder = small
    frames = torch.rand(10, 3, 270, 480, generator=torch.Generator().manual_seed(0))
    start = time.perf_counter()
    backend = Backend(folder)
    loaded = time.perf_counter()
    with torch.inference_mode():
        answer = backend.network(depth_anything_3.fitted(frames, 504)[None])
    seconds = time.perf_counter() - loaded
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"\nDA3 small, 10 frames of {tuple(answer['depth'].shape[-2:])}: loading {loaded - start:.1f} s, "
          f"one pass {seconds:.1f} s, peak {peak:.1f} GiB")  # fmt: skip
    assert answer["depth"].isfinite().all()
