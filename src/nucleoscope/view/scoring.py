"""Figures against an annotator's clicks, and how the page shows them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.metrics import detection_scores, match_points, type_scores
from nucleoscope.view.model import ReportImage
from nucleoscope.view.text import short

__all__ = ["f1_of", "score_groups", "scores_of", "truth_scores"]

SCORE_TITLES = {"detection": "Finding nuclei", "types": "Telling types apart"}
SCORE_NOTES = {
    "detection": "Precision: share of the nuclei found that are annotated. Recall: share of the "
    "annotated nuclei that were found. F1 balances the two; 1 is perfect.",
    "types": "The same figures for the nuclei of each type alone.",
}


def truth_scores(
    table: NucleusTable, truth: Points, region: Region | None = None, *, radius: float = 15.0
) -> dict[str, Any]:
    """Precision, recall and F1 of detection and of each type against an annotator's clicks.

    Nuclei and clicks inside the region are matched one to one in (y, x), at most ``radius``
    pixels apart, as the LECL paper does (see ``metrics.match_points``).

    >>> import pandas as pd
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


def scores_of(image: ReportImage) -> Mapping[str, Any]:
    """The scores given, or those of the truth, or none."""
    if image.scores is not None:
        return image.scores
    if image.truth is None or not len(image.truth):
        return {}
    return truth_scores(image.table, image.truth, image.region)


def _mapping(value: object) -> Mapping[str, Any] | None:
    """A mapping or a named tuple as a mapping, else None."""
    if isinstance(value, Mapping):
        return value
    as_dict = getattr(value, "_asdict", None)
    return dict(as_dict()) if as_dict is not None else None


def f1_of(scores: Mapping[str, Any] | None, key: str) -> float | None:
    """The F1 of a group of scores; of the positive type where each type has its own."""
    group = _mapping((scores or {}).get(key)) or {}
    value = group.get("f1", (_mapping(group.get("positive")) or {}).get("f1"))
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def score_groups(scores: Mapping[str, Any]) -> list[dict[str, object]]:
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
