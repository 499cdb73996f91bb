import pytest
import torch

from tests.export.clips import small
from videogpa.errors import InputError, RowFailed
from videogpa.geometry.base import save_prediction
from videogpa.stages.export import ExportConfig, run
from videogpa.stages.score import ScoreConfig
from videogpa.video_io import write_master
from videogpa.world.render import render
from videogpa.world.scene import sample_scene


def test_a_saved_prediction_and_its_video_are_both_exported(tmp_path):
    frames = render(sample_scene(7), 9, 48, 48).rgb
    write_master(tmp_path / "clip.mkv", frames)
    cfg = ExportConfig(formats=("ply", "glb", "colmap"), score=ScoreConfig(geometry="embedded"))
    written = run(cfg, tmp_path / "clip.mkv", tmp_path / "out")
    assert [path.name for path in written] == ["clip.ply", "clip.glb", "clip-colmap"]
    assert all(path.exists() for path in written)
    save_prediction(tmp_path / "row.safetensors", small())
    (saved,) = run(ExportConfig(), tmp_path / "row.safetensors", tmp_path / "out")
    assert saved.stat().st_size > 2000


def test_what_cannot_be_exported_is_refused_with_the_reason(tmp_path):
    write_master(tmp_path / "grey.mkv", torch.full((6, 3, 48, 48), 0.5))
    with pytest.raises(RowFailed, match="cannot be exported: "):
        run(ExportConfig(), tmp_path / "grey.mkv", tmp_path / "out")
    (tmp_path / "other.safetensors").write_bytes(b"not tensors")
    with pytest.raises(InputError, match="holds no geometry prediction"):
        run(ExportConfig(), tmp_path / "other.safetensors", tmp_path / "out")
    with pytest.raises(InputError, match="does not exist"):
        run(ExportConfig(), tmp_path / "no.safetensors", tmp_path / "out")
    with pytest.raises(InputError, match="no export plug-in named 'obj'"):
        run(ExportConfig(formats=("obj",)), tmp_path / "grey.mkv", tmp_path / "out")
    assert not (tmp_path / "out").exists()
