import json
import math

import pytest
import torch

from videogpa.artifact import Artifact, open_artifact, read_manifest, read_rows
from videogpa.errors import InputError
from videogpa.geometry.base import load_prediction
from videogpa.metrics import cross_view, motion
from videogpa.metrics.base import Clip
from videogpa.stages import best_of, pair, prompts, score
from videogpa.stages.best_of import BestOfConfig
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig, jobs_for_paths, protocol_hash, scores_as_json
from videogpa.types import Candidate, PreferencePair, Prompt, Score
from videogpa.video_io import read_video, write_master
from videogpa.world.paths import CameraMove
from videogpa.world.render import render
from videogpa.world.scene import sample_scene, scene_from_spec

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
    names = ("consistency", "oracle_psnr", "oracle_ssim", "oracle_flow_epe")
    out = score.run(CFG.model_copy(update={"metrics": names}), drawn, tmp_path / "s", prompts=world)
    good = [s for s in read_rows(out, Score) if s.status == "ok"]
    assert len(good) == 2
    for row in good:
        assert row.metrics["oracle_psnr"] > 45
        assert row.metrics["oracle_ssim"] > 0.99
        assert row.metrics["oracle_flow_epe"] < 0.6
        assert row.metrics["consistency"] > 0.5
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
    assert f"geometry/{row.id}.safetensors" in read_manifest(scored).files


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


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """17 frames of a camera that slides sideways."""
    path = tmp_path_factory.mktemp("walk") / "walk.mkv"
    write_master(path, render(sample_scene(7, move=CameraMove("trucks right", "quickly")), 17, 48, 64).rgb)
    return path


def test_a_long_clip_is_the_mean_of_its_windows(walk, tmp_path):
    cfg = ScoreConfig(geometry="embedded", metrics=("consistency", "motion"), window=9)
    (row,) = score.score_videos(cfg, jobs_for_paths([walk]), workers=1, keep=tmp_path)
    assert [(w.first, w.frames) for w in row.windows] == [(0, 9), (4, 9), (8, 9)]
    values = [w.metrics["consistency"] for w in row.windows]
    assert row.metrics["consistency"] == pytest.approx(sum(values) / 3)
    assert row.shown == values.index(min(values))
    assert row.frames == 17
    assert len(load_prediction(tmp_path / f"{row.id}.safetensors").depth) == 9
    listed = scores_as_json(cfg, [row])["videos"][0]
    assert [w["metrics"]["consistency"] for w in listed["windows"]] == values


def test_a_clip_as_short_as_a_window_is_scored_whole(walk):
    cfg = ScoreConfig(geometry="embedded", metrics=("consistency",), max_frames=9)
    jobs = jobs_for_paths([walk])
    (whole,) = score.score_videos(cfg, jobs, workers=1)
    (windowed,) = score.score_videos(cfg.model_copy(update={"window": 17}), jobs, workers=1)
    assert windowed.windows == ()
    assert windowed.metrics == whole.metrics


def test_full_size_has_a_protocol_and_a_value_of_its_own(walk):
    cfg = ScoreConfig(geometry="embedded", metrics=("consistency", "cross_view"), max_frames=5)
    full = cfg.model_copy(update={"full_size": True})
    assert protocol_hash(full) != protocol_hash(cfg)
    jobs = jobs_for_paths([walk])
    (reduced,) = score.score_videos(cfg, jobs, workers=1)
    (large,) = score.score_videos(full, jobs, workers=1)
    assert list(large.metrics) == list(reduced.metrics)
    assert large.metrics["cross_view"] == reduced.metrics["cross_view"]
    assert 0.3 < large.metrics["consistency"] < 1
    assert large.metrics["consistency"] != reduced.metrics["consistency"]


def test_settings_that_do_not_go_together_are_refused():
    with pytest.raises(InputError, match="not both"):
        score.check(ScoreConfig(geometry="embedded", full_size=True, window=20))
    with pytest.raises(InputError, match="not among the metrics"):
        score.check(ScoreConfig(geometry="embedded", full_size=True, metrics=("motion",)))


FLAT = ScoreConfig(geometry="vggt", metrics=("sharpness", "oracle_psnr"))
"""Needs neither the geometry model nor its weights nor consent to their licence."""


@pytest.fixture
def no_geometry(monkeypatch):
    """Fails whoever builds a geometry model."""

    def build(*_: object) -> None:
        raise AssertionError("a geometry model was built")

    monkeypatch.setattr("videogpa.geometry.options.build", build)


