"""``nucleoscope certify``: an atlas and other embeddings of its nuclei judged, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.atlas.changes import CHANGES, change
from nucleoscope.atlas.thumbnails import thumbnail_vectors
from nucleoscope.data.atlas import Atlas
from nucleoscope.data.crops import CropStore
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.certify import Certificate, certificate, joined
from nucleoscope.io import guard
from nucleoscope.io.atlas import read_atlas
from nucleoscope.io.crops import read_crops
from nucleoscope.io.tables import types_of
from nucleoscope.learn.embed import embed
from nucleoscope.learn.encode import untrained
from nucleoscope.learn.encoder_model import load_encoder
from nucleoscope.learn.encoder_recipes import encoder_recipe
from nucleoscope.seeds import generator
from nucleoscope.view.page import Page, Section, Table, to_html

#: Rows of the page: the atlas's own embedding, its interpretable features, and both together.
OWN, FEATURES, BOTH = "embedding", "handcrafted features", "embedding and features"
#: Nuclei that are changed to see what an embedding notices.
CHANGED = 400
#: Features that an embedding should know, in order of preference of their column.
VALUES = {
    "area": "f_area_um2", "eccentricity": "f_eccentricity", "OD": "f_hematoxylin_mean_od",
}  # fmt: skip
FIGURES = (
    ("knn_f1", "kNN"), ("linear_f1", "linear"), ("ari", "ARI"), ("ami", "AMI"),
    ("purity", "purity"), ("purity_fine", "purity at 4k"), ("retrieval", "precision at 10"),
    ("same_slide", "nearest of same slide"), ("chance", "by chance"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Judged:
    """What is judged: embeddings row by row with an atlas, its crops in the same order."""

    atlas: Atlas
    crops: CropStore | None
    types: NDArray[np.str_]


def certify(
    atlas: str | Path | Atlas,
    output: str | Path | None = None,
    *,
    types: str | Path | None = None,
    embedding: Mapping[str, str | Path] | None = None,
    model: str | Path | None = None,
    test: Sequence[str] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    labels: Sequence[int] = (100, 1000),
    overwrite: bool = False,
) -> Certificate:
    """Judge the embedding of an atlas, and any other of the same nuclei, between slides.

    Parameters
    ----------
    atlas
        An ATLAS folder or an ``Atlas`` with types.
    output
        HTML file to write; None only returns the figures.
    types
        Table of types (``id, type`` and perhaps ``image``), where the atlas has none.
    embedding
        Name to Parquet file of another embedding (CellViT, UNI, ...): columns ``image, id`` and
        either one list column or one column per dimension.
    model
        The encoder's folder; then what it notices of changed nuclei is measured, and a random
        network is judged beside it.
    test
        Names of the test slides; None draws a quarter of the slides per seed.
    seeds
        Of the draws.
    labels
        Numbers of labels the linear probe is also given.
    overwrite
        Replace a file that is there.

    Returns
    -------
    Certificate

    Raises
    ------
    CallError
        No types, fewer than three slides, or rows that do not fit.
    InputError
        A file cannot be read.
    """
    judged = _opened(atlas, types)
    embeddings = _embeddings(judged, embedding or {})
    blocks = {}
    if BOTH in embeddings:
        blocks[BOTH] = [embeddings[name].shape[1] for name in (OWN, FEATURES)]
    invariance = pd.DataFrame(columns=["embedding", "change", "cosine"])
    if model is not None:
        if judged.crops is None:
            raise CallError("what an encoder notices is measured on crops, and the atlas has none.")
        encoder = load_encoder(model)
        random = untrained(encoder_recipe("nuc2vec"), seed=seeds[0])
        embeddings["random network"] = embed(random, judged.crops)
        invariance = _noticed({"embedding": encoder, "random network": random}, judged.crops)
    found = certificate(
        embeddings, types=judged.types, slides=judged.atlas.table.frame["image"].to_numpy(str),
        splits=None if test is None else {"given": test}, seeds=seeds, labels=labels,
        values=_values(judged.atlas), blocks=blocks,
    )  # fmt: skip
    if len(invariance):
        found = replace(found, invariance=invariance)
    if output is not None:
        guard.write_text(output, to_html(page_of(found)), overwrite=overwrite)
    return found


def _opened(atlas: str | Path | Atlas, types: str | Path | None) -> _Judged:
    """The atlas with its crops in the table's order and a type for every row."""
    opened = atlas if isinstance(atlas, Atlas) else read_atlas(atlas)
    frame = opened.table.frame
    names = frame["type"].to_numpy(dtype=np.str_)
    if types is not None:
        names = types_of(opened.table, types).astype(np.str_)
    if not (names != "").any():
        raise CallError("no nucleus has a type; give a table of types with --types.")
    crops = None
    if not isinstance(atlas, Atlas) and (Path(atlas) / "crops.zarr").is_dir():
        stored = read_crops(Path(atlas) / "crops.zarr")
        rows = stored.table_rows(opened.table)
        crops = stored.take(np.argsort(rows, kind="stable"))
    return _Judged(opened, crops, names)


