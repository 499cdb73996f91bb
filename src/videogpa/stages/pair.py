"""Preference pairs from scores: within a prompt, the better against the worse; what was dropped, and why."""

import itertools
from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from videogpa.artifact import open_artifact, read_as_made, read_rows, require_file, write_json_atomic
from videogpa.errors import InputError, first_problem
from videogpa.stages.score import LICENSES, higher_is_better, judged_values
from videogpa.types import PreferencePair, Score

DROPPED = "dropped.json"


class PairConfig(BaseModel):
    """Which candidates become pairs.

    The widest margins of a prompt come first; a candidate is used once, or as often as its margins win a place
    with `reuse_candidates`. `min_margin` is in the metric's unit.
    `motion_match` 0.1 lets the motion of the two differ by 10 %: without it, the calmer of two videos tends
    to win and the model learns to stand still. `least_motion` is the smallest allowed ratio of the chosen's
    motion to the rejected's; 1 means that the chosen is never the calmer one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    metric: str = "consistency"
    pairs_per_prompt: int = Field(default=1, ge=1)
    reuse_candidates: bool = False
    min_margin: float = Field(default=0.0, ge=0)
    motion_match: float | None = Field(default=None, gt=0)
    least_motion: float | None = Field(default=None, gt=0)


def run(cfg: PairConfig, scores: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Form the pairs; `dropped.json` lists prompts without a pair and the reason, `licenses.json` the licences
    of the weights that judged.

    Raises:
        InputError: not a single pair could be formed, or no score has the metric.
    """
    groups: dict[str, list[Score]] = defaultdict(list)
    rows = read_rows(scores, Score)
    for row in rows:
        groups[row.prompt_id or row.id].append(row)
    if not any(cfg.metric in r.metrics for r in rows):
        raise InputError(f"no score in {scores} has the metric '{cfg.metric}'")
    pairs, dropped = [], []
    for prompt_id, group in groups.items():
        found = form_pairs(cfg, prompt_id, group)
        pairs += found
        if not found:
            dropped.append({"prompt_id": prompt_id, "reason": _why_none(cfg, group)})
    if not pairs:
        raise InputError(
            f"no preference pair in {scores}: {dropped[0]['reason']} (first prompt); see `videogpa pair`"
        )
    with open_artifact(
        out,
        stage="pairs",
        config=cfg,
        inputs={"scores": scores},
        row_type=PreferencePair,
        overwrite=overwrite,
    ) as artifact:
        if artifact.complete:
            return out
        write_json_atomic(out / DROPPED, dropped)
        write_json_atomic(out / LICENSES, licenses_of(scores))
        artifact.append(*(p for p in pairs if p.id not in artifact.done))
        artifact.finish([p.id for p in pairs], [DROPPED, LICENSES])
    return out


def licenses_of(folder: Path) -> dict[str, str]:
    """The licences, by model, of the weights that scores or pairs were made with; empty where none are recorded."""
    path = folder / LICENSES
    if not path.exists():
        return {}
    require_file(path)
    try:
        return TypeAdapter(dict[str, str]).validate_json(read_as_made(path))
    except ValidationError as error:
        raise InputError(f"{path} is damaged: {first_problem(error)}") from error


def form_pairs(cfg: PairConfig, prompt_id: str, group: list[Score]) -> list[PreferencePair]:
    """Pairs of one prompt's candidates, the widest margin first."""
    sign = 1.0 if higher_is_better(cfg.metric) else -1.0
    values, motions = judged_values(group, cfg.metric), judged_values(group, "motion")
    options = [
        (sign * (values[chosen] - values[rejected]), chosen, rejected)
        for chosen, rejected in itertools.permutations(sorted(values), 2)
        if _motion_matches(cfg, motions.get(chosen), motions.get(rejected))
    ]
    options.sort(key=lambda option: (-option[0], *option[1:]))
    used: set[str] = set()
    pairs: list[PreferencePair] = []
    for margin, chosen, rejected in options:
        if margin <= cfg.min_margin or len(pairs) == cfg.pairs_per_prompt:
            break
        if not cfg.reuse_candidates and used & {chosen, rejected}:
            continue
        used |= {chosen, rejected}
        pairs.append(
            PreferencePair(
                id=f"{chosen}>{rejected}",
                prompt_id=prompt_id,
                chosen=chosen,
                rejected=rejected,
                chosen_value=values[chosen],
                rejected_value=values[rejected],
                margin=margin,
            )
        )
    return pairs


def _motion_matches(cfg: PairConfig, chosen: float | None, rejected: float | None) -> bool:
    if cfg.motion_match is None and cfg.least_motion is None:
        return True
    if not chosen or not rejected:
        return False
    ratio = chosen / rejected
    alike = cfg.motion_match is None or max(ratio, 1 / ratio) <= 1 + cfg.motion_match
    return alike and (cfg.least_motion is None or ratio >= cfg.least_motion)


def _why_none(cfg: PairConfig, group: list[Score]) -> str:
    judged = judged_values(group, cfg.metric)
    if len(judged) < 2:
        reasons = sorted({s.reason for s in group if s.reason}) or ["too few candidates"]
        return f"{len(judged)} of {len(group)} candidates have a value ({reasons[0]})"
    return "no two candidates differ enough and move alike"
