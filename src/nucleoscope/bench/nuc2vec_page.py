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
    ("nuc2vec-small", "nuc2vec-small", "nuc2vec-small, shipped, other data"),
    ("nuc2vec", "nuc2vec", "nuc2vec"),
    ("nuc2vec-small", "with features", "nuc2vec-small + features"),
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
#: Two weighted F1s this near are called level.
LEVEL = 0.005
CHANGED = ("rotation", "stain", "blur", "background", "size")
Key = tuple[str, str]


def render(budget: Budget, runs: Sequence[Run], records: Records, left: Mapping[str, str]) -> Page:
    """The page that the finished runs allow; what they do not is named at its end."""
    figures = grouped(runs, records)
    layouts = sorted({layout for _, layout in figures}, reverse=True)
    limit = f"{budget.minutes:g} minutes" if budget.steps is None else f"{budget.steps} steps"
    lead = (
        f"{len(records)} of {len(runs)} runs are finished. Encoders are trained for at most "
        f"{limit} without labels on the tiles outside a fold and judged on the tiles inside; "
        "weighted F1 of four types, mean and standard deviation over seeds, each with its own fold."
    )
    sections = [
        Section(
            "How it is made",
            (
                Code(f"nucleoscope bench nuc2vec --data DIR --docs docs{_flag(budget)}"),
                "Outlines and features come from the clicks alone. Neighbours, regularisation, "
                "centring and standardisation are chosen on a fifth of the training tiles. "
                "nuc2vec ends after "
                "the steps of its recipe when the budget allows more; given steps, nuc2vec-paper "
                "makes one for forty, which takes about as long as forty of nuc2vec. "
                "nuc2vec-small is the encoder that comes with nucleoscope; it has not seen these "
                "tiles. The frozen network is judged by bench/bench_imagenet.py. "
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


def _flag(budget: Budget) -> str:
    """What the call says of the budget."""
    return "" if budget.steps is None else f" --steps {budget.steps}"


def grouped(runs: Sequence[Run], records: Records) -> dict[Key, list[Mapping[str, Any]]]:
    """Figures of finished runs by what was run and layout, in order of seed."""
    found: dict[Key, list[Mapping[str, Any]]] = {}
    for run in runs:
        if run.name in records:
            key = (run.parameters["what"], run.parameters["layout"])
            seed = {"seed": run.parameters["seed"]}
            found.setdefault(key, []).append(records[run.name]["figures"] | seed)
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
    for what in ("random", "nuc2vec-paper", "nuc2vec-small", "nuc2vec"):
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
    """Each thing the embedding is held to, with its figure and whether it holds.

    Gains are means and standard deviations over the seeds that both sides have.
    """
    rows = [(text, number, "holds" if holds else "does not hold")
            for text, number, holds in _claims(figures)]  # fmt: skip
    return Table(("claim", "figure", ""), tuple(rows))


def _claims(
    figures: Mapping[Key, Sequence[Mapping[str, Any]]],
) -> Iterator[tuple[str, str, bool]]:
    for layout in ("interleaved", "blocks"):
        for other in ("random", "thumbnails", "imagenet", "features"):
            reaches = other == "features"
            verb = f"reaches {other} (within {LEVEL:g})" if reaches else f"above {other}"
            text = f"nuc2vec {verb} ({layout}), kNN and linear"
            pairs = [
                _gain(figures, layout, ("nuc2vec", "nuc2vec", name), (other, other, name))
                for name in ("knn_f1", "linear_f1")
            ]
            yield from _claim(text, pairs, least=-LEVEL if reaches else 0.0)
        yield from _joint_claims(figures, layout)
        # On the same nuclei.
        ours, paper = ("nuc2vec", "nuc2vec"), ("nuc2vec-paper", "nuc2vec-paper")
        pairs = [
            _gain(figures, layout, (*ours, name), (*paper, name), part="sample")
            for name in ("knn_f1", "linear_f1")
        ]
        text = f"nuc2vec above nuc2vec-paper given no less time ({layout}), kNN and linear"
        yield from _claim(text, pairs)
    every = [f for (w, _), many in figures.items() if w == "nuc2vec" for f in many]
    for kind in ("rotation", "stain", "background"):
        cosine = spread([f["invariance"][kind] for f in every if f["invariance"]]).mean
        if math.isfinite(cosine):
            yield f"cosine under {kind} above 0.95", f"{cosine:.3f}", cosine > 0.95
    size = spread(_read(every, "nuc2vec", "area")).mean
    if math.isfinite(size):
        yield "size readable, Spearman above 0.8", f"{size:.3f}", size > 0.8


def _gain(
    figures: Mapping[Key, Sequence[Mapping[str, Any]]],
    layout: str,
    mine: tuple[str, str, str],
    theirs: tuple[str, str, str],
    *,
    part: str = "embeddings",
) -> Spread:
    """Difference of two figures over the seeds that both have."""
    values = [
        {f["seed"]: f[part][row][name] for f in figures.get((what, layout), []) if row in f[part]}
        for what, row, name in (mine, theirs)
    ]
    both = sorted(values[0].keys() & values[1].keys())
    return spread([values[0][seed] - values[1][seed] for seed in both])


def _claim(
    text: str, gains: Sequence[Spread], *, least: float = 0.0
) -> Iterator[tuple[str, str, bool]]:
    """A claim that every mean gain is above ``least``; none where one is not known."""
    if all(math.isfinite(gain.mean) for gain in gains):
        shown = ", ".join(
            f"{gain.mean:+.3f}" + (f" ± {gain.sd:.3f}" if math.isfinite(gain.sd) else "")
            for gain in gains
        )
        yield text, shown, min(gain.mean for gain in gains) > least


def _joint_claims(
    figures: Mapping[Key, Sequence[Mapping[str, Any]]], layout: str
) -> Iterator[tuple[str, str, bool]]:
    """Embedding and features together against each alone."""
    joint = ("nuc2vec", "with features")
    for name, head in PROBES[1:]:
        alone = [
            _gain(figures, layout, (*joint, name), (what, what, name))
            for what in ("nuc2vec", "features")
        ]
        text = f"nuc2vec + features above nuc2vec, above features ({layout}), {head}"
        yield from _claim(text, alone)
    gain = _gain(
        figures, layout, (*joint, "linear_f1_1000"), ("features", "features", "linear_f1")
    )  # fmt: skip
    text = f"together with 1,000 labels above features with all ({layout})"
    yield from _claim(text, [gain])


def _missing(left: Mapping[str, str]) -> str:
    if not left:
        return "Nothing."
    return "; ".join(f"{name}: {why}" if why else name for name, why in left.items())
