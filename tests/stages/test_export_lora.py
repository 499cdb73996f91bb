import json
import re
import shutil

import pytest
import torch
import yaml
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from tests.dpo.test_diffusion import disturb
from tests.families import tiny_hunyuan_video_1_5, tiny_wan
from videogpa.artifact import open_artifact, write_json_atomic
from videogpa.dpo.config import TrainConfig
from videogpa.dpo.lora import LORA_FILES, add_lora, load_lora, save_lora
from videogpa.errors import InputError, StageStopped
from videogpa.families import hunyuan_video_1_5, wan
from videogpa.stages import export_lora
from videogpa.stages.evaluate import Arm, EvaluateConfig, summarize
from videogpa.stages.export_lora import ExportLoraConfig, run, usage_code
from videogpa.stages.pair import PairConfig
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import EvalRow, Row
from videogpa.weights import GENERATOR
from videogpa.weights import LORA as EMBEDDED_LORA

OUTCOME = {
    "last_step": 100,
    "exported_step": 60,
    "stopped_early": True,
    "beta": 1234.5,
    "health": {
        "accuracy": 0.625,
        "margin": 0.5,
        "chosen_change": 0.001,
        "rejected_change": 0.02,
        "saturation": 0.1,
    },
    "pairs": 197,
    "held_out_pairs": 23,
    "licenses": {"some-geometry": "cc-by-nc-4.0"},
}
METRICS = {"base": {"depth_agreement": 0.5, "motion": 0.4, "sharpness": 0.1}}
METRICS["dpo"] = {"depth_agreement": 0.75, "motion": 0.2, "sharpness": 0.1}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_wan.build(tmp_path_factory.mktemp("model") / "wan")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model):
    """A run's folder with all that a card tells, made by the real writers."""
    folder = tmp_path_factory.mktemp("run")
    with open_artifact(
        folder / "pairs", stage="pairs", config=PairConfig(metric="paper_reward"), inputs={}, row_type=Row
    ) as artifact:
        artifact.finish([])
    training = folder / "lora" / "dpo"
    inputs = {"pairs": folder / "pairs", "model": model}
    cfg = TrainConfig(learning_rate=3e-4)
    with open_artifact(training, stage="train", config=cfg, inputs=inputs, row_type=Row) as artifact:
        train(wan.Family(model), training / "lora")
        write_json_atomic(training / "training.json", OUTCOME)
        artifact.finish([], [f"lora/{LORA_FILES[0]}", "training.json"])
    evaluation = EvaluateConfig(
        sample=SampleConfig(), score=ScoreConfig(), arms={"dpo": Arm(lora="given")}, resamples=100
    )
    inputs = {"lora_dpo": training / "lora"}
    rows = [
        EvalRow(id=f"{arm}/{i}", arm=arm, prompt_id=str(i), seed=0, metrics=METRICS[arm])
        for arm in METRICS
        for i in range(2)
    ]
    with open_artifact(
        folder / "evaluation", stage="evaluation", config=evaluation, inputs=inputs, row_type=EvalRow
    ) as artifact:
        artifact.append(*rows)
        write_json_atomic(folder / "evaluation" / "summary.json", summarize(evaluation, rows))
        artifact.finish([row.id for row in rows], ["summary.json"])
    return folder


def train(family, folder, name=LORA_FILES[0]):
    add_lora(family, rank=4, alpha=12.0, seed=0)
    disturb(family)
    save_lora(family, folder, name)


def read_card(out):
    text = (out / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def rows_of(body):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in body.splitlines() if "|" in line]
    return {row[0]: row[1:] for row in rows}


def test_an_evaluation_that_was_changed_since_is_on_no_card(finished, model, tmp_path):
    copy = tmp_path / "evaluation"
    shutil.copytree(finished / "evaluation", copy)
    told = (copy / "summary.json").read_text()
    (copy / "summary.json").write_text(told.replace('"mean_difference": 0.25', '"mean_difference": 0.9'))
    assert (copy / "summary.json").read_text() != told
    with pytest.raises(StageStopped, match=r"summary\.json is not the file that its stage made"):
        run(ExportLoraConfig(), finished / "lora" / "dpo", tmp_path / "out", model=model, evaluation=copy)
    assert not (tmp_path / "out").exists()


