"""The command line: parse, run a stage, print where the result is."""

import inspect
import itertools
import json
import os
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from videogpa import __version__
from videogpa.errors import InputError, RowFailed, StageStopped, disk_problem, first_problem, told
from videogpa.plugin import Kind, available, declared, describe, installed
from videogpa.types import AnyRow, Score

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=(
    "Post-train video diffusion models so that what they draw holds together in 3D. "
    "Add --debug to any command for a traceback."
))  # fmt: skip
prompts_app = typer.Typer(no_args_is_help=True, help="Make a prompts folder.")
app.add_typer(prompts_app, name="prompts")
benchmark_app = typer.Typer(no_args_is_help=True, help="Measure what measures.")
app.add_typer(benchmark_app, name="benchmark")
study_app = typer.Typer(
    no_args_is_help=True, help="Let people compare videos, without knowing whose they are."
)
app.add_typer(study_app, name="study")

SOME_FAILED = 3

Out = Annotated[Path, typer.Option(help="folder to write; finished rows in it are kept")]
Workers = Annotated[int, typer.Option(min=1, help="worker processes")]
Engine = Annotated[
    Literal["local", "ray"],
    typer.Option(help="workers of this machine, or of a Ray cluster (docs/cluster.md)"),
]
ShardOption = Annotated[
    str | None,
    typer.Option(help="3/8 computes the third of eight parts; merge/8 puts them together (docs/cluster.md)"),
]
Gpus = Annotated[float, typer.Option(min=0, help="GPUs that one worker takes with --engine ray, such as .5")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="redo what a changed configuration made stale")]
Geometry = Annotated[str, typer.Option(help="geometry model; see `videogpa list geometry`")]
GeometryOptions = Annotated[
    list[str] | None,
    typer.Option("--geometry-option", help="NAME=VALUE for the geometry model, repeatable"),
]
AcceptedLicenses = Annotated[
    list[str] | None,
    typer.Option("--accept-license", help="licence of weights that you agree to, repeatable"),
]
Reward = Annotated[
    str, typer.Option(help="consistency, paper, alignment, or a metric (`videogpa list metrics`)")
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        help="only these, repeatable; where none of them needs geometry, no geometry model is loaded"
    ),
]
Recipe = Annotated[str, typer.Argument(help="a recipe (`videogpa list recipes`) or a dotted module")]
RecipeReward = Annotated[
    str | None,
    typer.Option("--reward", help="make preferences by consistency, paper, alignment, or a metric"),
]
PublishedModel = Annotated[
    Path | None, typer.Option("--model", help="of a published model's recipe: its diffusers folder")
]
TrainingPrompts = Annotated[
    Path | None, typer.Option("--prompts", help="its training prompts, as `prompts files` reads")
]
HeldOutPrompts = Annotated[Path | None, typer.Option("--held-out", help="its held-out prompts")]
EvaluationGeometry = Annotated[
    str | None, typer.Option(help="another geometry model for the held-out videos; by default the same")
]
EvaluationGeometryOptions = Annotated[
    list[str] | None,
    typer.Option("--evaluation-geometry-option", help="NAME=VALUE for that model, repeatable"),
]
Exact = Annotated[bool, typer.Option("--exact", help="its settings as published, not corrected")]
Rounds = Annotated[
    int,
    typer.Option(min=1, help="sample with the LoRA trained so far, and train on, so many times in all"),
]
Model = Annotated[str, typer.Option(help="'embedded', 'embedded-clean' or a diffusers folder")]
FamilyName = Annotated[str, typer.Option(help="see `videogpa list families`")]
Precision = Annotated[Literal["float32", "bfloat16"], typer.Option()]


def _repository(name: str | None) -> str | None:
    # Before the export, which may take long.
    if name is not None:
        from videogpa.stages.push import require_repository

        require_repository(name)
    return name


Push = Annotated[
    str | None,
    typer.Option(
        callback=_repository, help="OWNER/NAME on the model hub to upload it to, where you are logged in"
    ),
]
Public = Annotated[bool, typer.Option("--public", help="let a new repository on the hub be seen by all")]
StudyFolder = Annotated[Path, typer.Argument(help="a folder made by `videogpa study create`")]
Database = Annotated[
    str | None,
    typer.Option(
        help="URL of the votes' database, such as postgresql+psycopg://…; SQLite in the folder by default"
    ),
]
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@app.command()
def score(
    paths: Annotated[list[Path], typer.Argument(help="videos, or folders of videos")],
    geometry: Geometry = "sfm",
    geometry_option: GeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="write all metrics to this file")] = None,
    heatmaps: Annotated[
        Path | None, typer.Option(help="folder for pictures of where each video breaks")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="folder for a page that shows every video in 3D and where it breaks")
    ] = None,
    max_frames: Annotated[
        int | None,
        typer.Option(min=2, help="frames looked at, spread over the video or window: 10, at full size 49"),
    ] = None,
    full_size: Annotated[
        bool,
        typer.Option(
            "--full-size",
            help="compute consistency on every pixel; 15 minutes or more for 3840x2160",
        ),
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(min=2, help="cut longer videos into windows of so many frames that overlap by half"),
    ] = None,
    metric: Metrics = None,
    reward: Reward = "consistency",
    workers: Workers = CORES,
    engine: Engine = "local",
    gpus_per_worker: Gpus = 0.0,
) -> None:
    """Measure the 3D consistency of videos. `consistency` is the overall score; higher is better."""
    from videogpa.artifact import write_json_atomic
    from videogpa.stages import score_report
    from videogpa.stages.score import (
        FULL_SIZE_FRAMES,
        jobs_for_paths,
        reward_metric,
        score_videos,
        scores_as_json,
    )

    cfg = _score_config(
        geometry,
        geometry_option,
        accept_license,
        max_frames=max_frames or (FULL_SIZE_FRAMES if full_size else 10),
        full_size=full_size,
        window=window,
        metrics=tuple(metric) if metric else None,
    )
    first = reward_metric(reward)
    jobs, computing = jobs_for_paths(paths), _workers(engine, workers, gpus_per_worker)
    if report is None:
        found = {s.id: s for s in score_videos(cfg, jobs, workers=computing, pictures=heatmaps)}
        scores = [found[job.id] for job in jobs]
    else:
        scores = score_report.run(cfg, jobs, report, workers=computing, pictures=heatmaps)
    if json_file is not None:
        write_json_atomic(json_file, scores_as_json(cfg, scores))
    columns = (
        sorted(metric, key=lambda name: name != first)
        if metric
        else (first, "consistency", "depth_agreement", "motion", "sharpness")
    )
    _print_scores(scores, list(dict.fromkeys(columns)))
    if report is not None:
        print(report / "index.html")
    _exit_if_failed(sum(s.status == "failed" for s in scores), len(scores))


