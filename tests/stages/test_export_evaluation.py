import json
import shutil

import pytest
import yaml

from videogpa.artifact import read_rows
from videogpa.cli import app
from videogpa.errors import InputError
from videogpa.stages import evaluate, prompts
from videogpa.stages.evaluate import Arm, EvaluateConfig, add_scores, read_evaluation
from videogpa.stages.export_evaluation import ExportEvaluationConfig, run
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import EvalRow
from videogpa.video_io import probe, read_video


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """(evaluation, prompts) of the base against the best of two, two prompts."""
    home = tmp_path_factory.mktemp("evaluated")
    asked = prompts.run_world(WorldPrompts(split="held_out", count=2), home / "p")
    drawn = SampleConfig(candidates=2, steps=1, frames=5, previews=False, keep_latents=False)
    judge = ScoreConfig(geometry="embedded", metrics=("consistency", "motion", "sharpness", "oracle_psnr"))
    cfg = EvaluateConfig(sample=drawn, score=judge, arms={"base_best_of_2": Arm(best_of=2)})
    return evaluate.run(cfg, asked, home / "e"), asked


@pytest.mark.parametrize("video", ["lossless", "mp4"])
def test_a_dataset_of_every_video_with_its_numbers(evaluated, tmp_path, video):
    folder = run(ExportEvaluationConfig(video=video, license="cc-by-4.0"), *evaluated, tmp_path / "out")
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows = {(r.arm, r.prompt_id, r.seed): r for r in read_rows(evaluated[0], EvalRow)}
    assert len(lines) == len(rows) == 8
    for line in lines:
        row = rows[line["arm"], line["prompt_id"], line["seed"]]
        assert row.metrics.items() <= line.items()
        assert probe(folder / line["file_name"]).frames == 5
        if video == "lossless":
            assert (read_video(folder / line["file_name"]) == read_video(evaluated[0] / row.video)).all()
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0"
    assert "8 videos of 2 arms on the same 2 prompts" in card
    [told] = [
        line for line in card.splitlines() if "| base_best_of_2 | base | `oracle_psnr` | higher |" in line
    ]
    assert told.endswith("| unclear |")
    assert "- With only 2 prompts, no interval here can be trusted." in card
    assert "- base_best_of_2 was made by consistency, " in card
    assert (folder / "summary.json").read_bytes() == (evaluated[0] / "summary.json").read_bytes()


def test_numbers_from_outside_go_along(evaluated, tmp_path):
    copy, table = tmp_path / "e", tmp_path / "dino.csv"
    shutil.copytree(evaluated[0], copy)
    told = {row.id: (row.arm, row.prompt_id, row.seed) for row in read_rows(copy, EvalRow)}
    lines = [f"{','.join(map(str, key))},dino,{i / 10}" for i, key in enumerate(told.values())]
    table.write_text("arm,prompt_id,seed,metric,value\n" + "\n".join(lines[:-1]) + "\n")
    add_scores(copy, [table], partial=True)
    assert [row.metrics.get("dino") for row in read_evaluation(copy)] == [*(i / 10 for i in range(7)), None]
    folder = run(ExportEvaluationConfig(), copy, evaluated[1], tmp_path / "out")
    written = [json.loads(line)["dino"] for line in (folder / "metadata.jsonl").read_text().splitlines()]
    assert written == [*(i / 10 for i in range(7)), None]
    assert "`dino`" in (folder / "README.md").read_text()


def test_prompts_of_another_run_are_refused(evaluated, tmp_path):
    others = prompts.run_world(WorldPrompts(split="train", count=1), tmp_path / "p")
    with pytest.raises(InputError, match="has no prompt"):
        run(ExportEvaluationConfig(), evaluated[0], others, tmp_path / "out")


def test_a_missing_video_is_a_failed_row(evaluated, tmp_path):
    copy = tmp_path / "e"
    shutil.copytree(evaluated[0], copy)
    first = read_rows(copy, EvalRow)[0]
    (copy / first.video).unlink()
    run(ExportEvaluationConfig(), copy, evaluated[1], tmp_path / "out")
    failed = [row for row in read_rows(tmp_path / "out", EvalRow) if row.status == "failed"]
    assert [row.id for row in failed] == [first.id]
    assert "is missing" in failed[0].reason


def test_pairs_of_other_formats_are_not_pushed():
    with pytest.raises(InputError, match="--push is for --format huggingface"):
        app(
            ["export-pairs", "a", "b", "c", "--out", "d", "--format", "videogpa", "--push", "x/y"],
            standalone_mode=False,
        )
