"""What an evaluation says, in words: sentences that follow from the numbers and nothing else."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from videogpa.artifact import read_as_made
from videogpa.errors import InputError, first_problem
from videogpa.statistics import is_clear

Verdict = Literal["better", "worse", "unclear", "disqualified", "neither"]
"""`disqualified`: the winner breaks a guard; `neither`: the metric has no better."""
LARGEST_DECIMALS = 6
FEWEST_PROMPTS = 20
"""Bootstrap intervals over fewer prompts are far too narrow."""
PHRASES = {"consistency": "hold together {} in 3D"}
"""How to say that a score is {better, worse}; other metrics are named."""


class Comparison(BaseModel):
    """One metric of one arm against another, as `summary.json` has it (docs/evaluation.md).

    mean_difference: arm - against over `n` pairs; win_rate: share of `prompts`; rank_biserial: which way signed ranks
    point; holm_p: corrected within the metric's family; mde: the smallest effect that would have been found 4 times of
    5; headroom_share: the difference over what the truth has over the base. Intervals are 95 %. None where there is no
    such figure.
    """

    model_config = ConfigDict(frozen=True)

    arm: str
    against: str
    metric: str
    higher_is_better: bool | None
    mean_difference: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]
    win_rate: FiniteFloat | None
    win_rate_ci95: tuple[FiniteFloat, FiniteFloat] | None
    rank_biserial: FiniteFloat | None = None
    holm_p: FiniteFloat
    mde: FiniteFloat | None
    headroom_share: FiniteFloat | None
    headroom_ci95: tuple[FiniteFloat, FiniteFloat] | None
    verdict: Verdict
    n: int
    prompts: int

    @property
    def clear(self) -> bool:
        """Whether its sign is clear, whichever is better and whoever breaks a guard."""
        # Evaluations of earlier versions do not say which way ranks point.
        ranks = self.mean_difference if self.rank_biserial is None else self.rank_biserial
        return is_clear(self.ci95, ranks, self.holm_p)

    @property
    def sides(self) -> tuple[str, str]:
        """(arm, against)."""
        return self.arm, self.against


class OutsideMetric(BaseModel):
    """What is known of a metric that another tool measured; `file` is the table that its numbers came in."""

    model_config = ConfigDict(frozen=True)

    higher_is_better: bool
    file: str


class Summary(BaseModel):
    """`summary.json` of an evaluation.

    guards: why an arm is disqualified; truth: what the true videos score; circular: by arm, the metrics that made it;
    primaries_before: those of finished evaluations whose videos this one took over, None for one that named none.
    """

    model_config = ConfigDict(frozen=True)

    primary: str | None = None
    primaries_before: list[str | None] = []
    arms: dict[str, dict[str, FiniteFloat]]
    truth: dict[str, FiniteFloat] = {}
    external: dict[str, OutsideMetric] = {}
    comparisons: list[Comparison]
    guards: dict[str, list[str]] = {}
    circular: dict[str, list[str]] = {}
    allow_circular: bool = False
    failed_rows: int = 0
    protocol: str = ""

    @property
    def sides(self) -> list[tuple[str, str]]:
        """The (arm, against) that were compared, in order; the first is what the page is about."""
        return list(dict.fromkeys(c.sides for c in self.comparisons))

    def compared(self, arm: str, against: str) -> dict[str, Comparison]:
        """The comparisons of two arms by metric."""
        return {c.metric: c for c in self.comparisons if c.sides == (arm, against)}


def read_summary(path: Path) -> Summary:
    """An evaluation's `summary.json`.

    Raises:
        InputError: missing, or not what the evaluation stage wrote.
    """
    try:
        return Summary.model_validate_json(read_as_made(path))
    except (InputError, OSError) as error:
        raise InputError(f"cannot use {path}: {error}; redo the evaluation") from error
    except ValidationError as error:
        raise InputError(f"cannot use {path}: {first_problem(error)}; redo the evaluation") from error


def headline(summary: Summary, primary: str, truth: Sequence[str]) -> str:
    """The page's one sentence about the first comparison: what `primary` says and what limits or confirms it.

    `truth` are the other metrics that compare with the true continuation.
    """
    if not summary.sides:
        return f"Only {_list(summary.arms)} was evaluated; there is nothing to compare it with."
    arm, against = summary.sides[0]
    compared = summary.compared(arm, against)
    if primary not in compared:
        return f"{arm} and {against} cannot be compared in {primary}."
    verdict = compared[primary].verdict
    aside = _aside(arm, compared, truth, verdict)
    if verdict == "disqualified":
        c = compared[primary]
        ahead = (arm, against) if (c.mean_difference > 0) == c.higher_is_better else (against, arm)
        winner = next((side for side in ahead if summary.guards.get(side)), ahead[0])
        return f"{winner} is disqualified ({_list(summary.guards.get(winner, []))}): no gain in {primary} counts."
    if verdict in ("unclear", "neither"):
        return f"No clear gain: in {primary}, videos by {arm} and by {against} cannot be told apart{aside}."
    if verdict == "worse":
        return f"Videos by {arm} {_phrase(primary, 'worse')} than those by {against}{aside}."
    gain = f"Videos by {arm} {_phrase(primary, 'better')} than those by {against}"
    if doubted := _not_beaten(summary, arm, against, primary):
        return f"{gain}, but not clearly better than {_list(doubted, 'or')}."
    return f"{gain}{aside}."


def evidence(summary: Summary, primary: str) -> str:
    """The numbers behind the headline in one sentence; empty where there are none."""
    if not summary.sides or primary not in summary.compared(*summary.sides[0]):
        return ""
    arm, against = summary.sides[0]
    c = summary.compared(arm, against)[primary]
    places = decimals(d for d in summary.comparisons if d.metric == primary)
    ours, theirs = (number(summary.arms[a][primary], places) for a in (arm, against))
    difference, low, high = (number(x, places, signed=True) for x in (c.mean_difference, *c.ci95))
    level = f"{arm} reaches {ours} and {against} {theirs}: a difference of {difference} "
    if number(summary.arms[arm][primary] - summary.arms[against][primary], places, signed=True) != difference:
        # Their own means are not of the same videos.
        level = f"{arm} differs from {against} by {difference} in the {c.n} videos that both have "
    wins = "" if c.win_rate is None else f", better in {c.win_rate:.0%} of {c.prompts} prompts"
    share = "" if c.headroom_share is None else f", {percent(c.headroom_share)} of what the true videos gain"
    return f"In {primary}, {level}(95% interval {low} to {high}{share}){wins}."


def caveat(prompts: int) -> str:
    """A warning where there are too few prompts for the intervals to be believed; otherwise empty."""
    return (
        "" if prompts >= FEWEST_PROMPTS else f"With only {prompts} prompts, no interval here can be trusted."
    )


def naming(summary: Summary) -> str:
    """Which metric decides, and whether that was said before anybody could see who wins; empty where none does."""
    if summary.primary is None:
        return ""
    others = [before for before in summary.primaries_before if before != summary.primary]
    if not others:
        return f"The primary, named before the data, is {summary.primary}."
    by = _list(dict.fromkeys(f"by {before}" if before else "without a primary" for before in others))
    return f"The primary, {summary.primary}, was named after an evaluation of some of these videos {by} was finished."


def remarks(summary: Summary, guards: Sequence[str]) -> list[str]:
    """One sentence for each comparison, each arm's guards and what made it. `guards` are the metrics to be kept."""
    sentences = [_outcome(summary, arm, against, guards) for arm, against in summary.sides]
    for arm, problems in summary.guards.items():
        kept = f"{arm} keeps {_list(guards)} within the limits."
        sentences.append(f"{arm} is disqualified: {_list(problems)}." if problems else kept)
    for arm, metrics in summary.circular.items():
        sentences.append(f"{arm} was made by {_list(metrics)}: what that says of it is no evidence.")
    if any(before != summary.primary for before in summary.primaries_before):
        sentences.append(naming(summary))
    if summary.allow_circular:
        sentences.append("Circular judging was allowed: what made an arm may be its only judge here.")
    return sentences


