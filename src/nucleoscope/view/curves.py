"""Figures with their uncertainty as stand-alone SVG: curves with bands, dots with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nucleoscope.errors import CallError
from nucleoscope.view.charts import ticks
from nucleoscope.view.spatial import FAINT, INK, PALETTE

__all__ = ["Dot", "Series", "curves_svg", "dots_svg"]

WIDTH, HEIGHT = 500.0, 280.0
LEFT, RIGHT, TOP, BOTTOM = 48.0, 164.0, 30.0, 44.0
DOT_ROW, DOT_LEFT, DOT_RIGHT = 22.0, 128.0, 24.0
#: Width to keep for a letter of a name.
LETTER = 6.0


@dataclass(frozen=True)
class Series:
    """A named curve: ``x``, ``y`` and, where known, ``low`` and ``high`` of each value.

    Raises
    ------
    CallError
        Lengths differ.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if {len(self.y), len(self.low) or len(self.x), len(self.high) or len(self.x)} != {
            len(self.x)
        }:
            raise CallError(f"curve {self.name!r} has values of different lengths.")


@dataclass(frozen=True)
class Dot:
    """A named value with its interval; NaN where there is none."""

    name: str
    value: float
    low: float = float("nan")
    high: float = float("nan")


@dataclass(frozen=True)
class _Axis:
    """Maps values onto a line of the drawing."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def at(self, value: float) -> float:
        """Place of a value, in SVG units."""
        a, b, v = self.low, self.high, value
        if self.is_log:
            a, b, v = math.log10(a), math.log10(b), math.log10(v)
        share = (v - a) / (b - a) if b > a else 0.5
        return self.start + share * (self.end - self.start)


def _span(values: Sequence[float], asked: tuple[float, float] | None) -> tuple[float, float]:
    """The range asked for, or that of the values with a little air."""
    if asked is not None:
        return asked
    known = [v for v in values if math.isfinite(v)]
    low, high = min(known, default=0.0), max(known, default=1.0)
    air = 0.06 * (high - low) or 0.05
    return low - air, high + air


def _text(
    x: float, y: float, text: str, *, anchor: str = "middle", fill: str = INK, size: int = 11
) -> str:
    """A piece of text."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}" '
        f'font-size="{size}">{escape(text)}</text>'
    )


def _line(x0: float, y0: float, x1: float, y1: float, colour: str, *, more: str = "") -> str:
    """A straight line."""
    return (
        f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="{colour}"{more}/>'
    )


def _sheet(title: str, width: float, height: float, marks: Sequence[str]) -> str:
    """The drawing, on white so that it reads on a dark page too."""
    size = f'width="{width:g}" height="{height:g}" viewBox="0 0 {width:g} {height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" '
        f'font-family="system-ui, sans-serif" font-size="11"><title>{escape(title)}</title>'
        f'<rect width="{width:g}" height="{height:g}" rx="6" fill="#ffffff"/>'
        + _text(12, 18, title, anchor="start", size=13)
        + "".join(marks)
        + "</svg>"
    )


def curves_svg(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    is_log: bool = False,
    diagonal: bool = False,
) -> str:
    """Curves over one axis, each with its interval as a band and its name beside.

    Parameters
    ----------
    title, x_label, y_label
        Said in the drawing.
    series
        Drawn in order, in colours that people with any colour vision can tell apart.
    x_range, y_range
        Of the axes; default: those of the values.
    is_log
        True: x is logarithmic and every x is labelled.
    diagonal
        True: a line where y equals x.

    Returns
    -------
    str
        An SVG document; the same values give the same text.

    Raises
    ------
    CallError
        No value, or ``is_log`` with an x that is not positive.

    Examples
    --------
    >>> svg = curves_svg("F1", [Series("a", (1, 2), (0.5, 0.75))], x_label="n", y_label="F1")
    >>> svg.count("<polyline")
    1
    """
    xs = [x for one in series for x in one.x]
    if not xs or (is_log and min(xs) <= 0):
        raise CallError(f"{title}: nothing to draw, or an x of 0 on a logarithmic axis.")
    low, high = x_range or _span(xs, None if len(set(xs)) == 1 else (min(xs), max(xs)))
    across = _Axis(low, high, LEFT + 6, WIDTH - RIGHT, is_log and low > 0)
    values = [v for one in series for v in (*one.y, *one.low, *one.high)]
    up = _Axis(*_span(values, y_range), HEIGHT - BOTTOM, TOP)
    marks = [*_grid(across, up, sorted(set(xs)) if is_log else ticks(low, high)),
             _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x_label),
             f'<g transform="rotate(-90 12 {HEIGHT / 2:g})">{_text(12, HEIGHT / 2, y_label)}</g>'
             ]  # fmt: skip
    if diagonal:
        a, b = max(low, up.low), min(high, up.high)
        dash = ' stroke-dasharray="4 3"'
        marks.append(_line(across.at(a), up.at(a), across.at(b), up.at(b), FAINT, more=dash))
    for index, one in enumerate(series):
        marks += _curve(one, across, up, PALETTE[index % len(PALETTE)])
        marks += _key(index, one.name, PALETTE[index % len(PALETTE)])
    return _sheet(title, WIDTH, HEIGHT, marks)


