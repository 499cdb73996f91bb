"""What a pilot's costs say of the whole run; `benchmarks/run_plan.py` holds predictions against measured runs."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.tensorboard import SummaryWriter

from videogpa import plan
from videogpa.artifact import open_artifact
from videogpa.cli import app
from videogpa.engines.local import map_rows, timed
from videogpa.errors import InputError
from videogpa.plan import Costs, PassCost, StageCost, TrainingCost, makespan, measure, pilot, predict
from videogpa.recipes import embedded, quick
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import FilePrompts
from videogpa.types import PreferencePair

durations = st.lists(st.floats(0.01, 10), min_size=1, max_size=40)


@given(durations, st.integers(1, 50))
def test_the_makespan_lies_between_its_bounds(jobs, workers):
    lasts = makespan(jobs, workers)
    least = max(sum(jobs) / workers, max(jobs))
    assert least - 1e-9 <= lasts <= sum(jobs) / workers + max(jobs) + 1e-9


def test_the_makespan_of_known_jobs():
    assert makespan([3.0, 1.0, 1.0, 1.0], 2) == 3
    assert makespan([1.0, 1.0, 1.0, 3.0], 2) == 4
    assert makespan([1.0] * 10, 1000) == 1
    assert makespan([], 4) == 0


def costs(**changes) -> Costs:
    sampling = PassCost(description="sampling", load=10, jobs=(2, 4))
    fitting = PassCost(description="training", load=0, jobs=(1, 1))
    cost = {stage: StageCost(passes=(), between=0, bytes=0) for stage in plan.STAGES}
    cost["candidates"] = StageCost(passes=(sampling,), between=0.5, bytes=1000)
    cost["training"] = StageCost(passes=(fitting,), between=1, bytes=50)
    cost["evaluation"] = StageCost(passes=(sampling, sampling), between=0, bytes=100)
    one = TrainingCost(setup=5, step=2, judged_pair=0.1)
    known = {
        "recipe": "", "training_prompts": 2, "held_out_prompts": 2, "pairs": 4, "stages": cost,
        "trainings": {"dpo": one, "dpo_random": one}, "start": 1,
    }  # fmt: skip
    return Costs(**known | changes)


def test_rows_grow_with_the_prompts_and_spread_over_workers():
    cfg = embedded.recipe()
    found = {p.stage: p for p in predict(cfg, costs(), (1, 2, 1000))}
    # 96 prompts of 3 s each, of which a worker takes half; it waits for no more than one of the others'.
    drawn = found["candidates"]
    assert drawn.work == 10 + 96 * 3 + 24
    assert drawn.bytes == 48 * 1000
    assert drawn.lasts[1] == drawn.work
    assert drawn.lasts[2] == pytest.approx(1 + 10 + 96 * 3 / 2 + 24, abs=4)
    assert drawn.lasts[1000] == 1 + 10 + 4 + 24
    # Each pass of the evaluation loads the model again.
    assert found["evaluation"].work == 2 * (10 + 48 * 3)
    assert found["evaluation"].lasts[1000] == 2 * (1 + 10 + 4)


def test_a_training_grows_with_its_steps_and_its_pairs_and_takes_one_worker():
    cfg = embedded.recipe()
    found = {p.stage: p for p in predict(cfg, costs(), (1, 2, 1000))}["training"]
    judged = cfg.trainings["dpo"].held_out_fraction * 4 * 48
    each = 5 + 50 * 2 + 2 * 0.1 * judged
    assert found.work == pytest.approx(1 + 2 * each)
    assert found.lasts == pytest.approx({1: 1 + 2 * each, 2: 2 + each, 1000: 2 + each})
    assert found.bytes == 50


def test_later_rounds_draw_and_train_again_and_add_an_arm():
    cfg = embedded.recipe()
    one, three = ({p.stage: p for p in predict(cfg, costs(), (1, 2), rounds)} for rounds in (1, 3))
    assert three["candidates"].work == 3 * one["candidates"].work
    assert three["candidates"].lasts[2] == 3 * one["candidates"].lasts[2]
    # Two trainings side by side, then one after the other, and what is done between them.
    each = (one["training"].work - 1) / 2
    assert three["training"].work == pytest.approx(3 + 4 * each)
    assert three["training"].lasts[2] == pytest.approx(3 + 1 + 3 * each)
    # Three arms become five.
    assert three["evaluation"].work == 2 * (10 + 48 * 5 / 3 * 3)
    control = cfg.model_copy(update={"trainings": {"dpo_random": cfg.trainings["dpo_random"]}})
    with pytest.raises(InputError, match="all are controls"):
        predict(control, costs(), (1,), 2)


def test_a_beta_that_has_to_be_found_takes_a_trial_training():
    cfg = embedded.recipe()
    found = cfg.trainings["dpo"].model_copy(update={"beta": None})
    given, sought = (
        {p.stage: p for p in predict(c, costs(), (1,))}["training"].work
        for c in (cfg, cfg.model_copy(update={"trainings": {"dpo": found, "dpo_random": found}}))
    )
    assert sought - given == pytest.approx(2 * 25 * 2)


def test_a_pilot_keeps_what_a_row_costs():
    cfg = embedded.recipe()
    small = pilot(cfg, 2)
    assert (small.train_prompts.count, small.held_out_prompts.count) == (2, 2)
    assert small.sample == cfg.sample
    assert small.evaluate == cfg.evaluate
    assert small.pair == PairConfig(metric=cfg.pair.metric, pairs_per_prompt=8, reuse_candidates=True)
    assert small.trainings["dpo"].batch_pairs == cfg.trainings["dpo"].batch_pairs
    assert small.trainings["dpo"].steps == plan.STEPS
    source = cfg.model_copy(update={"train_prompts": (FilePrompts(), Path("prompts.txt"))})
    assert pilot(source, 3).train_prompts == (FilePrompts(limit=3), Path("prompts.txt"))


def work():
    time.sleep(0.2)
    return lambda job: time.sleep(job)


def test_what_rows_take_is_measured_with_one_worker():
    with timed() as timings:
        list(map_rows(work, [0.05, 0.1], workers=1, description="sleeping"))
    list(map_rows(work, [0.05], workers=1, description="unseen"))
    (timing,) = timings
    assert timing.description == "sleeping"
    assert 0.2 <= timing.load < 0.3
    assert all(least <= took < least + 0.1 for least, took in zip((0.05, 0.1), timing.jobs, strict=True))


def a_run(cfg, out, *, workers, overwrite, keep):
    """As much of a run as is measured: rows that take a known time, and a training's log."""
    for stage in plan.STAGES:
        (out / stage).mkdir(parents=True)
        (out / stage / "file").write_bytes(b"x" * 100)
        if stage == "training":
            for arm in cfg.trainings:
                folder = out / "lora" / arm
                with SummaryWriter(folder / "tensorboard") as board:
                    for step in range(1, plan.STEPS + 1):
                        # 2 s for a step and 4 more where it is judged.
                        board.add_scalar(
                            "loss", 1.0, step, walltime=1000 + 2 * step + 4 * (step // plan.JUDGED)
                        )
                (folder / "training.json").write_text(json.dumps({"held_out_pairs": 2}))
            jobs = [0.0] * len(cfg.trainings)
        else:
            jobs = [0.01] * 3
        list(map_rows(lambda: time.sleep, jobs, workers=workers, description=stage))
        if stage != plan.STAGES[-1]:
            keep()
    with open_artifact(
        out / "pairs", stage="pairs", config=PairConfig(), inputs={}, row_type=PreferencePair
    ) as pairs:
        sides = {"chosen": "a", "rejected": "b", "chosen_value": 1.0, "rejected_value": 0.0}
        pairs.append(PreferencePair(id="p", prompt_id="p", margin=1.0, **sides))
        pairs.finish(["p"])
    return out


def test_costs_are_measured_once(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "run", a_run)
    cfg = quick.recipe()
    found = measure(cfg, tmp_path, 2)
    assert list(found.stages) == list(plan.STAGES)
    for stage, cost in found.stages.items():
        assert [one.description for one in cost.passes] == [stage]
        assert 100 <= cost.bytes < 5000
    assert found.pairs == 1
    training = found.trainings["dpo"]
    assert (training.step, training.judged_pair) == pytest.approx((2, 2), abs=0.01)
    monkeypatch.setattr(plan, "run", None)
    assert measure(cfg, tmp_path, 2) == found
    with pytest.raises(InputError, match="another recipe or size"):
        measure(cfg, tmp_path, 3)
    (tmp_path / "costs.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        measure(cfg, tmp_path, 2)


def test_from_the_command_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plan, "run", a_run)
    app(
        ["plan", "quick", "--out", str(tmp_path), "--workers", "1", "--workers", "64", "--rounds", "2"],
        standalone_mode=False,
    )
    table = capsys.readouterr().out.splitlines()
    assert table[0].split("  ")[0] == "stage"
    assert table[0].rstrip().endswith("64 workers")
    assert [row.split("  ")[0].strip() for row in table[1:]] == [
        *plan.STAGES,
        "all",
        "all workers held until the end",
    ]
    assert len({len(row) for row in table}) == 1
