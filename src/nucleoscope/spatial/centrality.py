"""How central each type is in the graph of neighbours."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.seeds import generator
from nucleoscope.spatial.enrichment import permutation_p
from nucleoscope.spatial.graph import Graph
from nucleoscope.spatial.nulls import labelling, labelling_within_strata
from nucleoscope.spatial.pattern import Pattern

Array = NDArray[np.float64]

SCORES = ("degree", "clustering", "closeness")

#: Rows of the graph squared at a time, to bound memory.
ROWS = 100_000


def clustering_coefficients(graph: Graph) -> NDArray[np.float64]:
    """``(n,)``: the part of a nucleus's neighbours that are neighbours of each other; 0 below two.

    >>> triangle = Graph.from_edges(4, [0, 1, 2, 2], [1, 2, 0, 3], np.ones(4))
    >>> clustering_coefficients(triangle).round(3).tolist()
    [1.0, 1.0, 0.333, 0.0]
    """
    matrix = graph.to_csr()
    triangles = np.zeros(graph.n)
    for low in range(0, graph.n, ROWS):
        part = matrix[low : low + ROWS]
        triangles[low : low + ROWS] = np.asarray((part @ matrix).multiply(part).sum(axis=1)).ravel()
    wedges = graph.degrees * (graph.degrees - 1.0)
    return np.divide(triangles, wedges, out=np.zeros(graph.n), where=wedges > 0)


def group_scores(graph: Graph, pattern: Pattern, coefficients: NDArray[np.float64]) -> Array:
    """``(3, K)``: degree, clustering and closeness of each type; NaN for a type without nuclei."""
    from scipy.sparse.csgraph import dijkstra

    scores = np.full((3, pattern.n_types), np.nan)
    matrix = graph.to_csr()
    for code in range(pattern.n_types):
        own = pattern.codes == code
        outside = graph.n - int(own.sum())
        if not own.any():
            continue
        scores[1, code] = coefficients[own].mean()
        touched = np.zeros(graph.n, bool)
        touched[graph.indices[own[graph.rows]]] = True
        scores[0, code] = (touched & ~own).sum() / outside if outside else 0.0
        hops = dijkstra(matrix, unweighted=True, indices=np.flatnonzero(own), min_only=True)
        far = float(hops[np.isfinite(hops)].sum())
        scores[2, code] = outside / far if far > 0 else 0.0
    return scores


def centrality(
    graph: Graph, pattern: Pattern, *, permutations: int = 0, seed: int = 0
) -> pd.DataFrame:
    """Group centralities of each type, as squidpy and networkx define them.

    ``degree``: part of the other nuclei that touch the type (Everett and Borgatti 1999).
    ``clustering``: mean clustering coefficient of its nuclei. ``closeness``: number of other nuclei
    over the sum of their hops to the type (unreachable ones add nothing).

    Parameters
    ----------
    graph, pattern
        Neighbours and nuclei of one image; the graph must be symmetric.
    permutations
        When above 0, each score gets a two-sided p from this many relabellings (within strata where
        the pattern has them).
    seed
        Of the relabellings.

    Returns
    -------
    pandas.DataFrame
        type, n, degree, clustering, closeness, and ``<score>_p`` when asked for.

    Examples
    --------
    >>> star = Graph.from_edges(4, [0, 0, 0], [1, 2, 3], np.ones(3))
    >>> pattern = Pattern(np.zeros((4, 2)), [0, 1, 1, 1], ("hub", "leaf"))
    >>> centrality(star, pattern)["closeness"].tolist()
    [1.0, 1.0]
    """
    coefficients = clustering_coefficients(graph)
    scores = group_scores(graph, pattern, coefficients)
    frame = pd.DataFrame({"type": np.array(pattern.names, object), "n": pattern.counts})
    for name, values in zip(SCORES, scores, strict=True):
        frame[name] = values
    if permutations <= 0:
        return frame
    deal = labelling if pattern.strata is None else labelling_within_strata
    simulated = np.stack(
        [
            group_scores(graph, deal(pattern, generator(seed, number)), coefficients)
            for number in range(permutations)
        ]
    )
    p = permutation_p(scores, simulated, simulated.mean(axis=0))
    for name, values in zip(SCORES, p, strict=True):
        frame[f"{name}_p"] = np.where(pattern.counts > 0, values, np.nan)
    return frame
