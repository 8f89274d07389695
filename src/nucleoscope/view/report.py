"""One HTML file that shows what was found, to be opened by anyone, anywhere, without a network.

The page carries everything inside it and forbids itself the rest: its content security policy
allows pictures written into the page and the one style sheet and script it was built with, named
by their hashes. Names of files, channels, types and facts are data to it, never markup.
"""

from __future__ import annotations

import base64
import hashlib
import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

import nucleoscope
from nucleoscope.data.labels import Labels
from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError
from nucleoscope.io.guard import write_bytes
from nucleoscope.metrics import detection_scores, match_points, type_scores
from nucleoscope.view.charts import Histogram, LineChart, histogram, line_chart
from nucleoscope.view.overlay import TINTS, channel_tints, nice_length, type_colours
from nucleoscope.view.pictures import Pictures, make_pictures

__all__ = ["ReportImage", "ReportRun", "render_report", "truth_scores", "write_report"]

#: Characters all pictures together may take; the page stays below 15 MB.
PICTURE_BUDGET = 12_000_000
#: Images beyond this many appear in the summary table only.
MAX_IMAGES = 24
#: Rows of the table of nuclei, and clicks drawn per image.
MAX_ROWS, MAX_CLICKS = 200, 4000
#: Names longer than this are cut.
MAX_NAME = 200

POLICY = (
    "default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; "
    "base-uri 'none'; form-action 'none'"
)

#: Column of the nucleus table -> heading, help, decimals (None: text).
COLUMNS: Mapping[str, tuple[str, str, int | None]] = {
    "id": ("id", "number of the nucleus: its value in the instance map", 0),
    "type": ("type", "type of the nucleus", None),
    "type_prob": ("type prob.", "probability of that type, 0 to 1", 2),
    "score": ("score", "how sure it is that this is a nucleus, 0 to 1", 2),
    "z": ("z", "slice of the centre, counted from 0", 1),
    "y": ("y", "row of the centre in pixels, from 0", 1),
    "x": ("x", "column of the centre in pixels, from 0", 1),
    "z_um": ("z µm", "depth of the centre in micrometres", 1),
    "y_um": ("y µm", "row of the centre in micrometres", 1),
    "x_um": ("x µm", "column of the centre in micrometres", 1),
    "n_slices": ("slices", "number of slices that hold it", 0),
    "area_um2": ("area µm²", "area in square micrometres", 1),
    "area_px": ("area px", "area in pixels", 0),
    "volume_um3": ("volume µm³", "volume in cubic micrometres", 1),
    "volume_px": ("volume px", "volume in voxels", 0),
    "subtype": ("subtype", "cluster of the nucleus in the atlas", None),
}
SCORE_TITLES = {"detection": "Finding nuclei", "types": "Telling types apart"}
SCORE_NOTES = {
    "detection": "Precision: share of the nuclei found that are annotated. Recall: share of the "
    "annotated nuclei that were found. F1 balances the two; 1 is perfect.",
    "types": "The same figures for the nuclei of each type alone.",
}


@dataclass(frozen=True, eq=False)
class ReportImage:
    """One image and what was found in it.

    Parameters
    ----------
    name
        What the page calls it.
    volume, labels
        The image and its instance map, of the same ``(Z, Y, X)``.
    table
        Its nuclei; ``id`` is the value in ``labels``.
    truth
        An annotator's clicks, or None.
    region
        Where nuclei were looked for, or None for the whole image.
    scores
        Figures against the truth: ``{"detection": {"precision": ..., "recall": ..., "f1": ...},
        "types": {"positive": {...}}}``, named tuples as well, further groups and single figures
        allowed. None computes these two from ``truth`` (``truth_scores``).
    nuclei
        Name of the nuclear stain; None looks for a usual one.
    notices
        Sentences the reader of the page must see.

    Raises
    ------
    InputError
        The instance map does not have the image's shape.
    """

    name: str
    volume: Volume
    labels: Labels
    table: NucleusTable
    truth: Points | None = None
    region: Region | None = None
    scores: Mapping[str, Any] | None = None
    nuclei: str | None = None
    notices: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.labels.shape != self.volume.shape:
            raise InputError(
                f"{self.name}: the instance map is {self.labels.shape} "
                f"but the image is {self.volume.shape} (Z, Y, X)."
            )


