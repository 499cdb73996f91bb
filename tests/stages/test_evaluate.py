import csv
import json
import shutil
from pathlib import Path

import pytest

from tests.dpo.test_diffusion import disturb
from tests.families import tiny_wan
from videogpa.artifact import hash_file, lock, read_manifest, read_rows
from videogpa.dpo.lora import add_lora, save_lora
from videogpa.engines.local import map_rows
from videogpa.errors import InputError
from videogpa.families.wan import Family
from videogpa.metrics.between_seeds import BETWEEN_SEEDS
from videogpa.report.findings import OutsideMetric, read_summary
from videogpa.stages import against_truth, evaluate, prompts
from videogpa.stages.against_truth import BETWEEN, BetweenSeedsRow
from videogpa.stages.comparison import family_of
from videogpa.stages.evaluate import (
    Arm,
    EvaluateConfig,
    add_scores,
    circular,
    protocol,
    run,
    summarize,
)
from videogpa.stages.external_scores import ExternalScore
from videogpa.stages.prompts import FilePrompts, WorldPrompts
from videogpa.stages.reuse import measured_together
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate, EvalRow, Score

CFG = EvaluateConfig(
    sample=SampleConfig(),
    score=ScoreConfig(geometry="embedded"),
    arms={"dpo": Arm(lora="embedded")},
    resamples=500,
)
KEPT = {"sharpness": 0.1, "motion": 0.4}


def rows(values: dict[str, dict[str, list[float | None]]], seeds: int = 2) -> list[EvalRow]:
    return [
        EvalRow(
            id=f"{arm}/{i}",
            arm=arm,
            prompt_id=f"p{i // seeds:02d}",
            seed=i % seeds,
            metrics={m: v[i] for m, v in by.items()},
        )
        for arm, by in values.items()
        for i in range(len(next(iter(by.values()))))
    ]


def comparison(summary, metric, arm="dpo"):
    (found,) = [c for c in summary["comparisons"] if (c["metric"], c["arm"]) == (metric, arm)]
    return found


def test_differences_are_paired_and_directed_and_seeds_share_a_win():
    base = {"cross_view": [0.5, 0.6, 0.7, 0.8], "oracle_flow_epe": [2.0, 2.0, 3.0, 3.0]}
    dpo = {"cross_view": [0.6, 0.7, 0.8, 0.8], "oracle_flow_epe": [1.0, 2.0, 2.0, 4.0]}
    summary = summarize(CFG, rows({"base": base, "dpo": dpo}))
    view, flow = comparison(summary, "cross_view"), comparison(summary, "oracle_flow_epe")
    assert view["mean_difference"] == pytest.approx(0.075)
    assert view["win_rate"] == 1
    assert view["higher_is_better"] is True
    assert flow["mean_difference"] == pytest.approx(-0.25)
    # Two flows of the second prompt are better and worse by the same: a tie.
    assert flow["win_rate"] == 0.75
    assert flow["win_rate_ci95"] == [0.5, 1.0]
    assert flow["higher_is_better"] is False
    assert (view["n"], view["prompts"]) == (4, 2)
    assert summary["arms"]["base"]["cross_view"] == pytest.approx(0.65)


def test_a_value_missing_on_one_side_is_left_out_of_the_pair():
    summary = summarize(CFG, rows({"base": {"cross_view": [0.5, None]}, "dpo": {"cross_view": [0.4, 0.9]}}))
    found = comparison(summary, "cross_view")
    assert found["n"] == 1
    assert found["mean_difference"] == pytest.approx(-0.1)
    assert found["mde"] is None


def many(offset: float, metric: str = "oracle_psnr", guards: dict[str, float] = KEPT):
    """Ten prompts, every one better by about `offset`."""
    steps = [offset * (1 + i / 10) for i in range(10)]
    return {metric: [20 + step for step in steps]} | {g: [v] * 10 for g, v in guards.items()}


def test_a_clear_gain_is_better_and_a_clear_loss_worse():
    drawn = rows({"base": many(0), "dpo": many(0.1)}, seeds=1)
    found = comparison(summarize(CFG, drawn), "oracle_psnr")
    assert found["verdict"] == "better"
    assert found["p"] == pytest.approx(2 / 2**10)
    assert (
        comparison(summarize(CFG, rows({"base": many(0), "dpo": many(-0.1)}, 1)), "oracle_psnr")["verdict"]
        == "worse"
    )


