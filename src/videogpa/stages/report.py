"""A finished run as one static page with its videos beside it; it opens from disk, without a server."""

import csv
import json
import shutil
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any

from pydantic import TypeAdapter, ValidationError

from videogpa.artifact import (
    MANIFEST,
    ROWS,
    Manifest,
    iter_rows,
    read_as_made,
    read_manifest,
    read_rows,
    recorded,
    require_file,
)
from videogpa.engines.base import Workers
from videogpa.errors import InputError, first_problem
from videogpa.report.clips import (
    ShownClip,
    SourceClip,
    letters,
    show,
    show_sheet,
    show_truth,
    spread_ranks,
)
from videogpa.report.figures import ARMS, Curve, histogram, ranked_gains, training_curves
from videogpa.report.findings import (
    Summary,
    caveat,
    decimals,
    evidence,
    headline,
    number,
    read_summary,
    remarks,
)
from videogpa.report.gallery import CLIPS, Browsed, Collection, Entry, encode, write_collection
from videogpa.report.page import PAGE, render, replacing
from videogpa.report.table import MetricFacts, Role, metric_facts, table_rows
from videogpa.stages.comparison import BASE, LARGEST_CHANGES, SMALLEST_SHARPNESS, TRUTH, family_of
from videogpa.stages.doctor import VERDICTS
from videogpa.stages.evaluate import SUMMARY
from videogpa.stages.pair import DROPPED
from videogpa.stages.rounds import require_whole, trainings_of
from videogpa.stages.score import GEOMETRY
from videogpa.types import CONSISTENCY, Candidate, EvalRow, PreferencePair, Prompt, Score

GUARDS = {
    **{name: f"within {limit:.0%} of {BASE}'s" for name, limit in LARGEST_CHANGES.items()},
    "sharpness": f"at least {SMALLEST_SHARPNESS:.0%} of {BASE}'s",
}
HELD_OUT_PAGE, PAIRS_PAGE = "held_out.html", "pairs.html"
PAGES = {"Report": PAGE, "Held-out clips": HELD_OUT_PAGE, "Pairs": PAIRS_PAGE}
BROWSED = 120
"""Entries of a page to browse, at most."""
EXAMPLES = 5
PAIRS_SHOWN = 3
DATA = "data"


@dataclass(frozen=True, kw_only=True)
class Training:
    """What one arm was trained with and what came of it; `rows` are the lines of its log. A `later` one began from an
    earlier LoRA, which it was compared with.
    """

    config: dict[str, Any]
    outcome: dict[str, Any]
    rows: list[dict[str, str]]
    later: bool

    @property
    def shuffled(self) -> bool:
        """Whether it is the control whose preferences mean nothing."""
        return self.config["labels"] == "shuffled"


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldOutRow:
    """What a page needs of a row of the evaluation, of which there may be very many: its video, unless it failed, and
    its value of the metric shown.
    """

    arm: str
    prompt_id: str
    seed: int
    video: str | None
    value: float | None


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """Everything that the page is made from, read and complete.

    `primary` is what the page is about: the metric named before the data, else the one that made the preferences.
    `shown` is the metric that ranks clips and stands beside them, which is another one where the primary looks at all
    seeds together. `candidates` are the names of their videos, `values` what the metric that made the pairs says of
    them.
    """

    folder: Path
    evaluation: Path
    records: dict[str, dict[str, Any]]
    manifests: dict[str, Manifest]
    held_out: dict[str, Prompt]
    train_prompts: dict[str, Prompt]
    candidates: dict[str, str | None]
    values: list[float]
    pairs: list[PreferencePair]
    dropped: list[dict[str, str]]
    trainings: dict[str, Training]
    rows: list[HeldOutRow]
    summary: Summary
    trained_by: str | None
    primary: str
    shown: str
    pair_metric: str

    @property
    def slots(self) -> dict[str, int]:
        """Which of the style sheet's colours each trained arm has."""
        return {arm: i % len(ARMS) for i, arm in enumerate(self.trainings)}


