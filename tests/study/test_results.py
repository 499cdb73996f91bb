import csv
import json

import pytest

from tests.study.conftest import CFG, Nothing
from tests.study.test_analysis import rated
from videogpa.artifact import open_artifact, read_rows, write_json_atomic
from videogpa.cli import app
from videogpa.errors import InputError
from videogpa.study.results import write_results
from videogpa.study.server import read_study
from videogpa.study.votes import Votes, sqlite_url
from videogpa.types import EvalRow


@pytest.fixture
def votes(items):
    return rated(CFG, items, 12, lambda item: 0.8, tags=["blurry"])


def test_results_are_a_page_and_tables(study, votes, evaluation, tmp_path):
    out = write_results(study, CFG, votes, tmp_path / "out", evaluation=evaluation[0])
    told = json.loads((out / "results.json").read_bytes())
    with (out / "votes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(votes)
    counted = [
        r for r in rows if r["kind"] == "pair" and r["question"] == "consistent" and r["first"] == "dpo"
    ]
    won = sum(row["chosen"] == "dpo" for row in counted)
    (row,) = [c for c in told["comparisons"] if (c["question"], c["arm"]) == ("consistent", "dpo")]
    assert (row["wins"], row["votes"]) == (won, len(counted))
    page = (out / "index.html").read_text()
    assert "Intervals over so few raters are too narrow" in page
    with (out / "comparisons.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(table[0][f"by_rater95_{end}"]) for end in ("low", "high")] == pytest.approx(
        told["comparisons"][0]["by_rater95"]
    )
    assert "Metrics beside people" in page
    assert {m["metric"] for m in told["metrics"]} == {"consistency", "sharpness", "motion"} - {"motion"}


def test_a_study_without_votes_has_a_page_too(study, tmp_path):
    out = write_results(study, CFG, [], tmp_path / "out")
    assert "No vote counts yet" in (out / "index.html").read_text()
    assert (out / "votes.csv").read_text().strip() == ""


def test_enough_raters_make_a_headline(study, items, tmp_path):
    for chance, said in ((0.9, "dpo was preferred to base"), (0.1, "base was preferred to dpo")):
        votes = rated(CFG, items, 24, lambda item, chance=chance: chance)
        page = (write_results(study, CFG, votes, tmp_path / said) / "index.html").read_text()
        assert said in page
        assert "too narrow" not in page


def test_an_evaluation_that_was_not_shown_is_refused(study, votes, evaluation, tmp_path):
    other = tmp_path / "evaluation"
    rows = [
        row.model_copy(update={"metrics": {"consistency": 1.0}}) for row in read_rows(evaluation[0], EvalRow)
    ]
    with open_artifact(other, stage="evaluation", config=Nothing(), inputs={}, row_type=EvalRow) as artifact:
        artifact.append(*rows)
        artifact.finish([row.id for row in rows])
    write_json_atomic(other / "summary.json", {"arms": {}, "comparisons": []})
    with pytest.raises(InputError, match="is not the evaluation that"):
        write_results(study, CFG, votes, tmp_path / "out", evaluation=other)


def test_other_files_are_not_replaced(study, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="other files than a report"):
        write_results(study, CFG, [], tmp_path)


def test_from_the_command_line(evaluation, tmp_path, capsys):
    arguments = [
        "--compare",
        "dpo:base",
        "--items",
        "4",
        "--repeats",
        "1",
        "--title",
        "T",
        "--failed-checks",
        "1",
    ]
    study = tmp_path / "study"
    app(["study", "create", *map(str, evaluation), "--out", str(study), *arguments], standalone_mode=False)
    cfg, manifest = read_study(study)
    assert (cfg.title, cfg.items, cfg.exclusion.failed_checks, cfg.exclusion.median_seconds) == (
        "T",
        4,
        1,
        1.5,
    )
    with pytest.raises(InputError, match="no votes yet"):
        app(["study", "results", str(study), "--out", str(tmp_path / "out")], standalone_mode=False)
    assert not (study / "votes.sqlite3").exists()
    Votes(sqlite_url(study), manifest).add_rater()
    app(["study", "results", str(study), "--out", str(tmp_path / "out")], standalone_mode=False)
    app(["study", "power", "0.6"], standalone_mode=False)
    assert capsys.readouterr().out.split() == [str(study), str(tmp_path / "out" / "index.html"), "210"]
