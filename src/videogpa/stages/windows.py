"""A long clip judged in windows: one value for the clip from those of its windows."""

from collections.abc import Sequence

from videogpa.types import CONSISTENCY, MetricValues, WindowScore


def order(window: WindowScore) -> tuple[bool, float]:
    """Sorts windows: the lowest score first, those that cannot be judged last."""
    value = window.metrics.get(CONSISTENCY)
    return value is None, value or 0.0


def over_windows(windows: Sequence[WindowScore]) -> tuple[MetricValues, list[str]]:
    """The mean of every metric over the windows that have one, None where fewer than half have; and for the geometry
    and every metric, as "name: why", how many windows it could not judge, if any.
    """
    values: MetricValues = {}
    for name in windows[0].metrics:
        judged = [value for w in windows if (value := w.metrics[name]) is not None]
        values[name] = sum(judged) / len(judged) if judged and 2 * len(judged) >= len(windows) else None
    reasons = []
    for name in ("geometry", *values):
        whys = [why for w in windows if (why := _why(w, name))]
        if whys:
            reasons.append(
                f"{name}: {len(whys)} of {len(windows)} windows cannot be judged; the first: {whys[0]}"
            )
    return values, reasons


def _why(window: WindowScore, name: str) -> str | None:
    """The reason that a window gives under this name."""
    parts = (window.reason or "").split("; ")
    return next((part.removeprefix(f"{name}: ") for part in parts if part.startswith(f"{name}: ")), None)
