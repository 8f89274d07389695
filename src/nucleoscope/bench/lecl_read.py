"""Figures of ``bench lecl`` out of its records: over seeds, with intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.bench.frame import Record, Records, Run
from nucleoscope.metrics.spread import Spread, spread_of_counts, spread_of_values

Floats = NDArray[np.float64]

UNKNOWN = Spread(float("nan"), float("nan"), float("nan"), float("nan"), 0)


@dataclass(frozen=True, eq=False)
class Results:
    """The finished runs of a plan.

    Parameters
    ----------
    runs
        All runs, done or not.
    records
        Of the finished ones, by name.
    """

    runs: Sequence[Run]
    records: Records

    def of(self, part: str, what: str) -> list[Record]:
        """Records of a part and a variant, one per finished seed, in the order of seeds."""
        found = [
            self.records[run.name]
            for run in self.runs
            if run.name in self.records
            and (run.parameters["part"], run.parameters["what"]) == (part, what)
        ]
        return sorted(found, key=lambda record: int(record["parameters"]["seed"]))

    def n_seeds(self, *keys: tuple[str, str]) -> int:
        """Seeds that every one of some parts and variants has finished; the fewest."""
        return min(len(self.of(part, what)) for part, what in keys)

    def groups(self, part: str, what: str, group: str) -> list[Mapping[str, Any]]:
        """What was found in a group of images (``d2_dev``), one per finished seed.

        ``emip+united`` is ``emip`` with its slices united as published.
        """
        what, _, other = what.partition("+")
        figures = [record["figures"] for record in self.of(part, what)]
        if other:
            figures = [each[other] for each in figures if other in each]
        return [each[group] for each in figures]

    def folds(self, part: str, variant: str, layout: str) -> list[Mapping[str, Any]]:
        """H&E: the figures of every finished fold, in the order of folds."""
        found = [
            (run.parameters["fold"], self.records[run.name]["figures"])
            for run in self.runs
            if run.name in self.records
            and run.parameters["part"] == part
            and (run.parameters["variant"], run.parameters["layout"]) == (variant, layout)
        ]
        return [figures for _, figures in sorted(found, key=lambda pair: int(pair[0]))]


def counts_of(groups: Sequence[Mapping[str, Any]], kind: str = "", rule: str = "optimal") -> Floats:
    """Counts ``(seeds, images, 3)`` of nuclei, or of a type when ``kind`` is given."""
    return _stack([group["images"] for group in groups], kind, rule)


def _stack(images: Sequence[Sequence[Mapping[str, Any]]], kind: str, rule: str) -> Floats:
    """Counts of every seed's images in the order of their names."""
    rows = [
        [_image_counts(image, kind, rule) for image in sorted(one, key=lambda i: str(i["image"]))]
        for one in images
    ]
    return np.array(rows, dtype=np.float64).reshape(len(rows), -1, 3)


def _image_counts(image: Mapping[str, Any], kind: str, rule: str) -> list[int]:
    """Counts of one image; a type that is not in it has none."""
    found = image[rule]
    counts: list[int] = found["types"].get(kind, [0, 0, 0]) if kind else found["nuclei"]
    return counts


def scored(
    groups: Sequence[Mapping[str, Any]],
    kind: str = "",
    figure: str = "f1",
    *,
    rule: str = "optimal",
    over: str = "pooled",
) -> Spread:
    """Precision, recall or F1 over seeds and images; `UNKNOWN` without a record."""
    if not groups:
        return UNKNOWN
    return spread_of_counts(counts_of(groups, kind, rule), figure, over=over)


def single(values: Sequence[float | None]) -> Spread:
    """A figure that is one number per seed; None is left out."""
    known = [float(v) for v in values if v is not None]
    return spread_of_values(np.array(known)[:, None]) if known else UNKNOWN


def f_type(images: Sequence[Sequence[Mapping[str, Any]]], kind: str) -> Spread:
    """HoVer-Net's ``F_c`` of a type over seeds and images.

    ``F_c = 2 TP / (2 TP + 2 FP_c + 2 FN_c + FP_d + FN_d)`` is an F1 in which a wrong type counts
    twice as false positive or negative.
    """
    rows = [
        [_typed(image, kind) for image in sorted(one, key=lambda i: str(i["image"]))]
        for one in images
    ]
    return spread_of_counts(np.array(rows)) if rows else UNKNOWN


def _typed(image: Mapping[str, Any], kind: str) -> list[int]:
    """An image's pair counts of a type as true positives, false positives and false negatives."""
    both, predicted, true, loose_predicted, loose_true = image["pair_counts"].get(kind, [0] * 5)
    return [both, 2 * predicted + loose_predicted, 2 * true + loose_true]


def detected(images: Sequence[Sequence[Mapping[str, Any]]]) -> Spread:
    """F1 of detection over folds and their images."""
    return spread_of_counts(_stack(images, "", "optimal")) if images else UNKNOWN


def images_in(folds: Sequence[Mapping[str, Any]], radius: str) -> list[list[Mapping[str, Any]]]:
    """The images of every fold, judged at a radius."""
    return [fold[radius]["images"] for fold in folds]


def types_in(images: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    """Every true type, sorted."""
    return sorted({row[0] for one in images for image in one for row in image["confusion"]} - {""})


def reliability_of(groups: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats, Floats]:
    """Mean probability, share right and number of every filled bin, seeds put together."""
    columns = {
        name: np.array(
            [[np.nan if v is None else v for v in group["reliability"][name]] for group in groups]
        )
        for name in ("confidence", "accuracy", "n")
    }
    n = columns["n"].sum(axis=0)
    filled = n > 0
    mean = {
        name: np.nansum(columns[name] * columns["n"], axis=0)[filled] / n[filled]
        for name in ("confidence", "accuracy")
    }
    return mean["confidence"], mean["accuracy"], n[filled]


def figure_text(spread: Spread) -> str:
    """``mean ± sd``, the mean alone for one seed, or a dash.

    >>> figure_text(Spread(0.91234, 0.01, 0.9, 0.95, 3)), figure_text(UNKNOWN)
    ('0.912 ± 0.010', '-')
    """
    if not math.isfinite(spread.mean):
        return "-"
    sd = f" ± {spread.sd:.3f}" if math.isfinite(spread.sd) else ""
    return f"{spread.mean:.3f}{sd}"


def interval_text(spread: Spread) -> str:
    """``low to high``, or a dash."""
    known = math.isfinite(spread.low) and math.isfinite(spread.high)
    return f"{spread.low:.3f} to {spread.high:.3f}" if known else "-"
