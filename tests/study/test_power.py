import numpy as np
import pytest

from videogpa.errors import InputError
from videogpa.study.power import power, votes_needed


def test_power_is_that_of_simulated_studies():
    from scipy.stats import binomtest

    wins = np.random.default_rng(0).binomial(100, 0.62, 4000)
    significant = np.mean([binomtest(int(w), 100).pvalue < 0.05 for w in wins])
    assert power(0.62, 100) == pytest.approx(significant, abs=0.02)


def test_power_without_an_effect_is_at_most_the_level():
    assert all(power(0.5, n) <= 0.05 for n in range(1, 300))
    assert power(0.9, 3) == 0


@pytest.mark.parametrize("rate", [0.55, 0.6, 0.68, 0.32, 0.9])
def test_the_votes_needed_are_the_fewest_that_stay_enough(rate):
    needed = votes_needed(rate)
    assert all(power(rate, n) >= 0.8 for n in range(needed, needed + 60))
    assert power(rate, needed - 1) < 0.8


@pytest.mark.parametrize(
    ("rate", "message"), [(0.5, "more than"), (1.0, "between 0 and 1"), (0.5001, "more than")]
)
def test_what_no_study_could_show_is_refused(rate, message):
    with pytest.raises(InputError, match=message):
        votes_needed(rate)


@pytest.mark.parametrize("rate", [-1.0, 0.0, 2.0, float("nan")])
def test_no_power_is_told_of_what_is_no_rate(rate):
    with pytest.raises(InputError, match="between 0 and 1"):
        power(rate, 100)
    with pytest.raises(InputError, match="more than the 100,000"):
        power(0.6, 10**12)
