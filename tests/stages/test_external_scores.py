import csv
import json
import math
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogpa.errors import InputError
from videogpa.stages.external_scores import ExternalScore, read_external_scores

FIELDS = ("arm", "prompt_id", "seed", "metric", "value", "higher_is_better")
KNOWN = [(arm, prompt, seed) for arm in ("base", "dpo") for prompt in ("p0", "p1") for seed in (0, 1)]
HEADER = "arm,prompt_id,seed,metric,value"
GOOD = {"arm": "base", "prompt_id": "p0", "seed": 0, "metric": "clip", "value": 0.5}

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
keys = st.tuples(names, names, st.integers(0, 2**40))
finite = st.floats(-1e100, 1e100)


@st.composite
def tables(draw) -> list[ExternalScore]:
    """Complete rows of one to three metrics about one to six videos, in any order."""
    known = draw(st.lists(keys, min_size=1, max_size=6, unique=True))
    directions = draw(st.dictionaries(st.sampled_from(["clip", "vb-dino", "X_1"]), st.booleans(), min_size=1))
    rows = [
        ExternalScore(
            arm=arm, prompt_id=prompt, seed=seed, metric=metric, value=draw(finite), higher_is_better=better
        )
        for metric, better in directions.items()
        for arm, prompt, seed in known
    ]
    return draw(st.permutations(rows))


def written(rows: list[ExternalScore], kind: str, folder: str) -> Path:
    path = Path(folder) / f"scores.{kind}"
    records = [row.model_dump() for row in rows]
    if kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    else:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, FIELDS)
            writer.writeheader()
            writer.writerows(records)
    return path


def text(tmp_path: Path, content: str, name: str = "scores.csv") -> Path:
    (tmp_path / name).write_text(content, "utf-8")
    return tmp_path / name


def refused(path: Path, message: str, **options) -> None:
    with pytest.raises(InputError, match=message):
        read_external_scores(path, KNOWN, **options)


@given(tables(), st.sampled_from(["csv", "jsonl"]))
def test_what_was_written_is_read_back_in_its_order(rows, kind):
    with tempfile.TemporaryDirectory() as folder:
        assert read_external_scores(written(rows, kind, folder), {row.key for row in rows}) == rows