@app.command()
def export(
    source: Annotated[
        Path, typer.Argument(help="a video, or a saved geometry (scores/geometry/*.safetensors)")
    ],
    out: Annotated[Path, typer.Option(help="folder to write into")],
    formats: Annotated[
        str, typer.Option("--format", help="one or more of `videogpa list export`, separated by commas")
    ] = "ply",
    geometry: Geometry = "sfm",
    geometry_option: GeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    max_frames: Annotated[int, typer.Option(min=2, help="frames looked at, spread over the video")] = 10,
    min_confidence: Annotated[
        float, typer.Option(min=0, help="leave out points that are not above it")
    ] = 0.0,
) -> None:
    """Write a video's points and cameras for other programs."""
    from videogpa.stages.export import ExportConfig, run

    cfg = _config(
        ExportConfig,
        formats=tuple(formats.split(",")),
        score=_score_config(geometry, geometry_option, accept_license, max_frames=max_frames),
        min_confidence=min_confidence,
    )
    for path in run(cfg, source, out):
        print(path)


@prompts_app.command("world")
def prompts_world(
    out: Out,
    split: Annotated[Literal["train", "development", "held_out"], typer.Option()] = "held_out",
    count: Annotated[int, typer.Option(min=1)] = 48,
    offset: Annotated[int, typer.Option(min=0, help="skip that many scenes of the split")] = 0,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="one body in every scene moves")] = False,
    text_only: Annotated[
        bool, typer.Option("--text-only", help="captions alone: no first frame, no true continuation")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Procedural scenes with one true continuation each."""
    from videogpa.stages.prompts import WorldPrompts, run_world

    cfg = _config(WorldPrompts, split=split, count=count, offset=offset, dynamic=dynamic, text_only=text_only)
    print(run_world(cfg, out, overwrite=overwrite))


@prompts_app.command("files")
def prompts_files(
    source: Annotated[Path, typer.Argument(help=".txt, .json, .jsonl, .csv, or a folder of images")],
    out: Out,
    limit: Annotated[int | None, typer.Option(min=1)] = None,
    overwrite: Overwrite = False,
) -> None:
    """Captions (and first frames) from your own files."""
    from videogpa.stages.prompts import FilePrompts, run_files

    print(run_files(FilePrompts(limit=limit), source, out, overwrite=overwrite))


@app.command()
def sample(
    out: Out,
    prompts: Annotated[Path | None, typer.Option(help="a prompts folder")] = None,
    prompt: Annotated[str | None, typer.Option(help="one caption instead of a prompts folder")] = None,
    image: Annotated[Path | None, typer.Option(help="the first frame of the one prompt")] = None,
    model: Model = "embedded",
    family: FamilyName = "wan",
    lora: Annotated[str | None, typer.Option(help="'embedded', a LoRA folder or a safetensors file")] = None,
    lora_strength: float = 1.0,
    candidates: Annotated[int, typer.Option(min=1, help="videos per prompt")] = 1,
    best_of: Annotated[
        int | None, typer.Option(min=2, help="draw that many per prompt and keep the most consistent")
    ] = None,
    shared_noise: Annotated[
        float,
        typer.Option(min=0, max=0.99, help="share of the noise that the videos of a prompt have in common"),
    ] = 0.0,
    reward: Reward = "consistency",
    geometry: Geometry = "embedded",
    geometry_option: GeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    seed: int = 0,
    frames: int = 9,
    height: int = 48,
    width: int = 48,
    steps: int = 8,
    guidance_scale: float = 1.0,
    dtype: Precision = "float32",
    device: str = "cpu",
    workers: Workers = CORES,
    engine: Engine = "local",
    gpus_per_worker: Gpus = 0.0,
    shard: ShardOption = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw videos; with --best-of N, keep the most 3D-consistent of N. No training needed."""
    from videogpa.stages import best_of as best_of_stage
    from videogpa.stages import prompts as prompts_stage
    from videogpa.stages import sample as sample_stage
    from videogpa.stages import score as score_stage

    chosen_by = best_of_stage.BestOfConfig(metric=score_stage.reward_metric(reward))
    score_cfg = _score_config(geometry, geometry_option, accept_license, metrics=(chosen_by.metric,))
    if best_of is not None:
        score_stage.check(score_cfg)
    if prompt is not None and prompts is None:
        prompts = prompts_stage.run_single(prompt, image, out / "prompts", overwrite=overwrite)
    elif prompt is not None or prompts is None:
        raise InputError("give either --prompts FOLDER or --prompt TEXT")
    elif image is not None:
        raise InputError("--image is the first frame of a --prompt; prompts folders have their own")
    if best_of is not None and candidates != 1:
        raise InputError("--best-of N draws N candidates: leave --candidates out")
    if lora is None and lora_strength != 1:
        raise InputError("--lora-strength is that of a --lora")
    if shard is not None and best_of is not None:
        raise InputError("--best-of chooses among all candidates: use it without --shard")
    cfg = _config(
        sample_stage.SampleConfig, family=family, model=model, lora=lora, lora_strength=lora_strength,
        candidates=best_of or candidates, seed=seed, frames=frames, height=height, width=width, steps=steps,
        guidance_scale=guidance_scale, dtype=dtype, device=device, shared_noise=shared_noise,
        accepted_licenses=tuple(accept_license or ()),
    )  # fmt: skip
    computing = _workers(engine, workers, gpus_per_worker)
    drawn = sample_stage.run(
        cfg, prompts, out / "candidates", workers=computing, overwrite=overwrite, shard=_shard(shard)
    )
    if best_of is None:
        print(drawn)
        _exit_if_rows_failed(drawn)
        return
    scored = score_stage.run(score_cfg, drawn, out / "scores", workers=computing, overwrite=overwrite)
    best = best_of_stage.run(chosen_by, drawn, scored, out / "best", overwrite=overwrite)
    print(best)
    _exit_if_rows_failed(drawn, scored, best)


@app.command("score-candidates")
def score_candidates(
    candidates: Annotated[Path, typer.Argument(help="a candidates folder made by `videogpa sample`")],
    out: Out,
    prompts: Annotated[Path | None, typer.Option(help="its prompts folder, for oracle metrics")] = None,
    geometry: Geometry = "embedded",
    geometry_option: GeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    metric: Metrics = None,
    workers: Workers = CORES,
    engine: Engine = "local",
    gpus_per_worker: Gpus = 0.0,
    shard: ShardOption = None,
    overwrite: Overwrite = False,
) -> None:
    """Score every candidate of a sample stage into a scores folder."""
    from videogpa.stages.score import run

    metrics = tuple(metric) if metric else None
    cfg = _score_config(geometry, geometry_option, accept_license, metrics=metrics)
    scored = run(
        cfg,
        candidates,
        out,
        prompts=prompts,
        workers=_workers(engine, workers, gpus_per_worker),
        overwrite=overwrite,
        shard=_shard(shard),
    )
    print(scored)
    _exit_if_rows_failed(scored)


@app.command()
def pair(
    scores: Annotated[Path, typer.Argument(help="a scores folder")],
    out: Out,
    reward: Reward = "consistency",
    pairs_per_prompt: Annotated[int, typer.Option(min=1)] = 1,
    reuse_candidates: Annotated[
        bool, typer.Option("--reuse-candidates", help="let a candidate into more than one pair")
    ] = False,
    min_margin: Annotated[float, typer.Option(min=0.0)] = 0.0,
    motion_match: Annotated[float | None, typer.Option(help="0.1: motion of the two within 10 %")] = None,
    least_motion: Annotated[
        float | None, typer.Option(help="1: the chosen moves at least as much as the rejected")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Form preference pairs from scores. Pairs made elsewhere: `videogpa import-pairs`."""
    from videogpa.stages.pair import PairConfig, run
    from videogpa.stages.score import reward_metric

    cfg = _config(
        PairConfig,
        metric=reward_metric(reward),
        pairs_per_prompt=pairs_per_prompt,
        reuse_candidates=reuse_candidates,
        min_margin=min_margin,
        motion_match=motion_match,
        least_motion=least_motion,
    )
    print(run(cfg, scores, out, overwrite=overwrite))


@app.command("import-pairs")
def import_pairs(
    source: Annotated[str, typer.Argument(help="a folder or file of pairs, or owner/name of a dataset")],
    out: Out,
    format: Annotated[
        Literal["videogpa", "folders", "table"] | None, typer.Option(help="recognised where not given")
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="ROLE=NAME of a table's column, such as prompt=caption; repeatable"),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="the score that orders published videos")] = None,
    higher_is_better: Annotated[bool | None, typer.Option(help="the direction of --metric")] = None,
    min_gap: Annotated[float | None, typer.Option(min=0)] = None,
    min_motion: Annotated[float | None, typer.Option(min=0)] = None,
    previews: bool = True,
    workers: Workers = CORES,
    overwrite: Overwrite = False,
) -> None:
    """Preference pairs made elsewhere, as artifacts to encode and train on (docs/pairs.md)."""
    from videogpa.stages.import_pairs import run
    from videogpa.stages.pair_sources import ImportConfig

    given = {
        "format": format, "metric": metric, "higher_is_better": higher_is_better, "min_gap": min_gap,
        "min_motion": min_motion,
    }  # fmt: skip
    cfg = _config(
        ImportConfig,
        **_given(given),
        columns=dict(_name_and_value(entry, "--column") for entry in column or []),
        previews=previews,
    )
    print(run(cfg, source, out, workers=workers, overwrite=overwrite))
    _exit_if_rows_failed(*(out / part for part in ("prompts", "candidates", "pairs")))


@app.command()
def encode(
    candidates: Annotated[Path, typer.Argument(help="candidates whose videos have no latents")],
    prompts: Annotated[Path, typer.Argument(help="their prompts folder")],
    out: Out,
    model: Model = "embedded",
    family: FamilyName = "wan",
    frames: Annotated[int | None, typer.Option(min=1, help="keep the first so many frames")] = None,
    height: Annotated[int | None, typer.Option(min=1, help="crop and resize, with --width")] = None,
    width: Annotated[int | None, typer.Option(min=1)] = None,
    dtype: Precision = "float32",
    device: str = "cpu",
    accept_license: AcceptedLicenses = None,
    workers: Workers = CORES,
    engine: Engine = "local",
    gpus_per_worker: Gpus = 0.0,
    shard: ShardOption = None,
    overwrite: Overwrite = False,
) -> None:
    """Latents and conditioning of videos that come without them, for training."""
    from videogpa.stages.encode import EncodeConfig, run

    cfg = _config(
        EncodeConfig, family=family, model=model, frames=frames, height=height, width=width, dtype=dtype, device=device,
        accepted_licenses=tuple(accept_license or ()),
    )  # fmt: skip
    encoded = run(
        cfg,
        candidates,
        prompts,
        out,
        workers=_workers(engine, workers, gpus_per_worker),
        overwrite=overwrite,
        shard=_shard(shard),
    )
    print(encoded)
    _exit_if_rows_failed(encoded)


@app.command("export-pairs")
def export_pairs(
    pairs: Annotated[Path, typer.Argument(help="a pairs folder")],
    candidates: Annotated[Path, typer.Argument(help="the candidates folder that the pairs refer to")],
    prompts: Annotated[Path, typer.Argument(help="their prompts folder")],
    out: Out,
    format: Annotated[Literal["videogpa", "huggingface", "simpletuner"], typer.Option()] = "huggingface",
    video: Annotated[Literal["lossless", "mp4"], typer.Option()] = "lossless",
    scores: Annotated[Path | None, typer.Option(help="a scores folder, for the published format")] = None,
    license: Annotated[str | None, typer.Option(help="goes on the dataset's card")] = None,
    title: str = "Video preference pairs",
    push: Push = None,
    public: Public = False,
    workers: Workers = CORES,
    overwrite: Overwrite = False,
) -> None:
    """Write pairs for other programs (docs/pairs.md)."""
    from videogpa.stages.export_pairs import ExportConfig, run

    _require_push(push, public)
    if push is not None and format != "huggingface":
        raise InputError(f"--push is for --format huggingface, not {format}")
    cfg = ExportConfig(format=format, video=video, license=license, title=title)
    folder = run(cfg, pairs, candidates, prompts, out, scores=scores, workers=workers, overwrite=overwrite)
    print(folder)
    _push(folder, push, "dataset", public)
    _exit_if_rows_failed(out)


@app.command("export-evaluation")
def export_evaluation(
    evaluation: Annotated[Path, typer.Argument(help="a finished evaluation")],
    prompts: Annotated[Path, typer.Argument(help="its prompts folder")],
    out: Out,
    video: Annotated[Literal["lossless", "mp4"], typer.Option()] = "mp4",
    license: Annotated[str | None, typer.Option(help="goes on the card")] = None,
    title: str = "Evaluation of video models",
    push: Push = None,
    public: Public = False,
    workers: Workers = CORES,
    overwrite: Overwrite = False,
) -> None:
    """Write an evaluation's videos and numbers as a dataset folder with a card."""
    from videogpa.stages.export_evaluation import ExportEvaluationConfig, run

    _require_push(push, public)
    cfg = ExportEvaluationConfig(video=video, license=license, title=title)
    folder = run(cfg, evaluation, prompts, out, workers=workers, overwrite=overwrite)
    print(folder)
    _push(folder, push, "dataset", public)
    _exit_if_rows_failed(out)


@app.command("error-maps")
def error_maps(
    scores: Annotated[Path, typer.Argument(help="a scores folder with the geometry of its candidates")],
    out: Out,
    workers: Workers = CORES,
    overwrite: Overwrite = False,
) -> None:
    """Where every scored video is inconsistent, for dense preferences (`train --maps`)."""
    from videogpa.stages.error_maps import run

    print(run(scores, out, workers=workers, overwrite=overwrite))
    _exit_if_rows_failed(out)


@app.command()
def train(
    pairs: Annotated[Path, typer.Argument(help="a pairs folder")],
    candidates: Annotated[Path, typer.Argument(help="the candidates folder that the pairs refer to")],
    out: Annotated[Path | None, typer.Option(help="folder to write; a training in it goes on")] = None,
    model: Model = "embedded",
    config: Annotated[
        Path | None, typer.Option(help="JSON with fields of the training configuration")
    ] = None,
    maps: Annotated[Path | None, typer.Option(help="a folder of error maps, for dense preferences")] = None,
    earlier: Annotated[
        str | None,
        typer.Option(help="a LoRA that model and reference both carry: train one more on top of it"),
    ] = None,
    cache_reference: Annotated[
        int | None,
        typer.Option(min=1, help="fixed draws of noise per pair, so that the base runs once for each"),
    ] = None,
    reference_cache: Annotated[
        Path | None, typer.Option(help="file of the base's errors, to be shared by trainings")
    ] = None,
    accept_license: AcceptedLicenses = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="print expected memory and time, and train nothing")
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a LoRA on preference pairs."""
    from videogpa.dpo.config import TrainConfig
    from videogpa.stages.train import plan_of, run
    from videogpa.weights import lora_folder, model_folder

    cfg = _read_config(TrainConfig, config)
    changes: dict[str, Any] = {}
    if cache_reference is not None:
        changes["reference_draws"] = cache_reference
    if accept_license:
        changes["accepted_licenses"] = tuple(accept_license)
    cfg = _config(TrainConfig, **(cfg.model_dump() | changes))
    if maps is not None and cfg.dense == "off":
        raise InputError("--maps are for dense preferences: set 'dense' in --config")
    if reference_cache is not None and cfg.reference_draws is None:
        raise InputError("--reference-cache keeps fixed draws of noise: give --cache-reference, too")
    if plan:
        if out is not None:
            raise InputError("--plan writes nothing: leave --out out")
        if earlier is not None:
            raise InputError("--plan does not count an --earlier LoRA: plan without it, it is small")
        print(*plan_of(cfg, pairs, candidates, model_folder(model), maps=maps).lines(), sep="\n")
        return
    if out is None:
        raise InputError("give --out FOLDER for the LoRA, or --plan")
    print(
        run(
            cfg, pairs, candidates, model_folder(model), out, maps=maps,
            earlier=None if earlier is None else lora_folder(earlier), reference_cache=reference_cache,
            overwrite=overwrite,
        )
    )  # fmt: skip


@app.command()
def doctor(
    folder: Annotated[Path, typer.Argument(help="a folder of `videogpa train` or `videogpa run`")],
    prompts: Annotated[
        Path | None, typer.Option(help="draw from these prompts with and without the LoRA")
    ] = None,
    probe: Annotated[int, typer.Option(min=2, help="that many of them")] = 16,
    out: Annotated[Path | None, typer.Option(help="where these videos go; FOLDER/probe by default")] = None,
    model: Model = "embedded",
    steps: int = 8,
    accept_license: AcceptedLicenses = None,
    workers: Workers = CORES,
) -> None:
    """What is wrong with a training, finished or under way, and what helps (docs/doctor.md)."""
    from videogpa.stages import doctor as stage
    from videogpa.stages.sample import SampleConfig

    videos = None
    if prompts is None and (out is not None or probe != 16 or steps != 8 or model != "embedded"):
        raise InputError("--probe, --out, --model and --steps say how to draw from --prompts")
    if prompts is not None:
        drawn = _config(
            SampleConfig, model=model, candidates=1, steps=steps,
            accepted_licenses=tuple(accept_license or ()),
        )  # fmt: skip
        videos = stage.probe(
            folder, prompts, out or folder / "probe", count=probe, drawn=drawn, workers=workers
        )
    print(*stage.lines(stage.examine(folder, videos)), sep="\n")


@app.command("export-lora")
def export_lora(
    lora: Annotated[Path, typer.Argument(help="a LoRA, or the folder of a training")],
    out: Out,
    model: Model = "embedded",
    formats: Annotated[
        str, typer.Option("--format", help="diffusers, peft, comfyui, merged; separated by commas")
    ] = "diffusers",
    strength: float = 1.0,
    name: str = "videogpa",
    base_model: Annotated[str | None, typer.Option(help="what the model is called on the hub")] = None,
    family: Annotated[str | None, typer.Option(help="told by the model folder where not given")] = None,
    merged_precision: Annotated[Literal["stored", "float32"], typer.Option()] = "stored",
    evaluation: Annotated[Path | None, typer.Option(help="a run or evaluation of it, for the card")] = None,
    push: Push = None,
    public: Public = False,
) -> None:
    """Write a LoRA for other programs, with a model card (docs/lora_formats.md)."""
    from videogpa.stages.export_lora import ExportLoraConfig, run
    from videogpa.weights import model_folder

    _require_push(push, public)
    cfg = _config(
        ExportLoraConfig, formats=formats.split(","), strength=strength, name=name, base_model=base_model,
        family=family, merged_precision=merged_precision,
    )  # fmt: skip
    print(*run(cfg, lora, out, model=model_folder(model), evaluation=evaluation), sep="\n")
    _push(out, push, "model", public)


@app.command("strength-sweep")
def strength_sweep(
    prompts: Annotated[Path, typer.Argument(help="a folder of held-out prompts")],
    out: Out,
    lora: Annotated[Path, typer.Option(help="a LoRA folder or file")],
    strengths: Annotated[str, typer.Option(help="separated by commas")] = "0.25,0.5,0.75,1",
    model: Model = "embedded",
    family: FamilyName = "wan",
    seeds: Annotated[int, typer.Option(min=1, help="videos per prompt and strength")] = 2,
    steps: int = 8,
    geometry: Geometry = "embedded",
    geometry_option: GeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    workers: Workers = CORES,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate one LoRA at several strengths against the base."""
    from videogpa.stages.evaluate import EvaluateConfig
    from videogpa.stages.sample import SampleConfig
    from videogpa.stages.strength_sweep import run

    try:
        values = [float(text) for text in strengths.split(",")]
    except ValueError as error:
        raise InputError(f"--strengths '{strengths}' are no numbers separated by commas") from error
    cfg = _config(
        EvaluateConfig,
        sample=_config(
            SampleConfig, family=family, model=model, candidates=seeds, steps=steps, keep_latents=False,
            accepted_licenses=tuple(accept_license or ()),
        ),
        score=_score_config(geometry, geometry_option, accept_license),
        comparisons=(),
    )  # fmt: skip
    print(run(cfg, values, prompts, lora, out, workers=workers, overwrite=overwrite))


@app.command()
def evaluate(
    out: Out,
    prompts: Annotated[
        Path | None, typer.Argument(help="a folder of held-out prompts; may be left out with --scores")
    ] = None,
    lora: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER or NAME=FOLDER@STRENGTH, repeatable")
    ] = None,
    other_model: Annotated[
        list[str] | None, typer.Option(help="NAME=FOLDER or NAME=FOLDER@FAMILY, repeatable")
    ] = None,
    best_of: Annotated[
        list[str] | None, typer.Option(help="N, of the base, or NAME=N, of another arm; repeatable")
    ] = None,
    best_by: Annotated[str, typer.Option(help="the metric that selects them")] = "consistency",
    compare: Annotated[
        list[str] | None, typer.Option(help="ARM:AGAINST, repeatable; by default every arm against the base")
    ] = None,
    primary: Annotated[str | None, typer.Option(help="the metric that decides")] = None,
    trained_by: Annotated[
        str | None,
        typer.Option(
            help="the metric that made the LoRAs' pairs, where their trainings do not say it; or else the models'"
        ),
    ] = None,
    allow_circular: Annotated[
        bool, typer.Option("--allow-circular", help="let what made an arm judge it; the results say so")
    ] = False,
    scores: Annotated[
        list[Path] | None,
        typer.Option(
            help="numbers of other tools about a finished evaluation's videos, CSV or JSONL, repeatable"
        ),
    ] = None,
    partial_scores: Annotated[
        bool, typer.Option("--partial-scores", help="let them miss videos, which they then do not compare")
    ] = False,
    reuse: Annotated[
        list[Path] | None,
        typer.Option(help="another evaluation, of which the videos of the same arms are taken; repeatable"),
    ] = None,
    model: Model = "embedded",
    family: FamilyName = "wan",
    seeds: Annotated[int, typer.Option(min=1, help="videos per prompt and arm")] = 2,
    seed: int = 0,
    frames: int = 9,
    height: int = 48,
    width: int = 48,
    steps: int = 8,
    guidance_scale: float = 1.0,
    dtype: Precision = "float32",
    device: str = "cpu",
    geometry: Geometry = "embedded",
    geometry_option: GeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    workers: Workers = CORES,
    engine: Engine = "local",
    gpus_per_worker: Gpus = 0.0,
    overwrite: Overwrite = False,
) -> None:
    """Compare LoRAs, best-of-N and other models with the base on the same prompts and seeds (docs/evaluation.md)."""
    given = dict(locals())
    defaults = {name: option.default for name, option in inspect.signature(evaluate).parameters.items()}
    from videogpa.artifact import MANIFEST
    from videogpa.stages.evaluate import SUMMARY, EvaluateConfig, add_scores, run
    from videogpa.stages.sample import SampleConfig

    if scores and (overwrite or not (out / MANIFEST).exists()):
        raise InputError(
            f"--scores are about videos that are there and stay: finish {out} without --scores and --overwrite first"
        )
    if prompts is None:
        used = {"out", "scores", "partial_scores", "workers"}
        further = [name for name, value in given.items() if name not in used and value != defaults[name]]
        if not scores or further:
            raise InputError(
                "give the folder of held-out prompts; only --out with nothing but --scores needs none"
                + "".join(f", here is --{name.replace('_', '-')}" for name in further[:1])
            )
    cfg = _config(
        EvaluateConfig,
        sample=_config(
            SampleConfig, family=family, model=model, candidates=seeds, seed=seed, frames=frames, height=height,
            width=width, steps=steps, guidance_scale=guidance_scale, dtype=dtype, device=device, keep_latents=False,
            accepted_licenses=tuple(accept_license or ()),
        ),
        score=_score_config(geometry, geometry_option, accept_license),
        arms=_arms(lora or [], other_model or [], best_of or [], best_by),
        comparisons=None if compare is None else tuple(_sides(entry) for entry in compare),
        primary=primary,
        trained_by=None if trained_by is None else _maker(trained_by),
        allow_circular=allow_circular,
    )  # fmt: skip
    if prompts is not None:
        run(
            cfg, prompts, out, reuse=reuse or (), workers=_workers(engine, workers, gpus_per_worker),
            overwrite=overwrite,
        )  # fmt: skip
    if scores:
        add_scores(out, scores, partial=partial_scores)
    print(out / SUMMARY)
    _exit_if_rows_failed(out)


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(help="a folder made by `videogpa run`")],
    workers: Workers = CORES,
) -> None:
    """Write the HTML report of a finished run again, that of the most rounds."""
    from videogpa.artifact import lock
    from videogpa.run import write_report
    from videogpa.stages.report import read_run
    from videogpa.stages.rounds import evaluation_of

    evaluation = evaluation_of(run_folder)
    read_run(run_folder, evaluation)
    with lock(run_folder):
        print(write_report(run_folder, evaluation, workers=workers) / "index.html")


