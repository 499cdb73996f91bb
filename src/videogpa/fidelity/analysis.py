"""What the battery's values say about a metric: does it rank, does it judge, does it raise false alarms?

All functions take values that are better when higher. A value that is missing was not judged.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np
from scipy.stats import rankdata, spearmanr

from videogpa.fidelity.battery import Case

Values = Mapping[Case, float]


@dataclass(frozen=True)
class Verdict:
    """One metric on the whole battery; shares in [0, 1], None where nothing was judged.

    ranking: pairs of strengths of one scene and fault (the clean clip is strength 0) of which the stronger scores
    lower. monotone: scenes and faults in which every step lowers the score. judged: faulty clips with a value.
    above_clean: degraded clips that score above the clean one. false_alarms: legitimate changes that lower the score by
    more than `threshold`, the median drop of the weakest fault at its weakest strength.
    """

    judged: float
    ranking: float | None
    monotone: float | None
    above_clean: float | None
    false_alarms: float | None
    threshold: float | None


@dataclass(frozen=True)
class ChangeVerdict:
    """One metric on one kind of change. `drops` are median drops below the clean clip by strength."""

    change: str
    kind: str
    judged: float
    ranking: float | None
    monotone: float | None
    above_clean: float | None
    false_alarms: float | None
    drops: tuple[float | None, ...]


def verdict(values: Values, cases: Sequence[Case]) -> Verdict:
    """The figures of a metric from its values on `cases`."""
    faulty = [c for c in cases if c.kind == "fault"]
    ladders = list(_ladders(values, faulty))
    threshold = weakest_drop(values, cases)
    return Verdict(
        judged=_share(c in values for c in faulty) or 0.0,
        ranking=_share(_ranked(ladders)),
        monotone=_share(_monotone(ladders)),
        above_clean=_share(_drop_is(values, cases, "degradation", lambda drop: drop < 0)),
        false_alarms=None
        if threshold is None
        else _share(_drop_is(values, cases, "legitimate", lambda drop: drop > threshold)),
        threshold=threshold,
    )


def by_change(values: Values, cases: Sequence[Case]) -> list[ChangeVerdict]:
    """The same, and the median drops, for every kind of change."""
    threshold = weakest_drop(values, cases)
    rows = []
    for change in dict.fromkeys(c.change for c in cases if c.kind != "clean"):
        own = [c for c in cases if c.change == change]
        kind = own[0].kind
        ladders = list(_ladders(values, own)) if kind == "fault" else []
        drops = [drop for c in own if (drop := _drop(values, c)) is not None]
        levels = sorted({c.strength for c in own})
        alarms = kind == "legitimate" and threshold is not None
        rows.append(
            ChangeVerdict(
                change=change,
                kind=kind,
                judged=_share(c in values for c in own) or 0.0,
                ranking=_share(_ranked(ladders)),
                monotone=_share(_monotone(ladders)),
                above_clean=_share(d < 0 for d in drops) if kind == "degradation" else None,
                false_alarms=_share(d > (threshold or 0) for d in drops) if alarms else None,
                drops=tuple(
                    _median_drop(values, [c for c in own if c.strength == level]) for level in levels
                ),
            )
        )
    return rows


def weakest_drop(values: Values, cases: Sequence[Case]) -> float | None:
    """The median drop of the fault that lowers the score least at its weakest strength."""
    faults = dict.fromkeys(c.change for c in cases if c.kind == "fault")
    first = [_median_drop(values, [c for c in cases if c.change == f and c.strength == 1]) for f in faults]
    known = [drop for drop in first if drop is not None]
    return min(known) if known else None


def within_prompt_spearman(
    groups: Iterable[Sequence[tuple[float | None, float | None]]],
) -> tuple[float, float, int]:
    """Mean rank correlation of (value, truth) inside the groups, its standard error, and how many groups count.

    Groups with fewer than four complete pairs, or without any difference, say nothing and are left out.
    """
    found = []
    for group in groups:
        pairs = np.array([p for p in group if None not in p], dtype=float)
        if len(pairs) >= 4 and all(len(set(column)) > 1 for column in pairs.T):
            found.append(float(spearmanr(*pairs.T).statistic))
    if not found:
        return float("nan"), float("nan"), 0
    return (
        fmean(found),
        float(np.std(found, ddof=1) / len(found) ** 0.5) if len(found) > 1 else 0.0,
        len(found),
    )


def mean_ranks(columns: Sequence[Sequence[float | None]]) -> list[float | None]:
    """Of each item the mean of its ranks in the columns; None for items that one of them leaves out."""
    complete = [i for i, row in enumerate(zip(*columns, strict=True)) if None not in row]
    ranks = np.mean([rankdata([column[i] for i in complete]) for column in columns], axis=0)
    found = dict(zip(complete, ranks.tolist(), strict=True))
    return [found.get(i) for i in range(len(columns[0]))]


def reference(case: Case) -> Case:
    """The clean clip that a case is compared with."""
    return Case(case.scene, "clean", "still_curtain" if case.change == "waving_surface" else "clean", 0)


def _drop(values: Values, case: Case) -> float | None:
    clean, own = values.get(reference(case)), values.get(case)
    return None if clean is None or own is None else clean - own


def _median_drop(values: Values, cases: Sequence[Case]) -> float | None:
    drops = [drop for c in cases if (drop := _drop(values, c)) is not None]
    return median(drops) if drops else None


def _drop_is(values: Values, cases: Sequence[Case], kind: str, condition) -> list[bool]:
    drops = (_drop(values, c) for c in cases if c.kind == kind)
    return [condition(drop) for drop in drops if drop is not None]


def _ladders(values: Values, faulty: Sequence[Case]) -> Iterable[list[float | None]]:
    """For every scene and fault the scores from clean to strongest."""
    rungs: dict[tuple[int, str], list[Case]] = {}
    for case in faulty:
        rungs.setdefault((case.scene, case.change), []).append(case)
    for cases in rungs.values():
        ordered = sorted(cases, key=lambda c: c.strength)
        yield [values.get(c) for c in (reference(ordered[0]), *ordered)]


def _ranked(ladders: Iterable[list[float | None]]) -> list[bool]:
    return [
        weaker > stronger
        for ladder in ladders
        for weaker, stronger in itertools.combinations(ladder, 2)
        if weaker is not None and stronger is not None
    ]


def _monotone(ladders: Iterable[list[float | None]]) -> list[bool]:
    whole = [[v for v in ladder if v is not None] for ladder in ladders if None not in ladder]
    return [all(a > b for a, b in itertools.pairwise(ladder)) for ladder in whole]


def _share(flags: Iterable[bool]) -> float | None:
    flags = list(flags)
    return fmean(flags) if flags else None