@pytest.mark.parametrize("guards", [{"sharpness": 0.09, "motion": 0.4}, {"sharpness": 0.1}])
def test_who_breaks_a_guard_is_never_better(guards):
    blurred = rows({"base": many(0), "dpo": many(0.1, guards=guards)}, seeds=1)
    summary = summarize(CFG, blurred)
    assert summary["guards"]["dpo"]
    assert {c["verdict"] for c in summary["comparisons"]} == {"disqualified", "neither"}
    # Nor does losing against it count as a loss.
    turned = CFG.model_copy(update={"comparisons": (("base", "dpo"),)})
    assert comparison(summarize(turned, blurred), "oracle_psnr", "base")["verdict"] == "disqualified"


def test_tests_are_corrected_within_their_family():
    arms = {name: Arm(strength=1.0, lora="embedded") for name in ("a", "b", "c")}
    cfg = CFG.model_copy(update={"arms": arms, "primary": "oracle_ssim"})
    drawn = {
        name: many(offset) | many(offset, "oracle_ssim")
        for name, offset in zip("abc", (0.1, 0.2, 0.3), strict=True)
    }
    summary = summarize(cfg, rows({"base": many(0) | many(0, "oracle_ssim"), **drawn}, seeds=1))
    for metric, family in (("oracle_psnr", "truth"), ("oracle_ssim", "primary")):
        found = comparison(summary, metric, "a")
        assert found["family"] == family
        assert found["holm_p"] == pytest.approx(3 * found["p"])
    assert [c["metric"] for c in summary["comparisons"]][:3] == ["oracle_ssim"] * 3
    assert summary["primary"] == "oracle_ssim"


def test_spread_between_seeds_is_neither_better_nor_worse():
    together = [
        BetweenSeedsRow(
            id=f"{arm}/{i}",
            arm=arm,
            prompt_id=f"p{i:02d}",
            seeds=2,
            metrics=dict.fromkeys(BETWEEN_SEEDS, value + i / 100),
        )
        for arm, value in (("base", 1.0), ("dpo", 0.5))
        for i in range(10)
    ]
    drawn = rows({"base": many(0), "dpo": many(0)}, seeds=1)
    summary = summarize(CFG, drawn, together)
    assert comparison(summary, "oracle_bias2")["verdict"] == "better"
    assert comparison(summary, "oracle_bias2")["family"] == "between_seeds"
    spread = comparison(summary, "oracle_variance")
    assert spread["verdict"] == "neither"
    assert spread["higher_is_better"] is spread["win_rate"] is spread["win_rate_ci95"] is None
    assert spread["mean_difference"] == pytest.approx(-0.5)


def truth_scores(metric, value):
    return [
        Score(id=f"p{i:02d}", prompt_id=f"p{i:02d}", video="", metrics={metric: value}) for i in range(10)
    ]


def test_the_share_of_headroom_is_what_is_gained_of_what_the_truth_has():
    base, dpo = (many(offset, "oracle_warp") for offset in (1.0, 0.9))
    summary = summarize(CFG, rows({"base": base, "dpo": dpo}, 1), truth=truth_scores("oracle_warp", 20.0))
    found = comparison(summary, "oracle_warp")
    assert found["headroom_share"] == pytest.approx(0.1)
    assert found["headroom_ci95"] == pytest.approx([0.1, 0.1])
    assert summary["truth"] == {"oracle_warp": 20.0}
    assert "truth" not in summary["arms"]


def test_there_is_no_headroom_where_the_truth_is_not_better_or_is_what_is_compared_with():
    drawn = rows({"base": many(1.0, "oracle_warp"), "dpo": many(0.9, "oracle_warp")}, 1)
    worse = summarize(CFG, drawn, truth=truth_scores("oracle_warp", 25.0))
    assert comparison(worse, "oracle_warp")["headroom_share"] is None
    psnr = summarize(CFG, rows({"base": many(0), "dpo": many(1)}, 1), truth=truth_scores("oracle_psnr", 99.0))
    assert comparison(psnr, "oracle_psnr")["headroom_share"] is None
    assert comparison(summarize(CFG, drawn), "oracle_warp")["headroom_ci95"] is None


