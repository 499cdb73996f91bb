"""What the votes say: win rates, a ranking of arms, how far raters agree, and which metrics agree with them."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import choix
import krippendorff
import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.stats import binomtest

from videogpa.stages.comparison import direction
from videogpa.statistics import LEVEL, bootstrap_interval, holm
from videogpa.study.plan import StudyConfig, StudyItem
from videogpa.study.power import power
from videogpa.study.progress import by_rater, chosen, conduct, rules, stop_rule
from videogpa.study.votes import Vote
from videogpa.types import EvalRow

RESAMPLES, SEED = 10_000, 0
RANKING_RESAMPLES = 1_000
FEW_RATERS = 20
"""Below, intervals that resample raters are too narrow."""
PRIOR = 0.5
"""Wins each way that arms that met have beforehand, so that one that won or lost everything has a finite strength."""


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """A vote that counts, on one question: for the first arm 1, for the second 0, a tie one half."""

    rater: str
    item: StudyItem
    question: str
    value: float


def analyse(
    cfg: StudyConfig,
    items: Sequence[StudyItem],
    votes: Sequence[Vote],
    measured: Sequence[EvalRow] = (),
    outside: Mapping[str, bool] = {},
) -> dict[str, Any]:
    """All figures; `docs/study.md` describes the keys. `measured` are the rows of the evaluation that was shown;
    `outside`, for metrics of other tools among them, says whether higher is better.
    """
    known = {item.id: item for item in items}
    conducts = {name: conduct(cfg, known, own) for name, own in by_rater(votes).items()}
    counted = [vote for vote in votes if conducts[vote.rater.name].excluded is None]
    ballots = _ballots(cfg, known, counted)
    compared = tuple(dict.fromkeys(item.arms for item in items if item.kind == "pair"))
    repeats = [
        c.repeat_agreement for c in conducts.values() if c.excluded is None and c.repeat_agreement is not None
    ]
    questions = [question.key for question in cfg.questions]
    counted_raters = sum(c.excluded is None for c in conducts.values())
    return {
        "title": cfg.title,
        "questions": {question.key: question.text for question in cfg.questions},
        "rules": rules(cfg),
        "raters": len(conducts),
        "counted_raters": counted_raters,
        "few_raters": counted_raters < FEW_RATERS,
        "stop_rule": stop_rule(cfg, sum(c.votes >= cfg.screens for c in conducts.values())),
        "excluded": dict(Counter(c.excluded for c in conducts.values() if c.excluded)),
        "votes": len(votes),
        "comparisons": _comparisons(questions, compared, ballots),
        "ranking": [row for question in questions for row in _ranking(question, compared, ballots)],
        "agreement": [_agreement(question, ballots) for question in questions],
        "repeat_agreement": float(np.mean(repeats)) if repeats else None,
        "left": _left(counted),
        "reasons": _reasons(cfg, known, counted),
        "metrics": _metrics(questions, ballots, measured, outside),
    }


def _ballots(cfg: StudyConfig, known: Mapping[str, StudyItem], votes: Sequence[Vote]) -> list[Ballot]:
    """Of the pairs as they were seen first."""
    worth = {"first": 1.0, "second": 0.0, None: 0.5}
    return [
        Ballot(rater=vote.rater.name, item=known[vote.item], question=q.key, value=worth[chosen(vote, q.key)])
        for vote in votes
        if known[vote.item].kind == "pair" and not vote.again
        for q in cfg.questions
    ]


def _comparisons(
    questions: Sequence[str], compared: Sequence[tuple[str, str]], ballots: Sequence[Ballot]
) -> list[dict[str, Any]]:
    """Of every question and two arms that have votes, in the order of the plan; Holm's correction is over all."""
    groups: dict[tuple[str, tuple[str, str]], list[Ballot]] = defaultdict(list)
    for ballot in ballots:
        groups[ballot.question, ballot.item.arms].append(ballot)
    found = [
        {"question": question, **_compared(arms, groups[question, arms])}
        for question in questions
        for arms in compared
        if (question, arms) in groups
    ]
    tested = [row for row in found if row["p"] is not None]
    for row, corrected in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = corrected
    return found


