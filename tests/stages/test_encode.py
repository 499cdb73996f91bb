import shutil

import pytest
import torch

from tests.families import tiny_wan
from tests.stages.preferences import clip, folders, table
from videogpa.artifact import MANIFEST, open_artifact, read_rows
from videogpa.errors import InputError, RowFailed
from videogpa.families.base import load_tensors
from videogpa.families.wan import Family
from videogpa.stages import import_pairs, prompts, sample
from videogpa.stages.encode import EncodeConfig, fit, run
from videogpa.stages.import_pairs import ImportConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.types import Candidate, Prompt
from videogpa.video_io import frame_rate, probe, read_image, read_video, write_image, write_master


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_wan.build(tmp_path_factory.mktemp("encode") / "model")


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    root = tmp_path_factory.mktemp("encode")
    return import_pairs.run(ImportConfig(), str(folders(root / "source")), root / "imported")


@pytest.fixture(scope="module")
def whole(model, imported, tmp_path_factory):
    return run(config(model), *inputs(imported), tmp_path_factory.mktemp("encode") / "whole")


def config(model, **changes) -> EncodeConfig:
    return EncodeConfig(model=str(model), **changes)


def inputs(imported):
    return imported / "candidates", imported / "prompts"


def test_latents_and_conditioning_are_the_familys_own(model, imported, whole):
    family = Family(model)
    candidates, folder = inputs(imported)
    texts = {p.id: p for p in read_rows(folder, Prompt)}
    before = {c.id: c for c in read_rows(candidates, Candidate)}
    rows = read_rows(whole, Candidate)
    assert [r.id for r in rows] == list(before)
    for row in rows[1:4]:
        prompt = texts[row.prompt_id]
        image = read_image(folder / prompt.image) if prompt.image else None
        latents, conditioning = family.encode(read_video(whole / row.video)[None], prompt.text, image)
        torch.testing.assert_close(load_tensors(whole / row.latents)["latents"], latents[0])
        stored = load_tensors(whole / row.conditioning)
        assert stored.keys() == conditioning.keys()
        torch.testing.assert_close(stored["prompt_embeds"], conditioning["prompt_embeds"][0])
        for name in ("video", "preview"):
            file = getattr(row, name)
            assert (whole / file).read_bytes() == (candidates / getattr(before[row.id], name)).read_bytes()


def test_samples_encoded_again_have_latents_of_the_same_size_and_frame(model, tmp_path):
    """What the sampler drew, through 8-bit pixels and the encoder: the same shapes and the same first frame."""
    world = prompts.run_world(WorldPrompts(count=1, size=32), tmp_path / "prompts")
    cfg = SampleConfig(model=str(model), candidates=1, steps=1, frames=5, height=32, width=32, previews=False)
    drawn = sample.run(cfg, world, tmp_path / "drawn")
    again = run(config(model), drawn, world, tmp_path / "again")
    (before,), (after,) = read_rows(drawn, Candidate), read_rows(again, Candidate)
    assert (after.seed, after.video) == (before.seed, before.video)
    sampled, encoded = (load_tensors(f / r.latents)["latents"] for f, r in ((drawn, before), (again, after)))
    assert sampled.shape == encoded.shape
    torch.testing.assert_close(sampled[:, :1], encoded[:, :1])
    kept, made = (load_tensors(f / r.conditioning) for f, r in ((drawn, before), (again, after)))
    assert kept.keys() == made.keys()
    assert all(torch.allclose(kept[name], made[name]) for name in kept)