def _embeddings(judged: _Judged, files: Mapping[str, str | Path]) -> dict[str, Any]:
    """Every embedding there is of these nuclei, the atlas's own first."""
    atlas = judged.atlas
    own = np.asarray(atlas.embedding, dtype=np.float32)
    found: dict[str, Any] = {OWN: own}
    if atlas.context is not None:
        context = np.asarray(atlas.context, dtype=np.float32)
        found["embedding and context"] = np.concatenate([own, 0.5 * context], axis=1)
    if atlas.features is not None:
        measured = atlas.features.to_numpy(dtype=np.float32)
        measured = measured[:, np.isfinite(measured).any(axis=0)]
        if measured.shape[1]:
            found[FEATURES] = measured
            found[BOTH] = joined(own, measured)
    if judged.crops is not None:
        found["8x8 thumbnails"] = thumbnail_vectors(judged.crops)
    for name, path in files.items():
        found[name] = read_embedding(path, atlas.table.frame)
    return found


def read_embedding(path: str | Path, frame: pd.DataFrame) -> NDArray[np.float32]:
    """An embedding of another program, row by row with a nucleus table.

    Parameters
    ----------
    path
        Parquet with ``image, id`` and one list column, or one numeric column per dimension.
    frame
        With ``image, id``.

    Raises
    ------
    InputError
        A nucleus of the table is missing, or there are no vectors.
    """
    import pyarrow.parquet as pq

    with guard.reading(path):
        told = pq.read_table(path).to_pandas()
    missing = [c for c in ("image", "id") if c not in told.columns]
    if missing:
        raise InputError(f"{path}: an embedding needs a column {missing[0]!r}.")
    wanted = pd.MultiIndex.from_arrays([frame["image"].astype(str), frame["id"]])
    index = pd.MultiIndex.from_arrays([told["image"].astype(str), told["id"]])
    rows = index.get_indexer(wanted) if index.is_unique else np.array([-1])
    if (rows < 0).any():
        lacking = int((rows < 0).sum())
        raise InputError(
            f"{path}: {lacking} of {len(frame)} nuclei are not in it, or ids repeat in an image."
        )
    rest = told.drop(columns=["image", "id"])
    lists = [c for c in rest.columns if rest[c].dtype == object and len(rest)
             and np.ndim(rest[c].iloc[0]) == 1]  # fmt: skip
    if lists:
        vectors = np.stack(rest[lists[0]].to_numpy()).astype(np.float32)
    else:
        vectors = rest.select_dtypes("number").to_numpy(dtype=np.float32)
    if not vectors.shape[1]:
        raise InputError(f"{path}: it holds no vectors.")
    ordered: NDArray[np.float32] = vectors[rows]
    return ordered