def test_an_arm_whose_rows_all_failed_has_no_values_and_is_not_compared():
    failed = EvalRow(id="dpo/0", status="failed", reason="x", arm="dpo", prompt_id="p00", seed=0)
    summary = summarize(CFG, [*rows({"base": {"cross_view": [0.5]}}), failed])
    assert summary["arms"]["dpo"] == {}
    assert summary["comparisons"] == []
    assert summary["failed_rows"] == 1


def test_what_made_an_arm_does_not_judge_it():
    arms = {
        "dpo": Arm(lora="embedded"),
        "best": Arm(best_of=4, best_by="depth_agreement"),
        "both": Arm(lora="embedded", best_of=2, best_by="mvcs"),
        "other": Arm(model="elsewhere"),
    }
    cfg = CFG.model_copy(update={"arms": arms, "trained_by": "consistency"})
    pictures = ["consistency", "cross_view", "edge_agreement", "paper_reward"]
    surfaces = ["alignment", "depth_agreement", "mvcs", "mvcs_published", "normal_agreement"]
    assert circular(cfg) == {
        "dpo": pictures,
        "best": surfaces,
        "both": sorted([*pictures, *surfaces]),
    }
    # Without any LoRA it can only be about the models: one may have been merged into them.
    alone = cfg.model_copy(update={"arms": {"other": arms["other"]}})
    assert circular(alone) == {"other": pictures}


def test_the_protocol_covers_what_decides_the_figures_and_not_the_arms():
    given = {"prompts": "p", "model": "m"}
    same = protocol(CFG, given)
    changes = [
        {"resamples": 501}, {"truth": False}, {"primary": "oracle_psnr"}, {"bootstrap_seed": 1},
        {"sample": SampleConfig(steps=7)}, {"sample": SampleConfig(seed=1)},
        {"score": ScoreConfig(geometry="embedded", max_frames=9)},
    ]  # fmt: skip
    found = {protocol(CFG.model_copy(update=change), given) for change in changes}
    found |= {protocol(CFG, given | {name: "x"}) for name in given}
    assert len(found | {same}) == len(changes) + 3
    for arms in ({}, {"best": Arm(best_of=2)}):
        assert protocol(CFG.model_copy(update={"arms": arms}), given) == same


def outside(drawn: list[EvalRow], better: bool, values: dict[str, float]) -> list[ExternalScore]:
    """A number about every row, by its arm, in steps of .01 from prompt to prompt."""
    return [
        ExternalScore(
            arm=row.arm,
            prompt_id=row.prompt_id,
            seed=row.seed,
            metric="dino",
            value=values[row.arm] + int(row.prompt_id[1:]) / 100,
            higher_is_better=better,
        )
        for row in drawn
    ]


@pytest.mark.parametrize(("better", "verdict", "won"), [(True, "worse", 0), (False, "better", 1)])
def test_what_another_tool_measured_is_compared_like_any_other_in_its_direction(better, verdict, won):
    drawn = rows({"base": many(0), "dpo": many(0.1)}, seeds=1)
    summary = summarize(CFG, drawn, external={"d.csv": outside(drawn, better, {"base": 0.9, "dpo": 0.8})})
    found = comparison(summary, "dino")
    assert found["mean_difference"] == pytest.approx(-0.1)
    assert (found["family"], found["verdict"], found["win_rate"]) == ("other", verdict, won)
    assert found["higher_is_better"] is better
    assert found["headroom_share"] is None
    assert summary["arms"]["dpo"]["dino"] == pytest.approx(0.845)
    assert summary["external"] == {"dino": {"higher_is_better": better, "file": "d.csv"}}
    # Nothing else moves, and who breaks a guard does not win by it either.
    assert comparison(summary, "oracle_psnr") == comparison(summarize(CFG, drawn), "oracle_psnr")
    blurred = [
        r.model_copy(update={"metrics": r.metrics | {"sharpness": 0.05}}) for r in drawn if r.arm == "dpo"
    ]
    blurred += [r for r in drawn if r.arm == "base"]
    told = {"d.csv": outside(drawn, True, {"base": 0.8, "dpo": 0.9})}
    assert comparison(summarize(CFG, blurred, external=told), "dino")["verdict"] == "disqualified"


