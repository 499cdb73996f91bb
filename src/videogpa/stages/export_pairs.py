"""Our pairs for other programs: the published VideoGPA metadata, a Hugging Face dataset, SimpleTuner's Flow-DPO."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict

from videogpa.artifact import (
    copy_atomic,
    open_artifact,
    read_rows,
    recorded,
    write_json_atomic,
    write_text_atomic,
)
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import InputError, RowFailed
from videogpa.stages.pair import licenses_of
from videogpa.stages.pair_sources import PUBLISHED_METRIC
from videogpa.stages.score import GEOMETRY, LICENSES
from videogpa.types import Candidate, PreferencePair, Prompt, Score
from videogpa.video_io import frame_rate, probe, read_video, write_preview

DATASET = "dataset"
METADATA = {
    "videogpa": "meta_data.json",
    "huggingface": "metadata.jsonl",
    "simpletuner": "multidatabackend.json",
}


class ExportConfig(BaseModel):
    """What is written. `video` "lossless" copies the masters (H.264 RGB, which browsers do not play); "mp4" encodes
    them for browsers and is no longer what was scored. `license` and `title` go on a dataset's card; without a licence
    the card names none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["videogpa", "huggingface", "simpletuner"]
    video: Literal["lossless", "mp4"] = "lossless"
    license: str | None = None
    title: str = "Video preference pairs"


class Exported(NamedTuple):
    """A pair with its prompt, and where its files are, relative to the dataset folder."""

    name: str
    pair: PreferencePair
    prompt: Prompt
    chosen: str
    rejected: str
    image: str | None


class _Job(NamedTuple):
    files: Exported
    chosen: Candidate | None
    rejected: Candidate | None


def run(
    cfg: ExportConfig,
    pairs: Path,
    candidates: Path,
    prompts: Path,
    out: Path,
    *,
    scores: Path | None = None,
    workers: Workers = 1,
    overwrite: bool = False,
) -> Path:
    """Write the folder `out/dataset` and return it; files that are done are kept on a rerun.

    The rows of `out` are the pairs; one whose video or prompt is missing is a failed row and not in the dataset.
    `scores` is read by the published format alone, whose loader wants a number of motion beside every video.

    Raises:
        InputError: an input is missing or wrong, there is no pair, or the format cannot hold these pairs.
    """
    rows = [p for p in read_rows(pairs, PreferencePair) if p.status == "ok"]
    if not rows:
        raise InputError(f"{pairs} holds no pairs")
    if cfg.format == "videogpa":
        _mode(rows)
    if scores is not None:
        if cfg.format != "videogpa":
            raise InputError(f"scores are read for the format videogpa, not for {cfg.format}")
        # Complete, and of this kind: what is read is the geometry beside them.
        read_rows(scores, Score)
    by_id = {c.id: c for c in read_rows(candidates, Candidate)}
    captions = {p.id: p for p in read_rows(prompts, Prompt)}
    jobs = {p.id: _job(cfg, n, p, by_id, captions) for n, p in enumerate(rows)}
    inputs = {"pairs": pairs, "candidates": candidates, "prompts": prompts}
    if scores is not None:
        inputs["scores"] = scores
    with open_artifact(
        out, stage="pairs_export", config=cfg, inputs=inputs, row_type=PreferencePair, overwrite=overwrite
    ) as artifact:
        folder = out / DATASET
        if artifact.complete:
            return folder
        make_worker = partial(_make_worker, cfg, candidates, prompts, folder)
        todo = [job for id, job in jobs.items() if id not in artifact.done]
        for job, result in map_rows(make_worker, todo, workers=workers, description="exporting"):
            failed = {"status": "failed", "reason": str(result)} if isinstance(result, RowFailed) else {}
            artifact.append(job.files.pair.model_copy(update=failed))
        exported = [jobs[p.id].files for p in rows if artifact.done[p.id].status == "ok"]
        if not exported:
            raise InputError(
                f"not one pair could be exported; {rows[0].id}: {artifact.done[rows[0].id].reason}"
            )
        match cfg.format:
            case "videogpa":
                _write_videogpa(exported, _metric(pairs), scores, folder)
            case "huggingface":
                _write_huggingface(cfg, exported, _metric(pairs), licenses_of(pairs), folder)
            case _:
                _write_simpletuner(exported, folder)
        write_json_atomic(folder / LICENSES, licenses_of(pairs))
        written = sorted(f.relative_to(out).as_posix() for f in folder.rglob("*") if f.is_file())
        artifact.finish([p.id for p in rows], written)
    return folder