@dataclass(frozen=True, eq=False)
class ReportRun:
    """What made the results.

    Parameters
    ----------
    title
        Heading of the page.
    facts
        Name and value of what a reader may want to know or cite: recipe, model, versions, seed,
        timings. Shown in this order.
    history
        Training figures, one mapping per logged step: ``step``, losses (keys with ``loss``) and
        validation figures (keys with ``f1``); or None.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[Mapping[str, object]] | None = None


def truth_scores(
    table: NucleusTable, truth: Points, region: Region | None = None, *, radius: float = 15.0
) -> dict[str, Any]:
    """Precision, recall and F1 of detection and of each type against an annotator's clicks.

    Nuclei and clicks inside the region are matched one to one in (y, x), at most ``radius``
    pixels apart, as the LECL paper does (see ``metrics.match_points``).

    >>> table = NucleusTable(pd.DataFrame({"id": [1], "y": [5.0], "x": [5.0]}))
    >>> truth_scores(table, Points([0.0], [6.0], [5.0]))["detection"].f1
    1.0
    """
    frame = table.frame
    if region is not None:
        frame = frame[region.contains(frame["y"].to_numpy(), frame["x"].to_numpy())]
        truth = truth.where(region.contains(truth.y, truth.x))
    found, clicked = frame[["y", "x"]].to_numpy(np.float64), truth.zyx()[:, 1:]
    matching = match_points(found, clicked, radius=radius)
    scores: dict[str, Any] = {"detection": detection_scores(matching)}
    types = type_scores(matching, frame["type"].to_numpy(np.str_), truth.types)
    return scores | ({"types": types} if types else {})


def _scores_of(image: ReportImage) -> Mapping[str, Any]:
    """The scores given, or those of the truth, or none."""
    if image.scores is not None:
        return image.scores
    if image.truth is None or not len(image.truth):
        return {}
    return truth_scores(image.table, image.truth, image.region)


def visible(value: object) -> object:
    r"""Text with control and direction characters spelt out; anything else as it is.

    A name with U+202E would otherwise be shown backwards, and so pass for another.

    >>> visible("evil" + chr(0x202e) + "fdp.exe")
    'evil\\u202efdp.exe'
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.isprintable():
        return value
    return "".join(c if _is_plain(c) else ascii(c)[1:-1] for c in value)


def _is_plain(character: str) -> bool:
    """False for control, format, surrogate, private and line-breaking characters."""
    category = unicodedata.category(character)
    return category[0] != "C" and category not in ("Zl", "Zp")


def short(text: str) -> str:
    """A name cut to a length that fits a page.

    >>> len(short("x" * 100_000))
    200
    """
    return text if len(text) <= MAX_NAME else text[: MAX_NAME - 1] + "…"


