"""The quick recipe from end to end, undisturbed and killed at random instants."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

KILLS = 3
KILL_ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))
"""Fresh runs that are killed, each KILLS times; raise it to try harder than a test suite has time for."""
COMMAND = [sys.executable, "-m", "videogpa.cli", "run", "quick", "--workers", "2", "--out"]


def start(out: Path) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        [*COMMAND, str(out)], env=environment, start_new_session=True, stdout=subprocess.PIPE, text=True
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "undisturbed"
    began = time.monotonic()
    process = start(out)
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert printed.strip().endswith("report/index.html")
    return out, time.monotonic() - began


def essence(out: Path) -> dict[str, bytes]:
    """What must be the same again: pairs, LoRAs and the evaluation."""
    files = ["pairs/rows.jsonl", "evaluation/summary.json"]
    files += [f"lora/{arm}/lora/pytorch_lora_weights.safetensors" for arm in ("dpo", "dpo_random")]
    return {name: (out / name).read_bytes() for name in files}


def test_run_ends_with_everything(undisturbed):
    out, _ = undisturbed
    summary = json.loads((out / "evaluation/summary.json").read_text())
    assert set(summary["arms"]) == {"base", "dpo", "dpo_random"}
    compared = {(c["arm"], c["against"]) for c in summary["comparisons"]}
    assert {("dpo", "base"), ("dpo", "dpo_random")} <= compared
    keys = {
        *("arm", "against", "metric", "family", "higher_is_better", "mean_difference", "ci95", "win_rate"),
        *(
            "win_rate_ci95",
            "p",
            "holm_p",
            "mde",
            "headroom_share",
            "headroom_ci95",
            "verdict",
            "n",
            "prompts",
        ),
    }
    assert all(set(c) == keys for c in summary["comparisons"])
    metrics = {"oracle_flow_epe", "oracle_psnr", "oracle_ssim", "oracle_flow_bias2", "sharpness"}
    assert metrics <= set(summary["arms"]["base"])
    assert summary["truth"]["oracle_warp"] < summary["arms"]["base"]["oracle_warp"]
    assert (out / "report/index.html").stat().st_size > 1000


@pytest.mark.parametrize("_round", range(KILL_ROUNDS))
def test_killed_and_rerun_is_the_same_run(undisturbed, tmp_path, _round):
    finished, seconds = undisturbed
    out = tmp_path / "killed"
    instants = random.Random(time.time_ns())
    for _ in range(KILLS):
        process = start(out)
        try:
            process.wait(timeout=instants.uniform(0.1, 0.9) * seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        print(f"exit status {process.returncode}")
    process = start(out)
    process.communicate()
    assert process.returncode == 0
    assert essence(out) == essence(finished)


def test_rerun_of_a_finished_run_computes_nothing(undisturbed):
    out, _ = undisturbed
    before = {
        p: p.stat().st_mtime_ns for p in (out / "candidates").rglob("*") if p.is_file() and p.name != ".lock"
    }
    process = start(out)
    process.communicate()
    assert process.returncode == 0
    after = {p: p.stat().st_mtime_ns for p in before}
    assert after == before


def test_a_changed_configuration_is_refused(undisturbed, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(undisturbed[0] / "prompts", out / "prompts")
    config = out / "prompts/train/config.json"
    config.write_text(config.read_text().replace('"count": 5', '"count": 6'))
    process = subprocess.run([*COMMAND, str(out)], capture_output=True, text=True, check=False)
    assert process.returncode == 2
    assert "--overwrite" in process.stderr
