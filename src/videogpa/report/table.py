"""The headline table, ready to be written: every number beside the text that stands for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from videogpa.plugin import load
from videogpa.report.findings import Comparison, Summary, Verdict, decimals, number

Role = Literal["primary", "truth", "other", "guard"]
TITLES: dict[Role, str] = {
    "primary": "The score that made the preferences",
    "truth": "Against the true continuation, which nothing was trained or selected on",
    "other": "Other scores",
    "guard": "Guards: a gain that costs these does not count",
}
REACH = 46
"""The widest interval of a metric ends this far from the middle of its 100 wide strip."""


@dataclass(frozen=True, kw_only=True)
class MetricFacts:
    """What a metric says about itself. `definition` is one sentence."""

    name: str
    role: Role
    higher_is_better: bool
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
    """One comparison in one metric. `tone` colours it: guards have no better or worse."""

    comparison: Comparison
    difference: Number
    low: Number
    high: Number
    win_rate: Number
    strip: Strip
    tone: Verdict | Literal["guard"]


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A metric: the mean of every arm and every comparison, None where there is none."""

    metric: MetricFacts
    means: dict[str, Number | None]
    cells: dict[tuple[str, str], Cell | None]


def metric_facts(name: str, primary: str, guards: Sequence[str]) -> MetricFacts:
    """The declared properties of a metric and its part in this evaluation.

    Raises:
        InputError: no such metric.
    """
    module = load("metrics", name)
    role: Role = "truth" if "truth" in module.NEEDS else "other"
    if name == primary:
        role = "primary"
    elif name in guards:
        role = "guard"
    return MetricFacts(
        name=name,
        role=role,
        higher_is_better=module.HIGHER_IS_BETTER,
        unit=module.UNIT,
        definition=(module.__doc__ or "").split("\n")[0],
        source=module.SOURCE,
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
    by_sides = {c.sides: _cell(c, facts, places, widest) for c in comparisons}
    return TableRow(metric=facts, means=means, cells={s: by_sides.get(s) for s in summary.sides})


def _cell(comparison: Comparison, facts: MetricFacts, places: int, widest: float) -> Cell:
    low, high = comparison.ci95
    scale = REACH / widest if widest else 0.0
    sign = 1 if comparison.higher_is_better else -1
    ends = sorted(50 + sign * scale * x for x in (low, high))

    def signed(value: float) -> Number:
        return Number(value=value, text=number(value, places, signed=True))

    return Cell(
        comparison=comparison,
        difference=signed(comparison.mean_difference),
        low=signed(low),
        high=signed(high),
        win_rate=Number(value=comparison.win_rate, text=f"{comparison.win_rate:.0%}"),
        strip=Strip(low=ends[0], middle=50 + sign * scale * comparison.mean_difference, high=ends[1]),
        tone="guard" if facts.role == "guard" else comparison.verdict,
    )
