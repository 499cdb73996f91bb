import json
import math
import shutil

import pytest
import torch
import yaml

from tests.stages.preferences import FRAMES, SIDE, clip, folders, table
from videogpa.artifact import MANIFEST, open_artifact, read_rows
from videogpa.errors import InputError
from videogpa.geometry.base import GeometryPrediction, save_prediction
from videogpa.stages import import_pairs
from videogpa.stages.export_pairs import ExportConfig, run
from videogpa.stages.import_pairs import ImportConfig
from videogpa.stages.pair import licenses_of
from videogpa.types import Candidate, PreferencePair, Prompt, Score
from videogpa.video_io import probe, read_image, read_video, write_image, write_master


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """Three pairs with numbers, two of them of one prompt, the first prompt with a first frame."""
    root = tmp_path_factory.mktemp("export")
    rows = [
        {"prompt": f"a {what}", "chosen": f"{2 * k}.mkv", "rejected": f"{2 * k + 1}.mkv", "image": image}
        | {"chosen_value": 0.9 - k / 10, "rejected_value": 0.1}
        for k, (what, image) in enumerate([("box", "f.png"), ("ball", None), ("box", "f.png")])
    ]
    source = table(root / "source", rows)
    write_image(source / "f.png", clip(0)[0])
    (source / "licenses.json").write_text('{"vggt": "CC-BY-NC-4.0"}')
    return import_pairs.run(ImportConfig(metric="sharpness"), str(source), root / "ours")


def exported(cfg, ours, out, **options):
    return run(cfg, ours / "pairs", ours / "candidates", ours / "prompts", out, **options)


def content(root):
    """All that a pair says, wherever it is stored."""
    prompts = {p.id: p for p in read_rows(root / "prompts", Prompt)}
    videos = {c.id: root / "candidates" / c.video for c in read_rows(root / "candidates", Candidate)}
    found = []
    for pair in read_rows(root / "pairs", PreferencePair):
        prompt = prompts[pair.prompt_id]
        image = read_image(root / "prompts" / prompt.image).tolist() if prompt.image else None
        numbers = (pair.chosen_value, pair.rejected_value, pair.margin)
        sides = [read_video(videos[id]).tolist() for id in (pair.chosen, pair.rejected)]
        found.append((pair.prompt_id, prompt.text, image, numbers, sides))
    return found


@pytest.mark.parametrize("format", ["videogpa", "huggingface"])
def test_there_and_back_are_the_same_pairs(ours, tmp_path, format):
    folder = exported(ExportConfig(format=format), ours, tmp_path / "out")
    source = folder / "meta_data.json" if format == "videogpa" else folder
    back = import_pairs.run(ImportConfig(), str(source), tmp_path / "back")
    assert content(back) == content(ours)
    assert licenses_of(back / "pairs") == {"vggt": "CC-BY-NC-4.0"}


def test_lower_is_better_survives_the_published_format(tmp_path):
    row = {"prompt": "a", "chosen": "0.mkv", "rejected": "1.mkv", "chosen_value": 0.1, "rejected_value": 0.3}
    cfg = ImportConfig(metric="paper_reward", higher_is_better=False)
    ours = import_pairs.run(cfg, str(table(tmp_path / "source", [row])), tmp_path / "ours")
    folder = exported(ExportConfig(format="videogpa"), ours, tmp_path / "out")
    written = json.loads((folder / "meta_data.json").read_text())
    assert (written["metric_name"], written["metric_mode"]) == ("paper_reward", "min")
    back = import_pairs.run(ImportConfig(), str(folder / "meta_data.json"), tmp_path / "back")
    assert content(back) == content(ours)


def test_the_published_metadata(ours, tmp_path):
    """Every key that the published scorer, encoder and loader read; one group a pair, names of their own."""
    poses = torch.eye(4)[:3].repeat(3, 1, 1)
    poses[1, 0, 3], poses[2, 0, 3] = 2.0, 4.0
    poses[2, :2, :2] = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    maps = torch.ones(3, 4, 4)
    prediction = GeometryPrediction(
        depth=maps, confidence=maps.clone(), extrinsics_w2c=poses, intrinsics=torch.eye(3).repeat(3, 1, 1),
        images=torch.zeros(3, 3, 4, 4), scale="relative",
    )  # fmt: skip
    scores = tmp_path / "scores"
    with open_artifact(scores, stage="scores", config=ImportConfig(), inputs={}, row_type=Score) as artifact:
        save_prediction(scores / "geometry" / "prompt00000-0.safetensors", prediction)
        artifact.finish([])
    folder = exported(ExportConfig(format="videogpa"), ours, tmp_path / "out", scores=scores)
    written = json.loads((folder / "meta_data.json").read_text())
    assert (written["metric_name"], written["metric_mode"]) == ("sharpness", "max")
    assert (written["min_gap"], written["motion_threshold"]) == (0, 0)
    groups = written["groups"]
    assert [(g["group_id"], g["text_prompt"]) for g in groups] == [
        ("00000", "a box"), ("00001", "a ball"), ("00002", "a box"),
    ]  # fmt: skip
    assert [g.get("image_path") for g in groups] == ["images/00000.png", None, "images/00002.png"]
    chosen, rejected = groups[0]["videos"]
    assert chosen["sharpness"] == 0.9
    # Steps of 2 on average, and a quarter turn in one of two.
    assert chosen["motion_norm"] == pytest.approx(2 + 0.1 * math.pi / 4)
    assert "motion_norm" not in rejected
    paths = [v["video_path"] for g in groups for v in g["videos"]]
    assert all((folder / path).is_file() for path in paths)
    assert len({path.rsplit("/", 1)[1] for path in paths}) == 6


