"""Small charts as geometry: what the report's template draws as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Bar", "Curve", "Histogram", "LineChart", "Tick", "histogram", "line_chart", "ticks"]

#: Size of every chart's drawing area and its margins, in SVG units.
WIDTH, HEIGHT = 320.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 36.0, 8.0, 8.0, 24.0


@dataclass(frozen=True)
class Tick:
    """A labelled position on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Bar:
    """One block of a stacked histogram, in SVG units, with what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    colour: str
    title: str


@dataclass(frozen=True)
class Histogram:
    """Stacked bars and their axes."""

    title: str
    bars: tuple[Bar, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    n: int


@dataclass(frozen=True)
class Curve:
    """One line: its SVG ``points``, its name, its last value."""

    name: str
    points: str
    last: str


@dataclass(frozen=True)
class LineChart:
    """Curves over one axis."""

    title: str
    x_label: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def ticks(low: float, high: float, n: int = 4) -> list[float]:
    """About ``n`` round values from ``low`` to ``high``.

    >>> ticks(0.0, 1.0)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / n
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1.0, 2.0, 5.0, 10.0) if s * power >= raw * 0.7)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _scale(low: float, high: float, start: float, end: float) -> tuple[float, float]:
    """Slope and intercept that map ``low..high`` onto ``start..end``."""
    slope = (end - start) / (high - low) if high > low else 0.0
    return slope, start - slope * low


def _axis(low: float, high: float, start: float, end: float) -> tuple[Tick, ...]:
    """Ticks of an axis in SVG units."""
    slope, zero = _scale(low, high, start, end)
    return tuple(Tick(round(zero + slope * v, 2), f"{v:g}") for v in ticks(low, high))


def histogram(
    title: str,
    groups: Mapping[str, NDArray[np.float64]],
    colours: Mapping[str, str],
    n_bins: int = 20,
) -> Histogram | None:
    """Values in [0, 1] counted in equal bins, one block per type and bin, stacked.

    Values that are NaN are left out; None when nothing is left.

    >>> scores = {"positive": np.array([0.1, 0.9, 0.95])}
    >>> chart = histogram("score", scores, {"positive": "#E69F00"})
    >>> chart.n, [bar.title for bar in chart.bars]
    (3, ['0.10-0.15: 1 positive', '0.90-0.95: 1 positive', '0.95-1.00: 1 positive'])
    """
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    # The nudge keeps a value that is an edge, such as 0.15, in the bin it opens.
    counts = {
        name: np.histogram(np.clip(v[np.isfinite(v)] + 1e-9, 0.0, 1.0), edges)[0]
        for name, v in groups.items()
    }
    n = int(sum(c.sum() for c in counts.values()))
    if n == 0:
        return None
    top = float(max(np.sum(list(counts.values()), axis=0)))
    bars = _stack(counts, colours, edges, top)
    return Histogram(
        title,
        tuple(bars),
        _axis(0.0, 1.0, LEFT, WIDTH - RIGHT),
        tuple(t for t in _axis(0.0, top, HEIGHT - BOTTOM, TOP) if "." not in t.label),
        n,
    )


def _stack(
    counts: Mapping[str, NDArray[np.int64]],
    colours: Mapping[str, str],
    edges: NDArray[np.float64],
    top: float,
) -> list[Bar]:
    """The blocks of a stacked histogram, bottom up."""
    slope, zero = _scale(0.0, 1.0, LEFT, WIDTH - RIGHT)
    up = (HEIGHT - BOTTOM - TOP) / top
    base = np.zeros(len(edges) - 1)
    bars = []
    for name, count in counts.items():
        for i in np.flatnonzero(count):
            height = float(count[i]) * up
            y = HEIGHT - BOTTOM - float(base[i]) * up - height
            x, width = zero + slope * edges[i], slope * (edges[i + 1] - edges[i])
            label = f"{edges[i]:.2f}-{edges[i + 1]:.2f}: {count[i]} {name or 'untyped'}"
            bars.append(
                Bar(round(x + 0.5, 2), round(y, 2), round(width - 1, 2), round(height, 2),
                    colours[name], label)
            )  # fmt: skip
        base += count
    return bars


def _series(
    history: Sequence[Mapping[str, object]], x_key: str | None, key: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The finite values of one key against the step; rows without it are left out."""
    rows = []
    for index, row in enumerate(history):
        x = row.get(x_key, index) if x_key else index
        y = row.get(key)
        if isinstance(x, (int, float)) and isinstance(y, (int, float)):
            rows.append((float(x), float(y)))
    table = np.array(rows, dtype=np.float64).reshape(-1, 2)
    table = table[np.isfinite(table).all(axis=1)]
    return table[:, 0], table[:, 1]


def line_chart(
    title: str,
    history: Sequence[Mapping[str, object]],
    keys: Sequence[str],
    *,
    unit_range: bool = False,
    max_points: int = 300,
) -> LineChart | None:
    """Keys of a training history against its step; None when no key has a finite value.

    Parameters
    ----------
    title
        Said above the chart.
    history
        One mapping per logged step; ``step`` (or ``epoch``) is the x axis, else the row number.
    keys
        The values to draw; a row may lack some.
    unit_range
        True draws the y axis from 0 to 1.
    max_points
        Longer curves keep this many evenly spaced points and their last.

    Examples
    --------
    >>> chart = line_chart("loss", [{"step": 0, "loss": 2.0}, {"step": 9, "loss": 1.0}], ["loss"])
    >>> chart.curves[0].last
    '1'
    """
    x_key = next((k for k in ("step", "epoch") if any(k in row for row in history)), None)
    series = {key: _series(history, x_key, key) for key in keys}
    series = {key: (x, y) for key, (x, y) in series.items() if len(x)}
    if not series:
        return None
    x_all = np.concatenate([x for x, _ in series.values()])
    y_all = np.concatenate([y for _, y in series.values()])
    x_low, x_high = float(x_all.min()), float(x_all.max())
    y_low, y_high = (0.0, 1.0) if unit_range else (min(0.0, float(y_all.min())), float(y_all.max()))
    x_of = _scale(x_low, x_high, LEFT, WIDTH - RIGHT)
    y_of = _scale(y_low, y_high, HEIGHT - BOTTOM, TOP)
    curves = tuple(_curve(key, x, y, x_of, y_of, max_points) for key, (x, y) in series.items())
    return LineChart(
        title,
        x_key or "row",
        curves,
        _axis(x_low, x_high, LEFT, WIDTH - RIGHT),
        _axis(y_low, y_high, HEIGHT - BOTTOM, TOP),
    )


def _curve(
    name: str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    x_of: tuple[float, float],
    y_of: tuple[float, float],
    max_points: int,
) -> Curve:
    """One polyline, thinned."""
    keep = np.unique(np.linspace(0, len(x) - 1, min(len(x), max_points)).astype(np.int64))
    px = x_of[0] * x[keep] + x_of[1]
    py = np.clip(y_of[0] * y[keep] + y_of[1], TOP - 4, HEIGHT - BOTTOM + 4)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))
    return Curve(name, points, f"{y[-1]:.3g}")
