import csv
import json
import sys
import types

import pytest
import torch

from tests.families import tiny_wan
from tests.stages.preferences import CAPTIONS, clip, folders, published, table
from videogpa.artifact import MANIFEST, read_rows
from videogpa.errors import InputError
from videogpa.stages import encode, train
from videogpa.stages.encode import EncodeConfig
from videogpa.stages.import_pairs import ImportConfig, run
from videogpa.types import Candidate, PreferencePair, Prompt
from videogpa.video_io import probe, read_image, read_video, write_preview


def pairs_of(out):
    return read_rows(out / "pairs", PreferencePair)


def test_folders_become_prompts_candidates_and_pairs(tmp_path):
    source = folders(tmp_path / "source")
    write_preview(source / "chosen" / "alone.mp4", clip(9))
    out = run(ImportConfig(), str(source), tmp_path / "out")
    prompts, candidates = read_rows(out / "prompts", Prompt), read_rows(out / "candidates", Candidate)
    assert [p.text for p in prompts] == list(CAPTIONS)
    assert torch.equal(read_image(out / "prompts" / prompts[0].image), read_image(source / "a.png"))
    assert [p.image is None for p in prompts] == [False, True, True]
    by_id = {c.id: c for c in candidates}
    for pair, prompt, name in zip(pairs_of(out), prompts, "abc", strict=True):
        assert pair.prompt_id == prompt.id
        assert pair.chosen_value is pair.rejected_value is pair.margin is None
        for side, id in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            stored = out / "candidates" / by_id[id].video
            assert torch.equal(read_video(stored), read_video(source / side / f"{name}.mkv"))
            assert probe(stored).duration == pytest.approx(4 / 8)
            assert by_id[id].latents is by_id[id].seed is None
    (dropped,) = json.loads((out / "pairs" / "dropped.json").read_text())
    assert dropped == {"prompt_id": "alone", "reason": "there is no video rejected/alone"}


