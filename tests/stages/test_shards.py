import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogpa.artifact import MANIFEST, hash_file, read_manifest, read_rows
from videogpa.cli import app
from videogpa.errors import InputError
from videogpa.stages import encode, prompts, sample, score
from videogpa.stages.encode import EncodeConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.stages.shards import Shard, parse_shard, part_of
from videogpa.types import Candidate, Score

DRAWN = SampleConfig(steps=1, frames=5, candidates=2, previews=False, keep_latents=False)
JUDGED = ScoreConfig(geometry="embedded", metrics=("sharpness", "motion"))
PARTS, WHOLE = [Shard(number=1, of=2), Shard(number=2, of=2)], Shard(number=None, of=2)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return prompts.run_world(
        WorldPrompts(split="held_out", count=3), tmp_path_factory.mktemp("p") / "prompts"
    )


@pytest.fixture(scope="module")
def whole(asked, tmp_path_factory):
    return sample.run(DRAWN, asked, tmp_path_factory.mktemp("whole") / "candidates")


@pytest.fixture(scope="module")
def drawn_in_parts(asked, tmp_path_factory):
    """What all parts belong to; nothing of it is there but the parts."""
    out = tmp_path_factory.mktemp("parts") / "candidates"
    folders = [sample.run(DRAWN, asked, out, shard=shard) for shard in PARTS]
    assert [folder.name for folder in folders] == ["1-of-2", "2-of-2"]
    assert [len(read_rows(folder, Candidate)) for folder in folders] == [4, 2]
    return out


@pytest.fixture
def parts(drawn_in_parts, tmp_path):
    shutil.copytree(drawn_in_parts.with_name("candidates.shards"), tmp_path / "candidates.shards")
    return tmp_path / "candidates"


@given(st.lists(st.integers()), st.integers(1, 12))
def test_every_job_is_in_one_part(jobs, of):
    parts = [part_of(Shard(number=n, of=of), jobs, Path("x"))[0] for n in range(1, of + 1)]
    assert sorted(job for part in parts for job in part) == sorted(jobs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_parts_together_are_the_whole(asked, whole, parts):
    assert sample.run(DRAWN, asked, parts, shard=WHOLE) == parts
    assert (parts / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()


def test_scores_and_latents_in_parts_are_those_of_the_whole(asked, whole, tmp_path):
    def scored(shard, out=tmp_path / "scores"):
        return score.run(JUDGED, whole, out, shard=shard)

    def encoded(shard, out=tmp_path / "encoded"):
        return encode.run(EncodeConfig(), whole, asked, out, shard=shard)

    for run in (scored, encoded):
        expected = (run(None, tmp_path / "at once") / MANIFEST).read_bytes()
        for shard in PARTS:
            run(shard)
        assert (run(WHOLE) / MANIFEST).read_bytes() == expected
        shutil.rmtree(tmp_path / "at once")
    assert len(read_rows(tmp_path / "scores", Score)) == 6


def test_what_has_not_finished_is_named(asked, parts):
    shutil.rmtree(parts.with_name("candidates.shards") / "2-of-2")
    with pytest.raises(InputError, match=r"before these have finished: --shard 2/2$"):
        sample.run(DRAWN, asked, parts, shard=WHOLE)
    assert not (parts / MANIFEST).exists()
    sample.run(DRAWN, asked, parts, shard=PARTS[1])
    sample.run(DRAWN, asked, parts, shard=WHOLE)


def test_parts_of_something_else_are_refused(asked, parts):
    other = DRAWN.model_copy(update={"seed": 1})
    with pytest.raises(InputError, match="made with another configuration"):
        sample.run(other, asked, parts, shard=WHOLE)


def test_a_changed_file_is_refused(asked, parts):
    video = next(parts.with_name("candidates.shards").rglob("*.mkv"))
    damaged = bytearray(video.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    video.write_bytes(damaged)
    with pytest.raises(InputError, match=f"{video.name} is not the file that was made"):
        sample.run(DRAWN, asked, parts, shard=WHOLE)


def test_failed_rows_of_parts_stay_failed(asked, whole, tmp_path):
    broken = tmp_path / "whole"
    shutil.copytree(whole, broken)
    video = next(broken.rglob("*.mkv"))
    video.write_bytes(b"no video")
    manifest = read_manifest(broken)
    made = manifest.files | {video.relative_to(broken).as_posix(): hash_file(video)}
    (broken / MANIFEST).write_text(manifest.model_copy(update={"files": made}).model_dump_json())
    for shard in (*PARTS, WHOLE):
        score.run(JUDGED, broken, tmp_path / "scores", shard=shard)
    rows = read_rows(tmp_path / "scores", Score)
    assert sorted(row.status for row in rows) == ["failed", *["ok"] * 5]


@pytest.mark.parametrize("text", ["3", "0/8", "9/8", "a/8", "3/", "merge/0", "merge", "-1/8", "1/8/2", ""])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(InputError, match="is neither a part"):
        parse_shard(text)


def test_from_the_command_line(asked, whole, tmp_path):
    for shard in ("1/2", "2/2", "merge/2"):
        arguments = [str(whole), "--metric", "motion", "--workers", "1", "--out", str(tmp_path / "scores")]
        app(["score-candidates", *arguments, "--shard", shard], standalone_mode=False)
    assert len(read_rows(tmp_path / "scores", Score)) == 6
    with pytest.raises(InputError, match="use it without --shard"):
        app(
            ["sample", "--prompts", str(asked), "--best-of", "2", "--shard", "1/2", "--out", str(tmp_path)],
            standalone_mode=False,
        )
