import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.stages import finished_run
from videogpa.artifact import MANIFEST, hash_file, open_artifact
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.log import COLUMNS
from videogpa.errors import InputError
from videogpa.stages import doctor, prompts
from videogpa.stages.doctor import changes, examine, probe
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.rounds import arm_before
from videogpa.stages.sample import SampleConfig
from videogpa.types import Row
from videogpa.weights import LORA

CFG = TrainConfig(steps=40, batch_pairs=4)
IDLE = {"accuracy": 0.5, "saturation": 0.0, "effect": 1e-9}
BUSY = {"accuracy": 0.7, "saturation": 0.2, "effect": 0.003}


def write_training(folder, cfg=CFG, figures=BUSY, logs=(".",), steps=40, tail=""):
    """A training that is under way."""
    with open_artifact(folder, stage="train", config=cfg, inputs={}, row_type=Row):
        for place in logs:
            log = folder / place / "log.csv"
            log.parent.mkdir(exist_ok=True)
            with log.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                writer.writeheader()
                constant = dict.fromkeys(
                    ("loss", "margin", "chosen_change", "rejected_change", "grad_norm"), 0.1
                )
                for step in range(1, steps + 1):
                    writer.writerow({"step": step} | constant | figures)
                file.write(tail)
    return folder


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    return finished_run.make(tmp_path_factory.mktemp("doctor") / "run")


def test_a_training_under_way_is_examined_up_to_its_last_whole_line(tmp_path):
    training = write_training(tmp_path / "lora", figures=IDLE, steps=20, tail="21,0.69,0.")
    [(name, [verdict])] = examine(training)
    assert name == "lora"
    assert verdict.name == "no_op"
    assert examine(write_training(tmp_path / "busy")) == [("busy", [])]


def test_a_round_alone_and_a_lora_on_top_of_another_are_not_examined_by_the_wrong_videos(tmp_path):
    write_training(tmp_path / "run/rounds/2/lora/dpo")
    with pytest.raises(InputError, match="is one round"):
        examine(tmp_path / "run/rounds/2")
    (tmp_path / "prompts").mkdir()
    (tmp_path / "model").mkdir()
    with open_artifact(
        tmp_path / "later", stage="train", config=CFG, inputs={"earlier": tmp_path / "model"}, row_type=Row
    ):
        (tmp_path / "later/lora").mkdir()
        (tmp_path / "later/lora/pytorch_lora_weights.safetensors").touch()
    with pytest.raises(InputError, match="on top of an earlier one"):
        probe(tmp_path / "later", tmp_path / "prompts", tmp_path / "out")


def test_two_experts_are_two_trainings(tmp_path):
    training = write_training(tmp_path / "wan", logs=("transformer", "transformer_2"))
    write = dict.fromkeys(COLUMNS, 0.1) | IDLE | {"step": 40}
    (training / "transformer_2/log.csv").write_text(
        ",".join(COLUMNS) + "\n" + ",".join(str(write[name]) for name in COLUMNS) + "\n"
    )
    found = {name: [verdict.name for verdict in verdicts] for name, verdicts in examine(training)}
    assert found == {"wan/transformer": [], "wan/transformer_2": ["no_op"]}


def test_a_calibrated_beta_is_the_one_the_remedy_starts_from(tmp_path):
    cfg = CFG.model_copy(update={"beta": None})
    training = write_training(tmp_path / "lora", cfg, BUSY | {"saturation": 1e-4})
    (training / "calibration.json").write_text(json.dumps({"beta": 50.0, "advantage": 0.04, "steps": 20}))
    [(_, [verdict])] = examine(training)
    assert "now 50, about 5e+03" in verdict.remedy


