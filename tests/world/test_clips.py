import numpy as np
import pytest
import torch

from videogpa.errors import InputError
from videogpa.world import clips
from videogpa.world.render import render
from videogpa.world.scene import sample_scene


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "CHUNK", 3)
    threads = torch.get_num_threads()
    for first in (0, 3):
        clips._render_chunk(tmp_path, 3, 16, 0.0, first)
    torch.set_num_threads(threads)
    return tmp_path


def test_chunks_hold_the_clips_of_their_seeds_and_the_captions(folder):
    chunks = list(clips.read_clips(folder))
    assert [len(captions) for _, captions in chunks] == [3, 3]
    frames, captions = chunks[1]
    scene = sample_scene(4)
    expected = (render(scene, 3, 16, 16).rgb.permute(0, 2, 3, 1) * 255).numpy()
    assert frames.dtype == np.uint8
    assert np.abs(frames[1] - expected).max() <= 0.51
    assert captions[1] == scene.caption


def test_one_clip_in_so_many_has_a_moving_body(folder):
    (_, first), _ = clips.read_clips(folder)
    assert ["slides" in caption for caption in first] == [True, False, False]


def test_a_chunk_without_captions_was_interrupted_and_is_not_read(folder):
    (folder / "00000003.json").unlink()
    assert len(list(clips.read_clips(folder))) == 1


def test_a_share_of_the_clips_has_a_fault_that_their_captions_do_not_tell():
    clean = [clips.training_clip(seed, 3, 16, 0.0) for seed in range(24)]
    mixed = [clips.training_clip(seed, 3, 16, 0.5) for seed in range(24)]
    faulty = [not torch.equal(a, b) for (a, _), (b, _) in zip(clean, mixed, strict=True)]
    assert 6 <= sum(faulty) <= 18
    assert [caption for _, caption in clean] == [caption for _, caption in mixed]
    again = clips.training_clip(faulty.index(True), 3, 16, 0.5)[0]
    assert torch.equal(again, mixed[faulty.index(True)][0])


def test_a_folder_holds_clips_of_one_making(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "CHUNK", 1)
    render = {"count": 1, "frames": 3, "size": 16, "workers": 1}
    clips.render_clips(tmp_path, **render, faulty_share=0.5)
    assert clips.made_with(tmp_path)["faulty_share"] == 0.5
    assert len(list(clips.read_clips(tmp_path))) == 1
    with pytest.raises(InputError, match="faulty_share"):
        clips.render_clips(tmp_path, **render)
    (tmp_path / clips.MADE).unlink()
    with pytest.raises(InputError, match="nobody wrote down"):
        clips.render_clips(tmp_path, **render, faulty_share=0.5)