@given(tables(), st.data())
def test_a_row_taken_away_is_noticed_unless_a_partial_cover_is_allowed(rows, data):
    known = {row.key for row in rows}
    lost = data.draw(st.integers(0, len(rows) - 1))
    kept = rows[:lost] + rows[lost + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        path = written(kept, "jsonl", folder)
        if not kept:
            with pytest.raises(InputError, match="holds no scores"):
                read_external_scores(path, known, partial=True)
            return
        assert read_external_scores(path, known, partial=True) == kept
        if any(row.metric == rows[lost].metric for row in kept):
            with pytest.raises(InputError, match=r"has no value for 1 of .* videos"):
                read_external_scores(path, known)


@given(tables(), st.sampled_from(["csv", "jsonl"]), st.booleans(), st.data())
def test_a_row_said_twice_or_about_an_unknown_video_is_refused(rows, kind, partial, data):
    row = data.draw(st.sampled_from(rows))
    known = {r.key for r in rows}
    with tempfile.TemporaryDirectory() as folder:
        twice = written([*rows, row.model_copy(update={"value": data.draw(finite)})], kind, folder)
        with pytest.raises(InputError, match=r"again, as line \d+ did; remove one"):
            read_external_scores(twice, known, partial=partial)
        with pytest.raises(InputError, match=r"line \d+: (unknown arm|unknown prompt|arm .* has no seed)"):
            read_external_scores(written(rows, kind, folder), known - {row.key}, partial=partial)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999", "", "high", "0,5", "true"])
def test_what_is_no_number_is_refused_with_its_line(tmp_path, value):
    cell = f'"{value}"' if "," in value else value
    refused(text(tmp_path, f"{HEADER}\nbase,p0,0,clip,0.5\nbase,p0,1,clip,{cell}\n"), "line 3.*value")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"value": math.nan}, "value nan is no finite number; leave out"),
        ({"value": -1.1e100}, r"value -1\.1e\+100 is beyond 1e\+100 either way; rescale the metric"),
        ({"value": "0.5"}, "value '0.5' does not fit"),
        ({"value": True}, "value True does not fit"),
        ({"value": None}, "value None does not fit"),
        ({"seed": 0.5}, "seed 0.5 does not fit"),
        ({"seed": True}, "seed True does not fit"),
        ({"seed": "0"}, "seed '0' does not fit"),
        ({"seed": 7}, "arm 'base' has no seed 7 of prompt 'p0'; use one of 0, 1"),
        ({"arm": "bse"}, "unknown arm 'bse'; use one of base, dpo"),
        ({"prompt_id": "p9"}, r"unknown prompt 'p9'; use the evaluation's ids \(p0, p1\)"),
        ({"metric": "consistency"}, "'consistency' is a metric of this package; give yours another name"),
        ({"metric": "oracle_bias2"}, "is a metric of this package"),
        ({"metric": "their.module"}, "may have letters, digits, _ and - only"),
        ({"metric": "clip\n"}, "may have letters, digits, _ and - only"),
        ({"higher_is_better": "yes"}, "higher_is_better 'yes' does not fit"),
        ({"higher_is_beter": False}, "'higher_is_beter' is no known field"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_with_its_line_and_the_fix(tmp_path, change, message):
    path = text(tmp_path, f"\n{json.dumps(GOOD | change)}\n", "scores.jsonl")
    refused(path, f"line 2: .*{message}", partial=True)


@pytest.mark.parametrize("field", FIELDS[:5])
def test_a_missing_field_is_named(tmp_path, field):
    record = {name: value for name, value in GOOD.items() if name != field}
    refused(text(tmp_path, json.dumps(record), "scores.jsonl"), f"line 1: there is no {field}; fill it in")
    cells = ",".join("" if name == field else str(value) for name, value in GOOD.items())
    refused(text(tmp_path, f"{HEADER}\n{cells}\n"), f"line 2: there is no {field}; fill it in")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (f"{HEADER}\nbase,p0,0,clip\n", "a.csv", "line 2 has 4 cells, but the header has 5"),
        (f"{HEADER}\nbase,p0,0,clip,0,5\n", "a.csv", "line 2 has 6 cells, but the header has 5"),
        (f"{HEADER},value\nbase,p0,0,clip,1,2\n", "a.csv", "line 1 names a column twice"),
        (f'{HEADER}\n"base,p0,0,clip,1\n', "a.csv", "cannot read scores from"),
        (f"{HEADER}\n", "a.csv", "holds no scores"),
        ("", "a.csv", "holds no scores"),
        ("{\n", "a.jsonl", "line 1 is not JSON .* write one object a line"),
        ('{"value": 1, "value": 2}', "a.jsonl", r"line 1 is not JSON \(a field is there twice\)"),
        ("[1]\n", "a.jsonl", "line 1 is no object"),
        ("[" * 100_000, "a.jsonl", "line 1 is not JSON"),
        ("[]", "a.json", "is no table of scores; give .csv .* or .jsonl"),
    ],
)
def test_a_table_that_cannot_be_read_says_why(tmp_path, content, name, message):
    refused(text(tmp_path, content, name), message, partial=True)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_no_file_and_no_text_say_so(tmp_path, kind):
    refused(tmp_path / f"gone.{kind}", "gone.* does not exist")
    (tmp_path / f"scores.{kind}").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path / f"scores.{kind}", "cannot read scores from .*UTF-8")


def test_a_metric_has_one_direction(tmp_path):
    lines = "\ufeffarm,prompt_id,seed,metric,value,higher_is_better\nbase,p0,0,fid,3,false\n"
    (row,) = read_external_scores(text(tmp_path, lines), KNOWN, partial=True)
    assert not row.higher_is_better
    both = lines + "base,p0,1,fid,4,\n"
    refused(
        text(tmp_path, both), "line 3: higher_is_better of 'fid' is true, but false in line 2", partial=True
    )


def test_what_is_missing_is_counted_and_named(tmp_path):
    path = text(tmp_path, f"{HEADER}\nbase,p0,0,clip,0.5\n")
    refused(
        path,
        "'clip' has no value for 7 of 8 videos, the first being arm 'base', prompt 'p0', seed 1; add them",
    )


def test_nobody_waits_for_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "scores.csv")
    with pytest.raises(InputError, match=r"scores\.csv is no file"):
        read_external_scores(tmp_path / "scores.csv", set())
