import csv

import pytest

from tests.families import tiny_wan
from videogpa.artifact import read_rows
from videogpa.dpo.lora import add_lora, lora_parameters, save_lora
from videogpa.errors import InputError
from videogpa.families.wan import Family
from videogpa.stages import prompts
from videogpa.stages.evaluate import EvaluateConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.stages.strength_sweep import run, table
from videogpa.types import EvalRow
from videogpa.video_io import read_video


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    family = Family(tiny_wan.build(folder / "model"))
    add_lora(family, rank=2, alpha=2.0, seed=0)
    for parameter in lora_parameters(family).values():
        parameter.data += 0.3
    save_lora(family, folder / "lora")
    cfg = EvaluateConfig(
        sample=SampleConfig(
            model=str(folder / "model"), candidates=1, steps=1, frames=5, height=32, width=32, previews=False,
            keep_latents=False,
        ),
        score=ScoreConfig(geometry="embedded", metrics=("sharpness", "motion")),
        resamples=100,
    )  # fmt: skip
    return cfg, prompts.run_world(WorldPrompts(count=2, size=32), folder / "prompts"), folder / "lora"


def test_every_strength_is_drawn_and_compared_with_the_base(inputs, tmp_path):
    cfg, world, lora = inputs
    path = run(cfg, (1.0, 0.25), world, lora, tmp_path)
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "sharpness"]
    assert [float(row["strength"]) for row in rows] == [0.25, 1.0]
    drawn = {row.id: row for row in read_rows(tmp_path / "evaluation", EvalRow)}
    assert len(drawn) == 6
    for row in rows:
        ours = [
            r.metrics["sharpness"] for r in drawn.values() if r.arm == f"strength_{float(row['strength']):g}"
        ]
        base = [r.metrics["sharpness"] for r in drawn.values() if r.arm == "base"]
        assert float(row["mean"]) == pytest.approx(sum(ours) / 2)
        assert float(row["difference"]) == pytest.approx((sum(ours) - sum(base)) / 2)
        assert float(row["ci_low"]) <= float(row["difference"]) <= float(row["ci_high"])
        assert row["videos"] == "2"

    def video(arm):
        id = next(id for id in drawn if id.startswith(f"{arm}/"))
        return read_video(tmp_path / "evaluation" / drawn[id].video)

    weak, strong = ((video(f"strength_{s}") - video("base")).abs().mean() for s in ("0.25", "1"))
    assert 0 < weak < strong


def test_strengths_that_compare_nothing_are_refused(inputs, tmp_path):
    cfg, world, lora = inputs
    for strengths in ((), (1.0, 1.0), (0.0, 1.0)):
        with pytest.raises(InputError, match="give different ones"):
            run(cfg, strengths, world, lora, tmp_path)


def test_the_table_names_what_broke_a_guard():
    summary = {
        "arms": {"base": {"motion": 1.0}, "strength_2": {"motion": 0.5}},
        "comparisons": [
            {
                "arm": "strength_2", "against": "base", "metric": "motion", "higher_is_better": True,
                "mean_difference": -0.5, "ci95": [-0.6, -0.4], "win_rate": 0.0, "n": 4,
            }
        ],
        "guards": {"strength_2": ["motion is 50.0% of the base's"]},
    }  # fmt: skip
    (row,) = table(summary, {"strength_2": 2.0})
    assert (row["strength"], row["mean"], row["base_mean"], row["difference"]) == (2.0, 0.5, 1.0, -0.5)
    assert row["guards"] == "motion is 50.0% of the base's"