def _compared(arms: tuple[str, str], ballots: Sequence[Ballot]) -> dict[str, Any]:
    values = np.array([ballot.value for ballot in ballots])
    raters = [ballot.rater for ballot in ballots]
    wins, losses = int((values == 1).sum()), int((values == 0).sum())
    decided = wins + losses
    exact = binomtest(wins, decided) if decided else None
    wilson = exact.proportion_ci(1 - LEVEL, "wilson") if exact else None
    low, high = bootstrap_interval(values, raters, RESAMPLES, SEED)
    return {
        "arm": arms[0],
        "against": arms[1],
        "votes": len(values),
        "wins": wins,
        "losses": losses,
        "ties": len(values) - decided,
        "win_rate": float(values.mean()),
        "win_rate_of_decided": wins / decided if decided else None,
        "wilson95": None if wilson is None else [float(wilson.low), float(wilson.high)],
        "by_rater95": [low, high],
        "p": None if exact is None else float(exact.pvalue),
        "p_holm": None,
        "raters": len(set(raters)),
        "prompts": len({ballot.item.prompt_id for ballot in ballots}),
        "power_for_60_percent": power(0.6, decided) if decided else 0.0,
    }


def _ranking(
    question: str, compared: Sequence[tuple[str, str]], ballots: Sequence[Ballot]
) -> list[dict[str, Any]]:
    """Bradley-Terry strengths as chances to win against the middle of all arms; intervals resample raters.

    Empty for two arms, and where arms are not connected by the comparisons that have votes: nothing would say how they
    stand to each other.

    Source: Bradley and Terry, Rank analysis of incomplete block designs, Biometrika 1952; a tie is half a win each.
    """
    own = [ballot for ballot in ballots if ballot.question == question]
    arms = list(dict.fromkeys(arm for sides in compared for arm in sides))
    won = _wins(arms, own)
    met = won.sum(0) > 0
    if len(arms) < 3 or connected_components(met, directed=False, return_labels=False) > 1:
        return []
    prior = PRIOR * (met | met.T)
    strengths = _strengths(won.sum(0) + prior)
    generator = np.random.default_rng(SEED)
    drawn = [
        _strengths(won[generator.integers(0, len(won), len(won))].sum(0) + prior)
        for _ in range(RANKING_RESAMPLES)
    ]
    low, high = np.percentile(drawn, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)], axis=0)
    return [
        {
            "question": question,
            "arm": arms[i],
            "strength": float(strengths[i]),
            "ci95": [float(low[i]), float(high[i])],
        }
        for i in np.argsort(-strengths)
    ]


def _wins(arms: Sequence[str], ballots: Sequence[Ballot]) -> np.ndarray:
    """[rater, arm, other]: how often the rater preferred the arm to the other."""
    number = {arm: i for i, arm in enumerate(arms)}
    raters = {name: i for i, name in enumerate(sorted({ballot.rater for ballot in ballots}))}
    won = np.zeros((len(raters), len(arms), len(arms)))
    for ballot in ballots:
        rater, (first, second) = raters[ballot.rater], (number[arm] for arm in ballot.item.arms)
        won[rater, first, second] += ballot.value
        won[rater, second, first] += 1 - ballot.value
    return won


def _strengths(won: np.ndarray) -> np.ndarray:
    logits = choix.ilsr_pairwise_dense(won, max_iter=1_000)
    return 1 / (1 + np.exp(-(logits - logits.mean())))


