import json
import shutil
from pathlib import Path

import pytest

from videogpa.artifact import hash_json, open_artifact
from videogpa.errors import InputError, StageStopped
from videogpa.stages.evaluate import Arm, EvaluateConfig
from videogpa.stages.reuse import primaries_before, take_over
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate, EvalRow, Score

CFG = EvaluateConfig(
    sample=SampleConfig(model="given"),
    score=ScoreConfig(geometry="embedded"),
    arms={"dpo": Arm(lora="given", trained_by="epipolar"), "best": Arm(best_of=4)},
)
FOLDERS = [f"{kind}/{arm}" for kind in ("samples", "scores") for arm in ("base", "best", "dpo", "truth")]


@pytest.fixture
def given(tmp_path):
    """What the evaluations are made of, by name."""
    named = {name: tmp_path / name for name in ("prompts", "model", "lora_dpo")}
    for path in named.values():
        path.write_text(path.name)
    return named


def begun(cfg: EvaluateConfig, given: dict[str, Path], out: Path) -> Path:
    with open_artifact(out, stage="evaluation", config=cfg, inputs=given, row_type=EvalRow):
        return out


@pytest.fixture
def earlier(given, tmp_path):
    """One that was stopped after its last arm."""
    out = begun(CFG, given, tmp_path / "earlier")
    for name in ("base", "best", "dpo", "truth"):
        samples, scores = out / "samples" / name, out / "scores" / name
        with open_artifact(
            samples, stage="candidates", config=CFG.sample, inputs=given, row_type=Candidate
        ) as artifact:
            (samples / "videos").mkdir()
            (samples / "videos" / "a-0.mkv").write_text(name)
            artifact.append(Candidate(id="a-0", prompt_id="a", seed=0, video="videos/a-0.mkv"))
            artifact.finish(["a-0"], ["videos/a-0.mkv"])
        with open_artifact(
            scores, stage="scores", config=CFG.score, inputs={"candidates": samples}, row_type=Score
        ) as artifact:
            artifact.append(Score(id="a-0", prompt_id="a", video="a-0.mkv", metrics={}))
            artifact.finish(["a-0"])
    return out


def taken(out: Path) -> list[str]:
    return sorted(p.relative_to(out).as_posix() for p in out.glob("*/[!.]*"))


def files(folder: Path) -> set[Path]:
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def test_what_is_made_of_the_same_is_linked_whatever_it_is_called(given, earlier, tmp_path):
    arms = {
        "ours": Arm(lora="given", trained_by="consistency"),
        "stronger": Arm(lora="given", strength=1.5),
        "best": Arm(best_of=4, best_by="sharpness"),
        "fewer": Arm(best_of=2),
    }
    loras = {"lora_ours": given["lora_dpo"], "lora_stronger": given["lora_dpo"]}
    inputs = {"prompts": given["prompts"], "model": given["model"], **loras}
    out = begun(CFG.model_copy(update={"arms": arms}), inputs, tmp_path / "out")
    take_over(earlier, out)
    assert taken(out) == sorted(name.replace("dpo", "ours") for name in FOLDERS)
    for name in FOLDERS:
        now = out / name.replace("dpo", "ours")
        assert files(now) == files(earlier / name) - {Path(".lock")}
        assert all((now / file).samefile(earlier / name / file) for file in files(now))


def test_arms_made_of_the_same_all_have_it(given, earlier, tmp_path):
    arms = {name: Arm(best_of=4, best_by=name) for name in ("sharpness", "consistency")}
    inputs = {"prompts": given["prompts"], "model": given["model"]}
    out = begun(CFG.model_copy(update={"arms": arms}), inputs, tmp_path / "out")
    take_over(earlier, out)
    assert {f"{kind}/{arm}" for kind in ("samples", "scores") for arm in arms} <= set(taken(out))


def test_another_lora_of_the_same_name_is_another_arm(given, earlier, tmp_path):
    given["lora_dpo"].write_text("trained again")
    out = begun(CFG, given, tmp_path / "out")
    take_over(earlier, out)
    assert taken(out) == [name for name in FOLDERS if "dpo" not in name]


