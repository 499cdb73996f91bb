import json
import math

import pytest
import torch

from videogpa.artifact import open_artifact, read_manifest, read_rows
from videogpa.errors import InputError
from videogpa.geometry.base import load_prediction
from videogpa.metrics import cross_view, motion
from videogpa.metrics.base import Clip
from videogpa.stages import prompts, score
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import CONSISTENCY, ScoreConfig, jobs_for_paths, protocol_hash, scores_as_json
from videogpa.types import Candidate, Prompt, Score
from videogpa.video_io import read_video, write_master
from videogpa.world.render import render
from videogpa.world.scene import scene_from_spec

CFG = ScoreConfig(geometry="embedded")


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """The true continuations of three prompts, posing as samples; the third file is damaged."""
    folder = tmp_path_factory.mktemp("score")
    world = prompts.run_world(WorldPrompts(count=3, offset=9), folder / "prompts")
    out = folder / "candidates"
    with open_artifact(
        out, stage="candidates", config=SampleConfig(), inputs={}, row_type=Candidate
    ) as artifact:
        rows = read_rows(world, Prompt)
        for row in rows:
            video = f"videos/{row.id}-0.mkv"
            write_master(out / video, render(scene_from_spec(row.world), 9, 48, 48).rgb)
            artifact.append(Candidate(id=f"{row.id}-0", prompt_id=row.id, seed=0, video=video))
        artifact.finish([f"{r.id}-0" for r in rows])
    (out / f"videos/{rows[2].id}-0.mkv").write_bytes(b"not a video")
    return world, out


@pytest.fixture(scope="module")
def scored(candidates, tmp_path_factory):
    """The candidates without their prompts, so that no truth is known."""
    return score.run(CFG, candidates[1], tmp_path_factory.mktemp("scored") / "s")


def test_truth_scores_as_truth(candidates, tmp_path):
    world, drawn = candidates
    out = score.run(CFG, drawn, tmp_path / "s", prompts=world)
    good = [s for s in read_rows(out, Score) if s.status == "ok"]
    assert len(good) == 2
    for row in good:
        assert row.metrics["oracle_psnr"] > 45
        assert row.metrics["oracle_ssim"] > 0.99
        assert row.metrics["oracle_flow_epe"] < 0.6
        assert row.metrics["consistency"] == row.metrics[CONSISTENCY]
        assert row.frames == 9


def test_a_damaged_video_is_a_failed_row_without_numbers(scored):
    failed = [s for s in read_rows(scored, Score) if s.status == "failed"]
    assert len(failed) == 1
    assert failed[0].metrics == {}
    assert failed[0].reason


def test_metrics_can_be_recomputed_from_the_kept_geometry(candidates, scored):
    _, drawn = candidates
    row = read_rows(scored, Score)[0]
    geometry = load_prediction(scored / "geometry" / f"{row.id}.safetensors")
    clip = Clip(frames=read_video(drawn / row.video), geometry=geometry)
    assert cross_view.measure(clip) == pytest.approx(row.metrics["cross_view"], abs=1e-6)


def test_oracles_need_the_world(scored):
    assert all(s.metrics["oracle_psnr"] is None for s in read_rows(scored, Score) if s.status == "ok")


def test_a_metric_that_gives_no_number_has_no_value_and_the_others_keep_theirs(
    candidates, tmp_path, monkeypatch
):
    _, drawn = candidates
    monkeypatch.setattr(motion, "measure", lambda clip: math.nan)
    cfg = ScoreConfig(geometry="embedded", metrics=("motion", "sharpness"))
    row = read_rows(score.run(cfg, drawn, tmp_path / "s"), Score)[0]
    assert row.status == "ok"
    assert row.metrics["motion"] is None
    assert "motion: its value is nan" in row.reason
    assert row.metrics["sharpness"] > 0


def test_protocol_changes_with_what_is_measured():
    hashes = {
        protocol_hash(CFG),
        protocol_hash(ScoreConfig(geometry="sfm")),
        protocol_hash(ScoreConfig(geometry="embedded", max_frames=5)),
        protocol_hash(ScoreConfig(geometry="embedded", metrics=("cross_view",))),
    }
    assert len(hashes) == 4
    assert protocol_hash(CFG) == protocol_hash(ScoreConfig(geometry="embedded"))


def test_the_protocol_knows_options_and_not_consents():
    turned = CFG.model_copy(update={"geometry_options": {"field_of_view_degrees": 50}})
    assert protocol_hash(turned) != protocol_hash(CFG)
    assert protocol_hash(CFG.model_copy(update={"accepted_licenses": ("unknown",)})) == protocol_hash(CFG)


def test_options_reach_the_geometry_model(candidates, tmp_path):
    _, drawn = candidates
    cfg = ScoreConfig(
        geometry="embedded", metrics=("motion",), geometry_options={"field_of_view_degrees": 30}
    )
    row = read_rows(score.run(cfg, drawn, tmp_path / "s"), Score)[0]
    geometry = load_prediction(tmp_path / "s" / "geometry" / f"{row.id}.safetensors")
    assert geometry.intrinsics[0, 0, 0] == pytest.approx(24 / math.tan(math.radians(15)), rel=1e-4)
    with pytest.raises(InputError, match="no option 'colour'"):
        score.run(cfg.model_copy(update={"geometry_options": {"colour": 1}}), drawn, tmp_path / "t")


def test_the_licences_of_the_weights_are_recorded(scored):
    assert json.loads((scored / "licenses.json").read_text()) == {"embedded": "Apache-2.0"}
    assert "licenses.json" in read_manifest(scored).files
    assert scores_as_json(CFG, [])["licenses"] == {"embedded": "Apache-2.0"}


def test_weights_under_a_restrictive_licence_wait_for_consent(candidates, tmp_path):
    _, drawn = candidates
    cfg = ScoreConfig(geometry="vggt", geometry_options={"weights": str(tmp_path)})
    with pytest.raises(InputError, match=r"vggt .*CC-BY-NC-4\.0.*--accept-license CC-BY-NC-4\.0"):
        score.run(cfg, drawn, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    agreed = cfg.model_copy(update={"accepted_licenses": ("cc-by-nc-4.0",)})
    assert score.check(agreed) == {"vggt": "CC-BY-NC-4.0"}


def test_unknown_metric_or_geometry_is_refused(candidates, tmp_path):
    _, drawn = candidates
    with pytest.raises(InputError, match="'beauty'"):
        score.run(ScoreConfig(geometry="embedded", metrics=("beauty",)), drawn, tmp_path / "a")
    with pytest.raises(InputError, match="'magic'"):
        score.run(ScoreConfig(geometry="magic"), drawn, tmp_path / "b")


def test_jobs_of_files_and_folders(tmp_path):
    write_master(tmp_path / "d" / "b.mkv", torch.rand(3, 3, 16, 16))
    write_master(tmp_path / "d" / "a.mkv", torch.rand(3, 3, 16, 16))
    jobs = jobs_for_paths([tmp_path / "d", tmp_path / "missing.mp4"])
    assert [j.video.name for j in jobs] == ["a.mkv", "b.mkv", "missing.mp4"]
    assert len({j.id for j in jobs}) == 3
    found = list(score.score_videos(CFG, jobs, workers=1))
    by_id = {s.id: s for s in found}
    assert by_id[jobs[2].id].status == "failed"
    assert "does not exist" in by_id[jobs[2].id].reason
    listed = scores_as_json(CFG, [by_id[j.id] for j in jobs])
    assert [v["path"] for v in listed["videos"]] == [str(j.video) for j in jobs]
