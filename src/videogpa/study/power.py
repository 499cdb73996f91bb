"""How many votes a study needs: exact power of the two-sided binomial test against an even split."""

import numpy as np
from scipy.stats import binom

from videogpa.errors import InputError
from videogpa.statistics import LEVEL, POWER

MOST = 100_000


def power(win_rate: float, votes: int) -> float:
    """The chance that so many independent votes are significant at the 5 % level where the truth is `win_rate`.

    Source: Clopper and Pearson, The use of confidence or fiducial limits, Biometrika 1934 (the exact test).

    Raises:
        InputError: a win rate outside (0, 1), or more than 100,000 votes.
    """
    _require_rate(win_rate)
    if votes > MOST:
        raise InputError(f"{votes:,} votes are more than the {MOST:,} that are counted")
    # Symmetric: reject where at least this many are on one side.
    counts = np.arange(votes + 1)
    tails = binom.sf(counts - 1, votes, 0.5)
    rejected = counts[2 * tails < LEVEL]
    if not len(rejected):
        return 0.0
    critical = int(rejected[0])
    return float(binom.sf(critical - 1, votes, win_rate) + binom.cdf(votes - critical, votes, win_rate))


def _require_rate(win_rate: float) -> None:
    if not 0 < win_rate < 1:
        raise InputError(f"a win rate is between 0 and 1, not {win_rate:g}")


def votes_needed(win_rate: float, wanted: float = POWER) -> int:
    """The fewest votes from which on the power stays at `wanted` or above.

    Power does not rise with every vote (the test is discrete), hence "from which on".

    Raises:
        InputError: a win rate outside (0, 1) or so near one half that more than 100,000 votes would be needed.
    """
    _require_rate(win_rate)
    low, high = 1, 2
    while power(win_rate, high) < wanted:
        low, high = high, 2 * high
        if high > MOST:
            raise InputError(f"a win rate of {win_rate:g} would take more than {MOST:,} votes")
    # Between two neighbours the sawtooth is a few votes wide.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(win_rate, middle) >= wanted else (middle, high)
    return max(n for n in range(max(1, high - 20), high + 21) if power(win_rate, n) < wanted) + 1