def test_no_geometry_is_computed_where_no_metric_needs_it(candidates, tmp_path, no_geometry):
    world, drawn = candidates
    out = score.run(FLAT, drawn, tmp_path / "s", prompts=world)
    good = [s for s in read_rows(out, Score) if s.status == "ok"]
    assert [s.geometry for s in good] == [None, None]
    assert all(
        s.reason is None and s.metrics["oracle_psnr"] > 45 and s.metrics["sharpness"] > 0 for s in good
    )
    assert not (out / "geometry").exists()
    assert json.loads((out / "licenses.json").read_text()) == {}
    listed = scores_as_json(FLAT, good)
    assert (listed["geometry"], listed["licenses"]) == (None, {})


def test_values_are_those_that_stand_beside_geometry(candidates, tmp_path, scored):
    flat = score.run(ScoreConfig(metrics=("sharpness",)), candidates[1], tmp_path / "s")
    beside = {s.id: s.metrics.get("sharpness") for s in read_rows(scored, Score)}
    assert {s.id: s.metrics.get("sharpness") for s in read_rows(flat, Score)} == beside


def test_geometry_is_used_as_soon_as_one_metric_needs_it():
    assert score.geometry_used(FLAT) is None
    for metric in ("motion", "alignment", "albedo_agreement"):
        assert score.geometry_used(FLAT.model_copy(update={"metrics": ("sharpness", metric)})) == "vggt"
    assert score.geometry_used(CFG) == "embedded"
    with pytest.raises(InputError, match="needs the option 'weights'"):
        score.check_needed(FLAT.model_copy(update={"metrics": None}))
    with pytest.raises(InputError, match="not among the metrics"):
        score.check_needed(FLAT.model_copy(update={"full_size": True}))
    with pytest.raises(InputError, match="'beauty'"):
        score.check_needed(FLAT.model_copy(update={"metrics": ("beauty",)}))


def test_geometry_that_is_not_used_does_not_decide_the_protocol():
    assert protocol_hash(FLAT) == protocol_hash(FLAT.model_copy(update={"geometry": "sfm"}))
    assert protocol_hash(FLAT) != protocol_hash(FLAT.model_copy(update={"max_frames": 9}))


def test_pairs_and_the_best_are_chosen_from_scores_without_geometry(tmp_path, no_geometry):
    drawn = tmp_path / "candidates"
    with open_artifact(
        drawn, stage="candidates", config=SampleConfig(), inputs={}, row_type=Candidate
    ) as artifact:
        for i, contrast in enumerate((0.2, 1.0)):
            write_master(drawn / f"videos/p-{i}.mkv", contrast * torch.rand(4, 3, 32, 32))
            artifact.append(Candidate(id=f"p-{i}", prompt_id="p", seed=i, video=f"videos/p-{i}.mkv"))
        artifact.finish(["p-0", "p-1"])
    scores = score.run(FLAT, drawn, tmp_path / "s")
    (formed,) = read_rows(
        pair.run(PairConfig(metric="sharpness"), scores, tmp_path / "pairs"), PreferencePair
    )
    assert (formed.chosen, formed.rejected) == ("p-1", "p-0")
    (best,) = read_rows(
        best_of.run(BestOfConfig(metric="sharpness"), drawn, scores, tmp_path / "best"), Candidate
    )
    assert best.seed == 1


def test_the_best_are_in_order_of_the_prompts_after_an_interruption(tmp_path, no_geometry, monkeypatch):
    """The first prompt's videos cannot be judged: its row fails, and is tried again."""
    drawn = tmp_path / "candidates"
    with open_artifact(
        drawn, stage="candidates", config=SampleConfig(), inputs={}, row_type=Candidate
    ) as artifact:
        for prompt, length in (("a", 1), ("b", 4)):
            video = f"videos/{prompt}-0.mkv"
            write_master(drawn / video, torch.rand(length, 3, 32, 32))
            artifact.append(Candidate(id=f"{prompt}-0", prompt_id=prompt, seed=0, video=video))
        artifact.finish(["a-0", "b-0"])
    given = BestOfConfig(metric="sharpness"), drawn, score.run(FLAT, drawn, tmp_path / "s")
    whole = best_of.run(*given, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "finish", lambda *_, **__: None)
        best_of.run(*given, tmp_path / "killed")
    killed = best_of.run(*given, tmp_path / "killed")
    assert [row.status for row in read_rows(whole, Candidate)] == ["failed", "ok"]
    assert (killed / "rows.jsonl").read_bytes() == (whole / "rows.jsonl").read_bytes()
