"""Best-of-N without training: the most consistent candidate of every prompt."""

from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from videogpa.artifact import copy_atomic, open_artifact, read_rows
from videogpa.stages.score import higher_is_better, judged_values
from videogpa.types import Candidate, Score


class BestOfConfig(BaseModel):
    """The metric that decides."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str = "consistency"


def run(cfg: BestOfConfig, candidates: Path, scores: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Copy the best candidate's video and preview of every prompt; a prompt without any value fails."""
    by_prompt: dict[str, list[Score]] = defaultdict(list)
    for score in read_rows(scores, Score):
        by_prompt[score.prompt_id or score.id].append(score)
    rows = {c.id: c for c in read_rows(candidates, Candidate)}
    inputs = {"candidates": candidates, "scores": scores}
    with open_artifact(
        out, stage="best_of", config=cfg, inputs=inputs, row_type=Candidate, overwrite=overwrite
    ) as artifact:
        if artifact.complete:
            return out
        files = []
        prompts = list(dict.fromkeys(c.prompt_id for c in rows.values()))
        for prompt_id in prompts:
            best = best_id(cfg.metric, by_prompt[prompt_id])
            row = None if best is None else rows[best]
            if row is None or row.video is None:
                reason = f"no candidate of {prompt_id} could be judged by {cfg.metric}"
                failed = Candidate(id=prompt_id, status="failed", reason=reason, prompt_id=prompt_id, seed=0)
                artifact.append(failed)
                continue
            video = f"videos/{prompt_id}.mkv"
            preview = f"previews/{prompt_id}.mp4" if row.preview else None
            copies = {row.video: video} | ({row.preview: preview} if row.preview and preview else {})
            for source, target in copies.items():
                copy_atomic(candidates / source, out / target)
                files.append(target)
            artifact.append(
                Candidate(id=prompt_id, prompt_id=prompt_id, seed=row.seed, video=video, preview=preview)
            )
        artifact.finish(prompts, files=files)
    return out


def best_id(metric: str, scores: list[Score]) -> str | None:
    """The id of the best judged score; ties go to the first id. None when nothing was judged."""
    sign = 1.0 if higher_is_better(metric) else -1.0
    values = judged_values(scores, metric)
    return min(values, key=lambda row_id: (-sign * values[row_id], row_id), default=None)