def test_a_video_that_does_not_fit_is_a_failed_row_with_the_models_reason(model, tmp_path):
    source = table(tmp_path / "source", [{"prompt": "a box", "chosen": "1.mkv", "rejected": "2.mkv"}])
    write_master(source / "2.mkv", clip(3, frames=7, height=48, width=64))
    imported = import_pairs.run(ImportConfig(), str(source), tmp_path / "imported")
    out = run(config(model), *inputs(imported), tmp_path / "out")
    good, bad = read_rows(out, Candidate)
    assert (good.status, bad.status, bad.latents) == ("ok", "failed", None)
    assert "7 frames do not fit" in bad.reason
    cfg = config(model, frames=5, height=32, width=32)
    fitted = run(cfg, *inputs(imported), tmp_path / "fitted")
    rows = read_rows(fitted, Candidate)
    shapes = [load_tensors(fitted / r.latents)["latents"].shape for r in rows]
    assert shapes[0] == shapes[1]
    info = probe(fitted / rows[1].video)
    assert (info.frames, info.height, info.width) == (5, 32, 32)
    assert frame_rate(fitted / rows[1].video) == pytest.approx(8)
    video = fit(read_video(imported / "candidates" / rows[1].video), 5, 32, 32)
    assert torch.equal(read_video(fitted / rows[1].video), video)
    assert (fitted / rows[1].preview).stat().st_size > 0


def test_the_first_frame_is_fitted_like_the_video(model, tmp_path):
    source = table(
        tmp_path / "source", [{"prompt": "a box", "chosen": "1.mkv", "rejected": "2.mkv", "image": "f.png"}]
    )
    write_master(source / "1.mkv", clip(1, height=48, width=48))
    write_image(source / "f.png", clip(1, height=48, width=48)[0])
    imported = import_pairs.run(ImportConfig(), str(source), tmp_path / "imported")
    rows = read_rows(run(config(model), *inputs(imported), tmp_path / "out"), Candidate)
    assert [r.status for r in rows] == ["ok", "failed"]
    assert "the first frame is 48x48 but the video 32x32" in rows[1].reason
    fitted = run(config(model, height=32, width=32), *inputs(imported), tmp_path / "fitted")
    assert [r.status for r in read_rows(fitted, Candidate)] == ["ok", "ok"]


def test_what_failed_before_stays_failed(model, tmp_path):
    with open_artifact(
        tmp_path / "prompts", stage="prompts", config=ImportConfig(), inputs={}, row_type=Prompt
    ) as artifact:
        artifact.append(Prompt(id="p", text="a box", status="failed", reason="no image"))
        artifact.finish(["p"])
    with open_artifact(
        tmp_path / "candidates", stage="candidates", config=ImportConfig(), inputs={}, row_type=Candidate
    ) as artifact:
        artifact.append(
            Candidate(id="a", prompt_id="p", video="a.mkv"),
            Candidate(id="b", prompt_id="q", video="b.mkv"),
            Candidate(id="c", prompt_id="p", status="failed", reason="truncated"),
        )
        artifact.finish(["a", "b", "c"])
    out = run(config(model), tmp_path / "candidates", tmp_path / "prompts", tmp_path / "out")
    reasons = [r.reason for r in read_rows(out, Candidate)]
    assert reasons[0] == "its prompt failed: no image"
    assert "its prompt q is not in" in reasons[1]
    assert reasons[2] == "truncated"


def test_a_killed_run_goes_on_where_it_stopped(model, imported, whole, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / MANIFEST).unlink()
    rows = (cut / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "rows.jsonl").write_bytes(b"".join(rows[:2]) + rows[2][:20])
    run(config(model), *inputs(imported), cut)
    assert (cut / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()
    with pytest.raises(InputError, match="frames null -> 5"):
        run(config(model, frames=5), *inputs(imported), cut)


def test_fit_cuts_the_centre_and_keeps_what_fits():
    video = torch.zeros(3, 3, 20, 40)
    video[:, :, :, 10:30] = 1  # the centred square
    assert torch.equal(fit(video, 2, 20, 20), torch.ones(2, 3, 20, 20))
    assert torch.equal(fit(video, None, 10, 10), torch.ones(3, 3, 10, 10))
    assert fit(video, None, 20, 40) is video
    assert fit(video, 1, None, None).shape == (1, 3, 20, 40)
    with pytest.raises(RowFailed, match="has 3 frames, fewer than 4"):
        fit(video, 4, None, None)


def test_height_goes_with_width(model, imported, tmp_path):
    with pytest.raises(InputError, match="height and width together"):
        run(config(model, height=32), *inputs(imported), tmp_path / "out")