def _asset(name: str) -> str:
    """A file of the template folder, with plain line ends so that its hash is the browser's."""
    folder = resources.files("nucleoscope.view") / "templates"
    return (folder / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _hash(text: str) -> str:
    """The name a content security policy gives an inline style or script."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _lead(image: ReportImage) -> str:
    """One line on size, scale and channels."""
    depth, height, width = image.volume.shape
    size = f"{height} × {width} pixels"
    parts = [size if depth == 1 else f"{depth} slices of {size}"]
    if image.volume.spacing is None:
        parts.append("scale unknown")
    else:
        z, y, x = (f"{v:g}" for v in image.volume.spacing)
        parts.append(f"pixel {y} × {x} µm" if depth == 1 else f"voxel {z} × {y} × {x} µm (z, y, x)")
    if not image.volume.is_rgb:
        parts.append("channels " + ", ".join(map(short, image.volume.channels)))
    return " · ".join(parts)


def _notices(image: ReportImage) -> list[str]:
    """What is missing, in plain sentences."""
    out = list(image.notices)
    if not len(image.table):
        inside = " inside the region" if image.region is not None else ""
        out.append(
            f"No nuclei were found in this image{inside}. If you see nuclei below, check that the "
            "nuclear channel is the right one and that the model was made for such images."
        )
    if image.truth is not None and not len(image.truth):
        out.append("The annotation given for this image holds no point, so nothing can be scored.")
    return out


def _cards(
    image: ReportImage, scores: Mapping[str, Any], colours: Mapping[str, str]
) -> list[dict[str, object]]:
    """The figures at the top of an image's section."""
    n = len(image.table)
    cards: list[dict[str, object]] = [{"value": f"{n:,}", "label": "nuclei found", "colour": None}]
    counts = image.table.frame["type"].value_counts()
    for name in sorted(counts.index):
        if name or len(counts) > 1:
            label = f"{short(name) or 'untyped'} ({100 * counts[name] / n:.0f} %)"
            cards.append({"value": f"{counts[name]:,}", "label": label, "colour": colours[name]})
    if image.truth is not None:
        cards.append(
            {"value": f"{len(image.truth):,}", "label": "annotated points", "colour": None}
        )
    for key, title in (("detection", "detection F1"), ("types", "type F1")):
        f1 = _f1(scores, key)
        if f1 is not None:
            cards.append({"value": f"{f1:.3f}", "label": title, "colour": None})
    return cards


def _mapping(value: object) -> Mapping[str, Any] | None:
    """A mapping or a named tuple as a mapping, else None."""
    if isinstance(value, Mapping):
        return value
    as_dict = getattr(value, "_asdict", None)
    return dict(as_dict()) if as_dict is not None else None


def _f1(scores: Mapping[str, Any] | None, key: str) -> float | None:
    """The F1 of a group of scores; of the positive type where each type has its own."""
    group = _mapping((scores or {}).get(key)) or {}
    value = group.get("f1", (_mapping(group.get("positive")) or {}).get("f1"))
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def _score_groups(scores: Mapping[str, Any]) -> list[dict[str, object]]:
    """Scores as panels of rows; single figures come last, together."""
    groups: list[dict[str, object]] = []
    loose: list[dict[str, object]] = []
    for key, value in scores.items():
        inner = _mapping(value)
        if inner is None:
            loose.append(_score_row(key, value))
            continue
        nested = {k: v for k, v in ((k, _mapping(v)) for k, v in inner.items()) if v is not None}
        rows = [_score_row(k, v) for k, v in inner.items() if k not in nested]
        title, note = SCORE_TITLES.get(key, short(key)), SCORE_NOTES.get(key)
        groups.append({"title": title, "rows": rows, "grid": _score_grid(nested), "note": note})
    if loose:
        groups.append({"title": "Other figures", "rows": loose, "grid": [], "note": None})
    return groups


def _score_grid(nested: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """One row of precision, recall and F1 per type, under a heading row; empty without types."""
    names = ("precision", "recall", "f1")
    rows = [
        [short(t) or "untyped", *(str(_score_row(n, s.get(n, math.nan))["value"]) for n in names)]
        for t, s in nested.items()
    ]
    return [["type", "precision", "recall", "F1"], *rows] if rows else []


def _score_row(name: str, value: object) -> dict[str, object]:
    """One figure; a float in [0, 1] gets a bar."""
    label = {"f1": "F1", "tp": "right", "fp": "spurious", "fn": "missed"}.get(
        name, short(name.replace("_", " "))
    )
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if not math.isfinite(number):
            return {"name": label, "value": "undefined", "fraction": None}
        fraction = round(100 * number, 1) if 0 <= number <= 1 else None
        return {"name": label, "value": f"{number:.3f}", "fraction": fraction}
    return {"name": label, "value": str(value), "fraction": None}


def _histograms(image: ReportImage, colours: Mapping[str, str]) -> list[Histogram]:
    """Scores and type probabilities, stacked by type."""
    frame = image.table.frame
    charts = []
    for column, title in (
        ("score", "How sure: is it a nucleus (score)"),
        ("type_prob", "How sure: is it this type (probability)"),
    ):
        groups = {
            str(name): part[column].to_numpy(np.float64) for name, part in frame.groupby("type")
        }
        charts.append(histogram(title, groups, colours))
    return [chart for chart in charts if chart is not None]


def _cell(value: object, decimals: int | None) -> dict[str, object]:
    """Text of a table cell and what it sorts by."""
    if decimals is None or isinstance(value, str):
        return {"text": "" if value is None else short(str(value)), "sort": None}
    number = float(value)  # type: ignore[arg-type]  # numeric columns only
    if not math.isfinite(number):
        return {"text": "–", "sort": ""}
    return {"text": f"{number:.{decimals}f}", "sort": f"{number:.6g}"}


def _table(image: ReportImage) -> dict[str, object]:
    """The first nuclei with the columns that say something."""
    frame = image.table.frame
    extra = {
        c: (
            short(c.replace("_", " ")),
            f"column {short(c)} of the table",
            2 if c.endswith("_prob") else None,
        )
        for c in frame.columns
        if c.endswith(("_prob", "_positive")) and c not in COLUMNS
    }
    shown = {
        c: how for c, how in {**COLUMNS, **extra}.items() if c in frame.columns and _says(frame[c])
    }
    head = frame.head(MAX_ROWS)
    decimals = [how[2] for how in shown.values()]
    rows = [
        {"id": int(number), "cells": [_cell(v, d) for v, d in zip(values, decimals, strict=True)]}
        for number, values in zip(
            head["id"], head[list(shown)].itertuples(index=False, name=None), strict=True
        )
    ]
    n = len(frame)
    return {
        "columns": [{"name": h[0], "help": h[1], "text": h[2] is None} for h in shown.values()],
        "rows": rows,
        "title": f"The nuclei, one by one ({len(rows):,} of {n:,})",
        "note": "The others are in the table file." if n > len(rows) else "",
    }


def _says(column: pd.Series[Any]) -> bool:
    """True unless every cell is empty."""
    return bool((column.notna() & (column != "")).any())


def _clicks(image: ReportImage, colours: Mapping[str, str]) -> list[dict[str, object]]:
    """Annotated points as circles, each in its slice."""
    if image.truth is None:
        return []
    rows = zip(image.truth.z, image.truth.y, image.truth.x, image.truth.types, strict=True)
    return [
        {"z": round(float(z)), "y": round(float(y), 1), "x": round(float(x), 1),
         "colour": colours[str(name)]}
        for z, y, x, name in list(rows)[:MAX_CLICKS]
    ]  # fmt: skip


def _bar(image: ReportImage, box: tuple[int, int, int, int]) -> dict[str, object] | None:
    """A scale bar at the lower right of the pictures, in pixels of the image."""
    if image.volume.spacing is None:
        return None
    mpp = image.volume.spacing[2]
    y0, x0, y1, x1 = box
    unit = max(y1 - y0, x1 - x0) / 100.0
    length_um = nice_length((x1 - x0) * mpp)
    length = length_um / mpp
    x, y = x1 - 0.5 - 2.5 * unit - length, y1 - 0.5 - 3.2 * unit
    return {
        "x": round(x, 2), "y": round(y, 2), "length": round(length, 2), "thick": round(unit, 2),
        "middle": round(x + length / 2, 2), "text_y": round(y - 1.2 * unit, 2),
        "font": round(3.2 * unit, 2), "label": f"{length_um:g} µm",
    }  # fmt: skip


def _nuclei(image: ReportImage) -> list[dict[str, object]]:
    """What the page's script knows of each nucleus."""
    frame = image.table.frame
    columns = frame[["id", "z", "y", "x", "z_min", "z_max", "type", "type_prob", "score"]]
    return [
        {
            "id": int(number),
            "z": round(z, 2) if math.isfinite(z) else None,
            "y": round(y, 1),
            "x": round(x, 1),
            "z0": int(low),
            "z1": int(high),
            "type": visible(short(name or "untyped")),
            "prob": round(prob, 3) if math.isfinite(prob) else None,
            "score": round(score, 3) if math.isfinite(score) else None,
        }
        for number, z, y, x, low, high, name, prob, score in columns.itertuples(index=False)
    ]


def _frames(pictures: Pictures) -> list[dict[str, object]]:
    """The slices' pictures for the page's script."""
    return [{"layers": list(f.layers), "rims": f.rims} for f in pictures.frames]


def _projections(pictures: Pictures) -> list[dict[str, object]]:
    """The two projections with what to make of them."""
    captions = {
        "mip": ("Maximum projection.", "The brightest slice of every pixel. A marker above or "
                "below a nucleus appears to lie on it."),
        "emip": ("Enhanced maximum projection.", "The brightest slice among those of the nearest "
                 "nucleus, so a marker above or below it leaves no trace."),
    }  # fmt: skip
    return [
        {"frame": frame, "title": captions[name][0], "caption": captions[name][1]}
        for name, frame in pictures.projections.items()
    ]


def _rings(region: Region | None) -> list[str]:
    """The region's rings as SVG paths in (x, y)."""
    if region is None:
        return []
    return [
        "M" + "L".join(f"{x:.1f} {y:.1f}" for y, x in ring.tolist()) + "Z" for ring in region.rings
    ]


def _channels(image: ReportImage) -> list[dict[str, object]]:
    """Name and tint of each layer."""
    if image.volume.is_rgb:
        return [{"name": "image", "tint": None}]
    tints = channel_tints(image.volume.channels, image.nuclei)
    return [
        {"name": short(n), "tint": t} for n, t in zip(image.volume.channels, tints, strict=True)
    ]


def _section(
    image: ReportImage,
    anchor: str,
    scores: Mapping[str, Any],
    colours: Mapping[str, str],
    budget: int,
) -> dict[str, Any]:
    """Everything the template shows of one image."""
    frame = image.table.frame
    types = dict(zip(frame["id"].tolist(), frame["type"].tolist(), strict=True))
    pictures = make_pictures(
        image.volume, image.labels, types, colours, image.region, budget=budget
    )
    y0, x0, y1, x1 = pictures.box
    first = _busiest(image, pictures.slices)
    dot = max(y1 - y0, x1 - x0) / 220.0
    hint = "Point at a nucleus to read what was found." if types else ""
    return {
        "anchor": anchor,
        "name": short(image.name),
        "lead": _lead(image),
        "notices": _notices(image),
        "cards": _cards(image, scores, colours),
        "channels": _channels(image),
        "types": [
            {"name": short(t) or "untyped", "colour": colours[t]}
            for t in sorted(set(types.values()))
        ],
        "scores": _score_groups(scores),
        "histograms": _histograms(image, colours),
        "table": _table(image),
        "clicks": _clicks(image, colours),
        "roi": _rings(image.region),
        "bar": _bar(image, pictures.box),
        "view_box": f"{x0 - 0.5} {y0 - 0.5} {x1 - x0} {y1 - y0}",
        "dot": round(dot, 2),
        "frames": pictures.frames,
        "slices": pictures.slices,
        "first": first,
        "depth": image.volume.shape[0],
        "projections": _projections(pictures),
        "data": {
            "slices": pictures.slices,
            "depth": image.volume.shape[0],
            "first": first,
            "frames": _frames(pictures),
            "nuclei": _nuclei(image),
            "reach": round(6 * dot, 1),
            "hint": hint,
        },
    }


def _busiest(image: ReportImage, slices: Sequence[int]) -> int:
    """Index of the slice with most nuclei; the middle one when there are none."""
    area = [int(np.count_nonzero(image.labels.data[z])) for z in slices]
    return int(np.argmax(area)) if max(area) else len(slices) // 2


def _training(history: Sequence[Mapping[str, object]] | None) -> list[LineChart]:
    """Loss and validation curves, those that exist."""
    if not history:
        return []
    keys = list(dict.fromkeys(key for row in history for key in row))
    losses = [k for k in keys if "loss" in k.casefold()]
    gains = [k for k in keys if "f1" in k.casefold()]
    charts = (
        line_chart("Loss", history, losses),
        line_chart("Validation", history, gains, unit_range=True),
    )
    return [chart for chart in charts if chart is not None]


def _summary(
    images: Sequence[ReportImage], scores: Sequence[Mapping[str, Any]]
) -> dict[str, object]:
    """One row of figures per image."""
    types = sorted({str(t) for image in images for t in image.table.frame["type"].unique()})
    names = {"detection": "detection F1", "types": "type F1"}
    keys = [k for k in names if any(_f1(s, k) is not None for s in scores)]
    rows = []
    for index, image in enumerate(images):
        counts = image.table.frame["type"].value_counts()
        figures = [_f1(scores[index], k) for k in keys]
        cells = [short(image.name), f"{len(image.table)}", *(f"{counts.get(t, 0)}" for t in types)]
        cells += ["" if f is None else f"{f:.3f}" for f in figures]
        rows.append({"anchor": _anchor(index) if index < MAX_IMAGES else None, "cells": cells})
    columns = [
        "image",
        "nuclei",
        *(short(t) or "untyped" for t in types),
        *(names[k] for k in keys),
    ]
    return {"columns": columns, "rows": rows}


def _anchor(index: int) -> str:
    """The section's address inside the page; never made of a name."""
    return f"image-{index + 1}"


def _headline(images: Sequence[ReportImage]) -> str:
    """The page's first sentence."""
    n = sum(len(image.table) for image in images)
    what = "1 image" if len(images) == 1 else f"{len(images):,} images"
    return f"{n:,} {'nucleus' if n == 1 else 'nuclei'} in {what}."


def render_report(run: ReportRun, images: Sequence[ReportImage]) -> str:
    """The page as text; ``write_report`` writes it to a file.

    Parameters
    ----------
    run
        What made the results.
    images
        What is shown; the first 24 with pictures, all in the summary.

    Returns
    -------
    str
        An HTML document below 15 million characters that makes no network request.

    Examples
    --------
    >>> render_report(ReportRun("nothing yet"), []).startswith("<!doctype html>")
    True
    """
    found = {str(t) for i in images for t in i.table.frame["type"].unique()}
    clicked = {str(t) for i in images if i.truth is not None for t in i.truth.types}
    colours = type_colours(found | clicked)
    scores = [_scores_of(image) for image in images]
    shown = images[:MAX_IMAGES]
    budget = PICTURE_BUDGET // max(1, len(shown))
    css = _asset("report.css") + "".join(f".tint{t[1:]}{{background:{t}}}\n" for t in TINTS)
    js = _asset("report.js")
    notices = [] if images else ["This run holds no image, so there is nothing to show."]
    if len(images) > len(shown):
        notices.append(f"Pictures are shown for the first {len(shown)} images, figures for all.")
    page = _template().render(
        run=run,
        lead=_headline(images),
        notices=notices,
        summary=_summary(images, scores),
        training=_training(run.history),
        images=[
            _section(image, _anchor(i), scores[i], colours, budget) for i, image in enumerate(shown)
        ],
        css=Markup(css),  # noqa: S704  our own file
        js=Markup(js),  # noqa: S704  our own file
        policy=POLICY.format(style=_hash(css), script=_hash(js)),
        footer=f"Made by nucleoscope {nucleoscope.__version__}. This file is complete: it can be "
        "moved, mailed and opened without a network.",
    )
    return page.strip() + "\n"


@cache
def _template() -> jinja2.Template:
    """The page's template; every value is escaped, text is made visible first."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, finalize=visible, trim_blocks=True
    )
    environment.filters["short"] = short
    return environment.from_string(_asset("report.html.j2"))


def write_report(
    path: str | Path,
    run: ReportRun,
    images: Sequence[ReportImage],
    *,
    overwrite: bool = False,
) -> Path:
    """Write the report; the name holds the complete old page or the complete new one.

    Parameters
    ----------
    path
        The HTML file to write; its folder is made when absent.
    run, images
        As for ``render_report``.
    overwrite
        Replace a file that this process did not write itself.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    CallError
        The file exists and ``overwrite`` is False.
    ResourceError
        The disk is full or the place is not writable.
    """
    text = render_report(run, images)
    write_bytes(path, text.encode("utf-8", "backslashreplace"), overwrite=overwrite)
    return Path(path)
