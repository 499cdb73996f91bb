import pytest

from tests.families import tiny_cogvideox, tiny_wan
from tests.families.contract import TEXT, first_frame
from videogpa.errors import InputError
from videogpa.plugin import load
from videogpa.run import run
from videogpa.stages.pair import PairConfig
from videogpa.video_io import write_image

RECIPES = ("cogvideox_5b", "cogvideox_5b_i2v", "cogvideox_1_5", "wan_2_2_ti2v_5b")
GIVEN = {
    "model": "model", "geometry": "sfm", "geometry_options": {}, "evaluation_geometry": None,
    "evaluation_geometry_options": {}, "accepted_licenses": ("cogvideox",), "device": "cpu",
}  # fmt: skip


def of(name, tmp_path, exact=False, **given):
    files = {"prompts": tmp_path / "train.json", "held_out": tmp_path / "test.json"}
    return load("recipes", name).recipe(**(GIVEN | files | given), exact=exact)


@pytest.mark.parametrize("name", RECIPES)
def test_the_published_settings_are_kept_where_asked_for(tmp_path, name):
    """Numbers of arXiv 2601.23286 and of the code published with it."""
    cfg = of(name, tmp_path, exact=True)
    training = cfg.trainings["dpo"]
    assert (training.rank, training.alpha, training.learning_rate) == (64, 128.0, 5e-6)
    assert (training.batch_pairs, training.warmup_steps, training.schedule) == (16, 500, "cosine")
    assert (training.beta, training.objective) == (1.0, "dpo")
    assert training.steps == (1_500 if name == "cogvideox_1_5" else 10_000)
    assert training.weight_decay == (1e-3 if name == "cogvideox_1_5" else 0.01)
    assert (cfg.pair.metric, cfg.pair.min_margin, cfg.pair.pairs_per_prompt) == ("paper_reward", 0.05, 1)
    assert cfg.sample.candidates == 8
    assert cfg.score.max_frames == 10
    assert cfg.sample.guidance_scale == (5.0 if name.startswith("wan") else 6.0)


@pytest.mark.parametrize("name", RECIPES)
def test_the_default_is_corrected_in_what_is_listed(tmp_path, name):
    exact, corrected = of(name, tmp_path, exact=True), of(name, tmp_path)
    assert corrected.pair.metric == corrected.evaluate.trained_by == "consistency"
    assert corrected.trainings["dpo"].beta is None
    assert corrected.trainings["dpo"].stop_at_chosen_rise == 0.015
    assert corrected.sample == exact.sample
    assert corrected.trainings["dpo_random"].labels == "shuffled"


def test_another_geometry_may_judge_the_result(tmp_path):
    same = of("cogvideox_5b", tmp_path)
    assert same.evaluate.score.geometry == same.score.geometry == "sfm"
    given = {"evaluation_geometry": "depth_anything_3", "evaluation_geometry_options": {"weights": "da3"}}
    other = of("cogvideox_5b", tmp_path, **given)
    assert (other.score.geometry, other.evaluate.score.geometry) == ("sfm", "depth_anything_3")
    assert other.evaluate.score.geometry_options == {"weights": "da3"}
    assert other.evaluate.score.max_frames == other.score.max_frames


def test_a_recipe_without_model_or_prompts_says_so(tmp_path):
    with pytest.raises(InputError, match="needs --model"):
        of("cogvideox_5b", tmp_path, model=None)


@pytest.mark.parametrize("name", ["cogvideox_5b", "wan_2_2_ti2v_5b"])
def test_a_recipe_runs_from_prompts_to_report(tmp_path, name):
    """On a tiny folder with random weights: all stages work; its figures mean nothing."""
    build = tiny_wan.build if name.startswith("wan") else tiny_cogvideox.build
    model = build(tmp_path / "model")
    image = ""
    if name.startswith("wan"):
        write_image(tmp_path / "first.png", first_frame())
        image = ', "image": "first.png"'
    for file in ("train.json", "test.json"):
        rows = [f'{{"text": "{text}"{image}}}' for text in (TEXT, f"{TEXT} {TEXT}")]
        (tmp_path / file).write_text(f"[{', '.join(rows)}]")
    cfg = of(name, tmp_path, model=str(model), geometry="embedded")
    small = {"frames": 9, "height": 32, "width": 32, "steps": 2, "candidates": 2, "dtype": "float32"}
    quick = {
        "rank": 2, "steps": 2, "batch_pairs": 2, "warmup_steps": 0, "evaluate_every": 1, "held_out_fraction": 0.0,
        "stop_at_chosen_rise": None,
    }  # fmt: skip
    judged = cfg.score.model_copy(update={"metrics": ("sharpness", "motion")})
    cfg = cfg.model_copy(
        update={
            "sample": cfg.sample.model_copy(update=small),
            "score": judged,
            # What a random model draws has no geometry to judge.
            "pair": PairConfig(metric="sharpness"),
            "trainings": {arm: training.model_copy(update=quick) for arm, training in cfg.trainings.items()},
            "evaluate": cfg.evaluate.model_copy(
                update={
                    "sample": cfg.evaluate.sample.model_copy(update=small | {"candidates": 1}),
                    "score": judged,
                    "trained_by": None,
                    "allow_circular": True,
                }
            ),
        }
    )
    assert (run(cfg, tmp_path / "run", workers=1) / "index.html").is_file()
