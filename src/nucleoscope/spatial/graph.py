"""Who is whose neighbour: Delaunay, nearest and radius graphs of one image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError, ResourceError
from nucleoscope.spatial.pattern import Pattern

if TYPE_CHECKING:
    from collections.abc import Callable

#: A radius graph with more edges than this is refused; use the pair statistics, which stream.
MAX_EDGES = 200_000_000


@dataclass(frozen=True, eq=False)
class Graph:
    """Neighbours in compressed rows: those of nucleus i are ``indices[indptr[i]:indptr[i + 1]]``.

    Parameters
    ----------
    indptr
        ``(n + 1,)`` int64.
    indices
        ``(m,)`` int32, ascending within a row, never the nucleus itself.
    lengths
        ``(m,)`` float64: distance along each edge, in the unit of the pattern.
    is_symmetric
        True when every edge is there in both directions.

    Examples
    --------
    >>> graph = Graph.from_edges(3, [0, 1], [1, 2], [1.0, 2.0])
    >>> graph.n_edges, graph.degrees.tolist()
    (2, [1, 2, 1])
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    lengths: NDArray[np.float64]
    is_symmetric: bool = True

    def __post_init__(self) -> None:
        if len(self.indices) != len(self.lengths) or self.indptr[-1] != len(self.indices):
            raise InputError("a graph's indptr, indices and lengths do not belong together.")

    @classmethod
    def from_edges(
        cls,
        n: int,
        start: NDArray[np.integer[Any]],
        end: NDArray[np.integer[Any]],
        lengths: NDArray[np.float64],
        *,
        symmetric: bool = True,
    ) -> Graph:
        """A graph of ``n`` nuclei; ``symmetric`` adds the way back of every edge, once."""
        i, j, d = np.asarray(start, np.int64), np.asarray(end, np.int64), np.asarray(lengths, float)
        if symmetric:
            i, j, d = np.concatenate([i, j]), np.concatenate([j, i]), np.concatenate([d, d])
        key, first = np.unique(i * max(n, 1) + j, return_index=True)
        rows = key // max(n, 1)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n))]).astype(np.int64)
        return cls(indptr, (key % max(n, 1)).astype(np.int32), d[first], symmetric)

    @property
    def n(self) -> int:
        """Nuclei."""
        return len(self.indptr) - 1

    @property
    def n_edges(self) -> int:
        """Edges; each counted once when the graph is symmetric."""
        return len(self.indices) // 2 if self.is_symmetric else len(self.indices)

    @property
    def degrees(self) -> NDArray[np.int64]:
        """``(n,)``: neighbours of each nucleus."""
        return np.diff(self.indptr)

    @property
    def rows(self) -> NDArray[np.int64]:
        """``(m,)``: the nucleus each edge starts from."""
        return np.repeat(np.arange(self.n), self.degrees)

    def to_csr(self, values: NDArray[np.float64] | None = None) -> Any:
        """A ``scipy.sparse.csr_matrix`` of ``values`` per edge, ones by default."""
        from scipy.sparse import csr_matrix

        data = np.ones(len(self.indices)) if values is None else values
        return csr_matrix((data, self.indices, self.indptr), shape=(self.n, self.n))

    def within(self, max_length: float) -> Graph:
        """The graph without the edges longer than ``max_length``."""
        return self._keep(self.lengths <= max_length)

    def within_strata(self, strata: NDArray[np.int64]) -> Graph:
        """The graph without the edges that join two strata."""
        return self._keep(strata[self.rows] == strata[self.indices])

    def _keep(self, keep: NDArray[np.bool_]) -> Graph:
        kept = np.concatenate([[0], np.cumsum(keep)])[self.indptr]
        return Graph(kept, self.indices[keep], self.lengths[keep], self.is_symmetric)


def _lengths(at: NDArray[np.float64], pairs: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(at[pairs[:, 0]] - at[pairs[:, 1]], axis=1))


def _flattened(at: NDArray[np.float64]) -> NDArray[np.float64]:
    """The places in as many axes as they really fill: on a line 1, in a plane 2."""
    centred = at - at.mean(axis=0)
    _, spread, axes = np.linalg.svd(centred, full_matrices=False)
    rank = int((spread > 1e-10 * max(float(spread[0]), 1e-300)).sum())
    return at if rank == at.shape[1] else centred @ axes[:rank].T


def _delaunay_pairs(at: NDArray[np.float64]) -> NDArray[np.int64]:
    """Pairs joined by a Delaunay edge; distinct places."""
    if len(at) < 2:
        return np.empty((0, 2), np.int64)
    flat = _flattened(at)
    if flat.shape[1] == 1:
        order = np.argsort(flat[:, 0], kind="stable")
        return np.column_stack([order[:-1], order[1:]])
    from scipy.spatial import Delaunay

    indptr, indices = Delaunay(flat).vertex_neighbor_vertices
    start = np.repeat(np.arange(len(at)), np.diff(indptr))
    once = start < indices
    return np.column_stack([start[once], indices[once]]).astype(np.int64)


