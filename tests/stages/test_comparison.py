import pytest

from videogpa.stages.comparison import compare, family_of, guard_problems

VIDEOS = [(f"p{i // 2:02d}", i % 2) for i in range(40)]


def measured(videos=VIDEOS, **values):
    """The same value for every video, by metric; a dictionary of values is taken as it is."""
    return {
        name: value if isinstance(value, dict) else dict.fromkeys(videos, value)
        for name, value in values.items()
    }


BASE = measured(sharpness=0.1, motion=0.4, dynamic_degree=0.02)


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({}, None),
        ({"sharpness": 0.0951}, None),
        ({"sharpness": 0.2}, None),
        ({"sharpness": 0.09}, "sharpness is 90.0% of the base's"),
        ({"motion": 0.37}, "motion is 92.5% of the base's"),
        ({"motion": 0.43}, "motion is 107.5% of the base's"),
        ({"dynamic_degree": 0.0185}, None),
        ({"dynamic_degree": 0.0}, "dynamic_degree is 0.0% of the base's"),
        ({"sharpness": {}}, "sharpness could not be measured"),
        ({"motion": {}}, "motion could not be measured"),
    ],
)
def test_guards_name_blur_and_lost_motion(changed, problem):
    assert guard_problems(BASE, BASE | measured(**changed)) == ([problem] if problem else [])


def test_where_nothing_moves_no_geometry_is_found_and_that_is_no_excuse():
    moving = measured(VIDEOS[:4], motion=0.4)
    assert guard_problems(BASE, BASE | moving) == ["motion was found in 4 of the base's 40 videos"]


def test_one_measure_of_motion_is_enough_and_none_is_not():
    flow = {name: BASE[name] for name in ("sharpness", "dynamic_degree")}
    assert guard_problems(flow, flow) == []
    sharp = {"sharpness": BASE["sharpness"]}
    assert guard_problems(sharp, BASE) == ["motion could not be measured"]
    still = BASE | measured(motion=0.0)
    assert guard_problems(still, still) == []
    assert guard_problems(still, BASE) == ["motion is no longer 0"]


def test_guards_look_at_the_same_videos_of_both():
    """The two videos that the arm lacks are the calmest: left in, they would hide what the others lost."""
    base = BASE | {"motion": {key: 0.01 if key[0] == "p00" else 0.4 for key in VIDEOS}}
    arm = BASE | measured(VIDEOS[2:], motion=0.37)
    assert guard_problems(base, arm) == ["motion is 92.5% of the base's"]


def test_every_prompt_counts_once():
    """Though one of them has a single video in the arm."""
    base = {"cross_view": dict.fromkeys(VIDEOS[:4], 0.5)}
    arm = {"cross_view": {("p00", 0): 0.7, ("p01", 0): 0.6, ("p01", 1): 0.6}}
    [found] = compare({"base": base, "dpo": arm}, [("dpo", "base")], primary=None, resamples=100, seed=0)
    assert found["mean_difference"] == pytest.approx(0.15)
    assert (found["n"], found["prompts"]) == (3, 2)


def test_a_few_large_gains_do_not_outvote_many_small_losses():
    """By the mean the arm is better, by signed ranks worse."""
    base = dict.fromkeys([(f"p{i:03d}", 0) for i in range(100)], 0.0)
    arm = {key: 1 + i / 20 if i < 20 else -0.05 - i / 1000 for i, key in enumerate(base)}
    guards = {name: dict.fromkeys(base, 0.1) for name in ("sharpness", "dynamic_degree")}
    values = {"base": {"oracle_psnr": base} | guards, "dpo": {"oracle_psnr": arm} | guards}
    found = compare(values, [("dpo", "base")], primary="oracle_psnr", resamples=500, seed=0)[0]
    assert found["ci95"][0] > 0
    assert found["holm_p"] < 0.05
    assert found["rank_biserial"] < 0
    assert found["verdict"] == "unclear"


def test_there_is_no_share_of_headroom_where_the_truth_was_mostly_not_found():
    values = {
        "base": {"oracle_warp": {key: 1 + 0.01 * i for i, key in enumerate(VIDEOS)}},
        "dpo": {"oracle_warp": {key: 0.9 + 0.01 * i for i, key in enumerate(VIDEOS)}},
    }
    truth = {(prompt, 0): 0.0 for prompt, _ in VIDEOS}
    for found, share in ((truth, True), (dict(list(truth.items())[:10]), False)):
        every = values | {"truth": {"oracle_warp": found}}
        [compared] = compare(every, [("dpo", "base")], primary=None, resamples=100, seed=0)
        assert (compared["headroom_share"] is not None) == share


def test_families():
    assert [family_of(metric, "oracle_unexplained") for metric in (
        "oracle_unexplained", "oracle_bias2", "oracle_variance", "oracle_psnr", "dynamic_degree", "consistency", "dino"
    )] == ["primary", "between_seeds", "neither", "truth", "guard", "other", "other"]  # fmt: skip