def test_the_hugging_face_folder(ours, tmp_path):
    cfg = ExportConfig(format="huggingface", license="cc-by-4.0", title="Boxes: preferred", video="mp4")
    folder = exported(cfg, ours, tmp_path / "out")
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert [row["chosen_file_name"] for row in rows] == [f"chosen/0000{k}.mp4" for k in range(3)]
    assert all(row.keys() == rows[0].keys() for row in rows)
    assert probe(folder / rows[0]["rejected_file_name"]).frames == FRAMES
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    card = yaml.safe_load(front)
    assert (card["pretty_name"], card["license"]) == ("Boxes: preferred", "cc-by-4.0")
    assert card["task_categories"] == ["image-to-video"]
    for column in ("prompt", "chosen", "rejected", "image", "margin"):
        assert f"| `{column}` |" in text
    assert "`sharpness`" in text
    assert "vggt: CC-BY-NC-4.0" in text


def test_pairs_without_numbers_have_no_columns_for_them(tmp_path):
    ours = import_pairs.run(ImportConfig(), str(folders(tmp_path / "source")), tmp_path / "ours")
    folder = exported(ExportConfig(format="huggingface"), ours, tmp_path / "out")
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert not {"margin", "chosen_value"} & rows[0].keys()
    back = import_pairs.run(ImportConfig(), str(folder), tmp_path / "back")
    assert content(back) == content(ours)
    with pytest.raises(InputError, match="pair00000 has no values"):
        exported(ExportConfig(format="videogpa"), ours, tmp_path / "published")


def test_simpletuner_finds_the_rejected_under_the_name_of_the_chosen(ours, tmp_path):
    folder = exported(ExportConfig(format="simpletuner"), ours, tmp_path / "out")
    preferred, rejected, text = json.loads((folder / "multidatabackend.json").read_text())
    assert (preferred["dataset_type"], preferred["conditioning_data"]) == ("video", [rejected["id"]])
    assert (rejected["conditioning_type"], rejected["source_dataset_id"]) == (
        "reference_strict", preferred["id"],
    )  # fmt: skip
    assert preferred["video"] == rejected["video"] == {"num_frames": FRAMES, "min_frames": FRAMES}
    assert (preferred["resolution"], preferred["resolution_type"]) == (SIDE, "pixel")
    assert text["dataset_type"] == "text_embeds"
    chosen = sorted(p.name for p in (folder / preferred["instance_data_dir"]).glob("*.mkv"))
    assert chosen == sorted(p.name for p in (folder / rejected["instance_data_dir"]).iterdir())
    assert (folder / "chosen" / "00001.txt").read_text() == "a ball\n"
    # The same layout is a source of ours.
    back = import_pairs.run(ImportConfig(), str(folder), tmp_path / "back")
    assert [(text, sides) for _, text, _, _, sides in content(back)] == [
        (text, sides) for _, text, _, _, sides in content(ours)
    ]


def test_simpletuner_needs_one_size_and_captions(tmp_path):
    rows = [
        {"prompt": "a box", "chosen": "0.mkv", "rejected": "1.mkv"},
        {"prompt": "", "chosen": "2.mkv", "rejected": "3.mkv"},
    ]
    source = table(tmp_path / "source", rows)
    ours = import_pairs.run(ImportConfig(), str(source), tmp_path / "ours")
    folder = exported(ExportConfig(format="simpletuner"), ours, tmp_path / "out")
    kept, left = read_rows(tmp_path / "out", PreferencePair)
    assert (kept.status, left.status) == ("ok", "failed")
    assert "no caption" in left.reason
    assert [p.name for p in (folder / "chosen").iterdir() if p.suffix == ".mkv"] == ["00000.mkv"]
    write_master(source / "1.mkv", clip(1, frames=3))
    other = import_pairs.run(ImportConfig(), str(source), tmp_path / "other")
    with pytest.raises(InputError, match="differ in size"):
        exported(ExportConfig(format="simpletuner"), other, tmp_path / "mixed")


def test_a_direction_that_changes_cannot_be_published(tmp_path):
    rows = [
        {"prompt": "a", "chosen": f"{2 * k}.mkv", "rejected": f"{2 * k + 1}.mkv"}
        | {"chosen_value": value, "rejected_value": 0.5}
        for k, value in enumerate((0.1, 0.9))
    ]
    ours = import_pairs.run(ImportConfig(), str(table(tmp_path / "source", rows)), tmp_path / "ours")
    with pytest.raises(InputError, match="turn some of them round"):
        exported(ExportConfig(format="videogpa"), ours, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_half_a_pair_is_never_written(ours, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(ours, damaged)
    (damaged / "candidates" / "videos" / "prompt00001-1.mkv").unlink()
    folder = exported(ExportConfig(format="huggingface"), damaged, tmp_path / "out")
    rows = read_rows(tmp_path / "out", PreferencePair)
    assert [r.status for r in rows] == ["ok", "failed", "ok"]
    assert "prompt00001-1.mkv is missing" in rows[1].reason
    assert sorted(p.name for p in (folder / "chosen").iterdir()) == ["00000.mkv", "00002.mkv"]
    assert len((folder / "metadata.jsonl").read_text().splitlines()) == 2


def test_a_killed_export_goes_on(ours, tmp_path):
    whole = exported(ExportConfig(format="huggingface"), ours, tmp_path / "whole").parent
    cut = tmp_path / "cut"
    shutil.copytree(whole, cut)
    (cut / MANIFEST).unlink()
    (cut / "rows.jsonl").write_bytes((cut / "rows.jsonl").read_bytes().splitlines(keepends=True)[0])
    (cut / "dataset" / "metadata.jsonl").unlink()
    exported(ExportConfig(format="huggingface"), ours, cut)
    assert (cut / MANIFEST).read_bytes() == (whole / MANIFEST).read_bytes()
