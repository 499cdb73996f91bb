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


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_wan.build(tmp_path_factory.mktemp("sample") / "model")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return prompts.run_world(WorldPrompts(count=2), tmp_path_factory.mktemp("prompts") / "p")


def config(model, **changes) -> SampleConfig:
    return SampleConfig(model=str(model), candidates=2, steps=2).model_copy(update=changes)


def test_candidates_are_lossless_and_decodable_from_their_latents(model, world, tmp_path):
    out = sample.run(config(model), world, tmp_path / "c")
    rows = read_rows(out, Candidate)
    assert len(rows) == 4
    assert len({r.seed for r in rows}) == 4
    family = Family(model)
    for row in rows:
        latents = load_tensors(out / row.latents)["latents"]
        decoded = family.decode(latents[None])[0]
        assert (decoded - read_video(out / row.video)).abs().max() <= 0.5 / 255 + 1e-5
        assert "prompt_embeds" in load_tensors(out / row.conditioning)
        assert (out / row.preview).stat().st_size > 0


def test_a_killed_run_goes_on_where_it_stopped(model, world, tmp_path):
    whole = sample.run(config(model), world, tmp_path / "whole")
    cut = sample.run(config(model), world, tmp_path / "cut")
    (cut / MANIFEST).unlink()
    lines = (cut / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "rows.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:20])
    sample.run(config(model), world, cut)
    assert (cut / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()


def test_the_number_of_workers_changes_nothing(model, world, tmp_path):
    one = sample.run(config(model), world, tmp_path / "one", workers=1)
    two = sample.run(config(model), world, tmp_path / "two", workers=2)
    assert (one / MANIFEST).read_bytes() == (two / MANIFEST).read_bytes()


def test_another_configuration_is_refused(model, world, tmp_path):
    out = sample.run(config(model), world, tmp_path / "c")
    with pytest.raises(InputError, match="steps 2 -> 3"):
        sample.run(config(model, steps=3), world, out)


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


def test_seeds_belong_to_prompt_and_index():
    seeds = {candidate_seed(s, p, k) for s in range(3) for p in ("a", "b") for k in range(4)}
    assert len(seeds) == 24
    assert all(0 <= s < 2**31 for s in seeds)