def decimals(comparisons: Iterable[Comparison]) -> int:
    """How many decimals a metric's numbers deserve: one to two digits of its narrowest interval."""
    widths = [(c.ci95[1] - c.ci95[0]) / 2 for c in comparisons]
    width = min((w for w in widths if w > 0), default=0.005)
    return min(max(math.ceil(0.7 - math.log10(width)), 0), LARGEST_DECIMALS)


def number(value: float, places: int, *, signed: bool = False) -> str:
    """A number with a real minus sign; zero has none."""
    text = f"{value:{'+' if signed else ''}.{places}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def percent(share: float) -> str:
    """A share in whole per cent."""
    return f"{number(100 * share, 0)}%"


def _phrase(metric: str, how: str) -> str:
    return PHRASES.get(metric, f"are {{}} in {metric}").format(how)


def _aside(arm: str, compared: dict[str, Comparison], truth: Sequence[str], primary: Verdict) -> str:
    """What the true continuation adds to the primary metric's verdict."""
    verdicts = {compared[m].verdict for m in truth if m in compared}
    if not verdicts:
        return ""
    agrees = "and" if primary in verdicts else "but"
    match "better" in verdicts, "worse" in verdicts:
        case True, True:
            return ", and the comparisons with the true continuation disagree among themselves"
        case False, False:
            return "" if primary == "unclear" else ", but against the true continuation nothing clear changed"
        case True, False:
            return (
                ", and the true continuation confirms it"
                if primary == "better"
                else f", but {arm} came closer to the true continuation"
            )
        case _:
            return f", {agrees} {arm} moved away from the true continuation"


def _not_beaten(summary: Summary, arm: str, against: str, primary: str) -> list[str]:
    others = [s for s in summary.sides if s[0] == arm and s[1] != against]
    return [o for a, o in others if (c := summary.compared(a, o).get(primary)) and c.verdict != "better"]


def _outcome(summary: Summary, arm: str, against: str, guards: Sequence[str]) -> str:
    words: dict[Verdict, str] = {
        "better": "better in",
        "worse": "worse in",
        "disqualified": "a difference that does not count in",
        "unclear": "no clear difference in",
    }
    compared = [c for c in summary.compared(arm, against).values() if c.metric not in guards]
    by_verdict = {verdict: [c.metric for c in compared if c.verdict == verdict] for verdict in words}
    parts = [f"{words[v]} {_list(metrics)}" for v, metrics in by_verdict.items() if metrics]
    return f"{arm} against {against}: {'; '.join(parts) or 'only guards were measured'}."


def _list(items: Iterable[str], last: str = "and") -> str:
    *most, final = list(items) or ["nothing"]
    return f"{', '.join(most)} {last} {final}" if most else final
