"""Every command with good inputs, small enough for thousands of calls, and the calls that are wrong in themselves."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
import typer

from tests.stages import finished_run, preferences
from videogpa.artifact import hash_file, open_artifact, read_rows, write_json_atomic
from videogpa.cli import app
from videogpa.geometry.base import save_prediction
from videogpa.stages import error_maps, pair, prompts, sample
from videogpa.stages.against_truth import BETWEEN
from videogpa.stages.pair import PairConfig
from videogpa.stages.prompts import WorldPrompts
from videogpa.stages.sample import SampleConfig
from videogpa.stages.score import ScoreConfig
from videogpa.study.material import create
from videogpa.study.plan import StudyConfig
from videogpa.study.server import read_study
from videogpa.study.votes import Votes, sqlite_url
from videogpa.types import Candidate, EvalRow, Prompt, Score
from videogpa.video_io import read_video, write_image, write_master, write_preview
from videogpa.weights import GENERATOR, LORA
from videogpa.world.render import render
from videogpa.world.scene import sample_scene
from videogpa.world.truth import exact_geometry

ONE = " --workers 1"
SMALL = "--steps 1 --frames 5 --height 32 --width 32 --workers 1"


@dataclass(frozen=True)
class Call:
    """A command line that succeeds. `{name}` is a copy of that material, `{out}` a folder that is there to be written
    into; `writes` are materials that the command itself changes, `files` the ones worth damaging (by pattern).
    """

    line: str
    writes: tuple[str, ...] = ()
    files: tuple[str, ...] = ("rows.jsonl", "manifest.json", "config.json", "*")
    costly: bool = False


CALLS: dict[str, tuple[Call, ...]] = {
    "score": (
        Call("score {clips} --metric sharpness --json {out}/scores.json --workers 1"),
        Call("score {clips} --geometry embedded --metric motion --metric sharpness --json {out}/s.json --workers 1"),
        Call("score {clip} {mp4} --metric sharpness --window 3 --report {out}/report --heatmaps {out}/h --workers 1"),
    ),
    "export": (
        Call("export {geometry} --format ply,glb,colmap --out {out}/points"),
        Call("export {clip} --geometry embedded --out {out}/points"),
    ),
    "prompts world": (Call("prompts world --count 2 --out {out}/prompts"),),
    "prompts files": (
        Call("prompts files {prompts.json} --out {out}/prompts"),
        Call("prompts files {prompts.jsonl} --out {out}/prompts"),
        Call("prompts files {prompts.csv} --out {out}/prompts"),
        Call("prompts files {prompts.txt} --out {out}/prompts"),
        Call("prompts files {pictures} --out {out}/prompts"),
    ),
    "sample": (
        Call("sample --prompts {prompts} --out {out}/drawn --candidates 1 " + SMALL, costly=True),
        Call("sample --prompt room --image {picture.png} --out {out}/drawn " + SMALL, costly=True),
        Call("sample --prompt room --lora {lora} --out {out}/drawn " + SMALL, costly=True),
        Call(
            "sample --prompt room --model {model} --out {out}/drawn " + SMALL, costly=True,
            files=("model_index.json", "*config.json", "*.safetensors", "tokenizer.json"),
        ),
    ),
    "score-candidates": (
        Call("score-candidates {candidates} --metric sharpness --out {out}/scores --workers 1"),
        Call("score-candidates {candidates} --prompts {prompts} --metric oracle_psnr --out {out}/s --workers 1"),
    ),
    "pair": (
        Call("pair {scores} --out {out}/pairs"),
        Call("pair {scores} --reward paper --pairs-per-prompt 2 --motion-match 1 --least-motion 0.1 --out {out}/pairs"),
    ),
    "import-pairs": (
        Call("import-pairs {folders} --out {out}/i --workers 1"),
        Call("import-pairs {table} --out {out}/i --no-previews --workers 1", files=("*.jsonl", "*")),
        Call("import-pairs {published} --out {out}/i --no-previews" + ONE, files=("*.json", "*.json", "*")),
        Call("import-pairs {comma} --out {out}/i --no-previews --workers 1", files=("*.csv", "*.csv", "*")),
    ),
    "encode": (
        Call("encode {candidates} {prompts} --frames 3 --out {out}/encoded --workers 1", costly=True),
    ),
    "export-pairs": (
        Call("export-pairs {pairs} {candidates} {prompts} --out {out}/dataset --workers 1"),
        Call("export-pairs {pairs} {candidates} {prompts} --format videogpa --scores {scores} --out {out}/d" + ONE),
        Call("export-pairs {pairs} {candidates} {prompts} --format simpletuner --video mp4 --out {out}/d --workers 1"),
    ),
    "export-evaluation": (
        Call(
            "export-evaluation {evaluation} {held_out} --video lossless --out {out}/dataset --workers 1",
            files=("rows.jsonl", "config.json", "summary.json", BETWEEN, "*"),
        ),
    ),
    "error-maps": (Call("error-maps {scores} --out {out}/maps --workers 1"),),
    "train": (
        Call("train {drawn_pairs} {drawn} --config {train.json} --out {out}/trained", costly=True),
        Call("train {drawn_pairs} {drawn} --config {dense.json} --maps {maps} --out {out}/trained", costly=True),
        Call("train {drawn_pairs} {drawn} --config {train.json} --plan"),
    ),
    "doctor": (Call("doctor {run}", files=("config.json", "log.csv", "training.json", "summary.json", "*")),),
    "export-lora": (
        Call("export-lora {lora} --format diffusers,peft,comfyui --out {out}/exported"),
        Call("export-lora {lora} --format merged --model {model} --out {out}/e", files=("*.safetensors", "*.json")),
    ),
    "strength-sweep": (
        Call(
            "strength-sweep {held_out} --lora {lora} --strengths 1 --seeds 1 --steps 1 --out {out}/e" + ONE,
            costly=True,
        ),
    ),
    "evaluate": (
        Call("evaluate {held_out} --lora one={lora} --seeds 1 --out {out}/e " + SMALL, costly=True),
        Call(
            "evaluate --out {evaluation} --scores {outside.csv}", writes=("evaluation",),
            files=("*.csv", "summary.json", "config.json", BETWEEN, "rows.jsonl", "*"),
        ),
        Call("evaluate --out {evaluation} --scores {outside.jsonl}", writes=("evaluation",), files=("*.jsonl",)),
    ),
    "report": (
        Call("report {run} --workers 1", writes=("run",), files=("*.json", "*.jsonl", "*.csv", "*")),
    ),
    "run": (Call("run tests.hardness.refused --prompts {prompts.json} --out {out}/run --workers 1"),),
    "plan": (Call("plan tests.hardness.refused --prompts {prompts.json} --out {out}/pilot"),),
    "copy": (Call("copy {prompts} file://{out}/stored"), Call("copy file://{stored} {out}/run")),
    "benchmark reward": (
        Call("benchmark reward --scenes 1 --size 32 --frames 3 --metric sharpness --out {out}/b" + ONE, costly=True),
        Call(
            "benchmark reward --scenes 1 --size 32 --frames 3 --metric sharpness --samples {candidates} "
            "--prompts {prompts} --out {out}/b --workers 1", costly=True,
        ),
    ),
    "study create": (
        Call("study create {evaluation} {held_out} --config {study.json} --out {out}/study --workers 1"),
    ),
    "study serve": (Call("study serve {study} --port 0 --admin-token secret", writes=("study",)),),
    "study results": (
        Call("study results {study} --evaluation {evaluation} --out {out}/results",
             files=("votes.sqlite3", "config.json", "manifest.json", "rows.jsonl", "summary.json")),
    ),
    "study power": (Call("study power 0.6"), Call("study power 0.6 --votes 100")),
    "list": (Call("list metrics"), Call("list geometry"), Call("list families")),
}  # fmt: skip

WRONG = """
score
score {out}
score {clips} --full-size --window 3
score {clips} --full-size --metric motion
score {clips} --metric nothing
score {clips} --metric ../sharpness
score {clips} --metric sharpness --reward nothing
score {clips} --geometry nothing
score {clips} --geometry nothing.at.all
score {clips} --geometry embedded --geometry-option nothing=1
score {clips} --geometry embedded --geometry-option nothing
score {clips} --geometry sfm --geometry-option =1
score {clips} --gpus-per-worker 1
score {clips} --metric sharpness --report {clips}
score {clips} --metric sharpness --workers 0
export {clip}
export {clip} --out {out}/x --format
export {clip} --out {out}/x --format nothing
export {geometry} --out {out}/x --format ply,,glb
export {geometry} --out {out}/x --format ply --min-confidence nan
export {geometry} --out {out}/x --format ../ply
export {clips} --out {out}/x
prompts
prompts world
prompts files {prompts.json}
prompts files {clips} --out {out}/x
prompts files {clip} --out {out}/x
prompts files {out} --out {out}/x
prompts world --count 2 --out {clip}
prompts world --count 2 --out {clips}
sample --out {out}/x
sample --out {out}/x --prompt a --prompts {prompts}
sample --out {out}/x --image {picture.png}
sample --out {out}/x --prompts {prompts} --image {picture.png} --steps 1 --frames 5 --height 32 --width 32
sample --out {out}/x --prompt a --best-of 2 --shard 1/2
sample --out {out}/x --prompt a --best-of 1
sample --out {out}/x --prompt a --best-of 2 --candidates 3
sample --out {out}/x --prompt a --shard 3/2
sample --out {out}/x --prompt a --shard a/b
sample --out {out}/x --prompt a --shard 1
sample --out {out}/x --prompt a --shard merge/2
sample --out {out}/x --prompt a --model {clips}
sample --out {out}/x --prompt a --model {clip}
sample --out {out}/x --prompt a --lora {clip}
sample --out {out}/x --prompt a --lora {clips}
sample --out {out}/x --prompt a --lora-strength 2 --steps 1
sample --out {out}/x --prompt a --family nothing
sample --out {out}/x --prompt a --family cogvideox --steps 1
sample --out {out}/x --prompt a --device nothing --steps 1
sample --out {out}/x --prompt a --device cuda:99 --steps 1
sample --out {out}/x --prompt a --frames 0
sample --out {out}/x --prompt a --steps 0
sample --out {out}/x --prompt a --height -48
sample --out {out}/x --prompt a --height 1
sample --out {out}/x --prompt a --width 47 --steps 1
sample --out {out}/x --prompt a --frames 6 --steps 1
sample --out {out}/x --prompt a --height 1000000000000 --steps 1
sample --out {out}/x --prompt a --frames 1000000001 --steps 1
sample --out {out}/x --prompt a --guidance-scale nan
sample --out {out}/x --prompt a --guidance-scale inf
sample --out {out}/x --prompt a --guidance-scale -1
sample --out {out}/x --prompt a --shared-noise nan
sample --out {out}/x --prompt a --lora embedded --lora-strength nan --steps 1
sample --out {out}/x --prompt a --gpus-per-worker nan
sample --out {clip} --prompt a --steps 1
sample --out {out}/x --prompts {scores}
score-candidates {prompts} --out {out}/x
score-candidates {candidates} --out {candidates}
score-candidates {candidates} --out {scores} --metric sharpness
score-candidates {candidates} --out {out}/x --prompts {candidates} --metric oracle_psnr
score-candidates {candidates} --out {out}/x --prompts {held_out} --metric oracle_psnr
score-candidates {clips} --out {out}/x
pair {candidates} --out {out}/x
pair {scores} --out {scores}
pair {scores} --out {pairs} --overwrite --min-margin 9
pair {scores} --out {out}/x --reward nothing
pair {scores} --out {out}/x --reward sharpness.x
pair {scores} --out {out}/x --motion-match -1
pair {scores} --out {out}/x --motion-match 0
pair {scores} --out {out}/x --motion-match nan
pair {scores} --out {out}/x --least-motion -1
pair {scores} --out {out}/x --min-margin nan
pair {scores} --out {out}/x --min-margin inf
pair {scores} --out {out}/x --min-margin 1e300
import-pairs {out} --out {out}/x
import-pairs {clips} --out {out}/x
import-pairs {clip} --out {out}/x
import-pairs nobody/nothing --out {out}/x
import-pairs ../nothing --out {out}/x
import-pairs {folders} --out {out}/x --format table
import-pairs {table} --out {out}/x --format folders
import-pairs {table} --out {out}/x --format videogpa
import-pairs {table} --out {out}/x --column nothing=chosen
import-pairs {table} --out {out}/x --column chosen=nothing
import-pairs {table} --out {out}/x --column chosen
import-pairs {table} --out {out}/x --column chosen=1
import-pairs {table} --out {out}/x --column chosen=rejected
import-pairs {published} --out {out}/x --min-gap nan
import-pairs {published} --out {out}/x --min-motion inf
import-pairs {published} --out {out}/x --metric nothing
import-pairs {published} --out {out}/x --column prompt=a
encode {candidates} {prompts} --out {out}/x --height 32
encode {candidates} {prompts} --out {out}/x --frames 4
encode {candidates} {prompts} --out {out}/x --frames 99
encode {candidates} {held_out} --out {out}/x
encode {prompts} {candidates} --out {out}/x
encode {candidates} {prompts} --out {candidates}
encode {candidates} {prompts} --out {out}/x --model {clips}
encode {candidates} {prompts} --out {out}/x --device nothing
export-pairs {scores} {candidates} {prompts} --out {out}/x
export-pairs {pairs} {candidates} {held_out} --out {out}/x
export-pairs {pairs} {prompts} {candidates} --out {out}/x
export-pairs {pairs} {candidates} {prompts} --out {out}/x --push ../x
export-pairs {pairs} {candidates} {prompts} --out {out}/x --push a --format videogpa
export-pairs {pairs} {candidates} {prompts} --out {out}/x --push a/b --format videogpa
export-pairs {pairs} {candidates} {prompts} --out {out}/x --public
export-pairs {pairs} {candidates} {prompts} --out {pairs}
export-pairs {pairs} {candidates} {prompts} --out {out}/x --scores {candidates} --format videogpa
export-evaluation {prompts} {held_out} --out {out}/x
export-evaluation {evaluation} {prompts} --out {out}/x
export-evaluation {evaluation} {held_out} --out {evaluation}
export-evaluation {evaluation} {held_out} --out {out}/x --public
error-maps {candidates} --out {out}/x
error-maps {scores} --out {scores}
train {pairs} {candidates} --out {out}/x
train {drawn_pairs} {drawn}
train {drawn_pairs} {drawn} --plan --out {out}/x
train {drawn_pairs} {candidates} --out {out}/x --config {train.json}
train {drawn} {drawn_pairs} --out {out}/x --config {train.json}
train {drawn_pairs} {drawn} --out {out}/x --config {clips}
train {drawn_pairs} {drawn} --out {out}/x --config {clip}
train {drawn_pairs} {drawn} --out {out}/x --config {dense.json}
train {drawn_pairs} {drawn} --out {out}/x --config {dense.json} --maps {clips}
train {drawn_pairs} {drawn} --out {out}/x --config {train.json} --maps {maps}
train {drawn_pairs} {drawn} --out {out}/x --config {train.json} --earlier {clips}
train {drawn_pairs} {drawn} --out {out}/x --config {train.json} --earlier {clip}
train {drawn_pairs} {drawn} --out {out}/x --config {train.json} --model {clips}
train {drawn_pairs} {drawn} --out {out}/x --config {train.json} --reference-cache {clip} --cache-reference 1
train {drawn_pairs} {drawn} --out {out}/x --config {train.json} --reference-cache {out}/cache
train {drawn_pairs} {drawn} --out {drawn}
train {drawn_pairs} {drawn} --out {clip}
train {drawn_pairs} {drawn} --plan --earlier embedded
train {drawn_pairs} {drawn} --plan --model {clips}
doctor {clips}
doctor {out}
doctor {clip}
doctor {prompts}
doctor {run} --probe 2
doctor {run} --out {out}/x
doctor {run} --prompts {clips}
doctor {run} --prompts {held_out} --steps 0
export-lora {clips} --out {out}/x
export-lora {clip} --out {out}/x
export-lora {lora} --out {clip}
export-lora {lora} --out {out}/x --format nothing
export-lora {lora} --out {out}/x --format diffusers,
export-lora {lora} --out {out}/x --strength nan
export-lora {lora} --out {out}/x --strength inf
export-lora {lora} --out {out}/x --family nothing
export-lora {lora} --out {out}/x --family nothing --format comfyui
export-lora {lora} --out {out}/x --family cogvideox --format comfyui
export-lora {lora} --out {out}/x --name ../../outside --format comfyui
export-lora {lora} --out {out}/x --name a/b --format comfyui
export-lora {lora} --out {out}/x --model {clips}
export-lora {lora} --out {out}/x --evaluation {clips}
export-lora {lora} --out {out}/x --evaluation {evaluation}
export-lora {lora} --out {out}/x --evaluation {out}/nothing
export-lora {lora} --out {lora} --strength 2
export-lora {model} --out {out}/x
strength-sweep {held_out} --lora {clips} --out {out}/x
strength-sweep {held_out} --lora {out}/nothing --out {out}/x
strength-sweep {held_out} --lora {lora} --strengths a --out {out}/x
strength-sweep {held_out} --lora {lora} --strengths nan --out {out}/x
strength-sweep {held_out} --lora {lora} --strengths inf,1 --out {out}/x
strength-sweep {held_out} --lora {lora} --strengths 1,1 --out {out}/x --steps 1
strength-sweep {held_out} --lora {lora} --strengths= --out {out}/x
strength-sweep {held_out} --lora {lora} --steps 0 --out {out}/x
strength-sweep {scores} --lora {lora} --out {out}/x
evaluate --out {out}/x
evaluate {held_out} --out {out}/x --lora a
evaluate {held_out} --out {out}/x --lora ={lora}
evaluate {held_out} --out {out}/x --lora a={clips}
evaluate {held_out} --out {out}/x --lora base={lora} --steps 1
evaluate {held_out} --out {out}/x --lora a={lora} --lora a={lora}@2 --seeds 1 --steps 1
evaluate {held_out} --out {out}/x --lora ../../outside={lora} --steps 1
evaluate {held_out} --out {out}/x --lora a/b={lora} --steps 1
evaluate {held_out} --out {out}/x --lora a={lora} --compare a:a --seeds 1 --frames 5 --height 32 --width 32 --steps 1
evaluate {held_out} --out {out}/x --lora a={lora} --compare a:nothing
evaluate {held_out} --out {out}/x --lora a={lora} --compare a
evaluate {held_out} --out {out}/x --lora a={lora} --primary nothing
evaluate {held_out} --out {out}/x --lora a={lora} --trained-by nothing --seeds 1 --steps 1
evaluate {held_out} --out {out}/x --best-of 1
evaluate {held_out} --out {out}/x --best-of nan
evaluate {held_out} --out {out}/x --best-of a=2
evaluate {held_out} --out {out}/x --best-of ²
evaluate {held_out} --out {out}/x --best-of 2 --best-by nothing
evaluate {held_out} --out {out}/x --other-model a={clips}
evaluate {held_out} --out {out}/x --other-model a=embedded@nothing
evaluate {held_out} --out {out}/x --scores {outside.csv}
evaluate {held_out} --out {evaluation} --steps 1
evaluate --out {evaluation} --scores {clips}
evaluate --out {evaluation} --scores {clip}
evaluate --out {evaluation} --scores {outside.csv} --steps 1
evaluate --out {evaluation} --scores {outside.csv} --scores {outside.jsonl}
evaluate --out {evaluation} --partial-scores
evaluate --out {prompts} --scores {outside.csv}
evaluate {scores} --out {out}/x
report {clips}
report {out}
report {clip}
report {evaluation}
run quick
run nothing --out {out}/x
run nothing.at.all --out {out}/x
run json.tool --out {out}/x
run ../quick --out {out}/x
run quick --out {clip}
run quick --out {out}/x --reward nothing
run quick --out {out}/x --rounds 0
run quick --out {out}/x --exact
run quick --out {out}/x --device nothing
run quick --out {out}/x --geometry embedded
run quick --out {out}/x --geometry-option a=1
run quick --out {out}/x --accept-license nothing
run quick --out {out}/x --model {model}
run quick --out {out}/x --prompts {prompts.json}
run quick --out {out}/x --held-out {prompts.json}
run quick --out {out}/x --evaluation-geometry embedded
run quick --out {out}/x --evaluation-geometry-option a=1
run wan_2_2_ti2v_5b --out {out}/x
run wan_2_2_ti2v_5b --out {out}/x --model {model}
run wan_2_2_ti2v_5b --out {out}/x --model {clips} --prompts {prompts.json} --held-out {prompts.json} --device cpu
run wan_2_2_ti2v_5b --out {out}/x --model {model} --prompts {clips} --held-out {prompts.json} --device cpu
run wan_2_2_ti2v_5b --out {out}/x --model {model} --prompts {prompts.txt} --held-out {clip} --device cpu
run quick --out {out}/x --store nothing://x
run quick --out {out}/x --store {clip}
plan quick
plan nothing --out {out}/x
plan quick --out {clip}
plan quick --out {out}/x --pilot 0
plan quick --out {out}/x --workers 0
plan quick --out {out}/x --exact
copy {run}
copy {run} {out}/x
copy {clip} file://{out}/x
copy {out}/nothing file://{out}/x
copy {run} nothing://x
copy file://{clips} {out}/x
copy file://{out}/nothing {out}/x
copy file://{stored} {clip}
copy file://{stored} file://{out}/x
copy file://{stored} {clip}/below
benchmark
benchmark reward --out {clips}
benchmark reward --out {out}/x --metric nothing
benchmark reward --out {out}/x --geometry nothing
benchmark reward --out {out}/x --samples {candidates}
benchmark reward --out {out}/x --prompts {prompts}
benchmark reward --out {out}/x --samples {clips} --prompts {prompts}
benchmark reward --out {out}/x --samples {candidates} --prompts {clips}
benchmark reward --out {out}/x --samples {candidates} --prompts {held_out} --scenes 1 --size 32 --frames 3
benchmark reward --out {out}/x --size 31
benchmark reward --out {out}/x --frames 2
study
study create {evaluation} {prompts} --out {out}/x
study create {prompts} {held_out} --out {out}/x
study create {evaluation} {held_out} --out {out}/x --items 99
study create {evaluation} {held_out} --out {out}/x --items 3 --checks 99
study create {evaluation} {held_out} --out {out}/x --items 3 --repeats 3
study create {evaluation} {held_out} --out {out}/x --config {clips}
study create {evaluation} {held_out} --out {out}/x --config {clip}
study create {evaluation} {held_out} --out {out}/x --config {prompts.json}
study create {evaluation} {held_out} --out {out}/x --compare dpo
study create {evaluation} {held_out} --out {out}/x --compare dpo:dpo
study create {evaluation} {held_out} --out {out}/x --compare dpo:nothing
study create {evaluation} {held_out} --out {out}/x --median-seconds nan
study create {evaluation} {held_out} --out {out}/x --median-seconds inf
study create {evaluation} {held_out} --out {out}/x --repeat-agreement nan
study create {evaluation} {held_out} --out {evaluation}
study create {evaluation} {held_out} --out {study} --overwrite
study create {evaluation} {held_out} --out {out}/x --config {study.json} --seed -1
study serve {clips}
study serve {evaluation}
study serve {study} --port 70000
study serve {study} --port 0 --host nowhere.invalid
study serve {study} --port 0 --host 999.1.1.1
study serve {study} --port 0 --database nothing
study serve {study} --port 0 --database sqlite:////
study serve {study} --port 0 --database nothing://x
study serve {study} --port 0 --database postgresql+psycopg://127.0.0.1:1/x
study results {study} --out {study}
study results {study} --out {clips}
study results {study} --out {clip}
study results {evaluation} --out {out}/x
study results {study} --out {out}/x --evaluation {clips}
study results {study} --out {out}/x --database sqlite:///{out}/nothing.sqlite3
study results {study} --out {out}/x --database sqlite:///{clip}
study power
study power nan
study power inf
study power 0
study power 1
study power -1
study power 2
study power 0.5
study power 0.5000001
study power 0.6 --votes 0
study power nan --votes 100
study power 2 --votes 100
study power -1 --votes 100
study power 0.6 --votes 1000000000000
list
list nothing
list ../metrics
list metrics more
nothing
--nothing
score {clips} --nothing
score {clips} --max-frames
score {clips} --max-frames 1
score {clips} --window 1
"""
"""Each line is wrong in itself, whatever lies in the good files: options that conflict or name nothing, and inputs in
each other's place."""