def _values(atlas: Atlas) -> dict[str, Any]:
    """Measured values that an embedding should know."""
    if atlas.features is None:
        return {}
    return {
        name: atlas.features[column].to_numpy()
        for name, column in VALUES.items()
        if column in atlas.features and atlas.features[column].notna().any()
    }


def _noticed(models: Mapping[str, Any], crops: CropStore) -> pd.DataFrame:
    """Mean cosine between nuclei before and after each change."""
    rows = np.sort(generator(0, 47).permutation(len(crops))[:CHANGED])
    some = crops.take(rows)
    changed = {kind: change(some, kind) for kind in CHANGES}
    found = []
    for name, model in models.items():
        before = embed(model, some).astype(np.float32)
        for kind, other in changed.items():
            after = embed(model, other).astype(np.float32)
            cosine = float((before * after).sum(axis=1).mean())
            found.append({"embedding": name, "change": kind, "cosine": cosine})
    return pd.DataFrame(found)


# The page ---------------------------------------------------------------------------------------


def page_of(found: Certificate) -> Page:
    """The certificate as tables."""
    lead = (
        f"{found.n_nuclei:,} nuclei of {found.n_slides} slides, {found.n_typed:,} with a type. "
        "Types are read on slides that the probes were not fitted on; neighbours and "
        "regularisation are chosen on further slides."
    )
    sections = [
        Section("What it knows of types", (_summary(found),)),
        Section("With few labels", (_labels(found),)),
    ]
    if len(found.invariance):
        note = "Cosine before and after. High is good but for size, which should be noticed."
        cosines = found.invariance.pivot(index="embedding", columns="change", values="cosine")
        kinds = [k for k in CHANGES if k in cosines.columns]
        rows = tuple((str(n), *(f"{r[k]:.3f}" for k in kinds)) for n, r in cosines.iterrows())
        table = Table(("encoder", *kinds), rows, note)
        sections.append(Section("What it notices of a changed nucleus", (table,)))
    if len(found.sensitivity):
        mean = found.sensitivity.groupby(["embedding", "value"], sort=False)["spearman"].mean()
        wide = mean.unstack("value")
        pairs = zip(wide.index, wide.to_numpy(), strict=True)
        rows = tuple((str(name), *(f"{v:.3f}" for v in row)) for name, row in pairs)
        note = "Spearman correlation of a value with its best linear read-out, on test slides."
        table = Table(("embedding", *map(str, wide.columns)), rows, note)
        sections.append(Section("What it knows of size, shape and stain", (table,)))
    return Page("Certificate of an embedding", lead, tuple(sections))


def _summary(found: Certificate) -> Table:
    summary = found.summary()
    rows = []
    for _, row in summary.iterrows():
        cells = [_cell(row, name) for name, _ in FIGURES]
        rows.append((str(row["embedding"]), *cells))
    note = (
        "Weighted F1 of k nearest neighbours and of logistic regression, mean and standard "
        "deviation over splits; agreement of k-means with the types; share of the ten nearest "
        "nuclei of other slides that are of the same type; how often the nearest nucleus is of the "
        "same slide, which should be near chance."
    )
    return Table(("embedding", *(head for _, head in FIGURES)), tuple(rows), note)


def _cell(row: Any, name: str) -> str:
    sd = row.get(f"{name}_sd", float("nan"))
    return f"{row[name]:.3f}" + (f" ± {sd:.3f}" if np.isfinite(sd) else "")


def _labels(found: Certificate) -> Table:
    summary = found.summary()
    names = [c for c in summary.columns if str(c).startswith("linear_f1_")
             and not str(c).endswith("_sd")]  # fmt: skip
    heads = [f"{int(str(c).removeprefix('linear_f1_')):,} labels" for c in names]
    rows = tuple(
        (str(row["embedding"]), *(_cell(row, c) for c in [*names, "linear_f1"]))
        for _, row in summary.iterrows()
    )
    return Table(("embedding", *heads, "all labels"), rows, "Weighted F1 of logistic regression.")
