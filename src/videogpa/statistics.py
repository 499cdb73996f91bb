"""Figures of paired comparisons: intervals, win rates, tests and what a sample of its size can show.

The prompt is what is drawn at random; seeds of one prompt are not independent. So intervals resample whole prompts, and
tests see one number per prompt. Pure functions of numbers; everything random has a seed.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float
from scipy import stats

LEVEL = 0.05
"""Of all intervals (95 %) and tests."""
POWER = 0.8
DRAWN_AT_ONCE = 1_000_000
"""Clusters of resamples in memory."""

Values = Float[np.ndarray, " n"]
PerCluster = Float[np.ndarray, " c"]


def cluster_means(values: Values, clusters: Sequence[str]) -> PerCluster:
    """The mean of every cluster (prompt), in the order of their sorted names."""
    sums, counts = _totals(values, clusters)
    return sums / counts


def bootstrap_interval(
    values: Values, clusters: Sequence[str], resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of the mean over all values, resampling whole clusters.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, section 13.3; clusters: Davison and Hinkley,
    Bootstrap Methods and their Application, 1997, section 3.8. Too narrow for fewer than some 20 clusters.
    """
    sums, counts = _totals(values, clusters)
    drawn = _resampled(len(sums), resamples, seed)
    return _middle([sums[some].sum(1) / counts[some].sum(1) for some in drawn])


def ratio_interval(
    numerators: PerCluster, denominators: PerCluster, resamples: int, seed: int
) -> tuple[float, float]:
    """95 % percentile interval of mean(numerators) / mean(denominators), both resampled together.

    Meant for a mean denominator that is clear of 0; otherwise the interval is not bounded and its ends may be infinite.

    Source: Efron and Tibshirani 1993, section 10.3.
    """
    drawn = _resampled(len(numerators), resamples, seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return _middle([numerators[some].sum(1) / denominators[some].sum(1) for some in drawn])


def wins(gains: PerCluster) -> PerCluster:
    """1 for a gain, 0 for a loss, half for a tie; their mean is the win rate."""
    return (np.sign(gains) + 1) / 2


def wilcoxon_p(differences: PerCluster) -> float:
    """Two-sided p that differences of clusters are symmetric about 0; 1 where all are 0.

    Exact for up to 50 differences, with ties or zeros for up to 13, else by the normal approximation; zeros are
    dropped.

    Source: Wilcoxon, Individual comparisons by ranking methods, 1945.
    """
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def rank_biserial(differences: PerCluster) -> float:
    """Which way Wilcoxon's signed ranks point, and how far: ranks of gains less ranks of losses, of all, in [-1, 1].

    Zeros are dropped, ties share their rank; 0 where all are 0.

    Source: Kerby, The simple difference formula, 2014.
    """
    found = differences[differences != 0]
    if not len(found):
        return 0.0
    ranks = stats.rankdata(abs(found))
    return float((np.sign(found) * ranks).sum() / ranks.sum())


def is_clear(interval: tuple[float, float], ranks: float, corrected_p: float) -> bool:
    """Whether a mean's interval and the signed ranks (`rank_biserial`, their corrected p) say the same of its sign.

    A few large gains can outweigh many small losses: then mean and ranks contradict each other.
    """
    low, high = interval
    return corrected_p < LEVEL and (low > 0 if ranks > 0 else high < 0)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p values corrected for there being so many of them, in their order; below a level, the chance of any false
    finding is below it, however the tests depend on each other.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable").tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def minimum_detectable_effect(differences: PerCluster) -> float | None:
    """The true mean difference that a paired t test with as many clusters, spread like these, finds 80 % of the time.

    In the unit of the differences; None for a single one, which has no spread.

    Source: Bloom, Minimum detectable effects, Evaluation Review 1995.
    """
    n = len(differences)
    if n < 2:
        return None
    multiplier = stats.t.ppf(1 - LEVEL / 2, n - 1) + stats.t.ppf(POWER, n - 1)
    return float(multiplier * differences.std(ddof=1) / math.sqrt(n))


def _totals(values: Values, clusters: Sequence[str]) -> tuple[PerCluster, PerCluster]:
    names, index = np.unique(np.array(clusters), return_inverse=True)
    return np.bincount(index, values, len(names)), np.bincount(index, minlength=len(names)).astype(float)


def _resampled(count: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """The clusters of all resamples, a few resamples at a time, whatever the number of clusters."""
    rng = np.random.default_rng(seed)
    at_once = max(1, DRAWN_AT_ONCE // count)
    for done in range(0, resamples, at_once):
        yield rng.integers(0, count, (min(at_once, resamples - done), count))


def _middle(drawn: Sequence[Float[np.ndarray, " some"]]) -> tuple[float, float]:
    low, high = np.percentile(np.concatenate(drawn), [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    return float(low), float(high)
