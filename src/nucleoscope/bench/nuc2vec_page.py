"""The page of ``bench nuc2vec``: tables, claims, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from nucleoscope.bench.frame import Budget, Records, Run, provenance
from nucleoscope.bench.lecl_read import figure_text
from nucleoscope.metrics.spread import Spread, spread_of_values
from nucleoscope.view.page import Code, Page, Section, Table

#: Rows of the tables: what was run, which of its embeddings, label.
ROWS = (
    ("random", "random", "random network"),
    ("thumbnails", "thumbnails", "8x8 thumbnails, PCA 50"),
    ("imagenet", "imagenet", "ImageNet EfficientNet-Lite0, frozen"),
    ("features", "features", "handcrafted features"),
    ("nuc2vec-paper", "nuc2vec-paper", "nuc2vec-paper"),
    ("nuc2vec", "nuc2vec", "nuc2vec"),
    ("nuc2vec-paper", "with features", "nuc2vec-paper + features"),
    ("nuc2vec", "with features", "nuc2vec + features"),
)
PROBES = (
    ("knn_f1", "kNN"), ("linear_f1_100", "linear, 100 labels"),
    ("linear_f1_1000", "linear, 1,000 labels"), ("linear_f1", "linear, all labels"),
)  # fmt: skip
STRUCTURE = (
    ("ari", "ARI"), ("ami", "AMI"), ("purity_fine", "purity at 4k"),
    ("retrieval", "precision at 10, other tiles"), ("same_slide", "nearest of the same tile"),
)  # fmt: skip
CHANGED = ("rotation", "stain", "blur", "background", "size")
Key = tuple[str, str]


def render(budget: Budget, runs: Sequence[Run], records: Records, left: Mapping[str, str]) -> Page:
    """The page that the finished runs allow; what they do not is named at its end."""
    figures = grouped(runs, records)
    layouts = sorted({layout for _, layout in figures}, reverse=True)
    limit = f"{budget.minutes:g} minutes" if budget.steps is None else f"{budget.steps} steps"
    lead = (
        f"{len(records)} of {len(runs)} runs are finished. Encoders are trained for {limit} "
        "without labels on the tiles outside a fold and judged on the tiles inside; weighted F1 "
        "of four types, mean and standard deviation over seeds, each with its own fold."
    )
    sections = [
        Section(
            "How it is made",
            (
                Code("nucleoscope bench nuc2vec --data DIR --docs docs"),
                "Outlines and features come from the clicks alone. Neighbours, regularisation and "
                "standardisation are chosen on a fifth of the training tiles. "
                + provenance(records),
            ),
        ),
        Section("What it is held to", (claims(figures),)),
        *(Section(f"Types, {layout} tiles", (probes(figures, layout),)) for layout in layouts),
        *(
            Section(f"Structure, {layout} tiles", (structure(figures, layout),))
            for layout in layouts
        ),
        Section("What an encoder notices", (noticed(figures), known(figures))),
        Section("What training took", (trained(figures),)),
        Section("Missing", (_missing(left),)),
    ]
    return Page("Embeddings of nuclei", lead, tuple(sections))


def grouped(runs: Sequence[Run], records: Records) -> dict[Key, list[Mapping[str, Any]]]:
    """Figures of finished runs by what was run and layout, in order of seed."""
    found: dict[Key, list[Mapping[str, Any]]] = {}
    for run in runs:
        if run.name in records:
            key = (run.parameters["what"], run.parameters["layout"])
            found.setdefault(key, []).append(records[run.name]["figures"])
    return found


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation over seeds; all NaN for none."""
    if not values:
        return Spread(math.nan, math.nan, math.nan, math.nan, 0)
    return spread_of_values(np.asarray(values, dtype=np.float64)[:, None])


def _values(
    figures: Mapping[Key, Sequence[Mapping[str, Any]]], key: Key, part: str, row: str, name: str
) -> list[float]:
    return [f[part][row][name] for f in figures.get(key, []) if row in f[part]]


def _table(
    figures: Mapping[Key, Sequence[Mapping[str, Any]]],
    layout: str,
    part: str,
    columns: Sequence[tuple[str, str]],
) -> Table:
    rows = []
    for what, row, label in ROWS:
        cells = [
            figure_text(spread(_values(figures, (what, layout), part, row, name)))
            for name, _ in columns
        ]
        if set(cells) != {"-"}:
            rows.append((label, *cells))
    return Table(("embedding", *(head for _, head in columns)), tuple(rows))


def probes(figures: Mapping[Key, Sequence[Mapping[str, Any]]], layout: str) -> Table:
    """Weighted F1 of every embedding."""
    table = _table(figures, layout, "embeddings", PROBES)
    if not figures.get(("nuc2vec-paper", layout)):
        return table
    cells = [
        figure_text(spread(_values(figures, ("nuc2vec", layout), "sample", "nuc2vec", name)))
        for name, _ in PROBES
    ]
    every = figures[("nuc2vec-paper", layout)]
    n = f"{max(f['nuclei'] for f in every):,}"
    note = f"nuc2vec-paper is judged on {n} nuclei, as is nuc2vec in the last row."
    rows = table.rows if set(cells) == {"-"} else (*table.rows, (f"nuc2vec, same {n}", *cells))
    return Table(table.columns, rows, note)


def structure(figures: Mapping[Key, Sequence[Mapping[str, Any]]], layout: str) -> Table:
    """Clusters, retrieval and leakage of every embedding."""
    return _table(figures, layout, "structure", STRUCTURE)


