"""The quick recipe from end to end, in one round and in two; `hardness` kills runs at random instants."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from videogpa import cli
from videogpa.dpo.lora_formats import read_loras
from videogpa.errors import InputError
from videogpa.recipes import quick
from videogpa.run import later_round, leading_arm, run, with_rounds
from videogpa.stages.doctor import VERDICTS
from videogpa.stages.evaluate import Arm
from videogpa.stages.store import copy


class Stopped(BaseException):
    """As from a signal."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Run as a user would, by two workers."""
    out = tmp_path_factory.mktemp("run") / "undisturbed"
    command = [sys.executable, "-m", "videogpa.cli", "run", "quick", "--workers", "2", "--out", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert done.returncode == 0
    assert done.stdout.strip().endswith("report/index.html")
    return out


def test_run_ends_with_everything(undisturbed):
    summary = json.loads((undisturbed / "evaluation/summary.json").read_text())
    assert set(summary["arms"]) == {"base", "dpo", "dpo_random"}
    compared = {(c["arm"], c["against"]) for c in summary["comparisons"]}
    assert {("dpo", "base"), ("dpo", "dpo_random")} <= compared
    keys = {
        *("arm", "against", "metric", "family", "higher_is_better", "mean_difference", "ci95", "win_rate"),
        *(
            "win_rate_ci95",
            "p",
            "rank_biserial",
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
    assert (undisturbed / "report/index.html").stat().st_size > 1000


def run_here(out: Path, monkeypatch, *options: str) -> int:
    """The command's exit status, without a process that loads everything again."""
    command = ["videogpa", "run", "quick", "--workers", "1", "--out", str(out), *options]
    monkeypatch.setattr(sys, "argv", command)
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def test_rerun_of_a_finished_run_computes_nothing(undisturbed, monkeypatch):
    """Reports and verdicts apart, which are always made again."""
    monkeypatch.setattr("videogpa.run.report.run", lambda folder, evaluation, out, **_: out)
    before = {
        path: path.stat().st_mtime_ns
        for path in undisturbed.rglob("*")
        if path.is_file() and path.name not in (".lock", VERDICTS) and "report" not in path.parts
    }
    assert run_here(undisturbed, monkeypatch) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_changed_configuration_is_refused(undisturbed, tmp_path, monkeypatch, capsys):
    out = tmp_path / "copy"
    shutil.copytree(undisturbed / "prompts", out / "prompts")
    config = out / "prompts/train/config.json"
    config.write_text(config.read_text().replace('"count": 5', '"count": 6'))
    assert run_here(out, monkeypatch) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_what_cannot_decide_is_refused_before_anything_is_drawn(tmp_path):
    cfg = quick.recipe()
    judged = cfg.evaluate.model_copy(update={"primary": "edge_agreement"})
    with pytest.raises(InputError, match="judges by what made arm 'dpo'"):
        run(cfg.model_copy(update={"evaluate": judged}), tmp_path / "run", workers=1)
    assert [path.name for path in (tmp_path / "run").glob("[!.]*")] == ["prompts"]


def test_what_was_about_the_replaced_run_does_not_outlive_it(undisturbed, tmp_path, monkeypatch):
    """Though the run that replaces it is stopped before it has made anything."""

    def stop(*_, **__):
        raise Stopped

    out = tmp_path / "run"
    shutil.copytree(undisturbed, out)
    (out / "rounds/2/evaluation").mkdir(parents=True)
    monkeypatch.setattr("videogpa.run._prompts", stop)
    with pytest.raises(Stopped):
        run_here(out, monkeypatch, "--overwrite")
    assert not any((out / name).exists() for name in ("evaluation", "report", "rounds", VERDICTS))


def files(run: Path) -> dict[str, bytes]:
    """What stages have written, reports apart, which are made again from it."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in run.rglob("*")
        if path.is_file() and path.name != ".lock" and "report" not in path.parts
    }


@pytest.fixture(scope="module")
def two_rounds(undisturbed, tmp_path_factory):
    """The finished run of one round, stored, and gone on with on another machine."""
    home = tmp_path_factory.mktemp("rounds")
    out, address = home / "run", f"file://{home}/store"
    copy(str(undisturbed), address)
    with pytest.MonkeyPatch.context() as patch:
        assert run_here(out, patch, "--rounds", "2", "--store", address) == 0
    assert (out / "rounds/2/report/index.html").exists()
    return out


def test_another_machine_takes_up_what_was_stored(two_rounds, undisturbed, tmp_path):
    # Of trainings the names of TensorBoard's files have the time: made again, they would not be the same.
    assert files(undisturbed).items() <= files(two_rounds).items()
    copy(f"file://{two_rounds.parent}/store", str(tmp_path / "third"))
    assert files(tmp_path / "third") == files(two_rounds)


def test_the_second_round_draws_from_the_first_and_is_compared_with_it(two_rounds):
    out = two_rounds
    second = out / "rounds/2"
    first, later = (json.loads((f / "candidates/config.json").read_text()) for f in (out, second))
    assert later["config"]["seed"] == first["config"]["seed"] + 1
    assert (first["config"]["lora"], later["config"]["lora"]) == (None, "given")
    trained = json.loads((second / "lora/dpo/config.json").read_text())
    assert trained["inputs"]["earlier"] == later["inputs"]["lora"]
    assert not (second / "lora/dpo_random").exists()
    summary = json.loads((second / "evaluation/summary.json").read_text())
    assert set(summary["arms"]) == {"base", "dpo", "dpo_random", "dpo_round_2"}
    for arm in ("base", "dpo", "dpo_random", "truth"):
        drawn = sorted((out / "evaluation/samples" / arm / "videos").iterdir())
        assert drawn
        assert all((second / video.relative_to(out)).samefile(video) for video in drawn)
    compared = {(c["arm"], c["against"]) for c in summary["comparisons"]}
    assert {
        ("dpo", "base"),
        ("dpo", "dpo_random"),
        ("dpo_round_2", "base"),
        ("dpo_round_2", "dpo"),
    } <= compared
    one, new, both = (
        read_loras(folder)[0]
        for folder in (out / "lora/dpo/lora", second / "lora/dpo/lora", second / "stacked")
    )
    for module in both.modules:
        error = both.change(module) - one.change(module) - new.change(module)
        assert error.abs().max() <= 1e-5 * both.change(module).abs().max()
    assert set(json.loads((second / "doctor.json").read_text())) == {"dpo", "dpo_random", "dpo_round_2"}


def test_the_first_training_that_is_no_control_goes_on():
    cfg = quick.recipe()
    control, dpo = cfg.trainings["dpo_random"], cfg.trainings["dpo"]
    several = cfg.model_copy(update={"trainings": {"control": control, "dpo": dpo, "other": dpo}})
    assert leading_arm(several, 3) == "dpo"
    third = later_round(several, "dpo", 3, Path("lora"))
    assert (third.sample.lora, third.sample.seed, list(third.trainings)) == ("lora", 2, ["dpo"])
    with pytest.raises(InputError, match="all are controls"):
        leading_arm(cfg.model_copy(update={"trainings": {"control": control}}), 2)
    taken = cfg.evaluate.model_copy(update={"arms": {"dpo_round_2": Arm(lora="dpo", strength=0.5)}})
    with pytest.raises(InputError, match="'dpo_round_2'"):
        leading_arm(cfg.model_copy(update={"evaluate": taken}), 2)


def test_rounds_are_compared_with_the_base_and_one_by_one():
    arms = {name: Arm(lora=name) for name in ("dpo", "dpo_round_2", "dpo_round_3")}
    cfg = quick.recipe().evaluate.model_copy(update={"arms": arms, "comparisons": None})
    steps = (("dpo_round_2", "dpo"), ("dpo_round_3", "dpo_round_2"))
    against_base = tuple((arm, "base") for arm in arms)
    assert with_rounds(cfg, "dpo", 3).compared == (*against_base, *steps)
    given = cfg.model_copy(update={"comparisons": (("dpo", "dpo_random"),)})
    compared = with_rounds(given, "dpo", 3).compared
    assert compared[0] == ("dpo", "dpo_random")
    assert set(compared[1:]) == {*against_base[1:], *steps}
    # Said either way round it is said.
    turned = cfg.model_copy(update={"comparisons": (("dpo", "dpo_round_2"),)})
    assert set(with_rounds(turned, "dpo", 2).compared) == {("dpo", "dpo_round_2"), ("dpo_round_2", "base")}


def test_a_recipe_may_compare_rounds_that_are_still_to_come(tmp_path, monkeypatch):
    def stop(*_, **__):
        raise Stopped

    monkeypatch.setattr("videogpa.run.sample.run", stop)
    cfg = quick.recipe()
    judged = cfg.evaluate.model_copy(update={"comparisons": (("dpo_round_2", "dpo_random"),)})
    with pytest.raises(Stopped):
        run(cfg.model_copy(update={"evaluate": judged}), tmp_path / "run", 2, workers=1)
