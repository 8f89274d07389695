"""Spatial statistics as pictures: small SVG strings that any page can hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial.results import SpatialResult
from nucleoscope.view.overlay import data_uri, encode_png

#: Colours that people with any colour vision can tell apart (Okabe and Ito 2008).
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#999999",
)  # fmt: skip
INK, FAINT = "#222222", "#BBBBBB"


@dataclass(frozen=True)
class _Sheet:
    """A drawing under construction: size in px, and what is on it."""

    width: float
    height: float
    marks: tuple[str, ...] = ()

    def __add__(self, mark: str) -> _Sheet:
        return _Sheet(self.width, self.height, (*self.marks, mark))

    def svg(self, title: str) -> str:
        size = f'width="{self.width:g}" height="{self.height:g}"'
        box = f'viewBox="0 0 {self.width:g} {self.height:g}"'
        head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} role="img"'
        style = 'font-family="system-ui, sans-serif" font-size="11"'
        return f"{head} {style}><title>{escape(title)}</title>{''.join(self.marks)}</svg>"


def _text(x: float, y: float, text: str, *, anchor: str = "start", fill: str = INK) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}"'
    return f"<text {place}>{escape(text)}</text>"


def _width(text: str) -> float:
    """Room that a text takes in px, on the safe side: letters at this size are 6.5 px wide."""
    return 6.5 * len(text)


def _line(points: NDArray[np.float64], colour: str, *, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"{dash}/>'


def diverging(value: float, limit: float) -> str:
    """Blue through white to red for ``-limit`` to ``limit``; grey for NaN.

    >>> diverging(0.0, 1.0), diverging(1.0, 1.0), diverging(float("nan"), 1.0)
    ('#ffffff', '#b2182b', '#dddddd')
    """
    if math.isnan(value):
        return "#dddddd"
    share = min(abs(value) / limit, 1.0) if limit > 0 else 0.0
    end = (178, 24, 43) if value > 0 else (33, 102, 172)
    return "#" + "".join(f"{round(255 + (c - 255) * share):02x}" for c in end)


def _one_image(frame: pd.DataFrame, image: str | None) -> tuple[pd.DataFrame, str]:
    """The rows of one image; the only one, when no name is given."""
    images = list(dict.fromkeys(frame["image"]))
    if image is None and len(images) == 1:
        image = images[0]
    if image not in images:
        listed = ", ".join(map(str, images)) or "none"
        raise CallError(f"name one image to draw; there are {listed}.")
    return frame[frame["image"] == image], str(image)


def enrichment_map(result: SpatialResult, *, image: str | None = None) -> str:
    """Heat map of log2 observed over expected for every pair of types; a dot where q < 0.05.

    Parameters
    ----------
    result
        With the table ``"enrichment"``.
    image
        Which image; may be left out when there is one.

    Returns
    -------
    str
        SVG.
    """
    frame, image = _one_image(result.to_frame("enrichment"), image)
    names = list(dict.fromkeys(frame["type_a"]))
    ratio = frame["log2_ratio"].to_numpy(np.float64)
    finite = np.abs(ratio[np.isfinite(ratio)])
    limit = max(float(finite.max()) if finite.size else 0.0, 0.5)
    widest = _width(max(names, key=len, default=""))
    # Few types have room for their whole name above a column.
    cell = min(max(44.0, widest + 8), 440.0 / max(len(names), 1)) if len(names) <= 8 else 44.0
    left, top = 8.0 + widest, 60.0
    heading = f"{image}: log2 observed / expected neighbours"
    note = f"● q < 0.05; colours from -{limit:.1f} to {limit:.1f}"
    wide = max(left + cell * len(names), 4 + _width(heading), 4 + _width(note))
    sheet = _Sheet(wide + 20, top + cell * len(names) + 40)
    sheet += _text(4, 16, heading)
    for row, (_, line) in enumerate(frame.iterrows()):
        i, j = divmod(row, len(names))
        sheet += _cell(line, left + j * cell, top + i * cell, cell, limit)
    for index, name in enumerate(names):
        sheet += _text(left - 4, top + (index + 0.6) * cell, name, anchor="end")
        fits = int((cell - 4) / _width("n"))
        short = name if len(name) <= fits else name[: fits - 1] + "…"
        sheet += _text(left + (index + 0.5) * cell, top - 6, short, anchor="middle")
    sheet += _text(4, sheet.height - 12, note)
    return sheet.svg(f"Neighbourhood enrichment, {image}")


def _cell(line: pd.Series[float], x: float, y: float, size: float, limit: float) -> str:
    value = float(line["log2_ratio"])
    colour = diverging(value, limit)
    dark = abs(value) > 0.6 * limit
    label = f"{round(value, 1) + 0.0:.1f}" if math.isfinite(value) else "0" if value < 0 else "n/a"
    tip = f"{line['type_a']} - {line['type_b']}: z {line['z']:.1f}, q {line['q']:.2g}"
    found = "●" if float(line["q"]) < 0.05 else ""
    fill = "#ffffff" if dark else INK
    square = f'<rect x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}" fill="{colour}"'
    return (
        f'{square} stroke="#ffffff"><title>{escape(tip)}</title></rect>'
        + _text(x + size / 2, y + size / 2 + 4, label, anchor="middle", fill=fill)
        + _text(x + size - 4, y + 11, found, anchor="end", fill=fill)
    )


def curve_plot(
    result: SpatialResult, statistic: str, type_a: str, type_b: str, *, image: str | None = None
) -> str:
    """A curve with its global envelope, and one p for the whole of it.

    K is drawn as ``L(r) - r`` (the same order, so the same p), where uniform nuclei lie at 0.

    Parameters
    ----------
    result
        With the table of ``statistic``: ``"k"``, ``"pcf"``, ``"g"`` or ``"co_occurrence"``.
    statistic, type_a, type_b
        Which curve.
    image
        Which image; may be left out when there is one.

    Returns
    -------
    str
        SVG.
    """
    frame, image = _one_image(result.to_frame(statistic), image)
    frame = frame[(frame["type_a"] == type_a) & (frame["type_b"] == type_b)]
    if frame.empty:
        raise CallError(f"no curve from {type_a!r} to {type_b!r} in {image}.")
    r = frame["r"].to_numpy(np.float64)
    n_dims = result.patterns[0].n_dims if result.patterns else 2
    kinds = ("observed", "low", "high", "theory")
    values = {kind: frame[kind].to_numpy(np.float64) for kind in kinds}
    label = statistic
    if statistic == "k":
        values = {kind: _centred_l(v, r, n_dims) for kind, v in values.items()}
        label = "L(r) - r"
    p = float(frame["p"].iloc[0])
    heading = f"{image}: {label}, {type_a} to {type_b}, " + (
        f"p = {p:.3g}" if math.isfinite(p) else "not defined"
    )
    return _curve_sheet(r, values, heading, f"r ({result.unit})").svg(heading)


def _centred_l(k: NDArray[np.float64], r: NDArray[np.float64], n_dims: int) -> NDArray[np.float64]:
    radius = np.sqrt(k / math.pi) if n_dims == 2 else np.cbrt(3 * k / (4 * math.pi))
    return np.asarray(radius - r)


def _curve_sheet(
    r: NDArray[np.float64], values: dict[str, NDArray[np.float64]], heading: str, axis: str
) -> _Sheet:
    left, top, width, height = 52.0, 28.0, 340.0, 200.0
    wide = max(left + width, 4 + _width(heading))
    sheet = _Sheet(wide + 16, top + height + 40) + _text(4, 16, heading)
    every = np.concatenate(list(values.values()))
    finite = every[np.isfinite(every)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin

    def place(y: NDArray[np.float64]) -> NDArray[np.float64]:
        good = np.isfinite(y)
        across = left + width * r[good] / r[-1]
        return np.column_stack([across, top + height * (high - y[good]) / (high - low)])

    band = np.concatenate([place(values["low"]), place(values["high"])[::-1]])
    corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in band)
    sheet += f'<polygon points="{corners}" fill="#dddddd"/>'
    sheet += _line(place(values["theory"]), FAINT, dashed=True)
    sheet += _line(place(values["observed"]), PALETTE[5])
    frame = f'x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}"'
    sheet += f'<rect {frame} fill="none" stroke="{FAINT}"/>'
    for share in (0.0, 0.5, 1.0):
        text = f"{low + share * (high - low):.3g}"
        sheet += _text(left - 4, top + height * (1 - share) + 4, text, anchor="end")
        sheet += _text(
            left + width * share, top + height + 14, f"{share * r[-1]:g}", anchor="middle"
        )
    sheet += _text(left + width / 2, top + height + 30, axis, anchor="middle")
    return sheet


def niche_map(
    result: SpatialResult,
    *,
    image: str | None = None,
    column: str = "niche",
    background: NDArray[np.uint8] | None = None,
    pixel: float = 1.0,
    side: int = 800,
) -> str:
    """Nuclei where they are, coloured by niche, type or any other group, over the image.

    Parameters
    ----------
    result
        Whose table of nuclei has ``column``.
    image
        Which image; may be left out when there is one.
    column
        What to colour by: ``"niche"``, the column of types, or another with few values.
    background
        ``(Y, X, 3)`` uint8: the image, possibly smaller than it was. None: white.
    pixel
        Side of a background pixel in the unit of the result.
    side
        Longest side of the map in px.

    Returns
    -------
    str
        SVG with one embedded PNG, so that a million nuclei stay a small file. A stack is looked at
        from above.
    """
    if column not in result.nuclei.columns:
        raise CallError(f"nuclei have no {column!r}; compute niches, or name another column.")
    rows, image = _one_image(result.nuclei, image)
    pattern = next(p for p in result.patterns if p.image == image)
    at = pattern.at[:, -2:]
    groups, names = pd.factorize(rows[column], sort=True)
    canvas, scale = _canvas(at, background, pixel, side)
    radius = max(round(canvas.shape[1] / 400), 3 if len(at) < 2000 else 1)
    low = np.zeros(2) if background is not None else _corner(at)
    _stamp(canvas, (at - low) * scale, groups, radius)
    height, width = canvas.shape[:2]
    legend = 40 + _width(max(map(str, names), key=len, default=""))
    sheet = _Sheet(width + max(legend, 120), max(height, 18 * len(names) + 30) + 24)
    sheet += _text(4, 16, f"{image}: {column}")
    box = f'x="0" y="24" width="{width}" height="{height}"'
    sheet += f'<image {box} href="{data_uri(encode_png(canvas))}"/>'
    for index, name in enumerate(names):
        y = 36 + 18 * index
        colour = PALETTE[index % len(PALETTE)]
        sheet += f'<rect x="{width + 10}" y="{y}" width="12" height="12" fill="{colour}"/>'
        sheet += _text(width + 28, y + 10, str(name))
    return sheet.svg(f"Map of {column}, {image}")


def _corner(at: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(at.min(axis=0)) if len(at) else np.zeros(2)


def _canvas(
    at: NDArray[np.float64], background: NDArray[np.uint8] | None, pixel: float, side: int
) -> tuple[NDArray[np.uint8], float]:
    """A canvas, and how many of its pixels one unit of length takes."""
    if background is None:
        extent = np.maximum(np.ptp(at, axis=0), 1e-9) if len(at) else np.ones(2)
        scale = side / float(extent.max())
        shape = np.ceil(extent * scale).astype(int) + 1
        return np.full((*shape, 3), 255, np.uint8), scale
    if background.ndim != 3 or background.shape[2] != 3 or background.dtype != np.uint8:
        raise InputError(f"a background is (Y, X, 3) uint8; found {background.shape}.")
    step = max(1, math.ceil(max(background.shape[:2]) / side))
    faded = 255 - (255 - background[::step, ::step].astype(np.uint16)) // 2
    return faded.astype(np.uint8), 1.0 / (pixel * step)


def _stamp(
    canvas: NDArray[np.uint8], at: NDArray[np.float64], groups: NDArray[np.int64], radius: int
) -> None:
    """Draw a disc per nucleus, in place."""
    colours = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in PALETTE], np.uint8)
    centre = np.rint(at).astype(np.int64)
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if dy * dy + dx * dx > radius * radius:
                continue
            y, x = centre[:, 0] + dy, centre[:, 1] + dx
            inside = (y >= 0) & (x >= 0) & (y < canvas.shape[0]) & (x < canvas.shape[1])
            canvas[y[inside], x[inside]] = colours[groups[inside] % len(PALETTE)]


#: What a result can be drawn as: name -> (table it needs, or None for the nuclei, and function).
PLOTS: dict[str, tuple[str | None, Callable[..., str]]] = {
    "enrichment": ("enrichment", enrichment_map),
    "niches": (None, niche_map),
}


def figures(result: SpatialResult, *, image: str | None = None, n_curves: int = 4) -> list[str]:
    """The pictures worth showing for one image: enrichment, niches, and the clearest curves.

    Parameters
    ----------
    result
        Of any statistics.
    image
        Which image; may be left out when there is one.
    n_curves
        At most so many curves per statistic, smallest p first.

    Returns
    -------
    list of str
        SVG, possibly none.
    """
    drawn = [
        plot(result, image=image)
        for name, (needs, plot) in PLOTS.items()
        if (needs or name) in result.tables
    ]
    for statistic in ("k", "pcf", "g", "co_occurrence"):
        if statistic not in result.tables:
            continue
        frame, _ = _one_image(result.tables[statistic], image)
        pairs = frame.drop_duplicates(["type_a", "type_b"]).dropna(subset=["p"])
        pairs = pairs[pairs["type_a"] <= pairs["type_b"]].sort_values("p", kind="stable")
        drawn += [
            curve_plot(result, statistic, a, b, image=image)
            for a, b in pairs[["type_a", "type_b"]].head(n_curves).itertuples(index=False)
        ]
    return drawn
