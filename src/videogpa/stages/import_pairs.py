"""Preferences from elsewhere become prompts, candidates and pairs that the other stages read."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from videogpa.artifact import hash_file, open_artifact, read_rows, write_json_atomic
from videogpa.engines.base import Workers
from videogpa.engines.local import map_rows
from videogpa.errors import InputError, RowFailed
from videogpa.stages.pair import licenses_of
from videogpa.stages.pair_sources import File, Found, ImportConfig, Preference, locate, read
from videogpa.stages.score import LICENSES
from videogpa.types import Candidate, PreferencePair, Prompt
from videogpa.video_io import frame_rate, read_image, read_video, write_image, write_master, write_preview


class _Plan(NamedTuple):
    """All rows as they will be, and the files that their videos and images come from."""

    prompts: dict[str, Prompt]
    images: dict[str, File]
    candidates: dict[str, Candidate]
    videos: dict[str, File]
    pairs: list[PreferencePair]


class _Job(NamedTuple):
    id: str
    file: File


def run(cfg: ImportConfig, source: str, out: Path, *, workers: Workers = 1, overwrite: bool = False) -> Path:
    """Write `out/prompts`, `out/candidates` and `out/pairs`; finished rows are kept on a rerun.

    Entries with the same caption and first frame are one prompt, and a video that is in several pairs of a prompt is
    one candidate. Videos are stored again without loss; they have no latents until they are encoded. A video or image
    that cannot be read fails its row and its pairs alone. `pairs/dropped.json` says what gave no pair, and why.

    Raises:
        InputError: the source cannot be read or holds not a single pair.
    """
    where = locate(source)
    found = read(cfg, where)
    if not found.preferences:
        first = f"{found.dropped[0].entry}: {found.dropped[0].reason}" if found.dropped else "it is empty"
        raise InputError(f"{source} holds no pair: {first}")
    plan = _plan(found.preferences)
    inputs = _inputs(where, plan)
    _write_prompts(found.cfg, plan, inputs, out / "prompts", workers, overwrite)
    _write_candidates(found.cfg, plan, inputs, out / "candidates", workers, overwrite)
    _write_pairs(found, plan, where, out, overwrite)
    return out


def _plan(preferences: list[Preference]) -> _Plan:
    plan = _Plan({}, {}, {}, {}, [])
    prompt_ids: dict[tuple[str, ...], str] = {}
    candidate_ids: dict[tuple[str, File], str] = {}
    counts: dict[str, int] = {}

    def candidate(prompt_id: str, file: File) -> str:
        if (prompt_id, file) not in candidate_ids:
            number = counts[prompt_id] = counts.get(prompt_id, -1) + 1
            row_id = candidate_ids[prompt_id, file] = f"{prompt_id}-{number}"
            plan.candidates[row_id] = Candidate(id=row_id, prompt_id=prompt_id)
            plan.videos[row_id] = file
        return candidate_ids[prompt_id, file]

    for number, preference in enumerate(preferences):
        prompt_id = prompt_ids.setdefault(_prompt_key(preference, number), f"prompt{len(prompt_ids):05d}")
        if prompt_id not in plan.prompts:
            plan.prompts[prompt_id] = Prompt(id=prompt_id, text=preference.text)
            if preference.image is not None:
                plan.images[prompt_id] = preference.image
        chosen = candidate(prompt_id, preference.chosen)
        rejected = candidate(prompt_id, preference.rejected)
        plan.pairs.append(
            PreferencePair(
                id=f"pair{number:05d}",
                prompt_id=prompt_id,
                chosen=chosen,
                rejected=rejected,
                chosen_value=preference.chosen_value,
                rejected_value=preference.rejected_value,
                margin=preference.margin,
            )
        )
    return plan


def _prompt_key(preference: Preference, number: int) -> tuple[str, ...]:
    """What two entries of one prompt have in common: training keeps a prompt's pairs on one side of its split."""
    if not preference.text and preference.image is None:
        return ("", "", str(number))
    return (preference.text, "" if preference.image is None else _identity(preference.image))


def _identity(file: File) -> str:
    if isinstance(file, bytes):
        return hashlib.sha256(file).hexdigest()
    return hash_file(file) if file.is_file() else str(file)


def _inputs(source: Path, plan: _Plan) -> dict[str, Path]:
    """The source, and the files outside of it that it names."""
    named = {f"image of {id}": file for id, file in plan.images.items()}
    named |= {f"video of {id}": file for id, file in plan.videos.items()}
    outside = {
        name: file
        for name, file in named.items()
        if isinstance(file, Path) and file.is_file() and not (source.is_dir() and source in file.parents)
    }
    return {"source": source} | outside


