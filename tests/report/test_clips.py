import itertools

from hypothesis import given
from hypothesis import strategies as st

from videogpa.report.clips import letters, spread_ranks


@given(st.integers(1, 500), st.integers(2, 9))
def test_ranks_reach_from_the_first_to_the_last(count, wanted):
    ranks = spread_ranks(count, wanted)
    assert ranks[0] == 0
    assert ranks[-1] == count - 1
    assert len(ranks) == min(count, wanted)
    steps = [b - a for a, b in itertools.pairwise(ranks)]
    assert not steps or max(steps) - min(steps) <= 1


def test_letters_follow_the_ranks():
    assert letters([0, 7, 15]) == {0: "A", 7: "B", 15: "C"}