def test_videos_that_another_tool_left_out_are_left_out_of_its_pairs():
    drawn = rows({"base": many(0), "dpo": many(0.1)}, seeds=1)
    told = outside(drawn, True, {"base": 0.8, "dpo": 0.9})
    found = comparison(summarize(CFG, drawn, external={"d.csv": told[3:]}), "dino")
    assert (found["n"], found["mean_difference"]) == (7, pytest.approx(0.1))


def test_a_metric_from_outside_is_kin_of_nothing_but_may_have_made_an_arm():
    assert family_of("dino", "oracle_psnr") == "other"
    assert circular(CFG.model_copy(update={"trained_by": "dino"})) == {"dpo": ["dino"]}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    family = Family(tiny_wan.build(folder / "model"))
    add_lora(family, rank=2, alpha=2.0, seed=0)
    disturb(family)
    save_lora(family, folder / "lora")
    shutil.copytree(folder / "model", folder / "elsewhere")
    cfg = EvaluateConfig(
        sample=SampleConfig(
            model=str(folder / "model"), candidates=2, steps=1, frames=5, height=32, width=32, previews=False,
            keep_latents=False,
        ),
        score=ScoreConfig(geometry="embedded", metrics=("sharpness", "motion", "oracle_warp", "oracle_psnr")),
        arms={
            "dpo": Arm(lora=str(folder / "lora"), strength=0.5),
            "best": Arm(best_of=3, best_by="sharpness"),
            "other": Arm(model=str(folder / "elsewhere"), family="wan"),
        },
        primary="oracle_flow_bias2",
        resamples=100,
    )  # fmt: skip
    return cfg, prompts.run_world(WorldPrompts(count=2, size=32), folder / "prompts")


@pytest.fixture(scope="module")
def evaluated(inputs, tmp_path_factory):
    return run(*inputs, tmp_path_factory.mktemp("evaluated") / "evaluation")


def test_all_arms_are_drawn_on_the_same_prompts_and_seeds(evaluated):
    drawn = read_rows(evaluated, EvalRow)
    keys = {
        arm: [(r.prompt_id, r.seed) for r in drawn if r.arm == arm]
        for arm in ("base", "dpo", "best", "other")
    }
    assert len(drawn) == 16
    assert len(set(keys["base"])) == 4
    assert all(found == keys["base"] for found in keys.values())
    base, other = ([r.metrics for r in drawn if r.arm == arm] for arm in ("base", "other"))
    assert base == other
    assert base != [r.metrics for r in drawn if r.arm == "dpo"]


def test_best_of_chooses_among_the_seed_and_noises_of_its_own(evaluated):
    candidates = read_rows(evaluated / "samples" / "best", Candidate)
    scores = {s.id: s.metrics["sharpness"] for s in read_rows(evaluated / "scores" / "best", Score)}
    first = {(c.prompt_id, c.seed) for c in read_rows(evaluated / "samples" / "base", Candidate)}
    assert {(c.prompt_id, c.seed) for c in candidates if c.id[-2:] in ("-0", "-1")} == first
    for row in (r for r in read_rows(evaluated, EvalRow) if r.arm == "best"):
        slot = int(row.id[-1])
        pool = [f"{row.prompt_id}-{k}" for k in (slot, slot + 2, slot + 4)]
        best = max(pool, key=lambda id: scores[id])
        assert row.video == f"samples/best/videos/{best}.mkv"
        assert row.metrics["sharpness"] == scores[best]


def test_seeds_are_looked_at_together_and_the_truth_is_the_ceiling(evaluated):
    lines = (evaluated / "between_seeds.jsonl").read_text().splitlines()
    found = [BetweenSeedsRow.model_validate_json(line) for line in lines]
    assert {(r.arm, r.seeds) for r in found} == {(a, 2) for a in ("base", "dpo", "best", "other", "truth")}
    assert len(found) == 10
    assert {"between_seeds.jsonl", "summary.json"} == set(read_manifest(evaluated).files)
    summary = json.loads((evaluated / "summary.json").read_text())
    assert summary["truth"]["oracle_bias2"] == pytest.approx(0, abs=1e-5)
    assert summary["truth"]["oracle_variance"] == 0
    assert summary["truth"]["oracle_warp"] < 0.2 * summary["arms"]["base"]["oracle_warp"]
    assert summary["comparisons"][0]["metric"] == "oracle_flow_bias2"
    same = comparison(summary, "oracle_warp", "other")
    assert (same["mean_difference"], same["win_rate"], same["p"], same["headroom_share"]) == (0, 0.5, 1, 0)


