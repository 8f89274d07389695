"""The graph of prototypes, and its communities at several resolutions, each nested in the next."""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.atlas.search import neighbours_of_all
from nucleoscope.errors import MissingExtraError
from nucleoscope.seeds import generator

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Neighbours per prototype.
K = 15
_STEPS = 30
_NEAR_PIECES = 3
_BRIDGE = 0.1


class Graph(NamedTuple):
    """An undirected weighted graph: edges ``a[i] < b[i]`` of weight ``weight[i]``, ``n`` nodes."""

    n: int
    a: Ints
    b: Ints
    weight: Floats

    def strengths(self) -> Floats:
        """Sum of the weights at each node."""
        ends = np.concatenate([self.a, self.b])
        both = np.concatenate([self.weight, self.weight])
        return np.bincount(ends, weights=both, minlength=self.n).astype(np.float64)


def mutual_graph(centres: NDArray[np.float32], k: int = K) -> Graph:
    """Prototypes that are among each other's ``k`` nearest, and what keeps the graph in one piece.

    Weights are ``exp(-d_ij^2 / (s_i s_j))`` with ``s_i`` the distance to the ``k``-th neighbour
    (Zelnik-Manor & Perona 2004), so that dense and thin regions count alike. A prototype without
    a mutual neighbour keeps its nearest one. Separate pieces are joined by weak edges, scaled in
    the same way between pieces, so that every level can be as coarse as asked.

    >>> mutual_graph(np.eye(3, dtype=np.float32)).n
    3
    """
    n = len(centres)
    k = min(k, max(n // 20, 3), n - 1)  # fewer where there are few prototypes
    if k < 1:
        none = np.empty(0, np.int64)
        return Graph(n, none, none, np.empty(0))
    found = neighbours_of_all(centres, k)
    scale = np.sqrt(np.maximum(2 - 2 * found.similarity[:, -1].astype(np.float64), 1e-6))
    source = np.repeat(np.arange(n), k)
    codes = source * n + found.rows.ravel()
    back = found.rows.ravel() * n + source
    mutual = np.isin(codes, back)
    alone = np.setdiff1d(np.arange(n), source[mutual])
    pairs = np.concatenate(
        [
            np.stack([source, found.rows.ravel()], axis=1)[mutual],
            np.stack([alone, found.rows[alone, 0]], axis=1),
        ]
    )
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    a, b = pairs[:, 0], pairs[:, 1]
    cosine = np.einsum("ij,ij->i", centres[a], centres[b]).astype(np.float64)
    weight = np.maximum(np.exp(-np.maximum(2 - 2 * cosine, 0) / (scale[a] * scale[b])), 1e-6)
    bridges, strength = _bridges(centres, pairs)
    both = np.concatenate([pairs, bridges])
    return Graph(n, both[:, 0], both[:, 1], np.concatenate([weight, strength]))


def _bridges(centres: NDArray[np.float32], pairs: Ints) -> tuple[Ints, Floats]:
    """Weak edges between the pieces of a graph, at their closest prototypes, and their weights.

    Each piece is joined to its three nearest ones, and to the others by a shortest tree.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

    n = len(centres)
    links = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    n_pieces, piece = connected_components(links, directed=False)
    if n_pieces == 1:
        return np.empty((0, 2), np.int64), np.empty(0)
    nearest = np.full((n_pieces, n_pieces), np.inf)
    ends = np.zeros((n_pieces, n_pieces, 2), np.int64)
    for own in range(n_pieces):
        members = np.flatnonzero(piece == own)
        distance = 2 - 2 * (centres[members] @ centres.T).astype(np.float64)
        row = distance.argmin(axis=0)  # the member nearest to each prototype
        distance = distance[row, np.arange(n)]
        order = np.lexsort((distance, piece))
        first = order[np.unique(piece[order], return_index=True)[1]]
        nearest[own] = np.maximum(distance[first], 0) + 1e-9
        ends[own] = np.stack([members[row[first]], first], axis=1)
    np.fill_diagonal(nearest, np.inf)
    near = min(_NEAR_PIECES, n_pieces - 1)
    scale = np.sqrt(np.sort(nearest, axis=1)[:, near - 1])
    joined = nearest <= scale[:, None] ** 2
    tree = minimum_spanning_tree(np.where(np.isfinite(nearest), nearest, 0)).tocoo()
    joined[tree.row, tree.col] = True
    one, other = np.nonzero(np.triu(joined | joined.T))
    bridges: Ints = np.sort(ends[one, other], axis=1)
    weight = _BRIDGE * np.exp(-nearest[one, other] / (scale[one] * scale[other]))
    return bridges, np.maximum(weight, 1e-6)


class _Dice:
    """A generator of ours in the shape igraph asks for."""

    def __init__(self, seed: int) -> None:
        self._rng = generator(seed, 2)

    def random(self) -> float:
        return float(self._rng.random())

    def randint(self, low: int, high: int) -> int:
        return int(self._rng.integers(low, high, endpoint=True))

    def gauss(self, mean: float, sd: float) -> float:
        return float(self._rng.normal(mean, sd))


def import_igraph() -> Any:
    """The igraph package.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        return importlib.import_module("igraph")
    except ImportError:
        raise MissingExtraError("finding subtypes", "atlas") from None


def communities(graph: Graph, sizes: Floats, resolution: float, seed: int) -> Ints:
    """Leiden communities (Traag, Waltman & van Eck 2019) of largest modularity, through igraph.

    ``sizes`` are the strengths of the nodes in the graph of single prototypes; with them
    (constant Potts with node weights) modularity stays that of the prototypes when a node stands
    for a community.
    """
    igraph = import_igraph()
    network = igraph.Graph(n=graph.n, edges=np.stack([graph.a, graph.b], 1))
    igraph.set_random_number_generator(_Dice(seed))
    try:
        found = network.community_leiden(
            objective_function="CPM", weights=graph.weight, node_weights=sizes,
            resolution=resolution / max(float(sizes.sum()), 1e-12), n_iterations=4,
        )  # fmt: skip
    finally:
        igraph.set_random_number_generator(random)
    return np.unique(np.asarray(found.membership, dtype=np.int64), return_inverse=True)[1]


def nested_communities(graph: Graph, levels: Sequence[int], *, seed: int = 0) -> list[Ints]:
    """Communities at about the asked numbers; each coarser level merges whole finer ones.

    The finest level is found on the graph of prototypes, each coarser one on the graph of the
    communities of the level before, so the tree is strict. The resolution is bisected for the
    number nearest to the asked one.

    Parameters
    ----------
    graph
        From ``mutual_graph``.
    levels
        Numbers of subtypes, any order.

    Returns
    -------
    For each level, as ordered, the community of every node.
    """
    sizes = graph.strengths()
    node = np.arange(graph.n)  # community of each prototype at the level reached
    found: dict[int, Ints] = {}
    current = graph
    for level in sorted(set(levels), reverse=True):
        merged = _about(current, sizes, level, seed)
        node = merged[node]
        found[level] = node
        current, sizes = _merged(current, sizes, merged)
    return [found[level] for level in levels]


def _about(graph: Graph, sizes: Floats, wanted: int, seed: int) -> Ints:
    """Communities whose number is nearest to ``wanted``, by bisection of the resolution."""
    if graph.n <= wanted or len(graph.a) == 0:
        return np.arange(graph.n)
    low, high = -12.0, 4.0  # powers of ten
    best = np.zeros(graph.n, np.int64)
    gap = abs(wanted - 1)
    for _ in range(_STEPS):
        if gap == 0:
            break
        middle = (low + high) / 2
        found = communities(graph, sizes, 10.0**middle, seed)
        n = int(found.max()) + 1
        if abs(n - wanted) < gap:
            best, gap = found, abs(n - wanted)
        low, high = (middle, high) if n < wanted else (low, middle)
    return best


def _merged(graph: Graph, sizes: Floats, groups: Ints) -> tuple[Graph, Floats]:
    """The graph whose nodes are groups; edges within a group are left out."""
    n = int(groups.max()) + 1 if groups.size else 0
    a, b = groups[graph.a], groups[graph.b]
    low, high = np.minimum(a, b), np.maximum(a, b)
    across = low != high
    codes, place = np.unique(low[across] * max(n, 1) + high[across], return_inverse=True)
    weight = np.bincount(place, weights=graph.weight[across], minlength=len(codes))
    merged = Graph(n, codes // max(n, 1), codes % max(n, 1), weight.astype(np.float64))
    return merged, np.bincount(groups, weights=sizes, minlength=n).astype(np.float64)
