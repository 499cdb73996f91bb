import shutil

import av
import numpy as np
import pytest

from tests.study.conftest import CFG, PROMPTS, SEEDS, Nothing
from videogpa.artifact import MANIFEST, open_artifact, read_rows
from videogpa.errors import InputError
from videogpa.study.material import BROKEN, CHECK_CLIPS, create
from videogpa.study.plan import StudyConfig, StudyItem, study_config
from videogpa.types import Prompt
from videogpa.video_io import read_video


def test_every_arm_meets_the_base_on_the_same_prompt_and_seed(items):
    pairs = [item for item in items if item.kind == "pair"]
    # One video of the last arm failed.
    assert len(pairs) == 2 * PROMPTS * len(SEEDS) - 1
    assert {item.arms for item in pairs} == {("dpo", "base"), ("sft", "base")}
    assert len({(item.arms, item.prompt_id, item.seed) for item in pairs}) == len(pairs)


def test_videos_tell_nothing_by_name_length_or_time(study, items):
    videos = [study / name for item in items for name in item.videos]
    assert len({path.stat().st_size for path in videos}) == 1
    assert {path.stat().st_mtime for path in videos} == {0}
    assert not any(arm in path.name for path in videos for arm in ("base", "dpo", "sft", BROKEN))
    assert len({path.read_bytes()[:32] for path in videos}) == 1


def test_videos_are_those_of_the_evaluation(study, items, evaluation):
    pair = next(item for item in items if item.kind == "pair")
    for arm, name in zip(pair.arms, pair.videos, strict=True):
        shown = read_video(study / name)
        true = read_video(evaluation[0] / f"samples/{arm}/{pair.prompt_id}-{pair.seed}.mkv")
        assert shown.shape[0] == true.shape[0]
        assert max(shown.shape[-2:]) >= 256
        assert (shown[..., 4::8, 4::8] - true).abs().mean() < 0.03
    with av.open(str(study / pair.videos[0])) as container:
        assert container.streams.video[0].average_rate == 8


def test_a_check_sets_a_video_against_itself_broken(study, items):
    check = next(item for item in items if item.kind == "check")
    whole, broken = (read_video(study / name) for name in check.videos)
    assert check.arms == ("base", BROKEN)
    assert check.expected == "first"
    assert (whole - broken).abs().mean() > 0.02
    steps = [np.abs(np.diff(v.numpy(), axis=0)).mean() for v in (whole, broken)]
    assert steps[1] > 1.5 * steps[0]


def test_the_same_study_again_is_the_same(study, evaluation, tmp_path):
    again = create(CFG, *evaluation, tmp_path / "again", workers=2)
    assert (again / MANIFEST).read_bytes() == (study / MANIFEST).read_bytes()


def test_votes_are_not_overwritten(study, evaluation, tmp_path):
    copy = tmp_path / "study"
    shutil.copytree(study, copy)
    (copy / "votes.sqlite3").write_bytes(b"votes")
    with pytest.raises(InputError, match="holds votes"):
        create(CFG, *evaluation, copy, overwrite=True)
    assert (copy / "votes.sqlite3").read_bytes() == b"votes"


def test_what_cannot_be_shown_is_refused(evaluation, tmp_path):
    unknown = CFG.model_copy(update={"comparisons": (("dpo", "sgd"),)})
    with pytest.raises(InputError, match="has no arm 'sgd'; it has base, dpo, sft"):
        create(unknown, *evaluation, tmp_path / "s")
    with pytest.raises(InputError, match="31 different pairs are too few for raters who see 40"):
        create(StudyConfig(items=40), *evaluation, tmp_path / "s")
    with pytest.raises(InputError, match="of which there are 16: show fewer"):
        create(StudyConfig(items=6, checks=17), *evaluation, tmp_path / "s")
    damaged = tmp_path / "evaluation"
    shutil.copytree(evaluation[0], damaged)
    next(damaged.rglob("*.mkv")).write_bytes(b"no video")
    with pytest.raises(InputError, match="videos cannot be made"):
        create(CFG, damaged, evaluation[1], tmp_path / "s")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "study.json cannot be set up so"),
        ('{"questions": []}', "questions with different keys"),
        ('{"items": 3, "repeats": 2}', "2 repeats need twice as many items"),
        ('{"colour": "red"}', "Extra inputs are not permitted"),
        ("[1]", "study.json cannot be set up so"),
        ('{"exclusion": 3}', "study.json cannot be set up so"),
        ('{"exclusion": {"median_seconds": Infinity}}', "finite number"),
        ('{"tags": ["blurry", "blurry"]}', "a reason is listed twice"),
        ('{"comparisons": [["dpo", "dpo"]]}', "an arm with itself"),
        ('{"comparisons": [["dpo", "base"], ["base", "dpo"]]}', "compared already"),
    ],
)
def test_a_bad_plan_is_refused(tmp_path, text, message):
    file = tmp_path / "study.json"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        study_config(file, {})


def test_what_is_given_wins_over_the_file(tmp_path):
    file = tmp_path / "study.json"
    file.write_text('{"items": 7, "title": "T", "exclusion": {"failed_checks": 2, "median_seconds": 3}}')
    cfg = study_config(file, {"items": 9, "exclusion": {"median_seconds": 1.5}})
    assert (cfg.items, cfg.title) == (9, "T")
    assert (cfg.exclusion.failed_checks, cfg.exclusion.median_seconds) == (2, 1.5)


def test_prompts_of_another_run_are_refused(evaluation, tmp_path):
    other = tmp_path / "prompts"
    with open_artifact(other, stage="prompts", config=Nothing(), inputs={}, row_type=Prompt) as artifact:
        artifact.append(Prompt(id="q", text="elsewhere"))
        artifact.finish(["q"])
    with pytest.raises(InputError, match="has no prompt 'p0'"):
        create(CFG, evaluation[0], other, tmp_path / "s")


def test_videos_that_are_the_same_are_not_compared(evaluation, tmp_path):
    """Best-of-N may have kept what the base drew."""
    copy = tmp_path / "evaluation"
    shutil.copytree(evaluation[0], copy)
    shutil.copyfile(copy / "samples/base/p3-11.mkv", copy / "samples/dpo/p3-11.mkv")
    shown = read_rows(create(CFG, copy, evaluation[1], tmp_path / "s"), StudyItem)
    compared = {(item.arms, item.prompt_id, item.seed) for item in shown if item.kind == "pair"}
    assert len(compared) == 2 * PROMPTS * len(SEEDS) - 2
    assert (("dpo", "base"), "p3", 11) not in compared


def test_checks_are_bent_each_in_its_own_way(study, items):
    checks = [item for item in items if item.kind == "check"]
    assert len(checks) == CHECK_CLIPS * CFG.checks
    bent = [(read_video(study / a) - read_video(study / b))[0] for a, b in (c.videos for c in checks[:2])]
    likeness = np.corrcoef(*(difference.abs().flatten().numpy() for difference in bent))[0, 1]
    assert likeness < 0.5