def test_an_evaluation_goes_on_where_it_was_stopped_and_is_the_same(inputs, evaluated, tmp_path):
    out = tmp_path / "evaluation"
    shutil.copytree(evaluated, out)
    for name in ("manifest.json", "summary.json", "samples/truth/manifest.json"):
        (out / name).unlink()
    shutil.rmtree(out / "scores" / "dpo")
    run(*inputs, out)
    for name in ("rows.jsonl", "summary.json", "between_seeds.jsonl", "manifest.json"):
        assert (out / name).read_bytes() == (evaluated / name).read_bytes()


def test_folders_are_compared_by_content(inputs, evaluated, tmp_path):
    cfg, world = inputs
    shutil.copytree(cfg.arms["dpo"].lora, tmp_path / "moved")
    moved = cfg.arms | {"dpo": Arm(lora=str(tmp_path / "moved"), strength=0.5)}
    run(cfg.model_copy(update={"arms": moved}), world, evaluated)
    stronger = cfg.arms | {"dpo": Arm(lora=str(tmp_path / "moved"))}
    with pytest.raises(InputError, match=r"arms\.dpo\.strength 0\.5 -> 1\.0"):
        run(cfg.model_copy(update={"arms": stronger}), world, evaluated)


def test_further_arms_join_those_of_another_evaluation(inputs, evaluated, tmp_path, monkeypatch):
    cfg, world = inputs
    measured = []

    def watched(make_worker, jobs, **given):
        jobs = list(jobs)
        if given["description"] == "between seeds":
            measured.extend(job.arm for job in jobs)
        return map_rows(make_worker, jobs, **given)

    monkeypatch.setattr(against_truth, "map_rows", watched)
    more = {"half": cfg.arms["dpo"], "whole": Arm(lora=cfg.arms["dpo"].lora)}
    out = run(cfg.model_copy(update={"arms": more}), world, tmp_path / "more", reuse=[evaluated])
    found = {arm: [r.metrics for r in read_rows(out, EvalRow) if r.arm == arm] for arm in ("base", *more)}
    before = {
        arm: [r.metrics for r in read_rows(evaluated, EvalRow) if r.arm == arm] for arm in ("base", "dpo")
    }
    assert (found["base"], found["half"]) == (before["base"], before["dpo"])
    assert found["whole"] != found["half"]
    assert (out / "samples/half/manifest.json").samefile(evaluated / "samples/dpo/manifest.json")
    between = [BetweenSeedsRow.model_validate_json(li) for li in (out / BETWEEN).read_text().splitlines()]
    known = [BetweenSeedsRow.model_validate_json(li) for li in (evaluated / BETWEEN).read_text().splitlines()]
    assert set(measured) == {"whole", "truth"}
    assert [(r.id, r.arm, r.metrics) for r in between if r.arm == "half"] == [
        (r.id.replace("dpo", "half"), "half", r.metrics) for r in known if r.arm == "dpo"
    ]


def test_an_evaluation_that_cannot_be_reused_leaves_the_folder_free(inputs, evaluated, tmp_path):
    cfg, world = inputs
    out = tmp_path / "out"
    other = cfg.model_copy(update={"sample": cfg.sample.model_copy(update={"seed": 7})})
    for earlier, message in ((evaluated, "was made differently"), (tmp_path / "no", "is no evaluation")):
        with pytest.raises(InputError, match=message):
            run(other, world, out, reuse=[earlier])
        assert not out.exists()


def test_what_is_reused_is_not_emptied(inputs, evaluated, tmp_path):
    cfg, world = inputs
    out = tmp_path / "out"
    shutil.copytree(evaluated, out)
    with pytest.raises(InputError, match="choose another output folder"):
        run(cfg, world, out, reuse=[out], overwrite=True)
    assert read_rows(out, EvalRow) == read_rows(evaluated, EvalRow)