def commands() -> dict[str, typer.core.TyperCommand]:
    """Every command of the command line by its name, groups left out."""

    def below(command, name: str):
        if not hasattr(command, "commands"):
            yield name, command
        for part, inner in getattr(command, "commands", {}).items():
            yield from below(inner, f"{name} {part}".strip())

    return dict(below(typer.main.get_command(app), ""))


def make(home: Path) -> Path:
    """Everything that a call may name, each under its name."""
    run = finished_run.make(
        home / "run", finished_run.Size(train=2, candidates=2, held_out=2, seeds=2, steps=2)
    )
    (run / "evaluation" / BETWEEN).write_text("")
    with open_artifact(
        run / "evaluation/scores/truth", stage="scores", config=ScoreConfig(), inputs={}, row_type=Score
    ) as artifact:
        asked = read_rows(run / "prompts/held_out", Prompt)
        artifact.append(
            *(Score(id=f"{p.id}-0", prompt_id=p.id, video="", metrics={"consistency": 0.9}) for p in asked)
        )
        artifact.finish([f"{p.id}-0" for p in asked])
    manifest = run / "evaluation/manifest.json"
    files = {name: hash_file(run / "evaluation" / name) for name in (BETWEEN, "summary.json")}
    write_json_atomic(manifest, json.loads(manifest.read_bytes()) | {"files": files})
    for name, source in {
        "prompts": "prompts/train", "held_out": "prompts/held_out", "candidates": "candidates", "scores": "scores",
        "pairs": "pairs", "evaluation": "evaluation",
    }.items():  # fmt: skip
        shutil.copytree(run / source, home / name)
    _clips(home)
    _texts(home)
    _preferences(home)
    shutil.copytree(LORA, home / "lora")
    shutil.copytree(GENERATOR, home / "model")
    _drawn(home)
    stored = shutil.copytree(home / "prompts", home / "stored")
    names = [p.relative_to(stored).as_posix() for p in stored.rglob("*") if p.is_file() and p.name != ".lock"]
    write_json_atomic(stored / "commit.json", {"files": {name: hash_file(stored / name) for name in names}})
    shape = StudyConfig(items=3, checks=1, repeats=1)
    study = create(shape, home / "evaluation", home / "held_out", home / "study")
    database = Votes(sqlite_url(study), read_study(study)[1])
    database.add_rater()
    database.engine.dispose()
    return home


