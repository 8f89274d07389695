"""Subtypes: kinds of nuclei that their embeddings show, from coarse to fine, with their stability.

Nuclei are summed up by prototypes (k-means on the sphere), prototypes are joined to their mutual
nearest neighbours, and the graph is cut into communities (Leiden) at several resolutions. A nucleus
has the subtypes of its nearest prototype, also one that comes later, so that a stored reference
gives the same answer on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nucleoscope.atlas.prototypes import (
    Float32s,
    fit_prototypes,
    n_prototypes,
    nearest_prototype,
)
from nucleoscope.atlas.subtypes_graph import mutual_graph, nested_communities
from nucleoscope.errors import CallError, InputError
from nucleoscope.seeds import generator

#: Numbers of subtypes asked for, coarse to fine.
LEVELS = (8, 25, 80)
#: Nuclei of a bootstrap replicate, and of the set on which replicates are compared.
_BOOTSTRAP_NUCLEI = 50_000
_COMPARED_NUCLEI = 20_000
N_EXEMPLARS = 8


class Stability(NamedTuple):
    """How far a level returns when it is found anew from other draws: mean and sd of the ARI."""

    level: int
    found: int
    ari: float
    sd: float


class Subtypes(NamedTuple):
    """What ``find_subtypes`` found.

    Attributes
    ----------
    frame
        One row per nucleus: ``subtype`` (the middle level), then ``subtype_<level>`` per level.
        Names are paths, ``"3.2.1"`` is in ``"3.2"`` is in ``"3"``; 1 is the largest.
    centres
        ``(P, D)`` float32 prototypes.
    names
        One row per prototype, the columns of ``frame``.
    reach
        99th percentile of ``1 - cosine`` between nuclei and their prototypes.
    stability
        One entry per level; empty when not asked for.
    """

    frame: pd.DataFrame
    centres: Float32s
    names: pd.DataFrame
    reach: float
    stability: tuple[Stability, ...]


def find_subtypes(
    embedding: NDArray[Any],
    *,
    levels: Sequence[int] = LEVELS,
    seed: int = 0,
    n_replicates: int = 10,
) -> Subtypes:
    """Find subtypes at about the asked numbers, each level nested in the coarser one.

    Parameters
    ----------
    embedding
        ``(N, D)`` rows of length 1.
    levels
        Numbers of subtypes. With fewer nuclei there are fewer.
    seed
        Same seed, same nuclei, same machine: same subtypes.
    n_replicates
        Bootstrap replicates of the stability, each from at most 50,000 drawn nuclei, everything
        found anew; 0 leaves it out.

    Raises
    ------
    CallError
        No level, or one below 1.
    InputError
        There is no nucleus.
    MissingExtraError
        igraph is not installed.

    Notes
    -----
    Cost grows with ``N`` times ``4 sqrt(N)`` prototypes; the graph only has the prototypes.

    Examples
    --------
    >>> corners = np.repeat(np.eye(4, dtype=np.float32), 25, axis=0)
    >>> find_subtypes(corners, levels=(2, 4), n_replicates=0).frame["subtype_4"].nunique()
    4
    """
    levels = _check_levels(levels)
    if len(embedding) == 0:
        raise InputError("there is no nucleus to find subtypes of.")
    centres, parts = _clustered(embedding, levels, seed)
    found = nearest_prototype(embedding, centres)
    counts = np.bincount(found.owner, minlength=len(centres))
    names = _named(parts, levels, counts)
    stability = _stability(embedding, centres, parts, levels, seed, n_replicates)
    reach = float(np.quantile(1 - found.similarity.astype(np.float64), 0.99))
    frame = names.iloc[found.owner].reset_index(drop=True)
    return Subtypes(frame, centres, names, reach, stability)


def assign_subtypes(embedding: NDArray[Any], reference: Subtypes) -> pd.DataFrame:
    """Subtypes of new nuclei: those of the nearest prototype of the reference.

    Returns
    -------
    The columns of ``reference.frame``, then ``subtype_similarity`` (cosine to the prototype) and
    ``is_novel`` (farther than 99 % of the reference's own nuclei).

    Raises
    ------
    InputError
        The embeddings have another number of dimensions.
    """
    found = nearest_prototype(embedding, reference.centres)
    frame = reference.names.iloc[found.owner].reset_index(drop=True)
    novel = 1 - found.similarity.astype(np.float64) > reference.reach
    return frame.assign(subtype_similarity=found.similarity, is_novel=novel)


def exemplars(
    embedding: NDArray[Any], subtype: ArrayLike, *, seed: int = 0, n: int = N_EXEMPLARS
) -> dict[str, dict[str, list[int]]]:
    """Rows to look at per subtype: ``n`` nearest to its centre, ``n`` at random, ``n`` farthest.

    Returns
    -------
    ``{subtype: {"medoids": [...], "random": [...], "farthest": [...]}}``, rows of the atlas.

    Examples
    --------
    >>> exemplars(np.array([[1.0, 0], [0.8, 0.6], [0, 1.0]]), ["a", "a", "a"], n=1)["a"]["medoids"]
    [1]
    """
    names, code = np.unique(np.asarray(subtype, dtype=str), return_inverse=True)
    order = np.argsort(code, kind="stable")
    starts = np.searchsorted(code[order], np.arange(len(names) + 1))
    chosen = {}
    for i, name in enumerate(names):
        rows = order[starts[i] : starts[i + 1]]
        vectors = np.asarray(embedding[rows], dtype=np.float32)
        nearness = vectors @ vectors.mean(axis=0)
        ranked = rows[np.lexsort((rows, -nearness))]
        drawn = generator(seed, 4, i).permutation(rows)[:n]
        chosen[str(name)] = {
            "medoids": ranked[:n].tolist(),
            "random": np.sort(drawn).tolist(),
            "farthest": ranked[::-1][:n].tolist(),
        }
    return chosen


def adjusted_rand(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    """Adjusted Rand index of two partitions (Hubert & Arabie 1985); 1 for equal ones.

    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([5, 5, 2, 2]))
    1.0
    """
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one, other))


def _check_levels(levels: Sequence[int]) -> tuple[int, ...]:
    """Levels without repetition, coarse to fine."""
    if not levels or min(levels) < 1:
        raise CallError(f"levels={tuple(levels)}: expected numbers of subtypes, such as 8, 25, 80.")
    return tuple(sorted({int(level) for level in levels}))


def _clustered(
    embedding: NDArray[Any], levels: Sequence[int], seed: int
) -> tuple[Float32s, list[NDArray[np.int64]]]:
    """Prototypes and, per level, the community of each."""
    centres = fit_prototypes(embedding, max(n_prototypes(len(embedding)), 1), seed=seed)
    return centres, nested_communities(mutual_graph(centres), levels, seed=seed)


def _named(
    parts: Sequence[NDArray[np.int64]], levels: Sequence[int], counts: NDArray[np.int64]
) -> pd.DataFrame:
    """Names of prototypes: the path from the coarsest level, larger ones first."""
    path = np.full(len(counts), "", dtype=object)
    columns = {}
    for level, part in zip(levels, parts, strict=True):
        named = np.full(len(counts), "", dtype=object)
        for parent in pd.unique(path):
            within = np.flatnonzero(path == parent)
            own, code = np.unique(part[within], return_inverse=True)
            size = np.bincount(code, weights=counts[within], minlength=len(own))
            rank = np.empty(len(own), np.int64)
            rank[np.lexsort((own, -size))] = np.arange(1, len(own) + 1)
            prefix = f"{parent}." if parent else ""
            named[within] = [f"{prefix}{r}" for r in rank[code]]
        path = named
        columns[f"subtype_{level}"] = named
    frame = pd.DataFrame(columns)
    frame.insert(0, "subtype", frame[f"subtype_{levels[len(levels) // 2]}"])
    return frame


def _stability(
    embedding: NDArray[Any], centres: Float32s, parts: Sequence[NDArray[np.int64]],
    levels: Sequence[int], seed: int, n_replicates: int,
) -> tuple[Stability, ...]:  # fmt: skip
    """ARI between the subtypes and those found from bootstrap draws, on one set of nuclei."""
    if n_replicates < 1:
        return ()
    n = len(embedding)
    looked_at = np.sort(generator(seed, 5).permutation(n)[:_COMPARED_NUCLEI])
    compared = np.asarray(embedding[looked_at], dtype=np.float32)
    own = nearest_prototype(compared, centres).owner
    found = np.zeros((len(levels), n_replicates))
    for replicate in range(n_replicates):
        rng = generator(seed, 6, replicate)
        drawn = np.sort(rng.integers(0, n, min(n, _BOOTSTRAP_NUCLEI)))
        other, again = _clustered(embedding[drawn], levels, seed + 1 + replicate)
        theirs = nearest_prototype(compared, other).owner
        for i in range(len(levels)):
            found[i, replicate] = adjusted_rand(parts[i][own], again[i][theirs])
    return tuple(
        Stability(level, int(part.max()) + 1, float(row.mean()), float(row.std()))
        for level, part, row in zip(levels, parts, found, strict=True)
    )
