import json
import sys
from pathlib import Path

import pytest
import torch

from videogpa import __version__, cli
from videogpa.video_io import write_master, write_preview
from videogpa.world.render import render
from videogpa.world.scene import sample_scene


@pytest.fixture
def videogpa(monkeypatch, capsys):
    """Runs the command line in this process: (exit status, standard output, standard error)."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["videogpa", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def clips(tmp_path):
    """One good clip, and one of every kind that cannot be scored."""
    folder = tmp_path / "clips"
    frames = render(sample_scene(7), 9, 48, 48).rgb
    write_master(folder / "good.mkv", frames)
    write_master(folder / "one_frame.mkv", frames[:1])
    write_master(folder / "pixel.mkv", torch.rand(5, 3, 1, 1))
    (folder / "empty.mp4").write_bytes(b"")
    write_preview(folder / "whole.mp4", frames)
    whole = (folder / "whole.mp4").read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "whole.mp4").unlink()
    return folder


def test_version(videogpa):
    assert videogpa("--version")[:2] == (0, __version__ + "\n")


def test_a_bad_video_fails_alone(videogpa, clips, tmp_path):
    code, _, err = videogpa(
        "score", clips, "--geometry", "embedded", "--json", tmp_path / "s.json", "--report", tmp_path / "r",
        "--workers", 1,
    )  # fmt: skip
    assert (tmp_path / "r" / "index.html").exists()
    result = json.loads((tmp_path / "s.json").read_text())
    by_name = {v["path"].split("/")[-1]: v for v in result["videos"]}
    assert code == 3
    assert "4 of 5 rows failed" in err
    assert by_name["good.mkv"]["status"] == "ok"
    assert by_name["good.mkv"]["frames"] == 9
    assert set(by_name["good.mkv"]) == {
        *("path", "status", "reason", "frames", "metrics", "shown", "windows")
    }
    for name in ("one_frame.mkv", "pixel.mkv", "empty.mp4", "truncated.mp4"):
        assert by_name[name]["status"] == "failed", name
        assert by_name[name]["reason"]
        assert by_name[name]["metrics"] == {}
    assert result["geometry"] == "embedded"
    assert result["licenses"] == {"embedded": "Apache-2.0"}
    assert len(result["protocol"]) == 16


def test_what_cannot_be_judged_is_null_with_a_reason(videogpa, tmp_path):
    write_master(tmp_path / "grey.mkv", torch.full((6, 3, 48, 48), 0.5))
    frame = render(sample_scene(3), 1, 64, 64).rgb
    write_master(tmp_path / "frozen.mkv", frame.expand(6, -1, -1, -1))
    for geometry in ("embedded", "sfm"):
        code, _, _ = videogpa(
            "score", tmp_path, "--geometry", geometry, "--json", tmp_path / "s.json", "--workers", 1
        )
        assert code == 0
        for video in json.loads((tmp_path / "s.json").read_text())["videos"]:
            assert video["status"] == "ok"
            assert video["metrics"]["consistency"] is None
            assert video["reason"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["score", "{tmp}/nothing_here"], "contains no video"),
        (["score", "{tmp}/x.mkv", "--geometry", "magic"], "no geometry plug-in named 'magic'"),
        (["score", "{tmp}/x.mkv", "--geometry-option", "wide"], "'wide' is not of the form NAME=VALUE"),
        (["score", "{tmp}/x.mkv", "--geometry-option", "wide=1"], "'sfm' has no option 'wide'"),
        (["score", "{tmp}/x.mkv", "--geometry", "vggt"], "needs the option 'weights'"),
        (
            ["score", "{tmp}/x.mkv", "--geometry", "vggt", "--geometry-option", "weights={tmp}"],
            "add --accept-license CC-BY-NC-4.0",
        ),
        (
            ["sample", "--out", "{tmp}/o", "--prompt", "a room", "--best-of", "2", "--geometry", "magic"],
            "no geometry plug-in named 'magic'",
        ),
        (["sample", "--out", "{tmp}/o"], "give either --prompts"),
        (["sample", "--out", "{tmp}/o", "--prompt", "a room", "--model", "{tmp}/no"], "does not exist"),
        (["sample", "--out", "{tmp}/o", "--prompt", "a room", "--lora", "{tmp}/no"], "does not exist"),
        (["sample", "--out", "{tmp}/o", "--prompt", "a room", "--dtype", "float7"], "dtype"),
        (["prompts", "files", "{tmp}/no.txt", "--out", "{tmp}/o"], "no.txt does not exist"),
        (["prompts", "world", "--split", "test", "--out", "{tmp}/o"], "'test' is not one of"),
        (["pair", "{tmp}/no", "--out", "{tmp}/o"], "does not exist"),
        (["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--lora", "nonsense"], "NAME=FOLDER"),
        (["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--other-model", "nonsense"], "NAME=FOLDER@FAMILY"),
        (["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--best-of", "1"], "N at least 2"),
        (["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--best-of", "dpo=4"], "NAME that of a --lora"),
        (
            [
                "evaluate",
                "{tmp}/no",
                "--out",
                "{tmp}/o",
                "--lora",
                "base_best_of_2=embedded",
                "--best-of",
                "2",
            ],
            "two arms are called 'base_best_of_2'",
        ),
        (["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--compare", "dpo"], "is not of the form ARM:AGAINST"),
        (["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--compare", "dpo:base"], "unknown arm 'dpo'"),
        (["evaluate", "--out", "{tmp}/o"], "give the folder of held-out prompts"),
        (
            ["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--scores", "x.csv"],
            "/o without --scores and --overwrite first",
        ),
        (["sample", "--out", "{tmp}/o", "--prompt", "a", "--frames", "0"], "greater than or equal to 1"),
        (["sample", "--out", "{tmp}/o", "--prompt", "a", "--guidance-scale", "inf"], "finite number"),
        (["sample", "--out", "{tmp}/o", "--prompt", "a", "--lora-strength", "2"], "that of a --lora"),
        (["sample", "--out", "{tmp}/o", "--prompts", "{tmp}/p", "--image", "x.png"], "of a --prompt"),
        (
            ["sample", "--out", "{tmp}/o", "--prompt", "a", "--best-of", "2", "--candidates", "3"],
            "leave --candid",
        ),
        (
            ["sample", "--out", "{tmp}/o", "--prompt", "a" * 9, "--model", "{tmp}/" + "x" * 5000],
            "name too long",
        ),
        (["pair", "{tmp}/no", "--out", "{tmp}/o", "--motion-match", "nan"], "motion_match"),
        (["export-pairs", "{tmp}/a", "{tmp}/a", "{tmp}/a", "--out", "{tmp}/o", "--public"], "--push"),
        (["train", "{tmp}/a", "{tmp}/a", "--plan", "--out", "{tmp}/o"], "--plan writes nothing"),
        (["train", "{tmp}/a", "{tmp}/a", "--out", "{tmp}/o", "--maps", "{tmp}/m"], "set 'dense'"),
        (
            ["train", "{tmp}/a", "{tmp}/a", "--out", "{tmp}/o", "--reference-cache", "{tmp}/c"],
            "--cache-reference",
        ),
        (["doctor", "{tmp}/a", "--probe", "2"], "--prompts"),
        (["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--best-of", "²"], "N at least 2"),
        (
            ["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--lora", "a=x", "--lora", "a=y"],
            "two arms are called 'a'",
        ),
        (
            ["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--best-of", "2", "--best-of", "base_best_of_2=3"],
            "NAME that of a --lora",
        ),
        (
            ["evaluate", "{tmp}/no", "--out", "{tmp}/o", "--trained-by", "edge_agrement"],
            "did you mean 'edge_agreement'?",
        ),
        (["strength-sweep", "{tmp}/no", "--out", "{tmp}/o", "--lora", "x", "--strengths", "nan"], "finite"),
        (["run", "quick", "--out", "{tmp}/o", "--exact"], "takes no --model, --prompts or other option"),
        (["run", "quick", "--out", "{tmp}/o", "--store", "{tmp}/s"], "is no address"),
        (["prompts", "world", "--out", ""], "--out is empty"),
        (["score", "{tmp}/x.mkv", "--json="], "--json is empty"),
        (["prompts", "world", "--out", "{tmp}/\udcff"], "is not UTF-8 text: rename it"),
        (
            ["study", "create", "{tmp}/a", "{tmp}/a", "--out", "{tmp}/o", "--config", "{tmp}"],
            "is a folder, not a",
        ),
        (["run", "nonsense", "--out", "{tmp}/o"], "no recipes plug-in named 'nonsense'"),
        (["list", "colours"], "'colours'"),
        (["export", "{tmp}/x.mkv", "--out", "{tmp}/o", "--format", "obj"], "no export plug-in named 'obj'"),
        (["export", "{tmp}/x.mkv", "--out", "{tmp}/o", "--format", "ply"], "x.mkv does not exist"),
    ],
)
def test_wrong_input_is_one_clear_line(videogpa, tmp_path, arguments, message):
    (tmp_path / "nothing_here").mkdir()
    code, _, err = videogpa(*(a.format(tmp=tmp_path) for a in arguments))
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err


def test_what_no_prompt_can_be_drawn_with_names_the_reason(videogpa, tmp_path):
    code, _, err = videogpa(
        "sample", "--out", tmp_path / "o", "--prompt", "a room", "--frames", 8, "--workers", 1
    )
    assert code == 3
    assert "8 frames do not fit" in err
    assert len(err.strip().splitlines()) == 1


def test_debug_shows_the_traceback(monkeypatch, tmp_path):
    from videogpa.errors import InputError

    monkeypatch.setattr(
        sys, "argv", ["videogpa", "pair", str(tmp_path / "no"), "--out", str(tmp_path), "--debug"]
    )
    with pytest.raises(InputError):
        cli.main()


@pytest.mark.parametrize("kind", ["families", "geometry", "metrics", "recipes", "export"])
def test_list_names_and_describes(videogpa, kind):
    code, out, _ = videogpa("list", kind)
    assert code == 0
    assert all(len(line.split(maxsplit=1)) == 2 for line in out.strip().splitlines())


def test_geometry_models_are_listed_with_their_terms(videogpa, monkeypatch):
    monkeypatch.setattr(cli, "installed", lambda modules: not modules)
    code, out, _ = videogpa("list", "geometry")
    lines = out.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert code == 0
    assert max(map(len, lines)) <= 120
    assert "Apache-2.0" in rows["embedded"]
    assert rows["vggt"].split()[1] == "no"
    assert lines[lines.index(rows["vggt"]) + 1].strip().startswith("pip install")
    assert rows["monocular"].split()[1] == "yes"
    assert rows["sfm"].endswith("depth poses confidence")


def test_options_and_consents_reach_the_scores(videogpa, clips, tmp_path):
    code, _, err = videogpa(
        "score", clips / "good.mkv", "--geometry", "embedded", "--geometry-option", "field_of_view_degrees=50",
        "--accept-license", "unknown", "--metric", "motion", "--json", tmp_path / "s.json", "--workers", 1,
    )  # fmt: skip
    assert code == 0, err
    plain = ("--geometry", "embedded", "--metric", "motion", "--json", tmp_path / "p.json", "--workers", 1)
    assert videogpa("score", clips / "good.mkv", *plain)[0] == 0
    protocols = [json.loads((tmp_path / name).read_text())["protocol"] for name in ("s.json", "p.json")]
    assert protocols[0] != protocols[1]


def test_best_of_keeps_the_most_consistent(videogpa, tmp_path):
    code, _, _ = videogpa(
        "sample", "--prompt", "a room with a box; the camera trucks left steadily", "--best-of", 3,
        "--steps", 2, "--frames", 5, "--out", tmp_path / "o", "--workers", 1,
    )  # fmt: skip
    assert code in (0, 3)
    scores = [json.loads(line) for line in (tmp_path / "o/scores/rows.jsonl").read_text().splitlines()]
    values = {s["id"]: s["metrics"]["consistency"] for s in scores if s["metrics"]["consistency"] is not None}
    (best,) = [json.loads(line) for line in (tmp_path / "o/best/rows.jsonl").read_text().splitlines()]
    if values:
        assert (tmp_path / "o/best" / best["video"]).read_bytes() == (
            tmp_path / "o/candidates/videos" / f"{max(values, key=values.get)}.mkv"
        ).read_bytes()
    else:
        assert best["status"] == "failed"


def test_families_are_listed_with_memory_and_licence(videogpa):
    code, out, _ = videogpa("list", "families")
    rows = [line for line in out.splitlines() if line.startswith("cogvideox")]
    assert code == 0
    assert any("2B" in row and "apache-2.0" in row and "consent" not in row for row in rows)
    assert any("1.5 5B I2V" in row and "10.4 (5.2)" in row and "(consent)" in row for row in rows)


def test_training_needs_a_folder_or_a_plan(videogpa, tmp_path):
    code, _, err = videogpa("train", tmp_path / "pairs", tmp_path / "candidates")
    assert code == 2
    assert "give --out FOLDER for the LoRA, or --plan" in err


def test_the_doctor_and_exports_name_what_is_not_there(videogpa, tmp_path):
    code, _, err = videogpa("doctor", tmp_path / "absent")
    assert code == 2
    assert "holds no training" in err
    code, _, err = videogpa("export-lora", tmp_path / "absent", "--out", tmp_path / "out")
    assert code == 2
    assert "no LoRA at" in err
    code, _, err = videogpa(
        "strength-sweep", tmp_path, "--lora", tmp_path, "--strengths", "1,half", "--out", tmp_path / "out"
    )
    assert code == 2
    assert "are no numbers" in err


def test_the_shipped_lora_leaves_for_other_programs(videogpa, tmp_path):
    lora = Path(cli.__file__).parent / "weights" / "lora"
    code, out, err = videogpa("export-lora", lora, "--format", "peft,comfyui", "--out", tmp_path / "out")
    assert code == 0, err
    assert out.splitlines()[-1].endswith("README.md")
    assert (tmp_path / "out/peft/adapter_config.json").is_file()


def test_a_published_recipe_asks_for_its_model(videogpa, tmp_path):
    code, _, err = videogpa("run", "cogvideox_5b", "--out", tmp_path / "out")
    assert code == 2
    assert "needs --model" in err
    code, _, err = videogpa("run", "quick", "--model", "m", "--out", tmp_path / "out")
    assert code == 2
    assert "takes no --model" in err
    code, _, err = videogpa("run", "quick", "--evaluation-geometry", "sfm", "--out", tmp_path / "out")
    assert (code, "other option but --reward" in err) == (2, True)


def test_an_evaluation_of_best_of_and_a_lora(videogpa, tmp_path):
    code, _, err = videogpa("prompts", "world", "--count", 1, "--out", tmp_path / "prompts")
    assert code == 0, err
    arguments = (
        "evaluate", tmp_path / "prompts", "--out", tmp_path / "o", "--lora", "half=embedded@0.5", "--best-of", 2,
        "--best-by", "consistency", "--compare", "base_best_of_2:base", "--compare", "half:base_best_of_2",
        "--primary", "oracle_flow_bias2", "--seeds", 2, "--steps", 1, "--frames", 5, "--workers", 1,
    )  # fmt: skip
    code, out, err = videogpa(*arguments)
    assert code in (0, 3), err
    summary = json.loads(Path(out.strip()).read_text())
    assert set(summary["arms"]) == {"base", "half", "base_best_of_2"}
    assert {(c["arm"], c["against"]) for c in summary["comparisons"]} == {
        ("base_best_of_2", "base"),
        ("half", "base_best_of_2"),
    }
    assert summary["primary"] == summary["comparisons"][0]["metric"] == "oracle_flow_bias2"
    assert summary["circular"] == {
        arm: ["consistency", "cross_view", "edge_agreement", "paper_reward"]
        for arm in ("half", "base_best_of_2")
    }
    arms = json.loads((tmp_path / "o/config.json").read_text())["config"]["arms"]
    assert (arms["half"]["strength"], arms["base_best_of_2"]["best_of"]) == (0.5, 2)
    code, _, err = videogpa(*arguments, "--trained-by", "oracle_flow_bias2")
    assert code == 2
    assert "judges by what made arm 'half'" in err
    drawn = [row for row in map(json.loads, (tmp_path / "o/rows.jsonl").read_text().splitlines())]
    numbers = [
        {key: row[key] for key in ("arm", "prompt_id", "seed")} | {"metric": "dino", "value": 0.5}
        for row in drawn
        if row["status"] == "ok"
    ]
    (tmp_path / "dino.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in numbers))
    for added in (("evaluate", "--out", tmp_path / "o"), arguments):
        code, out, err = videogpa(*added, "--scores", tmp_path / "dino.jsonl")
        assert code in (0, 3), err
        assert json.loads(Path(out.strip()).read_text())["arms"]["half"]["dino"] == 0.5
    for refused in (("--overwrite",), ("--scores", tmp_path / "none.csv")):
        code, _, err = videogpa(*arguments, "--scores", tmp_path / "dino.jsonl", *refused)
        assert (code, len(err.strip().splitlines())) == (2, 1)
    assert (tmp_path / "o/external/dino.jsonl").exists()


def test_only_the_metrics_asked_for_without_a_geometry_model(videogpa, tmp_path):
    write_master(tmp_path / "noise.mkv", torch.rand(4, 3, 48, 48))
    code, out, err = videogpa(
        "score", tmp_path / "noise.mkv", "--metric", "dynamic_degree", "--metric", "sharpness", "--reward",
        "sharpness", "--geometry", "vggt", "--json", tmp_path / "s.json", "--workers", 1,
    )  # fmt: skip
    assert code == 0, err
    assert out.split()[:3] == ["sharpness", "dynamic_degree", "video"]
    result = json.loads((tmp_path / "s.json").read_text())
    assert (result["geometry"], result["licenses"]) == (None, {})
    assert set(result["videos"][0]["metrics"]) == {"sharpness", "dynamic_degree"}
