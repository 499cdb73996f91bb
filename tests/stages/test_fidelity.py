import csv
import json
import shutil

import pytest

from videogpa.artifact import MANIFEST, read_rows
from videogpa.errors import InputError
from videogpa.fidelity.battery import Case
from videogpa.stages import fidelity
from videogpa.stages.fidelity import FidelityConfig
from videogpa.stages.score import ScoreConfig
from videogpa.types import FidelityRow

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