@app.command("run")
def run_recipe(
    recipe: Recipe,
    out: Out,
    reward: RecipeReward = None,
    model: PublishedModel = None,
    prompts: TrainingPrompts = None,
    held_out: HeldOutPrompts = None,
    geometry: Geometry = "sfm",
    geometry_option: GeometryOptions = None,
    evaluation_geometry: EvaluationGeometry = None,
    evaluation_geometry_option: EvaluationGeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    device: str = "cuda",
    exact: Exact = False,
    rounds: Rounds = 1,
    workers: Workers = CORES,
    engine: Engine = "local",
    gpus_per_worker: Gpus = 0.0,
    store: Annotated[
        str | None,
        typer.Option(
            help="address, such as s3://bucket/run, where finished stages are stored and taken from"
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """The whole loop: sample, score, pair, train, evaluate, report. Run it again to resume, or with more rounds."""
    from videogpa.run import run
    from videogpa.stages.rounds import EVALUATION, round_folder

    cfg = _recipe(
        recipe, reward, model, prompts, held_out, geometry, geometry_option, evaluation_geometry,
        evaluation_geometry_option, accept_license, device, exact,
    )  # fmt: skip
    keeping = None if store is None else _keeping(out, store, overwrite)
    report = run(
        cfg,
        out,
        rounds,
        workers=_workers(engine, workers, gpus_per_worker),
        overwrite=overwrite,
        keep=keeping,
    )
    print(report / "index.html")
    if keeping is not None:
        keeping.finish()
    folders = [round_folder(out, number) for number in range(1, rounds + 1)]
    drawn = [folder / name for folder in folders for name in ("candidates", "scores")]
    _exit_if_rows_failed(*drawn, folders[-1] / EVALUATION)


@app.command()
def plan(
    recipe: Recipe,
    out: Annotated[Path, typer.Option(help="folder of the pilot, which is run once")],
    pilot: Annotated[int, typer.Option(min=1, help="prompts of the pilot")] = 2,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="GPUs or workers, repeatable; by default 1 to 1000")
    ] = None,
    reward: RecipeReward = None,
    model: PublishedModel = None,
    prompts: TrainingPrompts = None,
    held_out: HeldOutPrompts = None,
    geometry: Geometry = "sfm",
    geometry_option: GeometryOptions = None,
    evaluation_geometry: EvaluationGeometry = None,
    evaluation_geometry_option: EvaluationGeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    device: str = "cuda",
    exact: Exact = False,
    rounds: Rounds = 1,
) -> None:
    """What a whole run will take (hours, storage, time with 1 to 1000 GPUs), from a pilot of a few prompts."""
    from videogpa.plan import lines, measure, predict

    cfg = _recipe(
        recipe, reward, model, prompts, held_out, geometry, geometry_option, evaluation_geometry,
        evaluation_geometry_option, accept_license, device, exact,
    )  # fmt: skip
    costs = measure(cfg, out, pilot)
    plans = predict(cfg, costs, workers or (1, 2, 8, 64, 256, 1000), rounds)
    print(*lines(plans, gpu=cfg.sample.device != "cpu"), sep="\n")


@app.command()
def copy(
    source: Annotated[str, typer.Argument(help="a folder of finished stages, or an address")],
    target: Annotated[str, typer.Argument(help="an address, such as s3://bucket/run, or a folder")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what was made differently")] = False,
) -> None:
    """Store a run's finished stages at an address, or bring them from there, every file compared by its hash."""
    from videogpa.stages.store import copy

    done = copy(source, target, overwrite=overwrite)
    print(target)
    folders = f"{len(done.folders)} finished folder{'s' if len(done.folders) != 1 else ''}"
    print(f"{folders}, {done.files} files copied", file=sys.stderr)
    if done.unfinished:
        print(f"not finished, so not copied: {', '.join(done.unfinished)}", file=sys.stderr)


@benchmark_app.command("reward")
def benchmark_reward(
    out: Out,
    geometry: Geometry = "embedded",
    geometry_option: GeometryOptions = None,
    accept_license: AcceptedLicenses = None,
    split: Annotated[
        Literal["development", "held_out"], typer.Option(help="choose by the first, report the second")
    ] = "held_out",
    scenes: Annotated[int, typer.Option(min=1, help="scenes, each in some sixty versions")] = 24,
    size: Annotated[int, typer.Option(min=32, help="pixels a side")] = 48,
    frames: Annotated[int, typer.Option(min=3)] = 9,
    metric: Annotated[list[str] | None, typer.Option(help="only these, repeatable; all by default")] = None,
    samples: Annotated[
        Path | None, typer.Option(help="candidates drawn for world prompts, to be ranked against the truth")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="the prompts folder of --samples")] = None,
    workers: Workers = CORES,
    overwrite: Overwrite = False,
) -> None:
    """Judge every metric by clips with known faults, degradations and legitimate changes."""
    from videogpa.stages.fidelity import FidelityConfig, run

    cfg = _config(
        FidelityConfig,
        score=_score_config(
            geometry, geometry_option, accept_license, metrics=tuple(metric) if metric else None
        ),
        split=split,
        scenes=scenes,
        size=size,
        frames=frames,
    )
    print(
        run(cfg, out, samples=samples, prompts=prompts, workers=workers, overwrite=overwrite) / "metrics.csv"
    )
    _exit_if_rows_failed(out)


@study_app.command("create")
def study_create(
    evaluation: Annotated[Path, typer.Argument(help="a finished evaluation, whose videos are shown")],
    prompts: Annotated[Path, typer.Argument(help="its prompts folder")],
    out: Out,
    compare: Annotated[
        list[str] | None, typer.Option(help="ARM:AGAINST, repeatable; by default every arm against the base")
    ] = None,
    title: Annotated[str | None, typer.Option(help="on top of every page")] = None,
    items: Annotated[int | None, typer.Option(min=1, help="pairs a rater sees (20)")] = None,
    checks: Annotated[int | None, typer.Option(min=0, help="attention checks a rater sees (2)")] = None,
    repeats: Annotated[
        int | None, typer.Option(min=0, help="pairs a rater sees again, sides exchanged (2)")
    ] = None,
    tie: Annotated[
        bool | None, typer.Option("--tie/--no-tie", help="whether 'no difference' is an answer (no)")
    ] = None,
    raters: Annotated[int | None, typer.Option(min=1, help="stop when so many have finished")] = None,
    failed_checks: Annotated[
        int | None, typer.Option(min=0, help="who fails more does not count (0)")
    ] = None,
    median_seconds: Annotated[
        float | None, typer.Option(min=0, help="who is quicker does not count (1.5)")
    ] = None,
    repeat_agreement: Annotated[
        float | None, typer.Option(min=0, max=1, help="who repeats fewer answers does not count")
    ] = None,
    unfinished: Annotated[
        bool | None,
        typer.Option("--unfinished/--finished", help="whether who does not finish counts (finished only)"),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="use the first so many prompts only")] = None,
    config: Annotated[
        Path | None, typer.Option(help="JSON with the rest: questions, tags; options given here win")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="of sides, orders and names of files (0)")] = None,
    workers: Workers = CORES,
    overwrite: Overwrite = False,
) -> None:
    """Make a study: pairs, checks, and copies of the videos that do not tell whose they are (docs/study.md)."""
    from videogpa.study.material import create
    from videogpa.study.plan import study_config

    given = {
        "title": title, "items": items, "checks": checks, "repeats": repeats, "tie": tie, "raters": raters,
        "prompts": limit, "seed": seed, "comparisons": compare and tuple(map(_sides, compare)),
    }  # fmt: skip
    rules = {
        "failed_checks": failed_checks, "median_seconds": median_seconds, "repeat_agreement": repeat_agreement,
        "unfinished": unfinished,
    }  # fmt: skip
    cfg = study_config(config, _given(given) | {"exclusion": _given(rules)})
    print(create(cfg, evaluation, prompts, out, workers=workers, overwrite=overwrite))