def _job(
    cfg: ExportConfig,
    number: int,
    pair: PreferencePair,
    candidates: dict[str, Candidate],
    prompts: dict[str, Prompt],
) -> _Job:
    """Names are numbers: a dataset is split by words such as 'test' in its paths."""
    if pair.prompt_id not in prompts:
        raise InputError(
            f"pair {pair.id} is of prompt {pair.prompt_id}, which the prompts folder does not have"
        )
    name, prompt = f"{number:05d}", prompts[pair.prompt_id]
    end = ".mkv" if cfg.video == "lossless" else ".mp4"
    # The published encoder names latents by the file name alone.
    layout = "videos/{name}-{side}" if cfg.format == "videogpa" else "{side}/{name}"
    files = Exported(
        name=name,
        pair=pair,
        prompt=prompt,
        chosen=layout.format(name=name, side="chosen") + end,
        rejected=layout.format(name=name, side="rejected") + end,
        image=f"images/{name}.png" if prompt.image and cfg.format != "simpletuner" else None,
    )
    return _Job(files, candidates.get(pair.chosen), candidates.get(pair.rejected))


def _make_worker(cfg: ExportConfig, candidates: Path, prompts: Path, folder: Path) -> Callable[[_Job], None]:
    def store(job: _Job) -> None:
        """Everything is looked at before anything is written: half a pair must not lie in the dataset."""
        files = job.files
        copies = {}
        if files.prompt.status == "failed":
            raise RowFailed(f"its prompt failed: {files.prompt.reason}")
        if cfg.format == "simpletuner" and not files.prompt.text.strip():
            raise RowFailed("its prompt has no caption, and SimpleTuner takes no empty one")
        if files.image is not None:
            copies[files.image] = prompts / str(files.prompt.image)
        for target, id, candidate in (
            (files.chosen, files.pair.chosen, job.chosen),
            (files.rejected, files.pair.rejected, job.rejected),
        ):
            if candidate is None or candidate.video is None:
                raise RowFailed(f"candidate {id} has no video in {candidates}")
            copies[target] = candidates / candidate.video
        for source in copies.values():
            if not source.is_file():
                raise RowFailed(f"{source} is missing")
        clips = {}
        if cfg.video == "mp4":
            for target in (files.chosen, files.rejected):
                source = copies.pop(target)
                clips[target] = read_video(source), frame_rate(source)
        for target, source in copies.items():
            copy_atomic(source, folder / target)
        for target, (clip, fps) in clips.items():
            write_preview(folder / target, clip, fps=fps, scale=1)

    return store


def _write_videogpa(exported: list[Exported], metric: str | None, scores: Path | None, folder: Path) -> None:
    """One group a pair: the published loader takes the best against the worst of a group.

    The settings beside the groups are those under which it does; its own code ignores them there.
    """
    key = metric or PUBLISHED_METRIC
    mode = _mode([e.pair for e in exported])
    groups = []
    for e in exported:
        group: dict[str, Any] = {"group_id": e.name, "text_prompt": e.prompt.text}
        if e.image is not None:
            group["image_path"] = e.image
        sides = (
            (e.pair.chosen, e.chosen, e.pair.chosen_value),
            (e.pair.rejected, e.rejected, e.pair.rejected_value),
        )
        group["videos"] = [
            {"video_path": path, "generation_id": id, key: value} | _published_motion(scores, id)
            for id, path, value in sides
        ]
        groups.append(group)
    settings = {"metric_name": key, "metric_mode": mode, "min_gap": 0.0, "motion_threshold": 0.0}
    write_json_atomic(folder / METADATA["videogpa"], settings | {"groups": groups})


def _mode(pairs: list[PreferencePair]) -> Literal["min", "max"]:
    """Whether the chosen has the lower or the higher value, in all pairs."""
    differences = []
    for pair in pairs:
        if pair.chosen_value is None or pair.rejected_value is None:
            raise InputError(
                f"pair {pair.id} has no values, and the published loader finds the better video by its value: "
                "export another format"
            )
        differences.append(pair.chosen_value - pair.rejected_value)
    if all(d >= 0 for d in differences):
        return "max"
    if all(d <= 0 for d in differences):
        return "min"
    raise InputError(
        "in some pairs the chosen video has the higher value and in others the lower one; the published loader "
        "would turn some of them round: export another format"
    )


def _published_motion(scores: Path | None, candidate: str) -> dict[str, float]:
    """The published code's motion_norm, from the geometry kept with a score; nothing where there is none.

    mean |t_{i+1} - t_i| + 0.1 mean angle(R_{i+1} R_iᵀ) over the frames, of the world-to-camera [R | t] in the
    geometry's own unit (`metrics/consistency_score.py` of the published code).
    """
    geometry = None if scores is None else scores / GEOMETRY / f"{candidate}.safetensors"
    if geometry is None or not geometry.is_file():
        return {}
    from videogpa.geometry.base import load_prediction
    from videogpa.geometry.cameras import rotation_angle

    poses = load_prediction(geometry).extrinsics_w2c.double()
    step = poses[..., 3].diff(dim=0).norm(dim=-1).mean()
    turn = rotation_angle(poses[1:, :, :3] @ poses[:-1, :, :3].mT).mean()
    return {"motion_norm": (step + 0.1 * turn).item()} if len(poses) > 1 else {}