def test_a_damaged_video_fails_its_pair_alone(tmp_path):
    source = folders(tmp_path / "source")
    whole = (source / "rejected" / "b.mkv").read_bytes()
    (source / "rejected" / "b.mkv").write_bytes(whole[: len(whole) // 2])
    (source / "a.png").write_bytes(b"no image")
    out = run(ImportConfig(), str(source), tmp_path / "out")
    assert [p.status for p in read_rows(out / "prompts", Prompt)] == ["failed", "ok", "ok"]
    assert [c.status for c in read_rows(out / "candidates", Candidate)].count("failed") == 1
    pairs = pairs_of(out)
    assert [p.status for p in pairs] == ["failed", "failed", "ok"]
    assert "not an image" in pairs[0].reason
    assert "truncated" in pairs[1].reason


def test_published_metadata_gives_the_pairs_of_its_own_loader(tmp_path):
    """Best against worst of every group, where they differ by .05; what has no score does not count."""
    scores = [[0.5, 0.2, 0.9], [0.5, 0.54, None], [None, 0.3]]
    out = run(ImportConfig(), str(published(tmp_path, scores)), tmp_path / "out")
    (pair,) = pairs_of(out)
    assert (pair.chosen_value, pair.rejected_value) == (0.2, 0.9)
    assert pair.margin == pytest.approx(0.7)
    stored = {c.id: out / "candidates" / c.video for c in read_rows(out / "candidates", Candidate)}
    assert torch.equal(read_video(stored[pair.chosen]), read_video(tmp_path / "videos/0_1.mkv"))
    assert torch.equal(read_video(stored[pair.rejected]), read_video(tmp_path / "videos/0_2.mkv"))
    dropped = json.loads((out / "pairs" / "dropped.json").read_text())
    assert [d["prompt_id"] for d in dropped] == ["1K/1", "1K/2"]
    assert "less than 0.05" in dropped[0]["reason"]
    assert "1 of 2 videos" in dropped[1]["reason"]


@pytest.mark.parametrize(
    ("changes", "best"),
    [({}, 0.2), ({"higher_is_better": True}, 0.9), ({"metric": "motion_norm", "min_gap": 0.0}, 0.5)],
)
def test_published_metadata_read_by_another_rule(tmp_path, changes, best):
    source = published(tmp_path, [[0.5, 0.2, 0.9]])
    (pair,) = pairs_of(run(ImportConfig(**changes), str(source), tmp_path / "out"))
    assert pair.chosen_value == best


def test_static_videos_do_not_count_and_no_pair_at_all_is_an_error(tmp_path):
    source = published(tmp_path, [[0.5, 0.2]], motion=0.0005)
    with pytest.raises(InputError, match=r"no pair: 1K/0: 0 of 2 videos .*of at least 0.001"):
        run(ImportConfig(), str(source), tmp_path / "out")
    assert len(pairs_of(run(ImportConfig(min_motion=0), str(source), tmp_path / "out"))) == 1


def test_a_metadata_table_shares_prompts_and_videos(tmp_path):
    rows = [
        {"caption": "a box", "chosen_file_name": "1.mkv", "rejected_file_name": "2.mkv", "margin": 0.5},
        {"caption": "a box", "chosen_file_name": "1.mkv", "rejected_file_name": "3.mkv", "margin": None},
        {"caption": "a ball", "chosen_file_name": "4.mkv", "rejected_file_name": None},
        {"caption": "a ball", "chosen_file_name": "4.mkv", "rejected_file_name": "gone.mp4"},
    ]
    out = run(ImportConfig(), str(table(tmp_path / "source", rows)), tmp_path / "out", workers=1)
    assert [p.text for p in read_rows(out / "prompts", Prompt)] == ["a box", "a ball"]
    first, second, third = pairs_of(out)
    assert first.chosen == second.chosen != third.chosen
    assert (first.margin, second.margin) == (0.5, None)
    assert (third.status, "gone.mp4 does not exist" in third.reason) == ("failed", True)
    (dropped,) = json.loads((out / "pairs" / "dropped.json").read_text())
    assert dropped == {"prompt_id": "metadata.jsonl, row 3", "reason": "it has no rejected video"}


def test_columns_can_be_named_and_numbers_have_a_direction(tmp_path):
    table(tmp_path / "source", [{"x": "1.mkv", "y": "2.mkv"}])
    with (tmp_path / "source" / "pairs.csv").open("w") as file:
        writer = csv.writer(file)
        writer.writerows([["title", "good", "bad", "e1", "e2"], ["a box", "1.mkv", "2.mkv", "0.25", "0.75"]])
    columns = {
        "prompt": "title", "chosen": "good", "rejected": "bad", "chosen_value": "e1", "rejected_value": "e2",
    }  # fmt: skip
    cfg = ImportConfig(columns=columns, metric="error", higher_is_better=False)
    (pair,) = pairs_of(run(cfg, str(tmp_path / "source" / "pairs.csv"), tmp_path / "out"))
    assert (pair.chosen_value, pair.rejected_value, pair.margin) == (0.25, 0.75, 0.5)


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"prompt": "p", "caption": "c", "chosen": "1.mkv", "rejected": "2.mkv"}, {}, "prompt and caption"),
        ({"prompt": "p", "winner": "1.mkv", "rejected": "2.mkv"}, {}, "no column is known to be the chosen"),
        ({"prompt": "p", "chosen": "1.mkv", "rejected": "2.mkv"}, {"chosen": "best"}, "no column 'best'"),
    ],
)
def test_columns_are_never_guessed(tmp_path, row, columns, message):
    with pytest.raises(InputError, match=message):
        run(ImportConfig(columns=columns), str(table(tmp_path / "source", [row])), tmp_path / "out")


def test_a_parquet_table_with_videos_inside(tmp_path, monkeypatch):
    """What pyarrow gives for a Hugging Face video column; pyarrow itself is optional."""
    source = tmp_path / "source" / "data"
    table(source, [{"a": "1.mkv", "b": "2.mkv"}])
    cells = [{"bytes": (source / f"{n}.mkv").read_bytes(), "path": f"{n}.mkv"} for n in (1, 2)]
    (source / "metadata.jsonl").unlink()
    (source / "train-0.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        run(ImportConfig(), str(tmp_path / "source"), tmp_path / "out")
    rows = [{"prompt": "a box", "chosen": cells[0], "rejected": cells[1]}]
    content = types.SimpleNamespace(to_pylist=lambda: rows)
    parquet = types.SimpleNamespace(read_table=lambda path: content)
    monkeypatch.setitem(sys.modules, "pyarrow", types.SimpleNamespace(parquet=parquet))
    out = run(ImportConfig(), str(tmp_path / "source"), tmp_path / "out")
    (pair,) = pairs_of(out)
    stored = {c.id: out / "candidates" / c.video for c in read_rows(out / "candidates", Candidate)}
    assert torch.equal(read_video(stored[pair.rejected]), read_video(source / "2.mkv"))


def test_a_dataset_of_the_hub_is_downloaded(tmp_path, monkeypatch):
    rows = [{"prompt": "a box", "chosen": "1.mkv", "rejected": "2.mkv"}]
    here = table(tmp_path / "snapshot", rows)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, repo_type: str(here))
    assert len(pairs_of(run(ImportConfig(), "somebody/videos", tmp_path / "out"))) == 1

    def offline(name, repo_type):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(InputError, match=r"neither a file .* no network"):
        run(ImportConfig(), "somebody/videos", tmp_path / "other")
    with pytest.raises(InputError, match="nowhere does not exist"):
        run(ImportConfig(), "nowhere", tmp_path / "other")