def test_the_same_prompt_twice_is_not_two_prompts(inputs, tmp_path):
    cfg, _ = inputs
    (tmp_path / "asked.txt").write_text("a room\na box\na room\n")
    asked = prompts.run_files(FilePrompts(), tmp_path / "asked.txt", tmp_path / "prompts")
    with pytest.raises(InputError, match=r"prompts 'prompt00000' and 'prompt00002' of .* are the same"):
        run(cfg, asked, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Stopped(Exception):
    """In the place of drawing."""


@pytest.mark.parametrize(("seed", "taken"), [(0, True), (1, False)])
def test_what_draws_otherwise_is_passed_over_where_it_is_only_offered(
    inputs, evaluated, tmp_path, monkeypatch, seed, taken
):
    def stop(*_):
        raise Stopped

    monkeypatch.setattr(evaluate, "_evaluate_arm", stop)
    cfg, world = inputs
    drawn = cfg.sample.model_copy(update={"seed": cfg.sample.seed + seed})
    out = tmp_path / "out"
    with pytest.raises(Stopped):
        run(cfg.model_copy(update={"sample": drawn}), world, out, reuse_alike=[evaluated])
    assert (out / "samples/base/manifest.json").exists() == taken


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"comparisons": (("sft", "base"),)}, "unknown arm 'sft'"),
        ({"comparisons": (("dpo", "truth"),)}, "unknown arm 'truth'"),
        ({"comparisons": (("dpo", "base"), ("dpo", "base"))}, "'dpo' and 'base' are compared twice"),
        ({"comparisons": (("dpo", "base"), ("base", "dpo"))}, "'base' and 'dpo' are compared twice"),
        ({"arms": {"base": Arm()}}, "cannot be called 'base'"),
        ({"arms": {"truth": Arm()}}, "cannot be called 'truth'"),
        ({"arms": {"a/b": Arm()}}, "cannot be called 'a/b'"),
        ({"arms": {"a#b": Arm()}}, "cannot be called 'a#b'"),
        ({"arms": {"(broken)": Arm()}}, r"cannot be called '\(broken\)'"),
        ({"arms": {"best": Arm(best_of=2, best_by="mvcs")}}, "selected by 'mvcs', which is not among"),
        ({"sample": SampleConfig(candidates=2, shared_noise=0.5)}, "needs seeds that are independent"),
        ({"primary": "motion"}, "'motion' is not among the metrics that judge"),
        ({"primary": "oracle_variance"}, "'oracle_variance' is not among"),
        (
            {"primary": "oracle_psnr", "score": ScoreConfig(geometry="embedded", window=2)},
            "'oracle_psnr' is not among",
        ),
        (
            {"arms": {"best": Arm(best_of=2, best_by="oracle_psnr")}, "primary": "oracle_psnr"},
            "judges by what made arm 'best'",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_drawn(inputs, tmp_path, change, message):
    cfg, world = inputs
    with pytest.raises(InputError, match=message):
        run(cfg.model_copy(update=change), world, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("metric", ["oracle_psnr", "normal_agreement"])
def test_what_cannot_be_measured_here_decides_nothing(inputs, tmp_path, metric):
    """Captions alone have no truth, and structure from motion gives no normals."""
    cfg, _ = inputs
    world = prompts.run_world(WorldPrompts(split="held_out", count=1, text_only=True), tmp_path / "prompts")
    judges = ScoreConfig(geometry="sfm", metrics=("consistency", "motion", "sharpness", metric))
    cfg = cfg.model_copy(update={"score": judges})
    selected = {"best": Arm(best_of=2, best_by=metric)}
    trained = {"dpo": cfg.arms["dpo"].model_copy(update={"trained_by": "consistency"})}
    for change, message in (
        ({"primary": metric}, f"the primary '{metric}' is not among"),
        ({"arms": selected, "primary": None}, f"selected by '{metric}', which is not among"),
        ({"arms": trained, "primary": None}, "nothing else would judge it"),
    ):
        with pytest.raises(InputError, match=message):
            run(cfg.model_copy(update=change), world, tmp_path / "out")


def test_what_made_an_arm_may_not_be_its_only_judge_unless_that_is_said(inputs, tmp_path):
    cfg, world = inputs
    few = ScoreConfig(geometry="embedded", metrics=("cross_view", "motion", "sharpness"))
    one_seed = cfg.sample.model_copy(update={"candidates": 1})
    alone = cfg.model_copy(update={"score": few, "sample": one_seed, "primary": None, "truth": False})
    trained = {"arms": {"dpo": cfg.arms["dpo"]}, "trained_by": "consistency"}
    selected = {"arms": {"best": Arm(best_of=2, best_by="cross_view")}}
    for made in (trained, selected):
        with pytest.raises(InputError, match="nothing else would judge it"):
            run(alone.model_copy(update=made), world, tmp_path / "out")
    allowed = alone.model_copy(update=selected | {"allow_circular": True})
    summary = json.loads((run(allowed, world, tmp_path / "out") / "summary.json").read_text())
    assert summary["allow_circular"] is True
    assert summary["circular"] == {"best": ["consistency", "cross_view", "edge_agreement", "paper_reward"]}
    assert summary["truth"] == {}
    assert (tmp_path / "out" / "between_seeds.jsonl").read_text() == ""


@pytest.mark.parametrize("as_file", [False, True])
def test_a_training_says_what_its_lora_learnt_from(inputs, tmp_path, as_file):
    """So nobody has to say it, and nobody can forget it."""
    cfg, world = inputs
    shutil.copytree(cfg.arms["dpo"].lora, tmp_path / "dpo/lora")
    [weights] = (tmp_path / "dpo/lora").glob("*.safetensors")
    lora = Arm(lora=str(weights if as_file else weights.parent))
    cfg = cfg.model_copy(update={"arms": {"dpo": lora}, "primary": "oracle_psnr"})
    told = tmp_path / "dpo/training.json"
    told.write_text('{"preferred_by": "oracle_psnr"}')
    with pytest.raises(InputError, match="judges by what made arm 'dpo'"):
        run(cfg, world, tmp_path / "out")
    told.write_text('["oracle_psnr"]')
    with pytest.raises(InputError, match="not what a training says of itself"):
        run(cfg, world, tmp_path / "out")
    judged = ScoreConfig(metrics=("consistency", "sharpness", "motion"))
    shipped = cfg.model_copy(
        update={"arms": {"dpo": Arm(lora="embedded")}, "primary": "consistency", "score": judged}
    )
    with pytest.raises(InputError, match="judges by what made arm 'dpo'"):
        run(shipped, world, tmp_path / "out")


def table(
    evaluation: Path, path: Path, metric: str = "dino", change: dict | None = None, skip: int = 0
) -> Path:
    """Numbers about the videos of an evaluation but the first `skip`: .5, and .1 more for the arm dpo."""
    records = [
        {"arm": r.arm, "prompt_id": r.prompt_id, "seed": r.seed, "metric": metric}
        | {"value": 0.6 if r.arm == "dpo" else 0.5}
        | (change or {})
        for r in read_rows(evaluation, EvalRow)[skip:]
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)
    return path


@pytest.fixture
def finished(evaluated, tmp_path):
    """A copy without its videos, of which nothing could be drawn or scored again."""
    return shutil.copytree(
        evaluated, tmp_path / "evaluation", ignore=shutil.ignore_patterns("samples", "base")
    )


def test_scores_are_added_to_a_finished_evaluation_whose_rows_stay(evaluated, finished, inputs, tmp_path):
    before = json.loads((finished / "summary.json").read_text())
    add_scores(finished, [table(finished, tmp_path / "dino.csv", change={"higher_is_better": "false"})])
    summary = json.loads((finished / "summary.json").read_text())
    found = comparison(summary, "dino")
    assert (found["mean_difference"], found["n"]) == (pytest.approx(0.1), 4)
    assert found["higher_is_better"] is False
    assert {c["metric"] for c in summary["comparisons"]} == {c["metric"] for c in before["comparisons"]} | {
        "dino"
    }
    assert (summary["truth"], before["external"]) == (before["truth"], {})
    own, _, others = summary["protocol"].partition("+")
    assert (own, len(others)) == (before["protocol"], 8)
    assert read_summary(finished / "summary.json").external["dino"] == OutsideMetric(
        higher_is_better=False, file="dino.csv"
    )
    for name in ("rows.jsonl", "between_seeds.jsonl", "config.json"):
        assert (finished / name).read_bytes() == (evaluated / name).read_bytes()
    assert (finished / "external" / "dino.csv").read_bytes() == (tmp_path / "dino.csv").read_bytes()
    files = read_manifest(finished).files
    assert set(files) == {"between_seeds.jsonl", "external/dino.csv", "summary.json"}
    assert all(digest == hash_file(finished / name) for name, digest in files.items())
    # The same command as at first leaves it as it is.
    run(*inputs, finished)
    assert json.loads((finished / "summary.json").read_text()) == summary


def test_what_seeds_say_together_is_known_by_what_samples_list(evaluated, finished, tmp_path):
    listed = shutil.copytree(evaluated, tmp_path / "listed", ignore=shutil.ignore_patterns("videos"))
    known = measured_together(listed)
    assert known == measured_together(evaluated)
    assert {row.arm for row in known.values()} >= {"dpo", "best"}
    assert measured_together(finished) == {}


def test_scores_given_later_join_the_earlier_ones_and_take_none_away(finished, tmp_path):
    first = table(finished, tmp_path / "dino.csv")
    add_scores(finished, [first])
    once = (finished / "summary.json").read_bytes()
    add_scores(finished, [first])
    assert (finished / "summary.json").read_bytes() == once
    add_scores(finished, [table(finished, tmp_path / "human.csv", "votes", skip=1)], partial=True)
    both = json.loads((finished / "summary.json").read_text())
    assert set(both["external"]) == {"dino", "votes"}
    assert comparison(both, "votes")["n"] == 3
    with pytest.raises(InputError, match="earlier table of that name, which has dino: rename"):
        add_scores(finished, [table(finished, tmp_path / "dino.csv", "dino2")])
    assert json.loads((finished / "summary.json").read_text()) == both
    protocols = {json.loads(once)["protocol"], both["protocol"]}
    assert len(protocols) == 2
    assert len({p[:17] for p in protocols}) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "sharpness"}, "'sharpness' is a metric of this package"),
        ({"change": {"value": "nan"}}, "line 2: value nan is no finite number"),
        ({"change": {"arm": "truth"}}, "unknown arm 'truth'"),
        ({"change": {"seed": 99}}, "has no seed 99"),
        ({"skip": 1}, r"no value for 1 of 16 videos.*--partial-scores"),
        ({"metric": "votes"}, "'votes' is in human.csv and in new.csv"),
    ],
)
def test_scores_that_do_not_fit_change_nothing(finished, tmp_path, given, message):
    add_scores(finished, [table(finished, tmp_path / "human.csv", "votes")])
    before = {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}
    good = table(finished, tmp_path / "good.csv")
    with pytest.raises(InputError, match=message):
        add_scores(finished, [good, table(finished, tmp_path / "new.csv", **given)])
    assert {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()} == before