@study_app.command("serve")
def study_serve(
    study: StudyFolder,
    database: Database = None,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 8000,
    admin_token: Annotated[
        str | None,
        typer.Option(
            envvar="VIDEOGPA_ADMIN_TOKEN", help="for the page /admin; one is made where none is given"
        ),
    ] = None,
) -> None:
    """Serve a study until it is stopped; a vote is on disk before the page goes on."""
    import secrets

    import uvicorn

    from videogpa.artifact import lock
    from videogpa.study.server import make_app, read_study
    from videogpa.study.votes import Votes, sqlite_url

    # Votes are stored in threads, which wait for their turn after every statement: 5 ms each time by default.
    sys.setswitchinterval(0.0005)
    cfg, manifest = read_study(study)
    token = admin_token or secrets.token_urlsafe(16)
    # Held, so that nothing replaces the study while it is shown.
    with lock(study), _listening(host, port) as listening:
        app = make_app(study, cfg, Votes(database or sqlite_url(study), manifest), token)
        shown = "the one given" if admin_token else token
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        print(f"{address}/ for raters, {address}/admin with the token: {shown}", flush=True)
        serving = uvicorn.Config(app, log_level="warning", server_header=False, date_header=False)
        uvicorn.Server(serving).run(sockets=[listening])


@study_app.command("results")
def study_results(
    study: StudyFolder,
    out: Annotated[Path, typer.Option(help="folder for the page and the tables, replaced in one step")],
    database: Database = None,
    evaluation: Annotated[
        Path | None, typer.Option(help="the evaluation shown: compares its metrics with the raters")
    ] = None,
) -> None:
    """Win rates with intervals, ranking, agreement of raters and of metrics; as a page, JSON and CSV."""
    from videogpa.study.results import write_results
    from videogpa.study.server import read_study
    from videogpa.study.votes import Votes, sqlite_url

    cfg, manifest = read_study(study)
    votes = Votes(database or sqlite_url(study), manifest, existing=True).all()
    print(write_results(study, cfg, votes, out, evaluation=evaluation) / "index.html")


