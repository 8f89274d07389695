"""A certificate for embeddings: what they know of a nucleus, and what they should not notice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nucleoscope.errors import CallError
from nucleoscope.metrics.embedding import (
    Split,
    cluster_agreement,
    invariance,
    knn_probe,
    linear_probe,
    read_out,
    retrieval_precision,
    slide_leakage,
    split_by_slide,
    standardised,
)
from nucleoscope.seeds import spawn

#: Most nuclei that clusters, retrieval and leakage look at; they compare all with all.
MOST = 10_000


@dataclass(frozen=True, eq=False)
class Certificate:
    """Figures of several embeddings of the same nuclei.

    Parameters
    ----------
    probes
        One row per embedding, split and seed: ``embedding, split, seed, knn_f1, linear_f1`` and
        ``linear_f1_N`` with N labels (weighted F1), ``knn_macro_f1, linear_macro_f1``.
    structure
        One row per embedding: ``ari, ami, purity, purity_fine, retrieval, same_slide, chance``.
    invariance
        ``embedding, change, cosine``; empty where no changed nuclei were given.
    sensitivity
        ``embedding, value, spearman`` per split and seed; empty where no values were given.
    n_nuclei, n_typed, n_slides
        How many there were.
    """

    probes: pd.DataFrame
    structure: pd.DataFrame
    invariance: pd.DataFrame
    sensitivity: pd.DataFrame
    n_nuclei: int
    n_typed: int
    n_slides: int

    def summary(self) -> pd.DataFrame:
        """One row per embedding: mean and standard deviation of every probe, and the structure."""
        numbers = self.probes.drop(columns=["split", "seed"]).groupby("embedding", sort=False)
        mean, sd = numbers.mean(), numbers.std(ddof=1)
        joined = mean.join(sd, rsuffix="_sd")
        return joined.join(self.structure.set_index("embedding")).reset_index()


def certificate(
    embeddings: Mapping[str, ArrayLike],
    *,
    types: ArrayLike,
    slides: ArrayLike,
    splits: Mapping[str, Sequence[str]] | None = None,
    seeds: Sequence[int] = (0, 1, 2),
    labels: Sequence[int] = (100, 1000),
    values: Mapping[str, ArrayLike] | None = None,
    changed: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    blocks: Mapping[str, Sequence[int]] | None = None,
) -> Certificate:
    """Judge embeddings of the same nuclei, row by row.

    Parameters
    ----------
    embeddings
        Name to ``(N, D)``; D may differ.
    types, slides
        ``(N,)`` names; a type may be ``""`` for unknown.
    splits
        Name to test slides, such as the folds of a cross-validation; None draws a quarter of the
        slides for every seed.
    seeds
        Of the draws of slides and labels; every split is judged with each.
    labels
        Numbers of labels the linear probe is also given.
    values
        Name to ``(N,)`` measured values that an embedding should know, such as the area.
    changed
        Name of an embedding to change to the ``(N, D)`` embedding of the changed nuclei.
    blocks
        Name of an embedding to the widths of what was put side by side in it (``joined``), which
        then weigh the same in both probes.

    Raises
    ------
    CallError
        Rows do not fit, or there are too few slides or types.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> types = np.array(["a", "b"] * 60)
    >>> x = np.where(types == "a", 0.0, 3.0)[:, None] + rng.normal(size=(120, 4))
    >>> slides = [f"s{i % 6}" for i in range(60) for _ in range(2)]
    >>> found = certificate({"mine": x}, types=types, slides=slides, seeds=(0,), labels=())
    >>> bool(found.probes["knn_f1"][0] > 0.9)
    True
    """
    names, where = np.asarray(types).astype(str), np.asarray(slides).astype(str)
    vectors = {key: np.asarray(x, dtype=np.float32) for key, x in embeddings.items()}
    for key, x in vectors.items():
        if x.ndim != 2 or len(x) != len(names) or len(names) != len(where):
            raise CallError(
                f"embedding {key!r} has shape {x.shape}; there are {len(names)} types and "
                f"{len(where)} slides, one for each nucleus."
            )
    asked: Mapping[str, Sequence[str] | None] = splits or {"random slides": None}
    parts = [
        (label, seed, split_by_slide(where, test=test, seed=seed))
        for label, test in asked.items()
        for seed in seeds
    ]
    rows = _sample(names, seeds[0])
    return Certificate(
        probes=pd.DataFrame(
            [
                {"embedding": key, "split": label, "seed": seed}
                | _probes(x, names, split, (labels, seed), (blocks or {}).get(key, ()))
                for key, x in vectors.items()
                for label, seed, split in parts
            ]
        ),
        structure=pd.DataFrame(
            [
                {"embedding": key} | _structure(x[rows], names[rows], where[rows], seeds[0])
                for key, x in vectors.items()
            ]
        ),
        invariance=pd.DataFrame(
            [
                {"embedding": key, "change": kind, "cosine": invariance(vectors[key], other)}
                for key, kinds in (changed or {}).items()
                for kind, other in kinds.items()
            ],
            columns=["embedding", "change", "cosine"],
        ),
        sensitivity=pd.DataFrame(
            [
                {
                    "embedding": key, "value": value, "split": label, "seed": seed,
                    "spearman": read_out(x, measured, split),
                }
                for key, x in vectors.items()
                for value, measured in (values or {}).items()
                for label, seed, split in parts
            ],
            columns=["embedding", "value", "split", "seed", "spearman"],
        ),
        n_nuclei=len(names),
        n_typed=int((names != "").sum()),
        n_slides=len(np.unique(where)),
    )  # fmt: skip


def _sample(names: np.ndarray, seed: int) -> np.ndarray:
    """Rows that are compared all with all: every one, or a draw of the typed ones first."""
    if len(names) <= MOST:
        return np.arange(len(names))
    (rng,) = spawn(seed, 1)
    order = rng.permutation(len(names))
    typed = order[names[order] != ""]
    return np.sort(np.concatenate([typed, order[names[order] == ""]])[:MOST])


def _probes(
    x: np.ndarray,
    names: np.ndarray,
    split: Split,
    drawn: tuple[Sequence[int], int],
    blocks: Sequence[int],
) -> dict[str, float]:
    """Weighted and macro F1 of both probes on one split."""
    labels, seed = drawn
    near = knn_probe(x, names, split, blocks=blocks)
    line = linear_probe(x, names, split, blocks=blocks)
    figures = {
        "knn_f1": near.weighted_f1, "linear_f1": line.weighted_f1,
        "knn_macro_f1": near.macro_f1, "linear_macro_f1": line.macro_f1,
    }  # fmt: skip
    for n in labels:
        few = linear_probe(x, names, split, n_labels=n, seed=seed, blocks=blocks)
        figures[f"linear_f1_{n}"] = few.weighted_f1
    return figures


def _structure(x: np.ndarray, names: np.ndarray, where: np.ndarray, seed: int) -> dict[str, float]:
    """Clusters, retrieval and leakage."""
    agreement, leak = cluster_agreement(x, names, seed=seed), slide_leakage(x, where)
    return {
        **agreement._asdict(),
        "retrieval": retrieval_precision(x, names, where),
        **leak._asdict(),
    }


def joined(vectors: ArrayLike, features: ArrayLike) -> NDArray[np.float32]:
    """Embedding and features side by side, both blocks with the same total variance.

    >>> joined([[1.0], [3.0]], [[1.0, 0.0], [0.0, 1.0]]).shape
    (2, 3)
    """
    blocks = []
    for block in (vectors, features):
        z = standardised(block, np.arange(len(np.asarray(block))))
        blocks.append(z / np.float32(np.sqrt(z.shape[1])))
    return np.concatenate(blocks, axis=1)