def _clips(home: Path) -> None:
    clip = render(sample_scene(7), 5, 32, 32)
    for path in ("clips/a.mkv", "clip.mkv"):
        write_master(home / path, clip.rgb)
    for path in ("clips/b.mp4", "mp4.mp4"):
        write_preview(home / path, clip.rgb, scale=1)
    save_prediction(home / "geometry.safetensors", exact_geometry(clip, clip.rgb))
    for path in ("picture.png", "pictures/a.png", "pictures/b.png"):
        write_image(home / path, clip.rgb[0])
    (home / "pictures" / "a.txt").write_text("a room with a box\n")


def _texts(home: Path) -> None:
    entries = [{"text": "a room", "image": "picture.png"}, {"prompt": "another room"}]
    write_json_atomic(home / "prompts.json", entries)
    (home / "prompts.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    (home / "prompts.csv").write_text("caption,image\na room,picture.png\nanother room,\n")
    (home / "prompts.txt").write_text("a room\nanother room\n")
    training = {
        "steps": 1,
        "batch_pairs": 1,
        "rank": 2,
        "evaluation_draws": 1,
        "held_out_fraction": 0,
        "beta": 100.0,
    }
    write_json_atomic(home / "train.json", training)
    write_json_atomic(home / "dense.json", training | {"dense": "own"})
    exclusion = {"failed_checks": 0, "median_seconds": 1.0}
    question = {"key": "better", "text": "Which one looks better?"}
    told = {
        "items": 3,
        "checks": 1,
        "repeats": 1,
        "questions": [question],
        "exclusion": exclusion,
        "tags": ["blurry"],
    }
    write_json_atomic(home / "study.json", told)
    rows = read_rows(home / "evaluation", EvalRow)
    outside = [
        {
            "arm": r.arm,
            "prompt_id": r.prompt_id,
            "seed": r.seed,
            "metric": "appeal",
            "value": i / 10,
            "higher_is_better": True,
        }
        for i, r in enumerate(rows)
    ]
    (home / "outside.jsonl").write_text("".join(json.dumps(row) + "\n" for row in outside))
    with (home / "outside.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(outside[0]))
        writer.writeheader()
        writer.writerows(outside)


def _preferences(home: Path) -> None:
    preferences.folders(home / "folders")
    rows = [{"prompt": "a room", "chosen": "a.mkv", "rejected": "b.mkv", "margin": 0.5, "image": None}]
    preferences.table(home / "table", rows)
    preferences.published(home / "published", [[0.1, 0.4, 0.9], [0.2, 0.8]])
    preferences.write_clips(home / "comma", ["a.mkv", "b.mkv"])
    (home / "comma" / "metadata.csv").write_text(
        "prompt,chosen,rejected,chosen_score\na room,a.mkv,b.mkv,0.5\n"
    )


def _drawn(home: Path) -> None:
    """Candidates with latents, and what a dense training on them reads."""
    world = prompts.run_world(WorldPrompts(count=2, size=32), home / "drawn_prompts")
    sizes = SampleConfig(candidates=2, steps=1, frames=5, height=32, width=32, previews=False)
    drawn = sample.run(sizes, world, home / "drawn")
    scores = home / "drawn_scores"
    with open_artifact(
        scores, stage="scores", config=ScoreConfig(), inputs={"candidates": drawn}, row_type=Score
    ) as artifact:
        rows = read_rows(drawn, Candidate)
        for i, row in enumerate(rows):
            frames = read_video(drawn / str(row.video))
            clip = render(sample_scene(i), len(frames), *frames.shape[2:])
            save_prediction(scores / "geometry" / f"{row.id}.safetensors", exact_geometry(clip, frames))
            metrics = {"consistency": i / 10, "motion": 0.1}
            artifact.append(
                Score(id=row.id, prompt_id=row.prompt_id, video=str(row.video), frames=5, metrics=metrics)
            )
        artifact.finish([row.id for row in rows])
    pair.run(PairConfig(), scores, home / "drawn_pairs")
    with torch.no_grad():
        error_maps.run(scores, home / "maps")