@study_app.command("power")
def study_power(
    win_rate: Annotated[float, typer.Argument(help="the share of votes that you would not want to miss")],
    votes: Annotated[int | None, typer.Option(min=1, help="say the power of so many votes instead")] = None,
) -> None:
    """How many independent votes show a win rate, with a power of 80 % at the 5 % level."""
    from videogpa.study.power import power, votes_needed

    if votes is None:
        print(votes_needed(win_rate))
    else:
        print(f"{power(win_rate, votes):.3f}")


@app.command("list")
def list_plugins(
    kind: Annotated[Kind, typer.Argument()],
) -> None:
    """What can be chosen by name."""
    if kind == "geometry":
        _print_geometries()
        return
    if kind == "families":
        _print_families()
        return
    for name in available(kind):
        print(f"{name:18} {describe(kind, name)}")


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: errors of the user are one line on standard error and a non-zero exit."""
    debug = "--debug" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    try:
        _require_usable(arguments)
        raise SystemExit(app(arguments, prog_name="videogpa", standalone_mode=False) or 0)
    except TyperException as error:
        if not isinstance(error, typer.BadParameter) and "\n" in str(error):
            # Called without arguments: the message is the help page.
            print(error)
            raise SystemExit(2) from None
        _stop(error.format_message(), 2, debug)
    except KeyboardInterrupt:
        _stop("interrupted; run the same command again to go on", 130, debug)
    except (InputError, StageStopped) as error:
        _stop(str(error), 2, debug)
    except RowFailed as error:
        _stop(str(error), SOME_FAILED, debug)
    except OSError as error:
        # No permission, no space, a name that is too long: of a file that was named, as a rule.
        _stop(str(disk_problem(error) or told(error)), 2, debug)
    except Exception as error:
        _stop(f"internal error: {type(error).__name__}: {error} (--debug shows where)", 1, debug)


def _require_usable(arguments: Sequence[str]) -> None:
    from videogpa.artifact import is_text

    for argument in arguments:
        if not is_text(argument):
            raise InputError(f"{argument!r} is not UTF-8 text: rename it")
    # An unset variable of the shell: it would mean the folder that one happens to be in.
    for option in ("--out", "--json", "--heatmaps", "--report", "--reference-cache"):
        if (option, "") in itertools.pairwise(arguments) or f"{option}=" in arguments:
            raise InputError(f"{option} is empty: say where to write")


def _stop(message: str, code: int, debug: bool) -> None:
    if debug:
        raise
    print("videogpa: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code)


def _require_push(repository: str | None, public: bool) -> None:
    if public and repository is None:
        raise InputError("--public is about the repository of --push")


def _push(folder: Path, repository: str | None, kind: Literal["model", "dataset"], public: bool) -> None:
    if repository is not None:
        from videogpa.stages.push import push

        print(push(folder, repository, kind, public=public))


def _recipe(
    recipe: str,
    reward: str | None,
    model: Path | None,
    prompts: Path | None,
    held_out: Path | None,
    geometry: str,
    geometry_options: list[str] | None,
    evaluation_geometry: str | None,
    evaluation_geometry_options: list[str] | None,
    accepted_licenses: list[str] | None,
    device: str,
    exact: bool,
) -> Any:
    """The configuration that a recipe makes of what is given; the embedded ones take nothing but the reward."""
    from videogpa.plugin import load
    from videogpa.run import with_reward

    make = load("recipes", recipe).recipe
    given = {
        "model": None if model is None else str(model), "prompts": prompts, "held_out": held_out,
        "geometry": geometry, "geometry_options": _geometry_options(geometry_options),
        "evaluation_geometry": evaluation_geometry,
        "evaluation_geometry_options": _geometry_options(
            evaluation_geometry_options, "--evaluation-geometry-option"
        ),
        "accepted_licenses": tuple(accepted_licenses or ()), "device": device, "exact": exact,
    }  # fmt: skip
    if "given" in inspect.signature(make).parameters:
        cfg = make(**given)
    else:
        defaults = {"geometry": "sfm", "device": "cuda"}
        if any(value and value != defaults.get(name) for name, value in given.items()):
            raise InputError(f"the recipe {recipe} takes no --model, --prompts or other option but --reward")
        cfg = make()
    return cfg if reward is None else with_reward(cfg, reward)


def _keeping(out: Path, address: str, overwrite: bool) -> Any:
    """What stores the run's stages, once those stored before have been brought here."""
    from videogpa.stages.store import Keeping, Store, is_address

    if not is_address(address):
        raise InputError(f"--store {address} is no address, such as s3://bucket/run")
    store = Store(address)
    if not overwrite and store.homes():
        store.download(out)
    return Keeping(out, store, overwrite=overwrite)