def test_the_card_tells_what_the_run_recorded(finished, model, tmp_path):
    formats = ("diffusers", "peft", "comfyui", "merged")
    cfg = ExportLoraConfig(formats=formats, base_model="someone/a-model", name="house")
    written = run(cfg, finished / "lora" / "dpo", tmp_path, model=model, evaluation=finished)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "pytorch_lora_weights.safetensors",
        "peft/adapter_config.json",
        "peft/adapter_model.safetensors",
        "comfyui/house.safetensors",
        "training.json",
        "merged",
        "README.md",
    ]
    assert all(path.exists() for path in written)
    assert json.loads((tmp_path / "training.json").read_text()) == OUTCOME
    front, body = read_card(tmp_path)
    assert front["base_model"] == "someone/a-model"
    assert (front["license"], front["library_name"]) == ("apache-2.0", "diffusers")
    assert {"lora", "dpo", "image-to-video"} <= set(front["tags"])
    told = rows_of(body)
    assert told["preference pairs"] == ["197"]
    assert told["pairs ordered by"] == ["`paper_reward`"]
    assert told["weights that judged, and their licences"] == ["some-geometry: cc-by-nc-4.0"]
    assert told["`learning_rate`"] == ["`0.0003`"]
    assert told["exported step"] == ["60"]
    assert told[export_lora.FIGURES["accuracy"]] == ["0.625"]
    (found,) = [line for line in body.splitlines() if "`depth_agreement`" in line]
    assert [c.strip() for c in found.split("|")[1:-1]] == [
        *(
            "1",
            "base",
            "`depth_agreement`",
            "higher",
            "+0.2500",
            "+0.2500 to +0.2500",
            "100.0%",
            "2",
            "unclear",
        )
    ]
    assert "dpo is this LoRA at strength 1." in body
    assert "dpo is disqualified: motion is 50.0% of the base's." in body
    assert "With only 2 prompts, no interval here can be trusted." in body
    assert "unknown" not in body


def test_a_second_export_says_nothing_of_the_first_and_a_stage_keeps_its_own(finished, model, tmp_path):
    training = finished / "lora" / "dpo"
    run(ExportLoraConfig(), training, tmp_path / "out", model=model)
    bare = tmp_path / "bare" / "deep" / LORA_FILES[0]
    bare.parent.mkdir(parents=True)
    bare.write_bytes((training / "lora" / LORA_FILES[0]).read_bytes())
    run(ExportLoraConfig(), bare, tmp_path / "out", model=model)
    assert not (tmp_path / "out" / "training.json").exists()
    before = (training / "training.json").read_bytes()
    with pytest.raises(InputError, match="holds what a stage made"):
        run(ExportLoraConfig(formats=("merged",)), bare, training, model=model)
    assert (training / "training.json").read_bytes() == before


def test_what_nobody_knows_is_called_unknown(finished, model, tmp_path):
    bare = tmp_path / "bare" / "deep"
    bare.mkdir(parents=True)
    source = finished / "lora" / "dpo" / "lora" / LORA_FILES[0]
    (bare / LORA_FILES[0]).write_bytes(source.read_bytes())
    run(ExportLoraConfig(), bare, tmp_path / "out", model=model)
    front, body = read_card(tmp_path / "out")
    assert "base_model" not in front
    told = rows_of(body)
    for name in ("preference pairs", "pairs ordered by", "weights that judged, and their licences", "beta"):
        assert told[name] == ["unknown"]
    assert told["base model"] == ["unknown (family `wan`)"]
    assert "## Evaluation\n\nNone is known." in body
    assert "Its configuration is unknown" in body


def test_the_embedded_lora_has_a_card(tmp_path):
    run(ExportLoraConfig(formats=("peft",)), EMBEDDED_LORA, tmp_path, model=GENERATOR)
    told = rows_of(read_card(tmp_path)[1])
    recorded = json.loads((EMBEDDED_LORA / "training.json").read_text())
    assert told["preference pairs"] == [str(recorded["pairs"])]
    assert told["base model"] == ["the model that ships with videogpa (family `wan`)"]
    assert told[export_lora.FIGURES["accuracy"]] == [f"{recorded['health']['accuracy']:.4g}"]


def test_pairs_of_another_training_are_not_told(finished, model, tmp_path):
    """Beside the training lie pairs that it was not made with."""
    other = tmp_path / "run" / "pairs"
    with open_artifact(
        other, stage="pairs", config=PairConfig(metric="motion"), inputs={}, row_type=Row
    ) as artifact:
        artifact.finish([])
    copied = tmp_path / "run" / "lora" / "copied"
    for name in ("config.json", "manifest.json", "training.json", "rows.jsonl", f"lora/{LORA_FILES[0]}"):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes((finished / "lora" / "dpo" / name).read_bytes())
    assert export_lora.origin_of(finished / "lora" / "dpo" / "lora").pairs["metric"] == "paper_reward"
    assert export_lora.origin_of(copied / "lora").pairs is None
    (copied / "lora" / LORA_FILES[0]).write_bytes(b"another")
    with pytest.raises(InputError, match="was changed since its training"):
        export_lora.origin_of(copied / "lora")