def _write_huggingface(
    cfg: ExportConfig, exported: list[Exported], metric: str | None, licenses: dict[str, str], folder: Path
) -> None:
    rows = []
    for e in exported:
        row = {
            "prompt": e.prompt.text,
            # `*_file_name` is how the `videofolder` loader knows its video columns; images are no videos.
            "chosen_file_name": e.chosen,
            "rejected_file_name": e.rejected,
            "image": e.image,
            "chosen_value": e.pair.chosen_value,
            "rejected_value": e.pair.rejected_value,
            "margin": e.pair.margin,
            "pair_id": e.pair.id,
            "prompt_id": e.pair.prompt_id,
        }
        rows.append(row)
    used = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    lines = [json.dumps({name: row[name] for name in used}, ensure_ascii=False) for row in rows]
    write_text_atomic(folder / METADATA["huggingface"], "\n".join(lines) + "\n")
    write_text_atomic(folder / "README.md", _card(cfg, used, len(rows), metric, licenses))


def _card(
    cfg: ExportConfig, columns: Sequence[str], count: int, metric: str | None, licenses: dict[str, str]
) -> str:
    front = {
        "pretty_name": cfg.title,
        "task_categories": ["image-to-video" if "image" in columns else "text-to-video"],
        "tags": ["video", "preference", "dpo", "videogpa"],
    } | ({"license": cfg.license} if cfg.license else {})
    meaning = {
        "prompt": "the caption",
        "chosen": "the better video",
        "rejected": "the worse video",
        "image": "path of the first frame",
        "chosen_value": f"value of the better video{f' (`{metric}`)' if metric else ''}",
        "rejected_value": "value of the worse video",
        "margin": "by how much the chosen is better, in the direction of better",
        "pair_id": "the pair's name where it was made",
        "prompt_id": "pairs of one prompt share it: keep them on one side of a split",
    }
    names = [name.removesuffix("_file_name") for name in columns]
    table = "\n".join(f"| `{name}` | {meaning[name]} |" for name in names)
    judges = "".join(f"\n- {model}: {license}" for model, license in sorted(licenses.items()))
    weights = f"\nWeights that judged, with their licences:\n{judges}\n" if judges else ""
    videos = (
        "The videos are lossless (H.264 RGB in Matroska)."
        if cfg.video == "lossless"
        else "The videos are H.264 4:2:0, encoded again for browsers."
    )
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n# {cfg.title}\n\n"
        f"{count} pairs of videos of one prompt, of which one is preferred. {videos}\n\n"
        f"| column | content |\n|---|---|\n{table}\n{weights}\n"
        "Written by `videogpa export-pairs`; `videogpa import-pairs` reads it back.\n"
    )


def _write_simpletuner(exported: list[Exported], folder: Path) -> None:
    """The chosen videos with captions, and the rejected ones as their strictly aligned references."""
    sizes = {
        (info.frames, info.height, info.width)
        for e in exported
        for path in (e.chosen, e.rejected)
        for info in [probe(folder / path)]
    }
    if len(sizes) > 1:
        shown = ", ".join(f"{f} frames of {w}x{h}" for f, h, w in sorted(sizes)[:3])
        raise InputError(
            f"the videos differ in size ({shown}): SimpleTuner is set up for one; fit them first"
        )
    frames, height, width = sizes.pop()
    for e in exported:
        write_text_atomic((folder / e.chosen).with_suffix(".txt"), e.prompt.text + "\n")
    shared = {
        "type": "local",
        "crop": False,
        "resolution": min(height, width),
        "resolution_type": "pixel",
        "video": {"num_frames": frames, "min_frames": frames},
    }
    preferred = {
        "id": "preferred",
        "dataset_type": "video",
        "instance_data_dir": "chosen",
        "caption_strategy": "textfile",
        "disable_multiline_split": True,
        "metadata_backend": "discovery",
        "cache_dir_vae": "cache/vae/preferred",
        "conditioning_data": ["rejected"],
    }
    rejected = {
        "id": "rejected",
        "dataset_type": "conditioning",
        "conditioning_type": "reference_strict",
        "source_dataset_id": "preferred",
        "instance_data_dir": "rejected",
        "cache_dir_vae": "cache/vae/rejected",
    }
    text = {
        "id": "text-embeds",
        "type": "local",
        "dataset_type": "text_embeds",
        "default": True,
        "cache_dir": "cache/text",
    }
    write_json_atomic(folder / METADATA["simpletuner"], [preferred | shared, rejected | shared, text])


def _metric(pairs: Path) -> str | None:
    """The metric that the pairs were made by, where their configuration says so."""
    return recorded(pairs)["config"].get("metric")
