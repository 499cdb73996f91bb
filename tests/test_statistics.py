import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from videogpa.statistics import (
    bootstrap_interval,
    cluster_means,
    holm,
    is_clear,
    minimum_detectable_effect,
    rank_biserial,
    ratio_interval,
    wilcoxon_p,
    wins,
)

numbers = st.lists(st.floats(-100, 100), min_size=1, max_size=12).map(np.array)
p_values = st.lists(st.floats(0, 1), max_size=12)


def names(count: int, seeds: int = 1) -> list[str]:
    return [str(i // seeds) for i in range(count)]


def test_interval_covers_the_true_mean_about_95_percent_of_the_time():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        prompt_effect = rng.normal(size=40).repeat(2)
        values = 0.3 + prompt_effect + 0.1 * rng.normal(size=80)
        low, high = bootstrap_interval(values, names(80, 2), 400, trial)
        hits += low <= 0.3 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_seeds_of_one_prompt_do_not_make_the_interval_narrower():
    effect = np.random.default_rng(1).normal(size=30)
    once = bootstrap_interval(effect, names(30), 2000, 0)
    four_times = bootstrap_interval(effect.repeat(4), names(120, 4), 2000, 0)
    assert four_times == pytest.approx(once)


@given(numbers, st.integers(0, 3))
def test_an_interval_lies_among_the_values_and_follows_their_unit(values, seed):
    low, high = bootstrap_interval(values, names(len(values)), 200, seed)
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    scaled = bootstrap_interval(-3 * values, names(len(values)), 200, seed)
    assert scaled == pytest.approx((-3 * high, -3 * low), abs=1e-6)


@given(st.integers(8, 40), st.integers(0, 1000))
def test_the_interval_holds_the_mean(count, seed):
    values = np.random.default_rng(seed).normal(size=count)
    low, high = bootstrap_interval(values, names(count), 1000, seed)
    assert low <= values.mean() <= high


def test_cluster_means_take_seeds_together():
    assert cluster_means(np.array([1.0, 5.0, 3.0]), ["b", "a", "b"]).tolist() == [5.0, 2.0]


@given(numbers)
def test_win_rates_of_both_sides_add_up_to_one(gains):
    assert wins(gains).mean() + wins(-gains).mean() == pytest.approx(1)


def test_ties_are_half_a_win():
    assert wins(np.array([2.0, 0.0, -1.0, -0.0])).tolist() == [1.0, 0.5, 0.0, 0.5]


def test_wilcoxon_is_the_exact_test_of_signed_ranks():
    # All five of one sign: 2 of the 2^5 equally likely signs are as extreme.
    assert wilcoxon_p(np.array([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 32)
    assert wilcoxon_p(np.zeros(4)) == 1.0
    assert wilcoxon_p(np.array([3.0])) == 1.0


# Where there are ties, each further number doubles the work: twelve take more than half a second.
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=7).map(np.array))
def test_wilcoxon_does_not_mind_which_side_is_which(differences):
    p = wilcoxon_p(differences)
    assert p == pytest.approx(wilcoxon_p(-differences))
    assert 0 < p <= 1


def test_ranks_point_where_most_of_the_larger_differences_do():
    assert rank_biserial(np.array([2.0, -1.0, 0.0])) == pytest.approx(1 / 3)
    assert rank_biserial(np.array([3.0, 3.0])) == 1.0
    assert rank_biserial(np.zeros(2)) == 0.0


@given(numbers)
def test_ranks_turn_round_with_their_numbers(differences):
    found = rank_biserial(differences)
    assert -1 <= found <= 1
    assert rank_biserial(-differences) == pytest.approx(-found)


@pytest.mark.parametrize(
    ("interval", "ranks", "p", "clear"),
    [
        ((0.1, 0.3), 0.4, 0.01, True),
        ((-0.3, -0.1), -0.4, 0.01, True),
        ((0.1, 0.3), -0.4, 0.01, False),
        ((0.1, 0.3), 0.4, 0.05, False),
        ((-0.1, 0.3), 0.4, 0.01, False),
        ((0.0, 0.3), 0.4, 0.01, False),
    ],
)
def test_what_is_clear_is_so_by_interval_and_by_ranks(interval, ranks, p, clear):
    assert is_clear(interval, ranks, p) == clear


def test_holm_as_worked_out_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values)
def test_holm_never_lowers_a_p_keeps_their_order_and_is_milder_than_bonferroni(p):
    corrected = holm(p)
    assert all(p_i <= c <= min(1, len(p) * p_i) + 1e-12 for p_i, c in zip(p, corrected, strict=True))
    assert [c for _, c in sorted(zip(p, corrected, strict=True))] == sorted(corrected)


@given(p_values, st.integers(0, 100))
def test_holm_does_not_mind_the_order(p, seed):
    shuffled = np.random.default_rng(seed).permutation(len(p))
    assert holm([p[i] for i in shuffled]) == pytest.approx([holm(p)[i] for i in shuffled])


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=12).map(np.array))
def test_four_times_the_prompts_at_least_halve_the_detectable_effect(differences):
    once, four_times = (minimum_detectable_effect(np.tile(differences, k)) for k in (1, 4))
    assert four_times <= once / 2 + 1e-12


def test_the_detectable_effect_shrinks_with_the_root_of_many_prompts():
    spread = np.tile([-1.0, 1.0], 500)
    assert minimum_detectable_effect(spread) == pytest.approx(2.8016 / np.sqrt(1000), rel=2e-3)
    ratio = minimum_detectable_effect(spread) / minimum_detectable_effect(np.tile(spread, 9))
    assert ratio == pytest.approx(3, rel=2e-3)
    assert minimum_detectable_effect(np.array([1.0])) is None


def test_the_detectable_effect_is_found_about_80_percent_of_the_time():
    rng = np.random.default_rng(0)
    effect = minimum_detectable_effect(np.tile([-1.0, 1.0], 12)) or 0
    found = [stats.ttest_1samp(rng.normal(effect, 1.02, 24), 0).pvalue < 0.05 for _ in range(1000)]
    assert 0.76 <= np.mean(found) <= 0.84


def test_a_ratio_keeps_numerators_with_their_denominators():
    denominators = np.array([1.0, 2.0, 4.0])
    assert ratio_interval(0.3 * denominators, denominators, 200, 0) == pytest.approx((0.3, 0.3))
    low, high = ratio_interval(np.array([0.1, 0.5, 0.2]), denominators, 2000, 0)
    assert low < 0.8 / 7 < high


def test_intervals_of_many_clusters_are_those_of_all_resamples_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=300), [f"p{i // 2}" for i in range(300)]
    together = bootstrap_interval(values, clusters, 1000, 5)
    monkeypatch.setattr("videogpa.statistics.DRAWN_AT_ONCE", 1001)
    assert bootstrap_interval(values, clusters, 1000, 5) == together
