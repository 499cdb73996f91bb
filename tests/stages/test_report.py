import itertools
import json
import math
import re
import shutil
from pathlib import Path

import pytest

from tests.html_page import Page
from tests.stages.finished_run import Size, make
from videogpa.artifact import hash_json, read_rows
from videogpa.errors import InputError
from videogpa.stages import report
from videogpa.types import PreferencePair


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = make(tmp_path_factory.mktemp("runs") / "tiny", Size(train=2, candidates=3, held_out=2, seeds=2))
    report.run(folder, folder / "evaluation", folder / "report")
    return folder


@pytest.fixture(scope="module")
def html(finished) -> str:
    return (finished / "report" / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def test_the_page_is_whole_and_needs_nothing_but_its_folder(finished, page, html):
    assert not page.open
    local = [a.get("src") or a.get("href") for _, a in page.elements]
    for target in (t for t in local if t and not t.startswith(("#", "data:"))):
        assert (finished / "report" / target).is_file(), target
    assert "http" not in html
    anchors = {a["href"][1:] for a in page.all("a") if (a.get("href") or "").startswith("#")}
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert anchors <= set(ids)
    assert len(ids) == len(set(ids))


def test_no_number_is_missing(page):
    words = set(re.findall(r"[A-Za-z]+", " ".join(page.text).lower()))
    assert not words & {"nan", "inf", "undefined"}
    assert all(math.isfinite(float(d["value"])) for d in page.all("data"))


def numbers_of(html: str, name: str) -> dict[str, list[float]]:
    """By the value of the rows' attribute, the numbers of a row."""
    rows = [row.split("</tr>")[0] for row in re.split(rf'<tr role="row" data-{name}="', html)[1:]]
    return {row.split('"')[0]: [float(v) for v in re.findall(r'<data value="([^"]+)"', row)] for row in rows}


def test_the_tables_have_the_numbers_of_the_summary(finished, html):
    summary = json.loads((finished / "evaluation" / "summary.json").read_text())
    columns = [*summary["arms"].values(), summary["truth"]]
    names = summary["arms"]["base"]
    assert {"oracle_flow_bias2", "oracle_variance"} <= names.keys()
    assert numbers_of(html, "metric") == {m: [c[m] for c in columns if m in c] for m in names}
    expected = {
        f"{c['arm']} {c['against']} {c['metric']}": [
            figure
            for figure in (
                *(c["mean_difference"], *c["ci95"], c["win_rate"]),
                *(c["holm_p"] if c["holm_p"] >= 0.001 else None, c["mde"], c["headroom_share"]),
            )
            if figure is not None
        ]
        for c in summary["comparisons"]
    }
    assert numbers_of(html, "comparison") == expected
    assert any(c["headroom_share"] is not None for c in summary["comparisons"])


def test_the_primary_comes_first_and_a_disqualified_arm_is_never_better(finished, tmp_path):
    evaluation = tmp_path / "evaluation"
    shutil.copytree(finished / "evaluation", evaluation)
    summary = json.loads((evaluation / "summary.json").read_text())
    summary["primary"] = "oracle_flow_bias2"
    summary["guards"]["dpo"] = ["sharpness is 90.0% of the base's"]
    summary["allow_circular"] = True
    for c in summary["comparisons"]:
        c["verdict"] = "disqualified" if c["arm"] == "dpo" else "unclear"
    (evaluation / "summary.json").write_text(json.dumps(summary))
    report.run(finished, evaluation, tmp_path / "report")
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert next(iter(numbers_of(html, "metric"))) == "oracle_flow_bias2"
    assert next(iter(numbers_of(html, "comparison"))).endswith("oracle_flow_bias2")
    assert "dpo is disqualified (sharpness is 90.0% of the base&#39;s): no gain in oracle_flow_bias2" in html
    assert 'spoken"> clearly better' not in html
    assert "Circular judging was allowed" in html
    # Single clips have no such figure: they are ranked by what made the preferences.
    assert "in consistency, one bar" in html


def test_every_text_of_a_number_is_its_rounded_value(html):
    for value, text in re.findall(r'<data value="([^"]+)">([^<]+)</data>', html):
        written = float(text.replace("−", "-").rstrip("%")) / (100 if text.endswith("%") else 1)
        places = len(text.rstrip("%").partition(".")[2]) + (2 if text.endswith("%") else 0)
        assert written == pytest.approx(float(value), abs=0.5001 * 10**-places)


def test_the_examples_are_spread_over_the_ranking_and_show_truth_and_all_arms(page, finished):
    text = " ".join(" ".join(page.text).split())
    ranks = [int(r) for r in re.findall(r"Rank (\d+) of 4 by gain", text)]
    assert ranks == [1, 2, 3, 4]
    videos = {a["src"] for a in page.all("video")}
    for letter in "abcd":
        clips = {f"videos/{letter}-{who}.mp4" for who in ("truth", "base", "dpo", "dpo_random")}
        assert clips | {f"videos/{letter}-dpo-errors.mp4"} <= videos
    assert all("muted" in a and "playsinline" in a and a.get("aria-label") for a in page.all("video"))
    assert not any("autoplay" in a for a in page.all("video"))


def test_the_pairs_come_with_their_sheets_and_the_dropped_prompts_with_reasons(finished, page):
    text = " ".join(" ".join(page.text).split())
    pairs = read_rows(finished / "pairs", PreferencePair)
    dropped = json.loads((finished / "pairs" / "dropped.json").read_text())
    assert f"{len(pairs)} pairs" in text
    assert f"{len(dropped)} prompts gave none" in text
    assert len([a for a in page.all("img") if a["src"].startswith("sheets/") and a["alt"]]) == 2 * len(pairs)


def test_a_page_for_everybody(page, html):
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    assert all(a.get("alt") for a in page.all("img"))
    assert "prefers-color-scheme: dark" in html
    assert "prefers-reduced-motion: reduce" in html
    assert "width=device-width" in html
    assert "With only 2 prompts" in html


def test_the_folder_is_small_and_nothing_is_left_beside_it(finished):
    files = [p for p in (finished / "report").rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 5_000_000
    assert not [p for p in finished.iterdir() if p.name.startswith(".report")]


def test_a_second_report_is_the_same_page_and_replaces_the_first(finished, html):
    (finished / "report" / "stale.txt").write_text("from before")
    report.run(finished, finished / "evaluation", finished / "report")
    assert (finished / "report" / "index.html").read_text(encoding="utf-8") == html
    assert not (finished / "report" / "stale.txt").exists()


def test_a_report_that_fails_leaves_the_old_one(finished, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("stopped")

    out = tmp_path / "report"
    out.mkdir()
    (out / "index.html").write_text("old")
    monkeypatch.setattr(report, "_context", broken)
    with pytest.raises(RuntimeError):
        report.run(finished, finished / "evaluation", out)
    assert [p.name for p in tmp_path.iterdir()] == ["report"]
    assert (out / "index.html").read_text() == "old"


def test_an_unfinished_run_is_refused_with_all_that_is_missing(finished, tmp_path):
    unfinished = tmp_path / "run"
    shutil.copytree(finished, unfinished, ignore=shutil.ignore_patterns("videos", "geometry"))
    (unfinished / "scores" / "manifest.json").unlink()
    shutil.rmtree(unfinished / "pairs")
    with pytest.raises(InputError, match=r"scores .*pairs .*missing or not complete"):
        report.run(unfinished, unfinished / "evaluation", unfinished / "report")
    with pytest.raises(InputError, match="evaluation"):
        report.run(tmp_path / "nowhere", tmp_path / "nowhere" / "evaluation", tmp_path / "out")


def test_a_missing_lora_and_missing_clips_are_named(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("videos"))
    with pytest.raises(InputError, match=r"videos/.*\.mkv"):
        report.run(run, run / "evaluation", tmp_path / "out")
    (run / "lora" / "dpo" / "manifest.json").unlink()
    with pytest.raises(InputError, match="LoRA dpo"):
        report.run(run, run / "evaluation", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_later_rounds_have_their_curves_and_a_lora_from_elsewhere_has_none(tmp_path):
    """Arms of a recipe may be LoRAs that the run did not train."""
    jitter = {"base": 1.0, "dpo": 0.8, "dpo_random": 1.0, "dpo_round_2": 0.6, "elsewhere": 0.9}
    run = make(tmp_path / "run", Size(train=2, candidates=3, held_out=2, seeds=1), jitter=jitter)
    second = run / "rounds" / "2"
    (second / "lora").mkdir(parents=True)
    (run / "lora" / "dpo_round_2").rename(second / "lora" / "dpo")
    shutil.rmtree(run / "lora" / "elsewhere")
    (run / "evaluation").rename(second / "evaluation")
    record = json.loads((second / "lora/dpo/config.json").read_text())
    record["inputs"]["earlier"] = "0" * 64
    (second / "lora/dpo/config.json").write_text(json.dumps(record))
    identity = {key: record[key] for key in ("stage", "config", "inputs")}
    manifest = json.loads((second / "lora/dpo/manifest.json").read_text())
    sealed = json.dumps(manifest | {"config_sha256": hash_json(identity)})
    (second / "lora/dpo/manifest.json").write_text(sealed)
    found = report.read_run(run, second / "evaluation")
    assert {name: training.later for name, training in found.trainings.items()} == {
        **{"dpo": False, "dpo_random": False},
        "dpo_round_2": True,
    }
    html = (report.run(run, second / "evaluation", second / "report") / "index.html").read_text()
    assert "Error on the chosen, against its start" in html
    assert html.count('scope="row" class="arm"') == 3
    assert "LoRA dpo_round_2" in html
    assert ">elsewhere</th>" in html


def test_one_round_is_no_run_but_a_run_may_lie_in_a_folder_called_rounds(finished, tmp_path):
    with pytest.raises(InputError, match="is one round"):
        report.read_run(tmp_path / "run/rounds/2", tmp_path / "run/rounds/2/evaluation")
    elsewhere = tmp_path / "rounds/mine"
    shutil.copytree(finished, elsewhere)
    assert report.read_run(elsewhere, elsewhere / "evaluation").folder == elsewhere


def test_a_folder_of_other_files_is_never_replaced(finished, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds other files"):
        report.run(finished, finished / "evaluation", tmp_path)
    assert (tmp_path / "thesis.txt").exists()
