import csv
import json
import shutil

import pytest
import torch

from videogpa.artifact import MANIFEST, open_artifact, read_rows
from videogpa.errors import InputError
from videogpa.fidelity.battery import Case
from videogpa.stages import fidelity
from videogpa.stages.fidelity import FidelityConfig
from videogpa.stages.prompts import WorldPrompts, run_world
from videogpa.stages.score import ScoreConfig
from videogpa.types import Candidate, FidelityRow, Prompt
from videogpa.video_io import write_master
from videogpa.world.truth import true_continuation

CFG = FidelityConfig(
    score=ScoreConfig(geometry="embedded", metrics=("consistency", "sharpness", "oracle_psnr")),
    split="development",
    scenes=2,
    frames=5,
    size=32,
)


def few_cases(scene):
    yield Case(scene, "clean", "clean", 0)
    yield from (Case(scene, "fault", "warp_jitter", i) for i in (1, 2, 3, 4))
    yield Case(scene, "degradation", "blur", 3)
    yield Case(scene, "legitimate", "exposure", 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run on a part of the battery."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fidelity, "cases", few_cases)
        patch.setattr(fidelity, "GLOSS", (50,))
        yield fidelity.run(CFG, tmp_path_factory.mktemp("fidelity") / "out")


def test_rows_tables_and_plots(whole):
    rows = read_rows(whole, FidelityRow)
    assert {r.kind for r in rows} == {"clean", "fault", "degradation", "legitimate", "invariance", "gloss"}
    assert all("oracle_psnr" not in r.metrics for r in rows)
    summary = json.loads((whole / "summary.json").read_bytes())
    battery = summary["consistency"]["battery"]
    assert battery["judged"] == battery["ranking"] == battery["monotone"] == 1
    assert battery["above_clean"] == 0
    with (whole / "metrics.csv").open() as file:
        table = {row["metric"]: row for row in csv.DictReader(file)}
    assert float(table["consistency"]["ranking"]) == 1
    world = [s for s in summary["consistency"]["invariance"] if s["change"] == "world"]
    assert world[0]["largest_distance"] < 2e-3
    assert (whole / "plots" / "consistency.png").stat().st_size > 0


def test_where_no_metric_needs_geometry_none_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(fidelity, "cases", few_cases)
    flat = CFG.score.model_copy(update={"geometry": "vggt", "metrics": ("sharpness",)})
    out = fidelity.run(CFG.model_copy(update={"score": flat, "scenes": 1}), tmp_path / "out")
    rows = read_rows(out, FidelityRow)
    assert all(row.metrics["sharpness"] is not None and row.reason is None for row in rows)


def test_a_killed_run_goes_on_where_it_stopped(whole, tmp_path):
    cut = shutil.copytree(whole, tmp_path / "cut")
    (cut / MANIFEST).unlink()
    lines = (cut / "rows.jsonl").read_bytes().splitlines(keepends=True)
    (cut / "rows.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    fidelity.run(CFG, cut)
    assert (cut / "rows.jsonl").read_bytes() == (whole / "rows.jsonl").read_bytes()


def test_samples_need_their_prompts(tmp_path):
    with pytest.raises(InputError, match="--prompts"):
        fidelity.run(CFG, tmp_path / "out", samples=tmp_path)


def test_an_unreadable_sample_fails_its_prompt_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(fidelity, "cases", lambda scene: list(few_cases(scene))[:2])
    monkeypatch.setattr(fidelity, "GLOSS", (50,))
    prompts = run_world(WorldPrompts(count=2), tmp_path / "prompts")
    rows = read_rows(prompts, Prompt)
    samples = tmp_path / "samples"
    with open_artifact(samples, stage="candidates", config=CFG, inputs={}, row_type=Candidate) as artifact:
        for prompt in rows:
            for seed in range(4):
                name = f"{prompt.id}-{seed}"
                frames = true_continuation(prompt.world, 5, 32, 32).frames
                noise = 0.05 * seed * torch.rand(frames.shape, generator=torch.Generator().manual_seed(seed))
                write_master(samples / f"{name}.mkv", (frames + noise).clamp(0, 1))
                artifact.append(Candidate(id=name, prompt_id=prompt.id, seed=seed, video=f"{name}.mkv"))
        (samples / f"{rows[0].id}-2.mkv").write_bytes(b"no video")
        artifact.finish([f"{p.id}-{seed}" for p in rows for seed in range(4)])
    quick = CFG.score.model_copy(update={"metrics": ("sharpness", "oracle_psnr")})
    cfg = CFG.model_copy(update={"scenes": 1, "score": quick})
    out = fidelity.run(cfg, tmp_path / "out", samples=samples, prompts=prompts)
    measured = read_rows(out, FidelityRow)
    (failed,) = [r for r in measured if r.status == "failed"]
    assert failed.prompt_id == rows[0].id
    assert f"{rows[0].id}-2.mkv" in failed.reason
    found = json.loads((out / "summary.json").read_bytes())["sharpness"]["oracles"]
    assert {r["prompts"] for r in found} == {1}