def _grid(across: _Axis, up: _Axis, x_ticks: Sequence[float]) -> list[str]:
    """Lines across with their values, and the values of x."""
    marks = []
    for value in ticks(up.low, up.high):
        y = up.at(value)
        marks.append(_line(LEFT, y, WIDTH - RIGHT + 6, y, "#e4e6ea"))
        marks.append(_text(LEFT - 5, y + 4, f"{value:g}", anchor="end"))
    marks += [_text(across.at(x), HEIGHT - BOTTOM + 16, f"{x:g}") for x in x_ticks]
    return marks


def _curve(one: Series, across: _Axis, up: _Axis, colour: str) -> list[str]:
    """Band, line and dots of one curve; values that are not known are left out."""
    known = [i for i, y in enumerate(one.y) if math.isfinite(y)]
    place = [(across.at(one.x[i]), up.at(one.y[i])) for i in known]
    marks = []
    if one.low and one.high:
        sure = [i for i in known if math.isfinite(one.low[i]) and math.isfinite(one.high[i])]
        rim = [(one.x[i], one.high[i]) for i in sure] + [(one.x[i], one.low[i]) for i in sure[::-1]]
        path = " ".join(f"{across.at(x):.1f},{up.at(y):.1f}" for x, y in rim)
        marks.append(f'<polygon points="{path}" fill="{colour}" fill-opacity="0.15"/>')
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in place)
    marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
    marks += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in place]
    return marks


def _key(index: int, name: str, colour: str) -> list[str]:
    """A curve's name and colour, right of the drawing."""
    y, x = TOP + 10 + 18 * index, WIDTH - RIGHT + 16
    swatch = f'<rect x="{x:g}" y="{y - 9:g}" width="10" height="10" rx="2" fill="{colour}"/>'
    return [swatch, _text(x + 15, y, name, anchor="start")]


def dots_svg(
    title: str,
    dots: Sequence[Dot],
    *,
    x_label: str,
    x_range: tuple[float, float] | None = None,
    goal: float | None = None,
) -> str:
    """One row per name: a dot, and a line for its interval.

    Parameters
    ----------
    title, x_label
        Said in the drawing.
    dots
        From top to bottom.
    x_range
        Of the axis; default: that of the values.
    goal
        A value to mark by a line.

    Raises
    ------
    CallError
        No dot.

    Examples
    --------
    >>> dots_svg("F1", [Dot("a", 0.5, 0.4, 0.6), Dot("b", 0.7)], x_label="F1").count("<circle")
    2
    """
    if not dots:
        raise CallError(f"{title}: nothing to draw.")
    height = TOP + DOT_ROW * len(dots) + BOTTOM
    values = [v for dot in dots for v in (dot.value, dot.low, dot.high)]
    left = max(DOT_LEFT, 16 + LETTER * max(len(dot.name) for dot in dots))
    across = _Axis(*_span([*values, *([goal] if goal is not None else [])], x_range),
                   left, WIDTH - DOT_RIGHT)  # fmt: skip
    foot = height - BOTTOM
    marks = []
    for value in ticks(across.low, across.high):
        x = across.at(value)
        marks += [_line(x, TOP, x, foot, "#e4e6ea"), _text(x, foot + 16, f"{value:g}")]
    if goal is not None:
        x = across.at(goal)
        marks.append(_line(x, TOP, x, foot, INK, more=' stroke-dasharray="4 3"'))
    marks.append(_text((left + WIDTH - DOT_RIGHT) / 2, height - 10, x_label))
    for index, dot in enumerate(dots):
        y = TOP + DOT_ROW * (index + 0.5)
        marks += _dot(dot, across, left, y, PALETTE[index % len(PALETTE)])
    return _sheet(title, WIDTH, height, marks)


def _dot(dot: Dot, across: _Axis, left: float, y: float, colour: str) -> list[str]:
    """One row."""
    marks = [_text(left - 8, y + 4, dot.name, anchor="end")]
    if math.isfinite(dot.low) and math.isfinite(dot.high):
        wide = ' stroke-width="3" stroke-opacity="0.4"'
        marks.append(_line(across.at(dot.low), y, across.at(dot.high), y, colour, more=wide))
    if math.isfinite(dot.value):
        marks.append(
            f'<circle cx="{across.at(dot.value):.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        )
    return marks