def _print_scores(scores: Sequence[Score], columns: Sequence[str]) -> None:
    """Numbers first and names last, so that no column has to be cut."""
    print("  ".join([*columns, "video"]))
    for s in scores:
        values = [s.metrics.get(name) for name in columns]
        cells = [
            ("-" if v is None else f"{v:.4f}").rjust(len(n)) for v, n in zip(values, columns, strict=True)
        ]
        remark = f"  [{'failed: ' if s.status == 'failed' else ''}{s.reason}]" if s.reason else ""
        print("  ".join(cells) + f"  {s.video}{remark}")


def _print_geometries() -> None:
    """One line a model, and the line that installs it where something is missing."""
    print(f"{'geometry':18}{'installed':11}{'licence of the weights':38}{'scale':11}predicts")
    for name in available("geometry"):
        says = declared("geometry", name)
        here = installed(says["NEEDS"])
        columns = f"{name:18}{'yes' if here else 'no':11}{says['LICENSE']:38}{says['SCALE']:11}"
        print(columns + " ".join(says["PREDICTS"]))
        if not here:
            print(f"{'':18}{says['INSTALL']}")


def _print_families() -> None:
    """One line a published variant: the memory of its transformer's weights in bfloat16 (and in 8 bits)."""
    from videogpa.families.variants import variants_of
    from videogpa.licenses import PERMISSIVE

    print(f"{'family':18}{'variant':16}{'GiB (8 bit)':14}{'licence':46}published as")
    for name in available("families"):
        for variant, says in variants_of(name).items():
            gib = 1e9 * says.parameters / 2**30
            gate = "" if says.license in PERMISSIVE else " (consent)"
            memory = f"{2 * gib:.1f} ({gib:.1f})"
            print(f"{name:18}{variant:16}{memory:14}{says.license + gate:46}{says.repository}")