def run(run_folder: Path, evaluation: Path, out: Path, *, workers: Workers = 1) -> Path:
    """Write `index.html`, pages to browse and their clips into `out`; a report that is there is replaced in one step.

    Raises:
        InputError: the run or its evaluation is not complete (the message names what is missing), or `out`
            holds something that is not a report.
    """
    finished = read_run(run_folder, evaluation)
    with replacing(out) as page:
        context = _context(finished, page)
        (page / DATA).mkdir()
        for name in (SUMMARY, ROWS):
            shutil.copyfile(evaluation / name, page / DATA / name)
        pages = _browsed(finished, page, workers)
        for name, collection in pages.items():
            write_collection(
                page, name, collection, {"name": context["name"], "pages": PAGES, "folder": CLIPS}
            )
        (page / PAGE).write_text(render("page.html", context | {"browsed": pages}), encoding="utf-8")
    return out


def read_run(folder: Path, evaluation: Path) -> FinishedRun:
    """All artifacts of a finished run.

    Raises:
        InputError: some are missing or not complete (the message names all of them), or it is one round of a run.
    """
    require_whole(folder)
    parts = {
        "training prompts": folder / "prompts" / "train",
        "held-out prompts": folder / "prompts" / "held_out",
        "candidates": folder / "candidates",
        "scores": folder / "scores",
        "pairs": folder / "pairs",
        "evaluation": evaluation,
    }
    _require_complete(folder, parts)
    summary = read_summary(evaluation / SUMMARY)
    loras = _trained(folder, evaluation)
    _require_complete(folder, {f"LoRA {arm}": lora for arm, lora in loras.items()})
    parts |= {f"LoRA {arm}": lora for arm, lora in loras.items()}
    records = {name: recorded(path) for name, path in parts.items()}
    pair_metric = records["pairs"]["config"]["metric"]
    trained_by = records["evaluation"]["config"]["trained_by"]
    primary = summary.primary or trained_by or CONSISTENCY
    measured = any(primary in row.metrics for row in iter_rows(evaluation, EvalRow))
    shown = primary if measured else trained_by or CONSISTENCY
    return FinishedRun(
        folder=folder,
        evaluation=evaluation,
        records=records,
        manifests={name: read_manifest(path) for name, path in parts.items()},
        held_out={p.id: p for p in read_rows(parts["held-out prompts"], Prompt)},
        train_prompts={p.id: p for p in read_rows(parts["training prompts"], Prompt)},
        candidates={c.id: c.video for c in iter_rows(parts["candidates"], Candidate)},
        values=[
            value
            for s in iter_rows(parts["scores"], Score)
            if (value := s.metrics.get(pair_metric)) is not None
        ],
        pairs=read_rows(parts["pairs"], PreferencePair),
        dropped=json.loads(read_as_made(parts["pairs"] / DROPPED)),
        trainings={
            name: training
            for arm, lora in loras.items()
            for name, training in _trainings(arm, lora, records[f"LoRA {arm}"]).items()
        },
        rows=[
            HeldOutRow(
                arm=intern(r.arm),
                prompt_id=intern(r.prompt_id),
                seed=r.seed,
                video=r.video if r.status == "ok" else None,
                value=r.metrics.get(shown),
            )
            for r in iter_rows(evaluation, EvalRow)
        ],
        summary=summary,
        trained_by=trained_by,
        primary=primary,
        shown=shown,
        pair_metric=pair_metric,
    )


def _context(run: FinishedRun, page: Path) -> dict[str, Any]:
    """What the template writes; clips are put beside the page on the way."""
    names = dict.fromkeys(m for values in run.summary.arms.values() for m in values)
    facts = [_facts(run, name) for name in names]
    truth = [f.name for f in facts if f.role in ("truth", "between_seeds")]
    return {
        "name": run.folder.absolute().name,
        "headline": headline(run.summary, run.primary, truth),
        "evidence": evidence(run.summary, run.primary),
        "caveat": caveat(len({r.prompt_id for r in run.rows})),
        "remarks": remarks(run.summary, [g for g in GUARDS if g in names]),
        "summary": run.summary,
        "shown": run.shown,
        "groups": table_rows(run.summary, facts),
        "facts": facts,
        "limits": GUARDS,
        "arm_slots": run.slots,
        "base": BASE,
        "truth": TRUTH,
        "held_out": _held_out(run),
        "examples": _examples(run, page),
        "preferences": _preferences(run, page),
        "trainings": run.trainings,
        "training_figures": _training_figures(run),
        "verdicts": _verdicts(run),
        "provenance": _provenance(run),
    }