def test_of_a_run_every_arm_is_examined_and_its_videos(whole_run, tmp_path):
    found = examine(whole_run)
    assert [arm for arm, _ in found] == ["dpo", "dpo_random"]
    copy = shutil.copytree(whole_run, tmp_path / "run")
    rows = [json.loads(line) for line in (copy / "evaluation/rows.jsonl").read_text().splitlines()]
    for row in rows:
        if row["arm"] == "dpo":
            row["metrics"]["motion"] *= 0.8
    (copy / "evaluation/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((copy / "evaluation" / MANIFEST).read_text())
    manifest["rows_sha256"] = hash_file(copy / "evaluation/rows.jsonl")
    (copy / "evaluation" / MANIFEST).write_text(json.dumps(manifest))
    verdicts = {arm: [verdict.name for verdict in verdicts] for arm, verdicts in examine(copy)}
    assert "static_collapse" in verdicts["dpo"]
    assert "static_collapse" not in verdicts["dpo_random"]


def test_a_run_whose_reward_rises_while_the_primary_falls_is_named(whole_run, tmp_path):
    copy = shutil.copytree(whole_run, tmp_path / "run")
    path = copy / "evaluation/summary.json"
    summary = json.loads(path.read_text())
    primary, reward = "oracle_psnr", "consistency"
    summary["primary"] = primary
    compared = {c["metric"]: c for c in summary["comparisons"] if (c["arm"], c["against"]) == ("dpo", "base")}
    for metric, sign in ((primary, -1), (reward, 1)):
        better = 1 if compared[metric]["higher_is_better"] else -1
        compared[metric]["ci95"] = sorted(sign * better * share for share in (0.01, 0.02))
        compared[metric]["rank_biserial"] = 0.5 * sign * better
    # Intervals of few prompts are clear of zero by chance; ranks of few are not.
    for p in (0.01, 0.25):
        compared[primary]["holm_p"] = compared[reward]["holm_p"] = p
        path.write_text(json.dumps(summary))
        manifest = json.loads((copy / "evaluation" / MANIFEST).read_text())
        manifest["files"]["summary.json"] = hash_file(path)
        (copy / "evaluation" / MANIFEST).write_text(json.dumps(manifest))
        found = {arm: [verdict.name for verdict in verdicts] for arm, verdicts in examine(copy)}
        assert ("reward_hacked" in found["dpo"]) == (p < 0.05)
        assert "reward_hacked" not in found["dpo_random"]


def test_the_arm_of_the_round_before():
    assert arm_before("dpo_round_3") == "dpo_round_2"
    assert arm_before("dpo_round_2") == "dpo"
    assert arm_before("dpo") is None


def test_later_rounds_are_examined_by_the_videos_of_the_latest_evaluation(tmp_path):
    jitter = {"base": 1.0, "dpo": 0.7, "dpo_random": 1.08, "dpo_round_2": 0.5}
    run = finished_run.make(tmp_path / "run", jitter=jitter)
    shutil.rmtree(run / "lora" / "dpo_round_2")
    (run / "rounds/2/lora").mkdir(parents=True)
    write_training(run / "rounds/2/lora/dpo", logs=("transformer", "transformer_2"))
    (run / "rounds/2/lora/not_begun").mkdir()
    names = [arm for arm, _ in examine(run)]
    assert names == ["dpo", "dpo_random", "dpo_round_2/transformer", "dpo_round_2/transformer_2"]
    later = run / "rounds/2/evaluation"
    shutil.copytree(run / "evaluation", later)
    rows = [json.loads(line) for line in (later / "rows.jsonl").read_text().splitlines()]
    for row in rows:
        if row["arm"] == "dpo_round_2":
            row["metrics"]["sharpness"] *= 0.8
    (later / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    manifest = json.loads((later / MANIFEST).read_text())
    manifest["rows_sha256"] = hash_file(later / "rows.jsonl")
    (later / MANIFEST).write_text(json.dumps(manifest))
    blurred = {arm for arm, verdicts in examine(run) if "blur" in [verdict.name for verdict in verdicts]}
    assert blurred == {"dpo_round_2/transformer", "dpo_round_2/transformer_2"}


def test_of_a_run_pairs_are_not_doubted_where_videos_beat_the_control(whole_run, monkeypatch):
    told = {}

    def diagnose(training, videos, beats_control, gains):
        told[training.config.labels] = beats_control
        return []

    monkeypatch.setattr(doctor, "diagnose", diagnose)
    examine(whole_run)
    # The finished run's videos with preferences are less restless than its control's.
    assert told == {"as_scored": True, "shuffled": None}


def test_a_folder_without_training_says_so(tmp_path):
    with pytest.raises(InputError, match="holds no training"):
        examine(tmp_path)
    training = write_training(tmp_path / "lora")
    (training / "log.csv").unlink()
    with pytest.raises(InputError, match="has not begun"):
        examine(training)


def test_changes_are_paired_robust_and_leave_missing_values_out():
    rng = np.random.default_rng(0)
    level, factor = rng.uniform(0.1, 1.0, 24), rng.normal(0.9, 0.02, 24)
    # A video whose motion was found wrongly.
    level[3] = 50.0
    factor[3] = 0.1
    keys = [(f"p{i // 2}", i % 2) for i in range(24)]
    base = {key: {"motion": value, "sharpness": None} for key, value in zip(keys, level, strict=True)}
    lora = {key: {"motion": value, "sharpness": 1.0} for key, value in zip(keys, level * factor, strict=True)}
    found = changes(base, lora)
    assert found.keys() == {"motion"}
    change = found["motion"]
    assert change.median == pytest.approx(np.median(factor) - 1)
    assert -0.15 < change.low < change.median < change.high < -0.05
    assert change.count == 24


def test_a_probe_draws_base_and_lora_with_the_same_noise(tmp_path):
    training = write_training(tmp_path / "lora")
    held_out = prompts.run_world(WorldPrompts(split="held_out", count=3), tmp_path / "prompts")
    with pytest.raises(InputError, match="no LoRA yet"):
        probe(training, held_out, tmp_path / "probe")
    shutil.copytree(LORA, training / "lora")
    drawn = SampleConfig(candidates=1, steps=2, frames=5)
    found = probe(training, held_out, tmp_path / "probe", count=2, drawn=drawn)
    assert found["sharpness"].count == 2
    assert found["sharpness"].median != 0
    again = probe(training, held_out, tmp_path / "probe", count=2, drawn=drawn)
    assert again == found
    assert examine(training, {}) == [("lora", [])]