def _agreement(question: str, ballots: Sequence[Ballot]) -> dict[str, Any]:
    """Krippendorff's alpha of raters on the pairs that several saw: 1 agreement, 0 chance.

    Source: Krippendorff, Content Analysis, 4th edition 2018, chapter 12; nominal difference.
    """
    own = [ballot for ballot in ballots if ballot.question == question]
    counts: dict[str, Counter[float]] = defaultdict(Counter)
    for ballot in own:
        counts[ballot.item.id][ballot.value] += 1
    seen_twice = {id: count for id, count in counts.items() if count.total() > 1}
    domain = sorted({value for count in seen_twice.values() for value in count})
    if len(domain) < 2:
        # Alpha is not defined where all answers are the same; with none at all, neither.
        unanimous = len(domain) == 1
        return {"question": question, "alpha": None, "unanimous": unanimous, "pairs": len(seen_twice)}
    table = np.array([[count[value] for value in domain] for count in seen_twice.values()])
    alpha = krippendorff.alpha(value_counts=table, value_domain=domain, level_of_measurement="nominal")
    return {"question": question, "alpha": float(alpha), "unanimous": False, "pairs": len(seen_twice)}


def _left(votes: Sequence[Vote]) -> dict[str, Any] | None:
    """How often the left video won, whatever it was: far from one half, raters have a habit."""
    sides = [answer == "left" for vote in votes for answer in vote.answers.values() if answer != "tie"]
    if not sides:
        return None
    ends = binomtest(sum(sides), len(sides)).proportion_ci(1 - LEVEL, "wilson")
    return {"share": sum(sides) / len(sides), "wilson95": [float(ends.low), float(ends.high)]}


def _reasons(cfg: StudyConfig, known: Mapping[str, StudyItem], votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """Which reasons were given against which arm, by the answer to the first question."""
    counts: Counter[tuple[str, str]] = Counter()
    for vote in votes:
        item, choice = known[vote.item], chosen(vote, cfg.questions[0].key)
        if item.kind == "pair" and not vote.again and choice is not None:
            loser = item.arms[1 if choice == "first" else 0]
            counts.update((loser, tag) for tag in vote.tags)
    return [{"against": arm, "reason": tag, "votes": n} for (arm, tag), n in counts.most_common()]


def _metrics(
    questions: Sequence[str],
    ballots: Sequence[Ballot],
    measured: Sequence[EvalRow],
    outside: Mapping[str, bool],
) -> list[dict[str, Any]]:
    """How often a metric prefers the video that a rater does; ties of either side left out."""
    values = {(row.arm, row.prompt_id, row.seed): row.metrics for row in measured}
    names = sorted({name for metrics in values.values() for name in metrics})
    found = []
    for question in questions:
        own = [ballot for ballot in ballots if ballot.question == question and ballot.value != 0.5]
        for name in names:
            prefers = _preference(name, outside[name] if name in outside else direction(name), values)
            agrees = [(b.rater, (p > 0) == (b.value == 1)) for b in own if (p := prefers(b.item))]
            if not agrees:
                continue
            raters, right = [rater for rater, _ in agrees], np.array([a for _, a in agrees], float)
            ends = bootstrap_interval(right, raters, RESAMPLES, SEED)
            found.append(
                {
                    "question": question,
                    "metric": name,
                    "agreement": float(right.mean()),
                    "ci95": list(ends),
                    "votes": len(right),
                }
            )
    return sorted(found, key=lambda row: (questions.index(row["question"]), -row["agreement"]))


def _preference(
    name: str, better: bool | None, values: Mapping[tuple[str, str, int], Mapping[str, float | None]]
) -> Callable[[StudyItem], float]:
    """By how much a metric, of which more or less is `better`, prefers an item's first video; 0 if it does not say."""

    def prefers(item: StudyItem) -> float:
        first, second = (values.get((arm, item.prompt_id, item.seed), {}).get(name) for arm in item.arms)
        if better is None or first is None or second is None:
            return 0.0
        return first - second if better else second - first

    return prefers
