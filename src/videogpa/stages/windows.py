"""A long clip judged in windows: one value for the clip from those of its windows."""

from collections.abc import Sequence

from videogpa.types import MetricValues, WindowScore

OVERALL = "consistency"


def order(window: WindowScore) -> tuple[bool, float]:
    """Sorts windows: the lowest score first, those that cannot be judged last."""
    value = window.metrics.get(OVERALL)
    return value is None, value or 0.0


def over_windows(windows: Sequence[WindowScore]) -> tuple[MetricValues, list[str]]:
    """The mean of every metric over the windows that have one, None where fewer than half have, and the reasons, as
    "name: why", of those that more than half of the windows could not judge.
    """
    values: MetricValues = {}
    for name in windows[0].metrics:
        judged = [value for w in windows if (value := w.metrics[name]) is not None]
        values[name] = sum(judged) / len(judged) if judged and 2 * len(judged) >= len(windows) else None
    without_geometry = _reasons("geometry", windows, ("geometry",))
    if without_geometry:
        return values, without_geometry
    return values, [r for name in values for r in _reasons(name, windows, (name, "geometry"))]


def _reasons(name: str, windows: Sequence[WindowScore], sources: tuple[str, ...]) -> list[str]:
    """Why more than half of the windows have no value: because of one of the `sources`; nothing if they have one."""
    whys = [why for w in windows if (why := next(filter(None, (_why(w, s) for s in sources)), None))]
    if 2 * len(whys) <= len(windows):
        return []
    return [f"{name}: {len(whys)} of {len(windows)} windows cannot be judged; the first: {whys[0]}"]


def _why(window: WindowScore, name: str) -> str | None:
    """The reason that a window gives under this name."""
    parts = (window.reason or "").split("; ")
    return next((part.removeprefix(f"{name}: ") for part in parts if part.startswith(f"{name}: ")), None)