def test_strength_is_in_every_format(finished, model, tmp_path):
    source = finished / "lora" / "dpo" / "lora"
    cfg = ExportLoraConfig(formats=("diffusers", "peft", "comfyui"), strength=0.5)
    run(cfg, source, tmp_path, model=model)
    family = wan.Family(model)
    wanted = scaled_change(family, source, 0.5)
    for path in (tmp_path, tmp_path / "peft", tmp_path / "comfyui" / "videogpa.safetensors"):
        assert torch.allclose(scaled_change(family, path, 1.0), wanted, rtol=1e-5, atol=1e-6)
    assert "at 0.5 times the strength" in read_card(tmp_path)[1]


def scaled_change(family, source, strength):
    load_lora(family, source, strength)
    return family.transformer.blocks[1].attn2.to_v.get_delta_weight("default").detach()


@pytest.mark.parametrize("kind", ["one", "two experts", "hunyuan 1.5"])
def test_the_lines_of_the_card_load_the_lora(kind, tmp_path, monkeypatch):
    if kind == "hunyuan 1.5":
        base = tiny_hunyuan_video_1_5.build(tmp_path / "model")
        train(hunyuan_video_1_5.Family(base), tmp_path / "lora")
    elif kind == "one":
        base = tiny_wan.build(tmp_path / "model", "t2v")
        train(wan.Family(base), tmp_path / "lora")
    else:
        base = tiny_wan.build(tmp_path / "model", "a14b_t2v")
        for expert, name in zip(wan.EXPERTS, LORA_FILES, strict=True):
            train(wan.Family(base, expert=expert), tmp_path / "lora", name)
    out = tmp_path / "out"
    run(ExportLoraConfig(base_model=str(base)), tmp_path / "lora", out, model=base)
    (code,) = re.findall(r"```python\n(.*?)```", read_card(out)[1], re.DOTALL)
    monkeypatch.chdir(out)
    scope = {}
    exec(code, scope)
    experts = [scope["pipe"].transformer]
    if kind == "two experts":
        experts.append(scope["pipe"].transformer_2)
    for expert in experts:
        scales = {m.scaling[k] for m in expert.modules() for k in getattr(m, "scaling", {})}
        assert scales == {3.0}


def test_what_cannot_be_exported_is_refused(finished, model, tmp_path):
    source = finished / "lora" / "dpo" / "lora"
    with pytest.raises(InputError, match="is no diffusers folder"):
        run(ExportLoraConfig(), source, tmp_path / "out", model=tmp_path)
    with pytest.raises(InputError, match="no name in ComfyUI"):
        run(ExportLoraConfig(formats=("comfyui",), family="ltx"), source, tmp_path / "out", model=model)
    with pytest.raises(InputError, match="holds no evaluation"):
        run(ExportLoraConfig(), source, tmp_path / "out", model=model, evaluation=tmp_path)
    with pytest.raises(InputError, match="none of the arms"):
        run(ExportLoraConfig(), EMBEDDED_LORA, tmp_path / "out", model=GENERATOR, evaluation=finished)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(InputError, match="no family is known for the FluxPipeline"):
        run(ExportLoraConfig(), source, tmp_path / "out", model=tmp_path / "other")
    assert not (tmp_path / "out").exists()
    assert "the base model" in usage_code(None, 1, "wan")


def test_a_lora_is_never_written_over_and_links_to_themselves_lead_nowhere(tmp_path):
    lora = tmp_path / "lora"
    shutil.copytree(EMBEDDED_LORA, lora)
    before = {path.name: path.read_bytes() for path in lora.iterdir()}
    with pytest.raises(InputError, match="where the LoRA itself lies"):
        run(ExportLoraConfig(strength=2), lora, lora, model=GENERATOR)
    assert {path.name: path.read_bytes() for path in lora.iterdir()} == before
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match="no LoRA at"):
        run(ExportLoraConfig(), tmp_path / "loop", tmp_path / "out", model=GENERATOR)
    with pytest.raises(OSError, match="loop"):
        run(ExportLoraConfig(formats=("merged",)), lora, tmp_path / "loop", model=GENERATOR)


@pytest.mark.parametrize("name", ["../outside", "a/b", "", ".hidden", "a\0b"])
def test_what_it_is_called_names_no_other_folder(name):
    with pytest.raises(ValidationError, match="name"):
        ExportLoraConfig(name=name)


def test_a_lora_with_nan_is_refused(tmp_path):
    weights = load_file(EMBEDDED_LORA / LORA_FILES[0])
    weights[next(iter(weights))][0, 0] = torch.nan
    save_file(weights, tmp_path / LORA_FILES[0])
    with pytest.raises(InputError, match="has values that are not finite"):
        run(ExportLoraConfig(), tmp_path, tmp_path / "out", model=GENERATOR)
