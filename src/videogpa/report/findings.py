"""What an evaluation says, in words: sentences that follow from the numbers and nothing else."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from videogpa.errors import InputError

Verdict = Literal["better", "worse", "unclear"]
LARGEST_DECIMALS = 6
FEWEST_PROMPTS = 20
"""Bootstrap intervals over fewer prompts are far too narrow."""
PHRASES = {"consistency": "hold together {} in 3D"}
"""How to say that a score is {better, worse}; other metrics are named."""


class Comparison(BaseModel):
    """One metric of one arm against another: mean of arm - against over pairs, 95 % interval, share of wins."""

    model_config = ConfigDict(frozen=True)

    arm: str
    against: str
    metric: str
    higher_is_better: bool
    mean_difference: FiniteFloat
    ci95: tuple[FiniteFloat, FiniteFloat]
    win_rate: FiniteFloat
    n: int

    @property
    def verdict(self) -> Verdict:
        """Better or worse only where the whole interval lies on one side of zero."""
        low, high = self.ci95
        if low <= 0 <= high:
            return "unclear"
        return "better" if (low > 0) == self.higher_is_better else "worse"

    @property
    def sides(self) -> tuple[str, str]:
        """(arm, against)."""
        return self.arm, self.against


class Summary(BaseModel):
    """`summary.json` of an evaluation. `guards` holds, for each trained arm, why it is disqualified."""

    model_config = ConfigDict(frozen=True)

    arms: dict[str, dict[str, FiniteFloat]]
    comparisons: list[Comparison]
    guards: dict[str, list[str]] = {}
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
        InputError: missing, or not what the evaluation stage writes.
    """
    try:
        return Summary.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InputError(f"cannot use {path}: {error}; redo the evaluation") from error


def headline(summary: Summary, primary: str, truth: Sequence[str]) -> str:
    """The page's one sentence about the first comparison: what `primary` says and what limits or confirms it.

    `truth` are the metrics that compare with the true continuation.
    """
    if not summary.sides:
        return f"Only {_list(summary.arms)} was evaluated; there is nothing to compare it with."
    arm, against = summary.sides[0]
    compared = summary.compared(arm, against)
    if primary not in compared:
        return f"{arm} and {against} cannot be compared in {primary}."
    problems = summary.guards.get(arm, [])
    verdict = compared[primary].verdict
    aside = _aside(arm, compared, truth, verdict)
    if verdict == "unclear":
        return f"No clear gain: in {primary}, videos by {arm} and by {against} cannot be told apart{aside}."
    if verdict == "worse":
        return f"Videos by {arm} {_phrase(primary, 'worse')} than those by {against}{aside}."
    gain = f"Videos by {arm} {_phrase(primary, 'better')} than those by {against}"
    if problems:
        return f"{gain}, but {arm} is disqualified: {_list(problems)}."
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
    return (
        f"In {primary}, {arm} reaches {ours} and {against} {theirs}: a difference of {difference} "
        f"(95% interval {low} to {high}), better in {c.win_rate:.0%} of {c.n} pairs."
    )


def caveat(prompts: int) -> str:
    """A warning where there are too few prompts for the intervals to be believed; otherwise empty."""
    return (
        "" if prompts >= FEWEST_PROMPTS else f"With only {prompts} prompts, no interval here can be trusted."
    )


def remarks(summary: Summary, guards: Sequence[str]) -> list[str]:
    """One sentence for each comparison and each trained arm's guards. `guards` are the metrics to be kept."""
    sentences = [_outcome(summary, arm, against, guards) for arm, against in summary.sides]
    for arm, problems in summary.guards.items():
        kept = f"{arm} keeps {_list(guards)} within the limits."
        sentences.append(f"{arm} is disqualified: {_list(problems)}." if problems else kept)
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
    by_verdict: dict[Verdict, list[str]] = {"better": [], "worse": [], "unclear": []}
    for metric, comparison in summary.compared(arm, against).items():
        if metric not in guards:
            by_verdict[comparison.verdict].append(metric)
    words = {"better": "better in", "worse": "worse in", "unclear": "no clear difference in"}
    parts = [f"{words[v]} {_list(metrics)}" for v, metrics in by_verdict.items() if metrics]
    return f"{arm} against {against}: {'; '.join(parts) or 'only guards were measured'}."


def _list(items: Iterable[str], last: str = "and") -> str:
    *most, final = list(items) or ["nothing"]
    return f"{', '.join(most)} {last} {final}" if most else final
