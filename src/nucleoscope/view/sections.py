"""What the report's template shows: each part of the page as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nucleoscope.data.region import Region
from nucleoscope.view.charts import Histogram, LineChart, histogram, line_chart
from nucleoscope.view.model import ReportImage
from nucleoscope.view.overlay import channel_tints, nice_length
from nucleoscope.view.pictures import Pictures, make_pictures
from nucleoscope.view.scoring import f1_of, score_groups
from nucleoscope.view.text import short, visible

__all__ = [
    "MAX_IMAGES",
    "MAX_ROWS",
    "anchor_of",
    "headline",
    "image_section",
    "summary",
    "training",
]

#: Images beyond this many appear in the summary table only.
MAX_IMAGES = 24
#: Rows of the table of nuclei, and clicks drawn per image.
MAX_ROWS, MAX_CLICKS = 200, 4000

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
        f1 = f1_of(scores, key)
        if f1 is not None:
            cards.append({"value": f"{f1:.3f}", "label": title, "colour": None})
    return cards


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
        "emip": ("Extended maximum projection.", "The brightest slice among those of the nearest "
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


def image_section(
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
        "scores": score_groups(scores),
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


def training(history: Sequence[Mapping[str, object]] | None) -> list[LineChart]:
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


def summary(
    images: Sequence[ReportImage], scores: Sequence[Mapping[str, Any]]
) -> dict[str, object]:
    """One row of figures per image."""
    types = sorted({str(t) for image in images for t in image.table.frame["type"].unique()})
    names = {"detection": "detection F1", "types": "type F1"}
    keys = [k for k in names if any(f1_of(s, k) is not None for s in scores)]
    rows = []
    for index, image in enumerate(images):
        counts = image.table.frame["type"].value_counts()
        figures = [f1_of(scores[index], k) for k in keys]
        cells = [short(image.name), f"{len(image.table)}", *(f"{counts.get(t, 0)}" for t in types)]
        cells += ["" if f is None else f"{f:.3f}" for f in figures]
        rows.append({"anchor": anchor_of(index) if index < MAX_IMAGES else None, "cells": cells})
    columns = [
        "image",
        "nuclei",
        *(short(t) or "untyped" for t in types),
        *(names[k] for k in keys),
    ]
    return {"columns": columns, "rows": rows}


def anchor_of(index: int) -> str:
    """The section's address inside the page; never made of a name."""
    return f"image-{index + 1}"


def headline(images: Sequence[ReportImage]) -> str:
    """The page's first sentence."""
    n = sum(len(image.table) for image in images)
    what = "1 image" if len(images) == 1 else f"{len(images):,} images"
    return f"{n:,} {'nucleus' if n == 1 else 'nuclei'} in {what}."
