"""The page's plots as SVG that takes its colours and its typeface from the page's style sheet."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

# Stand-ins that matplotlib writes and that are then replaced by the page's own colours.
INK, MUTED, RULE, BETTER, WORSE = "#010101", "#020202", "#030303", "#040404", "#050505"
ARMS = ("#060606", "#070707", "#080808", "#090909")
"""Colours of the trained arms in order; the fifth gets the first again."""
STAND_INS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    BETTER: "var(--better)",
    WORSE: "var(--worse)",
    **{color: f"var(--arm-{i})" for i, color in enumerate(ARMS)},
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 12,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.major.size": 0,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
}
BARS = 400
"""A figure has at most; each more costs memory and is thinner than a pixel."""
SMOOTHING = 0.9
TICK = 0.12
"""Length of a camera's line of sight, as a share of its path."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One arm's figure over the steps of its training: every step, and where held-out pairs were evaluated."""

    steps: Sequence[int]
    values: Sequence[float]
    held_out_steps: Sequence[int]
    held_out_values: Sequence[float]


@matplotlib.rc_context(STYLE)
def histogram(
    scores: Sequence[float], chosen: Sequence[float], rejected: Sequence[float], metric: str
) -> str:
    """Scores of all candidates, and of those that became chosen and rejected, in common bins."""
    figure = _figure(480, 280)
    axes = figure.subplots()
    edges = np.histogram_bin_edges(scores, bins=min(max(8, int(2 * len(scores) ** 0.5)), 40))
    for values, color, fill in ((scores, MUTED, True), (rejected, WORSE, False), (chosen, BETTER, False)):
        counts, _ = np.histogram(values, edges)
        if fill:
            axes.stairs(counts, edges, fill=True, color=color, alpha=0.28)
        else:
            axes.stairs(np.where(counts, counts, np.nan), edges, color=color, linewidth=2)
    axes.set_xlabel(metric)
    axes.set_ylabel("candidates")
    axes.yaxis.get_major_locator().set_params(integer=True)
    return _svg(figure, "histogram")


@matplotlib.rc_context(STYLE)
def ranked_gains(gains: Sequence[float], marked: Mapping[int, str], metric: str) -> str:
    """All gains from the largest to the smallest, one bar each, of very many those of ranks that are spread evenly;
    `marked` labels some ranks (from 0).
    """
    figure = _figure(500, 280)
    axes = figure.subplots()
    heights = np.asarray(gains)
    ranks = np.unique(np.linspace(0, max(0, len(heights) - 1), min(len(heights), BARS)).round().astype(int))
    shown, width = heights[ranks], 0.8 * len(heights) / max(1, len(ranks))
    axes.bar(ranks, shown, width=width, color=[BETTER if g > 0 else WORSE for g in shown])
    axes.axhline(0, color=MUTED, linewidth=1)
    reach = np.abs(heights).max(initial=0) or 1.0
    for rank, label in marked.items():
        above = heights[rank] >= 0
        axes.annotate(
            label,
            (rank, heights[rank]),
            xytext=(0, 5 if above else -5),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            weight="bold",
        )
    axes.set_ylim(
        min(heights.min(initial=0), 0) - 0.15 * reach, max(heights.max(initial=0), 0) + 0.15 * reach
    )
    axes.set_xticks([])
    axes.spines["bottom"].set_visible(False)
    axes.set_ylabel(f"gain in {metric}")
    return _svg(figure, "gains")


@matplotlib.rc_context(STYLE)
def training_curves(
    curves: Mapping[str, Curve], title: str, name: str, *, level: float | None = None, percent: bool = False
) -> str:
    """One figure of all trained arms over the steps: lines are running means, dots are held-out pairs.

    `level` draws a line at the value that means nothing happened.
    """
    figure = _figure(460, 270)
    axes = figure.subplots()
    if level is not None:
        axes.axhline(level, color=MUTED, linewidth=1)
    for color, curve in zip(_cycle(len(curves)), curves.values(), strict=True):
        axes.plot(curve.steps, running_mean(curve.values), color=color, linewidth=1.8)
        axes.plot(curve.held_out_steps, curve.held_out_values, "o", color=color, markersize=4.5)
    axes.set_title(title, pad=10)
    axes.set_xlabel("training step")
    if percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _svg(figure, name)


@matplotlib.rc_context(STYLE)
def frame_errors(errors: Sequence[float | None]) -> str:
    """One bar a frame, with the id `errors-frame-<i>`; a frame that could not be judged has none."""
    figure = _figure(480, 170)
    axes = figure.subplots()
    bars = axes.bar(np.arange(len(errors)), [e or 0.0 for e in errors], width=0.8, color=ARMS[0])
    for i, bar in enumerate(bars):
        bar.set_gid(f"frame-{i}")
    axes.set_xlim(-0.5, len(errors) - 0.5)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("frame")
    axes.set_ylabel("mean error")
    axes.xaxis.get_major_locator().set_params(integer=True)
    return _svg(figure, "errors")


@matplotlib.rc_context(STYLE)
def camera_path(centers: Sequence[Sequence[float]], forward: Sequence[Sequence[float]]) -> str:
    """The cameras from above and from the side, in the axes of the first (x right, y down, z forward)."""
    figure = _figure(480, 260)
    places, looks = np.asarray(centers), np.asarray(forward)
    middle = (places.max(0) + places.min(0)) / 2
    reach = max(float(np.ptp(places, axis=0).max()), 1e-6)
    ends = places + TICK * reach * looks
    views = (("from above", 0, 2, 1, ("right", "forward")), ("from the side", 2, 1, -1, ("forward", "up")))
    for axes, (title, across, upward, sign, labels) in zip(figure.subplots(1, 2), views, strict=True):
        x, y = places[:, across], sign * places[:, upward]
        axes.plot([x, ends[:, across]], [y, sign * ends[:, upward]], color=MUTED, linewidth=1.2)
        axes.plot(x, y, "o-", color=ARMS[0], linewidth=1.8, markersize=4.5)
        axes.set_title(title, pad=8)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        # The same square around the path in both, so that a level path looks level.
        for limit, centre in ((axes.set_xlim, middle[across]), (axes.set_ylim, sign * middle[upward])):
            limit(centre - 0.7 * reach, centre + 0.7 * reach)
        axes.set_aspect("equal")
        axes.locator_params(nbins=4)
    return _svg(figure, "path")


def running_mean(values: Sequence[float]) -> list[float]:
    """Exponential mean whose weights sum to one from the first value on."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total = SMOOTHING * total + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        means.append(total / weight)
    return means


def _figure(width: int, height: int) -> Figure:
    # One point of the drawing is one pixel of the page at its natural size.
    return Figure(figsize=(width / 72, height / 72), layout="constrained", facecolor="none")


def _cycle(count: int) -> list[str]:
    return [ARMS[i % len(ARMS)] for i in range(count)]


def _svg(figure: Figure, name: str) -> str:
    """Inline SVG; `name` keeps its ids apart from those of other figures on the page."""
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<(metadata|style)[ >].*?</\1>", "", text, flags=re.DOTALL)
    text = re.sub(r'(?<=\bid=")|(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    text = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', text, count=1
    )
    for stand_in, color in STAND_INS.items():
        text = text.replace(stand_in, color)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "var(--sans)", text)
