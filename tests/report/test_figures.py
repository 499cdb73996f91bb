import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videogpa.report.figures import (
    BARS,
    STAND_INS,
    Curve,
    camera_path,
    frame_errors,
    histogram,
    ranked_gains,
    running_mean,
    training_curves,
)

CURVE = Curve(steps=[1, 2, 3], values=[0.7, 0.6, 0.5], held_out_steps=[2], held_out_values=[0.65])


@pytest.fixture(scope="module")
def figures() -> list[str]:
    scores = np.random.default_rng(0).normal(size=50).tolist()
    return [
        histogram(scores, scores[:5], scores[5:10], "cross_view"),
        ranked_gains([0.2, 0.1, -0.1], {0: "A", 2: "B"}, "cross_view"),
        training_curves({"dpo": CURVE, "dpo_random": CURVE}, "Loss", "loss", level=0.0, percent=True),
    ]


def test_figures_are_well_formed_svg_in_the_colours_of_the_page(figures):
    for figure in figures:
        ElementTree.fromstring(figure.replace("xlink:href", "href"))
        assert "var(--ink)" in figure or "var(--muted)" in figure
        assert not any(color in figure for color in STAND_INS)
        assert "DejaVu" not in figure
        assert "<style" not in figure


def test_ids_of_figures_do_not_meet(figures):
    ids = [set(re.findall(r'id="([^"]+)"', figure)) for figure in figures]
    assert all(ids)
    assert len(set().union(*ids)) == sum(map(len, ids))


def test_the_same_figure_is_the_same_text(figures):
    assert ranked_gains([0.2, 0.1, -0.1], {0: "A", 2: "B"}, "cross_view") == figures[1]


def test_a_gain_is_not_painted_as_a_loss(figures):
    assert "var(--better)" in figures[1]
    assert "var(--worse)" in figures[1]
    assert "var(--worse)" not in ranked_gains([0.2, 0.1], {}, "cross_view")


def test_of_very_many_gains_no_more_bars_are_drawn_than_can_be_seen():
    gains = [1 - i / 2500 for i in range(5001)]
    few, many = (
        ranked_gains(some, {0: "A", len(some) - 1: "B"}, "cross_view") for some in (gains[::13], gains)
    )
    assert len(few) / 385 > 0.9 * len(many) / BARS
    assert many.count("var(--better)") == many.count("var(--worse)") == BARS / 2


def test_equal_scores_make_a_histogram():
    assert "<svg" in histogram([0.5, 0.5], [0.5], [0.5], "cross_view")


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30))
def test_a_running_mean_stays_between_the_extremes(values):
    means = running_mean(values)
    assert means[0] == pytest.approx(values[0])
    assert all(min(values) - 1e-9 <= m <= max(values) + 1e-9 for m in means)


def test_every_frame_has_a_bar_that_the_page_can_find():
    svg = frame_errors([0.1, None, 0.3])
    assert [f'id="errors-frame-{i}"' in svg for i in range(4)] == [True, True, True, False]
    assert "nan" not in svg


def test_a_path_of_one_place_and_a_long_one_are_drawn():
    for centers in ([[0.0, 0.0, 0.0]] * 2, [[float(i), -0.1 * i, 0.5 * i] for i in range(4)]):
        svg = camera_path(centers, [[0.0, 0.0, 1.0]] * len(centers))
        assert svg.startswith("<svg")
        assert "nan" not in svg.lower()
        assert "from above" in svg
