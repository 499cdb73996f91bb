"""Who sees which items, in which order and on which side: decided by the study's seed and the rater's number alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from videogpa.study.plan import Place, StudyConfig, StudyItem

EARLY, LATE = 1 / 2, 2 / 3
"""What comes again is of the first half of a rater's items, and comes in their last third."""


@dataclass(frozen=True, kw_only=True)
class Showing:
    """One screen of one rater. `left` is the video on the left; `again` is whether the rater had the pair before."""

    item: StudyItem
    left: Place
    again: bool = False

    @property
    def videos(self) -> tuple[str, str]:
        """Left and right."""
        first, second = self.item.videos
        return (first, second) if self.left == "first" else (second, first)


def schedule(cfg: StudyConfig, items: Sequence[StudyItem], rater: int) -> list[Showing]:
    """All screens of rater number `rater` (from 0), in order.

    Pairs are dealt out from one shuffled deck after the other, so that all are seen about equally often. A check is
    never the first screen, and as far as there are others not of a video that the rater's pairs show. Repeats have
    their sides exchanged. There are at least `cfg.items` pairs and `cfg.checks` checks among the items.
    """
    pairs = [item for item in items if item.kind == "pair"]
    checks = [item for item in items if item.kind == "check"]
    own = np.random.default_rng([cfg.seed, 1, rater])
    shown = [Showing(item=item, left=_side(own)) for item in _dealt(pairs, cfg.items, cfg.seed, rater)]
    late = round(LATE * len(shown))
    for index in own.permutation(int(EARLY * len(shown)))[: cfg.repeats]:
        before = shown[index]
        other: Place = "second" if before.left == "first" else "first"
        shown.insert(int(own.integers(late, len(shown) + 1)), replace(before, left=other, again=True))
    seen = {video for showing in shown for video in showing.videos}
    shuffled = [checks[index] for index in own.permutation(len(checks))]
    for check in sorted(shuffled, key=lambda item: not seen.isdisjoint(item.videos))[: cfg.checks]:
        shown.insert(int(own.integers(1, len(shown) + 1)), Showing(item=check, left=_side(own)))
    return shown


def _dealt(pairs: Sequence[StudyItem], count: int, seed: int, rater: int) -> list[StudyItem]:
    """The rater's hand: decks are shuffled anew when too few cards for a whole hand are left."""
    hands = len(pairs) // count
    deck, hand = divmod(rater, hands)
    order = np.random.default_rng([seed, 0, deck]).permutation(len(pairs))
    return [pairs[i] for i in order[hand * count : (hand + 1) * count]]


def _side(generator: np.random.Generator) -> Place:
    return "first" if generator.integers(2) else "second"