def _browsed(run: FinishedRun, page: Path, workers: Workers) -> dict[str, Collection]:
    """The pages of held-out clips and of pairs, and their videos; of many, some that are spread evenly."""
    sources: dict[str, Path] = {}
    pages = {}
    if run.summary.sides:
        pages[HELD_OUT_PAGE] = _held_out_clips(run, sources)
    pages[PAIRS_PAGE] = _all_pairs(run, sources)
    encode([(master, name) for name, master in sources.items()], page, workers=workers)
    return pages


def _held_out_clips(run: FinishedRun, sources: dict[str, Path]) -> Collection:
    arm, against = run.summary.sides[0]
    by_pair: dict[tuple[str, int], dict[str, HeldOutRow]] = defaultdict(dict)
    for row in run.rows:
        if row.video is not None:
            by_pair[row.prompt_id, row.seed][row.arm] = row
    compared = run.summary.compared(arm, against).get(run.shown)
    sign = 1 if compared is None or compared.higher_is_better else -1
    keys = list(by_pair)
    entries = []
    for key in (keys[rank] for rank in spread_ranks(len(keys), BROWSED)):
        rows, clips = by_pair[key], []
        for name, row in rows.items():
            video = f"{CLIPS}/{name}-{Path(str(row.video)).stem}.mp4"
            sources[video] = run.evaluation / str(row.video)
            clips.append(Browsed(label=name, video=video, value=row.value))
        ours, theirs = (rows[a].value if a in rows else None for a in (arm, against))
        gain = None if ours is None or theirs is None else sign * (ours - theirs)
        entries.append(Entry(text=run.held_out[key[0]].text, note=f"seed {key[1]}", number=gain, clips=clips))
    return Collection(
        title=f"{arm} and {against} on held-out prompts",
        about=f"{_of(len(entries), len(keys))} held-out clips, all arms from the same noise. Numbers beside names are "
        f"{run.shown}; the last one is by how much {arm} is better than {against}.",
        number="gain",
        left=against,
        right=arm,
        entries=entries,
    )


def _all_pairs(run: FinishedRun, sources: dict[str, Path]) -> Collection:
    ranked = sorted(run.pairs, key=lambda p: (-(p.margin or 0.0), p.id))
    entries = []
    for pair in (ranked[rank] for rank in spread_ranks(len(ranked), BROWSED)):
        clips = []
        for side, id, value in (
            ("rejected", pair.rejected, pair.rejected_value),
            ("chosen", pair.chosen, pair.chosen_value),
        ):
            video = f"{CLIPS}/candidate-{id}.mp4"
            sources[video] = run.folder / "candidates" / str(run.candidates[id])
            clips.append(Browsed(label=side, video=video, value=value))
        text = run.train_prompts[pair.prompt_id].text
        entries.append(Entry(text=text, note=pair.id, number=pair.margin, clips=clips))
    return Collection(
        title="The pairs that were trained on",
        about=f"{_of(len(entries), len(ranked))} pairs, made by {run.pair_metric}; the last number is the margin.",
        number="margin",
        left="rejected",
        right="chosen",
        entries=entries,
    )


def _of(shown: int, all: int) -> str:
    return f"All {all}" if shown == all else f"{shown} of {all}, spread evenly,"


def _facts(run: FinishedRun, name: str) -> MetricFacts:
    role: Role = family_of(name, run.summary.primary)
    if role == "other" and name == run.trained_by:
        role = "made"
    return metric_facts(name, role, run.summary.external.get(name))


def _held_out(run: FinishedRun) -> dict[str, Any]:
    return {
        "prompts": len({r.prompt_id for r in run.rows}),
        "seeds": run.records["evaluation"]["config"]["sample"]["candidates"],
        "pairs": len({(r.prompt_id, r.seed) for r in run.rows}),
        "resamples": run.records["evaluation"]["config"]["resamples"],
    }