def _score_config(geometry: str, options: list[str] | None, accepted: list[str] | None, **fields: Any):
    from videogpa.stages.score import ScoreConfig

    return _config(
        ScoreConfig,
        geometry=geometry,
        geometry_options=_geometry_options(options),
        accepted_licenses=tuple(accepted or ()),
        **fields,
    )


def _geometry_options(
    entries: list[str] | None, option: str = "--geometry-option"
) -> dict[str, str | int | float | bool]:
    return dict(_name_and_value(entry, option) for entry in entries or [])


def _name_and_value(entry: str, option: str = "--geometry-option") -> tuple[str, str | int | float | bool]:
    """`NAME=VALUE`; a value that JSON reads as a number or truth value is one."""
    name, separator, text = entry.partition("=")
    if not (name and separator and text):
        raise InputError(f"{option} '{entry}' is not of the form NAME=VALUE")
    try:
        value = json.loads(text)
    except ValueError:
        return name, text
    return name, value if isinstance(value, int | float | bool) else text


def _arms(loras: list[str], models: list[str], best_of: list[str], best_by: str) -> dict[str, Any]:
    """The arms of an evaluation. `@` may be part of a path: only a number after it is a strength, a name a family."""
    from videogpa.stages.comparison import BASE
    from videogpa.stages.evaluate import Arm

    arms: dict[str, Arm] = {}
    for entry in loras:
        name, folder, strength = _arm(entry, "--lora", "STRENGTH", r"-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?")
        _require_new(name, arms)
        arms[name] = _config(Arm, lora=folder, strength=1.0 if strength is None else float(strength))
    for entry in models:
        name, folder, family = _arm(entry, "--other-model", "FAMILY", r"[A-Za-z_][\w.]*")
        _require_new(name, arms)
        arms[name] = Arm(model=folder, family=family)
    for entry in best_of:
        name, _, count = entry.rpartition("=")
        single = [known for known, arm in arms.items() if arm.best_of == 1]
        if not count.isdecimal() or int(count) < 2 or name not in ("", BASE, *single):
            raise InputError(
                f"--best-of '{entry}': give N or NAME=N, N at least 2, NAME that of a --lora or --other-model"
            )
        drawn, chosen = arms.get(name, Arm()), f"{name or BASE}_best_of_{count}"
        _require_new(chosen, arms)
        arms[chosen] = drawn.model_copy(update={"best_of": int(count), "best_by": best_by})
    return arms