def test_scores_are_of_a_finished_evaluation(finished, tmp_path):
    numbers = table(finished, tmp_path / "dino.csv")
    with pytest.raises(InputError, match="only 1 names"):
        add_scores(finished, [numbers, numbers])
    with pytest.raises(InputError, match="hidden file"):
        add_scores(finished, [table(finished, tmp_path / ".dino.csv")])
    (finished / "manifest.json").unlink()
    with pytest.raises(InputError, match="is not complete"):
        add_scores(finished, [numbers])


def test_one_at_a_time_adds_scores(finished, tmp_path):
    numbers = table(finished, tmp_path / "dino.csv")
    with lock(finished), pytest.raises(InputError, match="held by another process"):
        add_scores(finished, [numbers])
    add_scores(finished, [numbers])


def test_an_evaluation_without_need_of_geometry_has_none(inputs, tmp_path):
    cfg, world = inputs
    flat = {
        "score": ScoreConfig(geometry="vggt", metrics=("sharpness", "oracle_psnr")),
        "arms": {"best": Arm(best_of=2, best_by="sharpness")},
        "primary": None,
    }
    out = run(cfg.model_copy(update=flat), world, tmp_path / "out")
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["arms"]["base"]) >= {"sharpness", "oracle_psnr"}
    assert summary["guards"]["best"] == ["motion could not be measured"]
    assert not list(out.rglob("geometry"))
    assert all(json.loads(p.read_text()) == {} for p in out.rglob("licenses.json"))