def _examples(run: FinishedRun, page: Path) -> dict[str, Any] | None:
    """Held-out samples spread evenly over the ranking by gain, and the ranking itself."""
    if not run.summary.sides:
        return None
    arm, against = run.summary.sides[0]
    comparison = run.summary.compared(arm, against).get(run.shown)
    if comparison is None:
        return None
    values = {(r.arm, r.prompt_id, r.seed): r.value for r in run.rows}
    sign = 1 if comparison.higher_is_better else -1
    gains = sorted(
        (
            (sign * (ours - theirs), prompt_id, seed)
            for (name, prompt_id, seed), ours in values.items()
            if name == arm
            and ours is not None
            and (theirs := values.get((against, prompt_id, seed))) is not None
        ),
        reverse=True,
    )
    places = decimals([comparison])
    lettered = letters(spread_ranks(len(gains), EXAMPLES))
    shown = [
        {
            "letter": letter,
            "rank": rank + 1,
            "gain": number(gains[rank][0], places, signed=True),
            "caption": run.held_out[gains[rank][1]].text,
            "clips": _arm_clips(run, page, *gains[rank][1:], letter.lower()),
        }
        for rank, letter in lettered.items()
    ]
    return {
        "arm": arm,
        "against": against,
        "count": len(gains),
        "wins": sum(g > 0 for g, *_ in gains),
        "places": places,
        "shown": shown,
        "median": shown[len(shown) // 2],
        "figure": ranked_gains([g for g, *_ in gains], lettered, run.shown),
    }


def _arm_clips(run: FinishedRun, page: Path, prompt_id: str, seed: int, letter: str) -> list[ShownClip]:
    """The true continuation, if there is one, and every arm's sample of one prompt and seed."""
    clips: list[ShownClip] = []
    world = run.held_out[prompt_id].world
    for row in run.rows:
        if (row.prompt_id, row.seed) != (prompt_id, seed) or row.video is None:
            continue
        source = _arm_source(run, row, f"{letter}-{row.arm}")
        if world is not None and not clips:
            clips.append(show_truth(world, source.master, page, f"{letter}-truth"))
        clips.append(show(source, page, label=row.arm, value=row.value, slot=run.slots.get(row.arm)))
    return clips


def _arm_source(run: FinishedRun, row: HeldOutRow, name: str) -> SourceClip:
    video = Path(str(row.video))
    return SourceClip(
        name=name,
        master=run.evaluation / video,
        geometry=run.evaluation / "scores" / row.arm / GEOMETRY / f"{video.stem}.safetensors",
    )


def _preferences(run: FinishedRun, page: Path) -> dict[str, Any]:
    """How candidates became pairs, and some of these, spread evenly over the ranking by margin."""
    ranked = sorted(run.pairs, key=lambda p: (-(p.margin or 0.0), p.id))
    chosen = [p.chosen_value for p in ranked if p.chosen_value is not None]
    rejected = [p.rejected_value for p in ranked if p.rejected_value is not None]
    return {
        "metric": run.pair_metric,
        "prompts": len(run.train_prompts),
        "candidates": len(run.candidates),
        "failed": run.manifests["candidates"].failed + run.manifests["scores"].failed,
        "judged": len(run.values),
        "pairs": len(ranked),
        "paired_prompts": len({p.prompt_id for p in ranked}),
        "dropped": Counter(d["reason"] for d in run.dropped).most_common(),
        "dropped_prompts": run.dropped,
        "figure": histogram(run.values, chosen, rejected, run.pair_metric),
        "shown": [
            _pair(run, page, ranked[rank], rank + 1, position)
            for position, rank in enumerate(spread_ranks(len(ranked), PAIRS_SHOWN), start=1)
        ],
    }


def _pair(run: FinishedRun, page: Path, pair: PreferencePair, rank: int, position: int) -> dict[str, Any]:
    sides = []
    for side, id, value in (
        ("chosen", pair.chosen, pair.chosen_value),
        ("rejected", pair.rejected, pair.rejected_value),
    ):
        source = SourceClip(
            name=f"pair{position}-{side}",
            master=run.folder / "candidates" / str(run.candidates[id]),
            geometry=run.folder / "scores" / GEOMETRY / f"{id}.safetensors",
        )
        clip = show(source, page, label=side, value=value)
        sides.append({"clip": clip, "sheet": show_sheet(source, page)})
    caption = run.train_prompts[pair.prompt_id].text
    return {"rank": rank, "margin": pair.margin, "caption": caption, "sides": sides}


def _training_figures(run: FinishedRun) -> dict[str, str]:
    """Every figure over the steps, all arms in one, under its explanation."""
    later = any(training.later for training in run.trainings.values())
    against = "its start" if later else f"the {BASE}"
    shown = {
        "loss": ("Loss", None, False),
        "accuracy": ("Implicit accuracy", 0.5, True),
        "chosen_change": (f"Error on the chosen, against {against}", 0.0, True),
        "rejected_change": (f"Error on the rejected, against {against}", 0.0, True),
    }
    return {
        title: training_curves(
            {arm: _curve(t, column) for arm, t in run.trainings.items()},
            title,
            column,
            level=level,
            percent=percent,
        )
        for column, (title, level, percent) in shown.items()
    }


def _verdicts(run: FinishedRun) -> dict[str, list[str]]:
    """What the doctor found, by arm; empty where it has not looked."""
    path = run.evaluation.with_name(VERDICTS)
    if not path.exists():
        return {}
    require_file(path)
    try:
        return TypeAdapter(dict[str, list[str]]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise InputError(f"{path} is damaged: {first_problem(error)}; run the doctor again") from error


def _curve(training: Training, column: str) -> Curve:
    held_out = [
        (int(r["step"]), r[f"held_out_{column}"]) for r in training.rows if r.get(f"held_out_{column}")
    ]
    return Curve(
        steps=[int(r["step"]) for r in training.rows],
        values=[float(r[column]) for r in training.rows],
        held_out_steps=[step for step, _ in held_out],
        held_out_values=[float(value) for _, value in held_out],
    )


def _trained(folder: Path, evaluation: Path) -> dict[str, Path]:
    """The arms that are trainings of the run, and where: the LoRAs as they are, not at another strength or selected
    from, nor trained elsewhere.
    """
    arms = recorded(evaluation)["config"]["arms"]
    own = trainings_of(folder)
    drawn = [a for a, made in arms.items() if made["lora"] and made["best_of"] == 1 and made["strength"] == 1]
    return {arm: own[arm] for arm in drawn if arm in own}


def _trainings(arm: str, folder: Path, record: dict[str, Any]) -> dict[str, Training]:
    """The arm's training, or one for each expert of its model; the first goes by the arm's name."""
    outcome = json.loads(read_as_made(folder / "training.json"))
    given = {"config": record["config"], "later": "earlier" in record["inputs"]}
    experts = outcome.get("experts")
    if experts is None:
        return {arm: Training(**given, outcome=outcome, rows=_log_of(folder))}
    return {
        f"{arm} {expert}" if number else arm: Training(
            **given, outcome=outcome | of_expert, rows=_log_of(folder / expert)
        )
        for number, (expert, of_expert) in enumerate(experts.items())
    }


def _log_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(read_as_made(folder / "log.csv").decode().splitlines()))


def _provenance(run: FinishedRun) -> dict[str, Any]:
    versions: dict[str, list[str]] = {}
    for record in run.records.values():
        for environment in record["environments"]:
            for library, version in environment.items():
                if version not in (known := versions.setdefault(library, [])):
                    known.append(version)
    return {
        "stages": [
            {
                "name": name,
                "manifest": run.manifests[name],
                "seed": record["config"].get("seed", record["config"].get("sample", {}).get("seed")),
                "inputs": record["inputs"],
                "config": json.dumps(record["config"], indent=2, ensure_ascii=False),
            }
            for name, record in run.records.items()
        ],
        "versions": {library: ", ".join(found) for library, found in sorted(versions.items())},
    }


def _require_complete(folder: Path, parts: dict[str, Path]) -> None:
    missing = [f"{name} ({path})" for name, path in parts.items() if not (path / MANIFEST).exists()]
    if missing:
        raise InputError(
            f"{folder} is not a finished run: {', '.join(missing)} missing or not complete; "
            "`videogpa run` with the same recipe and folder finishes it"
        )