def test_what_is_not_finished_is_left_and_what_is_there_stays(given, earlier, tmp_path):
    (earlier / "samples" / "dpo" / "manifest.json").unlink()
    (earlier / "scores" / "best" / "manifest.json").unlink()
    out = begun(CFG, given, tmp_path / "out")
    shutil.copytree(earlier / "samples" / "base", out / "samples" / "base")
    # Another process died while it took this one over.
    (out / "samples" / ".truth.part" / "videos").mkdir(parents=True)
    own = out / "samples" / "best"
    own.mkdir()
    (own / "rows.jsonl").write_text("being drawn")
    take_over(earlier, out)
    assert taken(out) == sorted(
        ["samples/base", "samples/best", "samples/truth", "scores/base", "scores/truth"]
    )
    assert [p.name for p in own.iterdir()] == ["rows.jsonl"]
    assert not (out / "samples" / "base" / "rows.jsonl").samefile(earlier / "samples" / "base" / "rows.jsonl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sample": SampleConfig(model="given", seed=1)}, r"earlier was made .*config\.sample\.seed 0 -> 1"),
        ({"score": ScoreConfig(geometry="sfm")}, r"config\.score\.geometry \"embedded\" -> \"sfm\""),
    ],
)
def test_what_draws_or_scores_otherwise_is_refused(given, earlier, tmp_path, change, message):
    out = begun(CFG.model_copy(update=change), given, tmp_path / "out")
    with pytest.raises(InputError, match=message):
        take_over(earlier, out)
    assert taken(out) == []


def test_videos_of_another_version_are_refused(given, earlier, tmp_path):
    record = json.loads((earlier / "config.json").read_text())
    record["environments"][0]["videogpa"] = "0.0.1"
    record["environments_sha256"] = hash_json(record["environments"])
    (earlier / "config.json").write_text(json.dumps(record))
    out = begun(CFG, given, tmp_path / "out")
    with pytest.raises(InputError, match=r"earlier was made differently.*videogpa 0\.0\.1 -> "):
        take_over(earlier, out)


def test_what_decided_in_finished_ones_is_known_also_at_second_hand(given, earlier, tmp_path):
    """Not that of one that was stopped: nobody saw who wins there."""
    second = begun(CFG.model_copy(update={"primary": "mvcs"}), given, tmp_path / "second")
    take_over(earlier, second)
    assert primaries_before(second) == []
    with open_artifact(
        second,
        stage="evaluation",
        config=CFG.model_copy(update={"primary": "mvcs"}),
        inputs=given,
        row_type=EvalRow,
    ) as artifact:
        artifact.finish([])
    for name, before in (("third", second), ("fourth", tmp_path / "third")):
        out = begun(CFG.model_copy(update={"primary": "oracle_psnr"}), given, tmp_path / name)
        for _ in range(2):
            take_over(before, out)
        assert primaries_before(out) == ["mvcs"]
    (out / "reused.json").write_text('[{"primary": 1}]')
    with pytest.raises(InputError, match=r"reused\.json is damaged"):
        primaries_before(out)


def test_other_prompts_are_refused(given, earlier, tmp_path):
    given["prompts"].write_text("others")
    out = begun(CFG, given, tmp_path / "out")
    with pytest.raises(InputError, match=r"inputs\.prompts has changed"):
        take_over(earlier, out)


def test_what_is_no_evaluation_or_was_changed_is_refused(given, earlier, tmp_path):
    out = begun(CFG, given, tmp_path / "out")
    for path in (earlier / "samples" / "base", tmp_path / "nowhere"):
        with pytest.raises(InputError, match=f"{path.name} is no evaluation: give one"):
            take_over(path, out)
    (earlier / "samples" / "dpo" / "videos" / "a-0.mkv").write_text("edited")
    with pytest.raises(StageStopped, match="not the file that its stage made"):
        take_over(earlier, out)
    assert not (out / "samples" / "dpo").exists()
    assert json.loads((out / "config.json").read_text())["stage"] == "evaluation"
