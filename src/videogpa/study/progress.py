"""Whose votes count, and how far a study is: what the admin page shows and the analysis starts from."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from videogpa.study.plan import StudyConfig, StudyItem
from videogpa.study.votes import Vote, Votes

UNFINISHED = "not finished"


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """How a rater rated so far. `repeat_agreement` is of the answers on pairs seen again; None without any."""

    votes: int
    failed_checks: int
    median_seconds: float
    repeat_agreement: float | None
    excluded: str | None


def conduct(cfg: StudyConfig, items: Mapping[str, StudyItem], votes: Sequence[Vote]) -> Conduct:
    """Of one rater's votes, at least one; `excluded` is the rule by which they do not count, if any."""
    failed, agreed = 0, []
    first = cfg.questions[0].key
    before = {vote.item: vote for vote in votes if not vote.again}
    for vote in votes:
        item = items[vote.item]
        if item.kind == "check":
            failed += chosen(vote, first) != item.expected
        if vote.again and vote.item in before:
            agreed += [chosen(vote, q.key) == chosen(before[vote.item], q.key) for q in cfg.questions]
    found = Conduct(
        votes=len(votes),
        failed_checks=failed,
        median_seconds=median(vote.seconds for vote in votes),
        repeat_agreement=sum(agreed) / len(agreed) if agreed else None,
        excluded=None,
    )
    return replace(found, excluded=_rule(cfg, found))


def chosen(vote: Vote, question: str) -> str | None:
    """Which of the item's videos an answer is for ('first' or 'second'); None for a tie."""
    answer = vote.answers[question]
    if answer == "tie":
        return None
    other = "second" if vote.left == "first" else "first"
    return vote.left if answer == "left" else other


def by_rater(votes: Sequence[Vote]) -> dict[str, list[Vote]]:
    """Votes by the rater's name."""
    found: dict[str, list[Vote]] = defaultdict(list)
    for vote in votes:
        found[vote.rater.name].append(vote)
    return dict(found)


def progress(cfg: StudyConfig, items: Sequence[StudyItem], votes: Votes) -> dict[str, Any]:
    """Live counts; nothing about which arm wins, so that looking on cannot decide when to stop."""
    known, given = {item.id: item for item in items}, votes.all()
    conducts = {name: conduct(cfg, known, own) for name, own in by_rater(given).items()}
    shown = Counter(vote.item for vote in given if known[vote.item].kind == "pair" and not vote.again)
    pairs = [item.id for item in items if item.kind == "pair"]
    raters = votes.raters()
    left_out = {name: c.excluded for name, c in conducts.items() if c.excluded not in (None, UNFINISHED)}
    return {
        "title": cfg.title,
        "raters": len(raters),
        "finished": sum(finished is not None for _, _, finished in raters),
        "wanted": cfg.raters,
        "votes": len(given),
        "screens": cfg.screens,
        "pairs": len(pairs),
        "least_seen": min((shown[id] for id in pairs), default=0),
        "most_seen": max((shown[id] for id in pairs), default=0),
        "excluded": dict(Counter(left_out.values())),
        "rules": rules(cfg),
        "by_rater": [
            {
                "rater": rater.name,
                "began": began.isoformat(timespec="seconds"),
                "finished": finished is not None,
                "votes": conducts[rater.name].votes if rater.name in conducts else 0,
                "excluded": left_out.get(rater.name),
            }
            for rater, began, finished in raters
        ],
    }


def rules(cfg: StudyConfig) -> list[str]:
    """The exclusion rules and the stop rule, in words."""
    rule = cfg.exclusion
    said = [] if rule.unfinished else ["A rater who does not finish does not count."]
    said += [
        f"A rater who fails more than {rule.failed_checks} of {cfg.checks} attention checks does not count.",
        f"A rater whose median time for a screen is below {rule.median_seconds:g} s does not count.",
    ]
    if rule.repeat_agreement is not None:
        said.append(
            f"A rater who repeats fewer than {rule.repeat_agreement:.0%} of the answers does not count."
        )
    end = (
        "The study never closes."
        if cfg.raters is None
        else f"It closes when {cfg.raters} raters have finished."
    )
    return [*said, end]


def stop_rule(cfg: StudyConfig, finished: int) -> str:
    """How the study stands to its stop rule, in words."""
    if cfg.raters is None:
        return f"{finished} raters have finished; no number was stated at which to stop."
    state = "reached" if finished >= cfg.raters else "not reached yet"
    return f"{finished} raters have finished; the study was to stop at {cfg.raters}, which is {state}."


def _rule(cfg: StudyConfig, found: Conduct) -> str | None:
    rule = cfg.exclusion
    if found.failed_checks > rule.failed_checks:
        return "attention checks"
    if found.median_seconds < rule.median_seconds:
        return "too quick"
    wanted = rule.repeat_agreement
    if wanted is not None and found.repeat_agreement is not None and found.repeat_agreement < wanted:
        return "repeats differ"
    if found.votes < cfg.screens and not rule.unfinished:
        return UNFINISHED
    return None
