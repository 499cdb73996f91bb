import shutil

import pytest
import torch

from tests.families import tiny_wan
from videogpa.artifact import MANIFEST, read_rows
from videogpa.errors import InputError
from videogpa.families.base import load_tensors
from videogpa.families.wan import Family
from videogpa.stages import prompts, sample
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig, candidate_seed
from videogpa.types import Candidate, Prompt
from videogpa.video_io import read_video

SIZE = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_wan.build(tmp_path_factory.mktemp("sample") / "model")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return prompts.run_world(WorldPrompts(count=2, size=SIZE), tmp_path_factory.mktemp("prompts") / "p")


@pytest.fixture(scope="module")
def whole(model, world, tmp_path_factory):
    """An undisturbed run of one process."""
    return sample.run(config(model), world, tmp_path_factory.mktemp("whole") / "c")


def config(model, **changes) -> SampleConfig:
    small = SampleConfig(model=str(model), candidates=2, steps=2, frames=5, height=SIZE, width=SIZE)
    return small.model_copy(update=changes)


def test_candidates_are_lossless_and_decodable_from_their_latents(model, whole):
    rows = read_rows(whole, Candidate)
    assert len(rows) == 4
    assert len({r.seed for r in rows}) == 4
    family = Family(model)
    for row in rows:
        latents = load_tensors(whole / row.latents)["latents"]
        decoded = family.decode(latents[None])[0]
        assert (decoded - read_video(whole / row.video)).abs().max() <= 0.5 / 255 + 1e-5
        assert "prompt_embeds" in load_tensors(whole / row.conditioning)
        assert (whole / row.preview).stat().st_size > 0


def test_a_killed_run_goes_on_where_it_stopped(model, world, whole, tmp_path):
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / MANIFEST).unlink()
    lines = (cut / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "rows.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    sample.run(config(model), world, cut)
    assert (cut / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()


def test_the_number_of_workers_changes_nothing(model, world, whole, tmp_path):
    two = sample.run(config(model), world, tmp_path / "two", workers=2)
    assert (two / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()


def test_without_previews_everything_else_is_the_same(model, world, whole, tmp_path):
    bare = sample.run(config(model, previews=False), world, tmp_path / "bare")
    assert not (bare / "previews").exists()
    rows = read_rows(whole, Candidate)
    assert read_rows(bare, Candidate) == [row.model_copy(update={"preview": None}) for row in rows]
    assert all((bare / r.video).read_bytes() == (whole / r.video).read_bytes() for r in rows)


def test_candidates_that_share_noise_differ_less(model, world, whole, tmp_path):
    def apart(folder) -> float:
        rows = read_rows(folder, Candidate)
        latents = [load_tensors(folder / row.latents)["latents"] for row in rows]
        return float(sum((a - b).square().mean() for a, b in zip(latents[::2], latents[1::2], strict=True)))

    alike = sample.run(config(model, shared_noise=0.9), world, tmp_path / "alike")
    assert 0 < apart(alike) < 0.5 * apart(whole)


def test_another_configuration_is_refused(model, world, whole):
    with pytest.raises(InputError, match="steps 2 -> 3"):
        sample.run(config(model, steps=3), world, whole)


def test_a_prompt_that_fails_is_a_failed_row(model, world, tmp_path, monkeypatch):
    draw = Family.sample

    def broken(self, text, image, seeds, settings):
        samples = draw(self, text, image, seeds, settings)
        if candidate_seed(0, read_rows(world, Prompt)[0].id, 0) in seeds:
            samples.videos.fill_(torch.nan)
        return samples

    monkeypatch.setattr(Family, "sample", broken)
    out = sample.run(config(model), world, tmp_path / "c")
    rows = read_rows(out, Candidate)
    assert [r.status for r in rows] == ["failed", "failed", "ok", "ok"]
    assert "not numbers" in rows[0].reason
    assert rows[0].video is None


def test_what_does_not_fit_into_memory_is_drawn_in_smaller_parts(model, world, whole, tmp_path, monkeypatch):
    drawn, tried = Family.sample, []

    def sample_of_a_small_card(family, text, image, seeds, settings):
        tried.append(len(seeds))
        if len(seeds) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return drawn(family, text, image, seeds, settings)

    monkeypatch.setattr(Family, "sample", sample_of_a_small_card)
    parts = sample.run(config(model), world, tmp_path / "c")
    # The second prompt is not tried with what was too much for the first.
    assert tried == [2, 1, 1, 1, 1]
    for row in read_rows(parts, Candidate):
        assert row == next(r for r in read_rows(whole, Candidate) if r.id == row.id)
        one, other = (load_tensors(folder / row.latents)["latents"] for folder in (parts, whole))
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_what_is_too_large_alone_is_a_failed_row(model, world, tmp_path, monkeypatch):
    def sample_of_no_card(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Family, "sample", sample_of_no_card)
    rows = read_rows(sample.run(config(model), world, tmp_path / "c"), Candidate)
    assert {row.status for row in rows} == {"failed"}
    assert all("out of memory" in row.reason for row in rows)


def test_seeds_belong_to_prompt_and_index():
    seeds = {candidate_seed(s, p, k) for s in range(3) for p in ("a", "b") for k in range(4)}
    assert len(seeds) == 24
    assert all(0 <= s < 2**31 for s in seeds)