def _maker(name: str) -> str:
    """The metric that made pairs, by its own name or that of a reward; one of another tool as it is called there."""
    from videogpa.metrics.between_seeds import BETWEEN_SEEDS
    from videogpa.stages.score import REWARDS

    metric, known = REWARDS.get(name, name), [*available("metrics"), *BETWEEN_SEEDS]
    near = [] if metric in known else get_close_matches(metric, known, n=1, cutoff=0.8)
    if near:
        raise InputError(f"--trained-by '{name}' is no metric: did you mean '{near[0]}'?")
    return metric


def _require_new(name: str, arms: Mapping[str, Any]) -> None:
    if name in arms:
        raise InputError(f"two arms are called '{name}': rename one")


def _arm(entry: str, option: str, after: str, pattern: str) -> tuple[str, str, str | None]:
    """NAME, FOLDER and what follows its @, if anything does."""
    found = re.fullmatch(rf"([^=]+)=(.+?)(?:@({pattern}))?", entry)
    if found is None:
        raise InputError(f"{option} '{entry}' is not of the form NAME=FOLDER or NAME=FOLDER@{after}")
    return found[1], found[2], found[3]


def _workers(engine: str, count: int, gpus: float) -> Any:
    if engine == "ray":
        from videogpa.engines.ray import RayWorkers

        return RayWorkers(count=count, gpus=gpus)
    if gpus:
        raise InputError("--gpus-per-worker is for --engine ray")
    return count


def _shard(text: str | None) -> Any:
    from videogpa.stages.shards import parse_shard

    return None if text is None else parse_shard(text)


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except (OSError, TypeError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot listen on {host} port {port}: {reason}") from error


def _sides(entry: str) -> tuple[str, str]:
    arm, separator, against = entry.partition(":")
    if not (arm and separator and against):
        raise InputError(f"--compare '{entry}' is not of the form ARM:AGAINST")
    return arm, against


def _read_config(config_type, path: Path | None):
    from pydantic import ValidationError

    from videogpa.artifact import require_file

    if path is None:
        return config_type()
    require_file(path)
    try:
        return config_type.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"cannot use the configuration {path}: {first_problem(error)}") from error


def _config(config_type, **fields: Any):
    from pydantic import ValidationError

    try:
        return config_type(**fields)
    except ValidationError as error:
        raise InputError(first_problem(error)) from error


def _exit_if_rows_failed(*artifacts: Path) -> None:
    from videogpa.artifact import read_manifest, read_rows

    manifests = [read_manifest(folder) for folder in artifacts]
    failed = [row for folder in artifacts for row in read_rows(folder, AnyRow) if row.status == "failed"]
    first = f"; first {failed[0].id}: {failed[0].reason}" if failed else ""
    _exit_if_failed(len(failed), sum(m.ok + m.failed for m in manifests), first)


def _exit_if_failed(failed: int, total: int, first: str = "") -> None:
    if failed:
        print(f"videogpa: {failed} of {total} rows failed{first}", file=sys.stderr)
        raise typer.Exit(SOME_FAILED)


if __name__ == "__main__":
    main()
