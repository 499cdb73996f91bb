"""The headline table, ready to be written: every number beside the text that stands for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from videogpa.metrics.between_seeds import BETWEEN_SEEDS
from videogpa.plugin import load
from videogpa.report.findings import (
    Comparison,
    OutsideMetric,
    Summary,
    Verdict,
    decimals,
    number,
    percent,
)

Role = Literal["primary", "made", "between_seeds", "truth", "other", "neither", "guard"]
TITLES: dict[Role, str] = {
    "primary": "The primary, named before the data: the one that decides",
    "made": "The score that made the preferences",
    "between_seeds": "All seeds of a prompt together, against the true continuation",
    "truth": "Every video against the true continuation",
    "other": "Other scores",
    "neither": "Neither better nor worse",
    "guard": "Guards: a gain that costs these does not count",
}
REACH = 46
"""The widest interval of a metric ends this far from the middle of its 100 wide strip."""


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """What a metric says about itself. `definition` is one sentence."""

    name: str
    role: Role
    higher_is_better: bool | None
    unit: str
    definition: str
    source: str


@dataclass(frozen=True, kw_only=True)
class Number:
    """A value and how it is written; `note` is small print."""

    value: float
    text: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Strip:
    """An interval drawn in a box 100 wide: better is to the right, no difference in the middle."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One comparison in one metric; what it has no figure for is None. `tone` colours it."""

    comparison: Comparison
    difference: Number
    low: Number
    high: Number
    win_rate: Number | None
    p: Number
    detectable: Number | None
    headroom: Number | None
    strip: Strip
    tone: Verdict


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A metric: the mean of every arm and of the truth, None where there is none, and every comparison."""

    metric: MetricFacts
    means: dict[str, Number | None]
    truth: Number | None
    cells: dict[tuple[str, str], Cell]


def metric_facts(name: str, role: Role = "other", outside: OutsideMetric | None = None) -> MetricFacts:
    """What a metric says of itself, with its part in an evaluation; `outside` says it of one that another tool
    measured.

    Raises:
        InputError: no such metric.
    """
    if outside is not None:
        definition, unit, source = "Measured by another tool.", "as it was given", outside.file
        higher_is_better: bool | None = outside.higher_is_better
    elif name in BETWEEN_SEEDS:
        together = BETWEEN_SEEDS[name]
        definition = " ".join((together.measure.__doc__ or "").split("\n\n")[0].split())
        unit, source = together.unit, "this project"
        higher_is_better = together.higher_is_better
    else:
        module = load("metrics", name)
        definition = (module.__doc__ or "").split("\n")[0]
        unit, source = module.UNIT, module.SOURCE
        higher_is_better = None if role == "neither" else module.HIGHER_IS_BETTER
    return MetricFacts(
        name=name,
        role=role,
        higher_is_better=higher_is_better,
        unit=unit,
        definition=definition,
        source=source,
    )


def table_rows(summary: Summary, facts: Sequence[MetricFacts]) -> dict[str, list[TableRow]]:
    """Rows under their group's title; groups without a metric are left out."""
    groups: dict[str, list[TableRow]] = {}
    for role, title in TITLES.items():
        rows = [_row(summary, f) for f in facts if f.role == role]
        if rows:
            groups[title] = rows
    return groups


def _row(summary: Summary, facts: MetricFacts) -> TableRow:
    comparisons = [c for c in summary.comparisons if c.metric == facts.name]
    places = decimals(comparisons)
    widest = max((abs(x) for c in comparisons for x in c.ci95), default=0.0)
    first = next(iter(summary.arms.values())).get(facts.name)
    means: dict[str, Number | None] = {}
    for i, (arm, values) in enumerate(summary.arms.items()):
        if facts.name not in values:
            means[arm] = None
            continue
        value = values[facts.name]
        share = f"{value / first:.1%}" if facts.role == "guard" and i and first else ""
        means[arm] = Number(value=value, text=number(value, places), note=share)
    truth = summary.truth.get(facts.name)
    by_sides = {c.sides: _cell(c, places, widest) for c in comparisons}
    return TableRow(
        metric=facts,
        means=means,
        truth=_maybe(truth, places),
        cells={sides: by_sides[sides] for sides in summary.sides if sides in by_sides},
    )


def _cell(comparison: Comparison, places: int, widest: float) -> Cell:
    low, high = comparison.ci95
    scale = REACH / widest if widest else 0.0
    sign = -1 if comparison.higher_is_better is False else 1
    ends = sorted(50 + sign * scale * x for x in (low, high))

    def signed(value: float) -> Number:
        return Number(value=value, text=number(value, places, signed=True))

    return Cell(
        comparison=comparison,
        difference=signed(comparison.mean_difference),
        low=signed(low),
        high=signed(high),
        win_rate=_share(comparison.win_rate, comparison.win_rate_ci95),
        p=Number(value=comparison.holm_p, text=number(comparison.holm_p, 3)),
        detectable=_maybe(comparison.mde, places),
        headroom=_share(comparison.headroom_share, comparison.headroom_ci95),
        strip=Strip(low=ends[0], middle=50 + sign * scale * comparison.mean_difference, high=ends[1]),
        tone=comparison.verdict,
    )


def _share(value: float | None, interval: tuple[float, float] | None) -> Number | None:
    if value is None:
        return None
    note = "" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"
    return Number(value=value, text=percent(value), note=note)


def _maybe(value: float | None, places: int) -> Number | None:
    return None if value is None else Number(value=value, text=number(value, places))