def _both_ways(n: int, pairs: NDArray[np.int64], lengths: NDArray[np.float64]) -> Graph:
    """A symmetric graph of pairs that are all different, by scipy's counting sort."""
    from scipy.sparse import coo_matrix

    start = np.concatenate([pairs[:, 0], pairs[:, 1]])
    end = np.concatenate([pairs[:, 1], pairs[:, 0]])
    number = np.tile(np.arange(len(pairs)), 2)
    matrix = coo_matrix((number, (start, end)), shape=(n, n)).tocsr()
    matrix.sort_indices()
    return Graph(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), lengths[matrix.data]
    )


def delaunay(pattern: Pattern, *, max_length: float | None = None) -> Graph:
    """Join nuclei whose Voronoi cells touch.

    Parameters
    ----------
    pattern
        Nuclei of one image, in a plane or in a stack.
    max_length
        Edges longer than this, in the pattern's unit, are left out: they bridge gaps in the tissue.

    Returns
    -------
    Graph
        Symmetric.

    Notes
    -----
    Nuclei on a line are joined to the next one along it, as the triangulation does in its limit.
    Of several nuclei at one place the first is triangulated and the others are joined to it.

    Examples
    --------
    >>> square = Pattern([[0, 0], [0, 1], [1, 0], [1, 1.1]], [0, 0, 0, 0], ("any",))
    >>> delaunay(square).n_edges, delaunay(square, max_length=1.2).n_edges
    (5, 4)
    """
    n = len(pattern)
    order = np.lexsort(pattern.at.T)
    if not (np.diff(pattern.at[order], axis=0) == 0).all(axis=1).any():
        pairs = _delaunay_pairs(pattern.at)
        graph = _both_ways(n, pairs, _lengths(pattern.at, pairs))
        return graph if max_length is None else graph.within(max_length)
    places, first, back = np.unique(pattern.at, axis=0, return_index=True, return_inverse=True)
    pairs = first[_delaunay_pairs(places)]
    twins = np.flatnonzero(first[back.ravel()] != np.arange(len(pattern)))
    pairs = np.concatenate([pairs, np.column_stack([first[back.ravel()[twins]], twins])])
    graph = Graph.from_edges(len(pattern), pairs[:, 0], pairs[:, 1], _lengths(pattern.at, pairs))
    return graph if max_length is None else graph.within(max_length)


def nearest(pattern: Pattern, k: int = 6, *, symmetric: bool = True) -> Graph:
    """Join every nucleus to its ``k`` nearest.

    Parameters
    ----------
    pattern
        Nuclei of one image.
    k
        Neighbours of each, at least 1; fewer where the image has fewer nuclei.
    symmetric
        True: an edge where either is among the other's nearest. False: edges point one way.

    Examples
    --------
    >>> line = Pattern([[0, 0], [0, 1], [0, 3]], [0, 0, 0], ("any",))
    >>> nearest(line, 1).n_edges, nearest(line, 1, symmetric=False).n_edges
    (2, 3)
    """
    if k < 1:
        raise CallError(f"a nearest-neighbour graph needs k of 1 or more; found {k}.")
    n = len(pattern)
    k = min(k, n - 1)
    if k < 1:
        return Graph.from_edges(n, np.empty(0, int), np.empty(0, int), np.empty(0))
    from scipy.spatial import cKDTree

    distance, index = cKDTree(pattern.at).query(pattern.at, k + 1)
    own = index == np.arange(n)[:, None]
    own[~own.any(axis=1), -1] = True  # more than k others at the same place: drop the last
    start = np.repeat(np.arange(n), k)
    return Graph.from_edges(n, start, index[~own], distance[~own], symmetric=symmetric)


def within(pattern: Pattern, radius: float) -> Graph:
    """Join all nuclei at most ``radius`` apart, in the pattern's unit.

    Raises
    ------
    CallError
        The radius is not positive.
    ResourceError
        The graph would have more than 200 million edges.

    Examples
    --------
    >>> line = Pattern([[0, 0], [0, 1], [0, 3]], [0, 0, 0], ("any",))
    >>> within(line, 2.0).n_edges
    2
    """
    if not radius > 0:
        raise CallError(f"a radius graph needs a positive radius; found {radius!r}.")
    from scipy.spatial import cKDTree

    tree = cKDTree(pattern.at)
    if len(pattern) > 10_000:
        expected = tree.count_neighbors(tree, radius)
        if expected > MAX_EDGES:
            raise ResourceError(
                f"{pattern.image}: a radius of {radius:g} {pattern.unit} makes {expected:,} edges; "
                "take a smaller radius or a kNN graph."
            )
    pairs = tree.query_pairs(radius, output_type="ndarray")
    return Graph.from_edges(len(pattern), pairs[:, 0], pairs[:, 1], _lengths(pattern.at, pairs))


#: Name of a graph -> what builds it from a pattern with its one setting.
GRAPHS: dict[str, Callable[..., Graph]] = {
    "delaunay": delaunay,
    "nearest": nearest,
    "radius": within,
}