def test_a_killed_import_goes_on_and_a_changed_video_is_noticed(tmp_path):
    source = published(tmp_path / "source", [[0.5, 0.2], [0.1, 0.9]])
    whole = run(ImportConfig(), str(source), tmp_path / "whole")
    cut = run(ImportConfig(), str(source), tmp_path / "cut")
    (cut / "candidates" / MANIFEST).unlink()
    rows = (cut / "candidates" / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "candidates" / "rows.jsonl").write_bytes(b"".join(rows[:2]) + rows[2][:9])
    run(ImportConfig(), str(source), cut)
    for part in ("prompts", "candidates", "pairs"):
        assert (cut / part / MANIFEST).read_bytes() == (whole / part / MANIFEST).read_bytes()
    (source.parent / "videos/0_0.mkv").write_bytes((source.parent / "videos/1_1.mkv").read_bytes())
    with pytest.raises(InputError, match=r"inputs.video of prompt00000-1 has changed"):
        run(ImportConfig(), str(source), whole)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "cannot read pairs"),
        ("a.json", "[1]", "every entry must be an object"),
        ("a.txt", "x", "no table of pairs"),
        ("a.jsonl", "", "no column is known"),
        ("a.json", '{"groups": [{"videos": []}], "min_gap": "wide"}', "settings that cannot be used"),
        ("a.json", '{"groups": [{"videos": []}], "min_gap": NaN}', "settings that cannot be used"),
        ("a.json", '{"groups": [{"videos": [1, {"video_path": 7}]}]}', "0 of 2 videos have a path"),
        ("a.json", "7", "is no list of pairs"),
        ("a.json", "[" * 100_000, "cannot read pairs"),
        ("a.csv", "prompt,chosen,rejected\na room,a.mkv,b.mkv,c.mkv\n", "more cells than the header"),
        ("a.csv", "prompt,chosen,rejected\n" + "x" * 200_000, "cannot read pairs"),
        ("a.csv", "prompt,chosen,rejected,margin\na,a.mkv,b.mkv,nan\n", "margin 'nan' is no finite number"),
        ("a.csv", "prompt,chosen,rejected,margin\na,a.mkv,b.mkv,much\n", "margin 'much' is no finite number"),
        ("a.jsonl", '{"prompt": 7, "chosen": "a.mkv", "rejected": "b.mkv"}', "its caption '7' is no text"),
        ("a.jsonl", '{"prompt": "\\ud800", "chosen": "a.mkv", "rejected": "b.mkv"}', "is no text"),
    ],
)
def test_unusable_sources(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        run(ImportConfig(), str(tmp_path / name), tmp_path / "out")


def test_imported_pairs_train_a_lora(tmp_path):
    """The stages themselves: folders of videos in, a LoRA out."""
    model = tiny_wan.build(tmp_path / "model")
    source = folders(tmp_path / "source")
    (source / "a.png").unlink()
    out = run(ImportConfig(previews=False), str(source), tmp_path / "out")
    encoded = encode.run(
        EncodeConfig(model=str(model)), out / "candidates", out / "prompts", tmp_path / "encoded"
    )
    cfg = train.TrainConfig(rank=2, steps=2, batch_pairs=2, held_out_fraction=0.0, stop_at_chosen_rise=None)
    lora = train.run(cfg, out / "pairs", encoded, model, tmp_path / "lora")
    assert (lora / "lora" / "pytorch_lora_weights.safetensors").stat().st_size > 0


def test_columns_that_cannot_be_meant_are_refused(tmp_path):
    rows = [{"prompt": "a room", "chosen": "a.mkv", "rejected": "b.mkv"}]
    (tmp_path / "table").mkdir()
    with pytest.raises(InputError, match="'rejected' cannot be both chosen and rejected"):
        run(
            ImportConfig(columns={"chosen": "rejected"}),
            str(table(tmp_path / "table", rows)),
            tmp_path / "out",
        )
    with pytest.raises(InputError, match="read as folders, which has no columns"):
        run(ImportConfig(columns={"prompt": "x"}), str(folders(tmp_path / "folders")), tmp_path / "out")