def _write_prompts(
    cfg: ImportConfig, plan: _Plan, inputs: dict[str, Path], out: Path, workers: Workers, overwrite: bool
) -> None:
    with open_artifact(
        out, stage="prompts", config=cfg, inputs=inputs, row_type=Prompt, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return
        artifact.append(
            *(p for i, p in plan.prompts.items() if i not in artifact.done and i not in plan.images)
        )
        jobs = [_Job(id, file) for id, file in plan.images.items() if id not in artifact.done]
        worker = partial(_make_image_worker, out)
        for job, result in map_rows(worker, jobs, workers=workers, description="first frames"):
            changes = (
                {"status": "failed", "reason": str(result)}
                if isinstance(result, RowFailed)
                else {"image": result}
            )
            artifact.append(plan.prompts[job.id].model_copy(update=changes))
        artifact.finish(list(plan.prompts), files=[p.image for p in artifact.done.values() if p.image])


def _write_candidates(
    cfg: ImportConfig, plan: _Plan, inputs: dict[str, Path], out: Path, workers: Workers, overwrite: bool
) -> None:
    with open_artifact(
        out, stage="candidates", config=cfg, inputs=inputs, row_type=Candidate, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return
        jobs = [_Job(id, file) for id, file in plan.videos.items() if id not in artifact.done]
        worker = partial(_make_video_worker, cfg.previews, out)
        for job, result in map_rows(worker, jobs, workers=workers, description="importing"):
            changes = (
                {"status": "failed", "reason": str(result)}
                if isinstance(result, RowFailed)
                else {"video": result, "preview": _preview(job.id) if cfg.previews else None}
            )
            artifact.append(plan.candidates[job.id].model_copy(update=changes))
        artifact.finish(list(plan.candidates), files=[c.video for c in artifact.done.values() if c.video])


def _write_pairs(found: Found, plan: _Plan, source: Path, out: Path, overwrite: bool) -> None:
    reasons = {
        row.id: row.reason
        for rows in (read_rows(out / "prompts", Prompt), read_rows(out / "candidates", Candidate))
        for row in rows
        if row.status == "failed"
    }
    inputs = {"source": source, "prompts": out / "prompts", "candidates": out / "candidates"}
    with open_artifact(
        out / "pairs",
        stage="pairs",
        config=found.cfg,
        inputs=inputs,
        row_type=PreferencePair,
        overwrite=overwrite,
    ) as artifact:
        if artifact.complete:
            return
        dropped = [{"prompt_id": entry, "reason": reason} for entry, reason in found.dropped]
        write_json_atomic(out / "pairs" / "dropped.json", dropped)
        beside = source if source.is_dir() else source.parent
        write_json_atomic(out / "pairs" / LICENSES, licenses_of(beside))
        for pair in plan.pairs:
            if pair.id not in artifact.done:
                bad = [id for id in (pair.prompt_id, pair.chosen, pair.rejected) if id in reasons]
                failure = {"status": "failed", "reason": f"{bad[0]}: {reasons[bad[0]]}"} if bad else {}
                artifact.append(pair.model_copy(update=failure))
        artifact.finish([pair.id for pair in plan.pairs], [LICENSES])


def _make_image_worker(out: Path) -> Callable[[_Job], str]:
    def store(job: _Job) -> str:
        stored = f"images/{job.id}.png"
        with _as_path(job.file) as path:
            write_image(out / stored, read_image(path))
        return stored

    return store


def _make_video_worker(previews: bool, out: Path) -> Callable[[_Job], str]:
    def store(job: _Job) -> str:
        stored = f"videos/{job.id}.mkv"
        with _as_path(job.file) as path:
            frames, fps = read_video(path), frame_rate(path)
        write_master(out / stored, frames, fps=fps)
        if previews:
            write_preview(out / _preview(job.id), frames, fps=fps)
        return stored

    return store


@contextmanager
def _as_path(file: File) -> Iterator[Path]:
    """The file itself, or a temporary one with the content."""
    if isinstance(file, Path):
        if not file.is_file():
            raise RowFailed(f"{file} does not exist or is not a file")
        yield file
        return
    with tempfile.NamedTemporaryFile() as temporary:
        temporary.write(file)
        temporary.flush()
        yield Path(temporary.name)


def _preview(row_id: str) -> str:
    return f"previews/{row_id}.mp4"