def noticed(figures: Mapping[Key, Sequence[Mapping[str, Any]]]) -> Table:
    """Mean cosine between nuclei before and after a change."""
    rows = []
    for what in ("random", "nuc2vec-paper", "nuc2vec"):
        every = [f for (w, _), many in figures.items() if w == what for f in many]
        if every:
            cells = [
                figure_text(spread([f["invariance"][kind] for f in every if f["invariance"]]))
                for kind in CHANGED
            ]
            rows.append((what, *cells))
    note = "Cosine before and after. High is good but for size, which an embedding should notice."
    return Table(("encoder", *CHANGED), tuple(rows), note)


def trained(figures: Mapping[Key, Sequence[Mapping[str, Any]]]) -> Table:
    """Steps and CPU seconds of every recipe."""
    rows = []
    for what in ("nuc2vec-paper", "nuc2vec"):
        every = [f["training"] for (w, _), many in figures.items() if w == what for f in many]
        if every:
            cells = [
                figure_text(spread([t[name] for t in every if name in t]))
                for name in ("steps", "cpu_seconds")
            ]
            rows.append((what, *cells))
    return Table(("recipe", "steps", "CPU seconds"), tuple(rows), "One thread.")


def known(figures: Mapping[Key, Sequence[Mapping[str, Any]]]) -> Table:
    """Spearman correlation of measured values with their best linear read-out."""
    names = ("area", "eccentricity", "OD")
    rows = []
    for what, row, label in ROWS:
        every = [f for (w, _), many in figures.items() if w == what for f in many]
        cells = [figure_text(spread(_read(every, row, name))) for name in names]
        if set(cells) != {"-"}:
            rows.append((label, *cells))
    return Table(("embedding", *names), tuple(rows), "Spearman correlation on the test tiles.")


def _read(every: Sequence[Mapping[str, Any]], row: str, value: str) -> list[float]:
    return [
        s["spearman"]
        for f in every
        for s in f["sensitivity"]
        if s["embedding"] == row and s["value"] == value
    ]


def claims(figures: Mapping[Key, Sequence[Mapping[str, Any]]]) -> Table:
    """Each thing the embedding is held to, with its figure and whether it holds."""
    rows = [(text, number, "holds" if holds else "does not hold")
            for text, number, holds in _claims(figures)]  # fmt: skip
    return Table(("claim", "figure", ""), tuple(rows))


def _claims(
    figures: Mapping[Key, Sequence[Mapping[str, Any]]],
) -> Iterator[tuple[str, str, bool]]:
    def mean(what: str, layout: str, name: str, row: str = "") -> float:
        return spread(_values(figures, (what, layout), "embeddings", row or what, name)).mean

    for layout in ("interleaved", "blocks"):
        mine = [mean("nuc2vec", layout, name) for name in ("knn_f1", "linear_f1")]
        if not all(map(math.isfinite, mine)):
            continue
        for other in ("random", "thumbnails", "imagenet", "features"):
            theirs = [mean(other, layout, name) for name in ("knn_f1", "linear_f1")]
            if all(map(math.isfinite, theirs)):
                gain = [a - b for a, b in zip(mine, theirs, strict=True)]
                yield (
                    f"nuc2vec above {other} ({layout}), kNN and linear",
                    f"{gain[0]:+.3f}, {gain[1]:+.3f}",
                    min(gain) > 0,
                )
        yield from _joint_claims(mean, layout)
        yield from _paper_claims(figures, layout)
    every = [f for (w, _), many in figures.items() if w == "nuc2vec" for f in many]
    for kind in ("rotation", "stain", "background"):
        cosine = spread([f["invariance"][kind] for f in every if f["invariance"]]).mean
        if math.isfinite(cosine):
            yield f"cosine under {kind} above 0.95", f"{cosine:.3f}", cosine > 0.95
    size = spread(_read(every, "nuc2vec", "area")).mean
    if math.isfinite(size):
        yield "size readable, Spearman above 0.8", f"{size:.3f}", size > 0.8


def _joint_claims(mean: Any, layout: str) -> Iterator[tuple[str, str, bool]]:
    """Embedding and features together against each alone."""
    for name, head in PROBES[1:]:
        joint = mean("nuc2vec", layout, name, "with features")
        best = max(mean("nuc2vec", layout, name), mean("features", layout, name))
        if math.isfinite(joint) and math.isfinite(best):
            text = f"nuc2vec + features above each alone ({layout}), {head}"
            yield text, f"{joint - best:+.3f}", joint > best
    joint, full = (
        mean("nuc2vec", layout, "linear_f1_1000", "with features"),
        mean("features", layout, "linear_f1"),
    )
    if math.isfinite(joint) and math.isfinite(full):
        text = f"together with 1,000 labels as good as features with all ({layout})"
        yield text, f"{joint - full:+.3f}", joint >= full


def _paper_claims(
    figures: Mapping[Key, Sequence[Mapping[str, Any]]], layout: str
) -> Iterator[tuple[str, str, bool]]:
    """Ours against the published recipe, at equal minutes and on the same nuclei."""
    gains = []
    for name in ("knn_f1", "linear_f1"):
        mine, theirs = (
            spread(_values(figures, (what, layout), "sample", what, name)).mean
            for what in ("nuc2vec", "nuc2vec-paper")
        )
        gains.append(mine - theirs)
    if all(map(math.isfinite, gains)):
        text = f"nuc2vec above nuc2vec-paper at equal minutes ({layout}), kNN and linear"
        yield text, f"{gains[0]:+.3f}, {gains[1]:+.3f}", min(gains) > 0


def _missing(left: Mapping[str, str]) -> str:
    if not left:
        return "Nothing."
    return "; ".join(f"{name}: {why}" if why else name for name, why in left.items())
