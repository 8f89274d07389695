"""What surrounds each nucleus, and the kinds of surroundings there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import CallError
from nucleoscope.seeds import generator
from nucleoscope.spatial.graph import Graph
from nucleoscope.spatial.pattern import Pattern

Array = NDArray[np.float64]

#: Niches are learnt from at most this many nuclei, and then every nucleus gets the nearest one.
MAX_LEARNT = 100_000


def composition(graph: Graph, pattern: Pattern, *, with_self: bool = False) -> Array:
    """``(n, K)``: the part of each nucleus's neighbours that has each type.

    A nucleus without neighbours has a row of zeros, or its own type when ``with_self``.

    Examples
    --------
    >>> line = Graph.from_edges(3, [0, 1], [1, 2], np.ones(2))
    >>> composition(line, Pattern(np.zeros((3, 2)), [0, 0, 1], ("a", "b"))).tolist()
    [[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]]
    """
    k = pattern.n_types
    flat = graph.rows * k + pattern.codes[graph.indices]
    counts = np.bincount(flat, minlength=graph.n * k).astype(np.float64).reshape(graph.n, k)
    if with_self and graph.n:
        counts[np.arange(graph.n), pattern.codes] += 1.0
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(counts, total, out=np.zeros_like(counts), where=total > 0))


@dataclass(frozen=True, eq=False)
class Niches:
    """Kinds of surroundings, shared by all images.

    Parameters
    ----------
    names
        The types.
    centres
        ``(n_niches, K)`` float64: mean composition of each niche, the largest niche first.
    members
        One ``(n,)`` int64 per image: the niche of each nucleus, from 1.
    """

    names: tuple[str, ...]
    centres: Array
    members: tuple[NDArray[np.int64], ...]

    def to_frame(self) -> pd.DataFrame:
        """One row per niche: niche, n, and the mean part of every type."""
        n = sum(np.bincount(m, minlength=len(self.centres) + 1)[1:] for m in self.members)
        frame = pd.DataFrame({"niche": np.arange(1, len(self.centres) + 1), "n": n})
        for column, name in enumerate(self.names):
            frame[name] = self.centres[:, column]
        return frame


def niches(
    compositions: Sequence[Array], names: tuple[str, ...], *, n: int = 8, seed: int = 0
) -> Niches:
    """Group nuclei by what surrounds them (k-means on neighbourhood composition).

    The cellular neighbourhoods of Goltsev et al. 2018 and Schürch et al. 2020 (Cell 182).

    Parameters
    ----------
    compositions
        One ``(n, K)`` array per image, from ``composition``; niches are shared between images.
    names
        The K types.
    n
        How many niches; fewer where there are fewer different surroundings.
    seed
        Of the start of k-means, and of the nuclei learnt from where there are more than 100,000.

    Returns
    -------
    Niches
        Numbered from the largest.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 2)
    >>> niches([rows], ("a", "b"), n=2).members[0].tolist()
    [1, 1, 1, 2, 2]
    """
    if n < 1:
        raise CallError(f"niches need n of 1 or more; found {n}.")
    every = np.concatenate([np.zeros((0, len(names))), *compositions])
    if len(every) == 0:
        return Niches(
            names, np.zeros((0, len(names))), tuple(np.zeros(0, np.int64) for _ in compositions)
        )
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    learnt = every
    if len(every) > MAX_LEARNT:
        learnt = every[generator(seed).choice(len(every), MAX_LEARNT, replace=False)]
    n = min(n, len(np.unique(learnt.round(12), axis=0)))
    with threadpool_limits(1):  # more threads would add up in another order
        model = KMeans(n, n_init=4, random_state=seed).fit(learnt)
        found = model.predict(every).astype(np.int64)
    size = np.bincount(found, minlength=n)
    order = np.argsort(-size, kind="stable")
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(1, n + 1)
    ends = np.cumsum([len(c) for c in compositions])[:-1]
    members = tuple(np.split(rank[found], ends))
    return Niches(names, model.cluster_centers_[order], members)
