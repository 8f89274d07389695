"""Which types stand next to each other more, or less, than chance: exact, without permutations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial.graph import Graph
from nucleoscope.spatial.kernels import edge_counts
from nucleoscope.spatial.parallel import pieces, spread, stream_seeds
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.relabel import BATCH, Relabelling

Matrix = NDArray[np.float64]

#: Where fewer edges than this are expected the normal approximation is not used.
MIN_EXPECTED = 5.0


@dataclass(frozen=True, eq=False)
class Enrichment:
    """Neighbourhood enrichment of every ordered pair of types.

    Parameters
    ----------
    names
        The types: rows and columns of every matrix.
    counts, expected, sd
        ``(K, K)`` float64: edges from type a to type b, and their mean and standard deviation when
        types are dealt out at random. In a symmetric graph an edge within a type counts twice and
        an edge between types once in each direction, as in squidpy.
    p, q
        ``(K, K)``: two-sided p, and its Benjamini-Hochberg value over the pairs.
    by_permutation
        ``(K, K)`` bool: p came from permutations, because the expected count is below 5 or because
        they were asked for.
    n_dropped
        Edges left out because they join two strata.
    """

    names: tuple[str, ...]
    counts: Matrix
    expected: Matrix
    sd: Matrix
    p: Matrix
    q: Matrix
    by_permutation: NDArray[np.bool_]
    n_dropped: int = 0

    @property
    def z(self) -> Matrix:
        """``(counts - expected) / sd``; 0 where the count cannot vary."""
        return _ratio(self.counts - self.expected, self.sd, 0.0)

    @property
    def log2_ratio(self) -> Matrix:
        """log2 of observed over expected; NaN where none is expected, -inf where none is seen."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log2(_ratio(self.counts, self.expected, np.nan)))

    def interval(self, level: float = 0.95) -> tuple[Matrix, Matrix]:
        """Limits of ``log2_ratio``: the count give or take ``z`` standard deviations of the null.

        By construction the interval excludes 0 exactly where the normal p is below ``1 - level``.
        """
        from scipy.special import ndtri

        half = float(ndtri(0.5 + level / 2)) * self.sd
        with np.errstate(divide="ignore"):
            low = np.log2(_ratio(np.maximum(self.counts - half, 0.0), self.expected, np.nan))
            high = np.log2(_ratio(self.counts + half, self.expected, np.nan))
        return low, high

    def to_frame(self) -> pd.DataFrame:
        """One row per ordered pair of types."""
        low, high = self.interval()
        k = len(self.names)
        columns = {
            "count": self.counts, "expected": self.expected, "sd": self.sd, "z": self.z,
            "p": self.p, "q": self.q, "log2_ratio": self.log2_ratio, "log2_low": low,
            "log2_high": high,
        }  # fmt: skip
        method = np.where(self.by_permutation, "permutation", "closed form")
        return pd.DataFrame(
            {"type_a": np.repeat(np.array(self.names, object), k)}
            | {"type_b": np.tile(np.array(self.names, object), k)}
            | {name: values.ravel() for name, values in columns.items()}
            | {"method": method.ravel().astype(object)}
        )


def _ratio(top: Matrix, bottom: Matrix, otherwise: float) -> Matrix:
    return np.divide(top, bottom, out=np.full_like(top, otherwise), where=bottom > 0)


def benjamini_hochberg(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """False discovery rate at which each p would be called (Benjamini, Hochberg 1995); keeps NaN.

    >>> benjamini_hochberg(np.array([0.01, 0.04, 0.03])).round(3).tolist()
    [0.03, 0.04, 0.04]
    """
    q = np.full(p.shape, np.nan)
    real = np.isfinite(p)
    order = np.argsort(p[real])[::-1]
    m = len(order)
    ranked = p[real][order] * m / np.arange(m, 0, -1)
    values = np.empty(m)
    values[order] = np.minimum.accumulate(np.minimum(ranked, 1.0)) if m else ranked
    q[real] = values
    return q


def edge_sums(graph: Graph, pattern: Pattern, weights: Matrix | None = None) -> Matrix:
    """``(K, K)``: edges (or their weights) from each type to each type; the interaction matrix.

    >>> from nucleoscope.spatial.graph import delaunay
    >>> pattern = Pattern([[0, 0], [0, 1], [0, 2]], [0, 0, 1], ("a", "b"))
    >>> edge_sums(delaunay(pattern), pattern).tolist()
    [[2.0, 1.0], [1.0, 0.0]]
    """
    _check(graph, pattern)
    k = pattern.n_types
    if weights is None:
        return edge_counts(graph.indptr, graph.indices, pattern.codes, k).astype(np.float64)
    pair = pattern.codes[graph.rows].astype(np.int64) * k + pattern.codes[graph.indices]
    return np.bincount(pair, weights, k * k).astype(np.float64).reshape(k, k)


def _check(graph: Graph, pattern: Pattern) -> None:
    if graph.n != len(pattern):
        raise InputError(f"the graph has {graph.n} nuclei but the pattern has {len(pattern)}.")


def _falling(n: NDArray[np.float64] | float, k: int) -> NDArray[np.float64]:
    return np.asarray(reduce(lambda value, i: value * (n - i), range(1, k), n), dtype=np.float64)


@dataclass(frozen=True)
class _Sums:
    """Sums over a directed graph that the second moment needs."""

    total: float  # sum w
    squares: float  # sum w^2
    mutual: float  # sum w_ij w_ji
    out: float  # sum of squared out-strengths
    into: float  # sum of squared in-strengths
    through: float  # sum of in-strength times out-strength


def _graph_sums(graph: Graph, weights: Matrix | None) -> _Sums:
    if weights is None and graph.is_symmetric:
        m = float(len(graph.indices))
        power = float((graph.degrees.astype(np.float64) ** 2).sum())
        return _Sums(m, m, m, power, power, power)
    w = np.ones(len(graph.indices)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != graph.indices.shape:
        raise InputError(f"{len(w)} weights for {len(graph.indices)} edges.")
    out = np.bincount(graph.rows, w, graph.n)
    into = np.bincount(graph.indices, w, graph.n)
    squares = float((w**2).sum())
    matrix = graph.to_csr(w)
    mutual = float(matrix.multiply(matrix.T).sum())
    return _Sums(
        float(w.sum()), squares, mutual,
        float(out @ out), float(into @ into), float(out @ into),
    )  # fmt: skip


def _moments(sums: _Sums, counts: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Mean and variance of the edge sums when ``counts`` labels are dealt out at random.

    A pair of edges shares two, one or no nuclei; the chance that its nuclei carry the wanted types
    is a ratio of falling factorials. Cross terms in which one nucleus would need two types vanish.
    """
    n = float(counts.sum())
    a = counts.astype(np.float64)
    same = np.eye(len(a), dtype=bool)
    left, right = a[:, None], a[None, :]

    def chance(different: Matrix, equal: NDArray[np.float64], k: int) -> Matrix:
        whole = float(_falling(n, k))
        return (
            np.where(same, equal[:, None], different) / whole if whole > 0 else np.zeros_like(same)
        )

    p2 = chance(left * right, _falling(a, 2), 2)
    p_out = chance(left * right * (right - 1), _falling(a, 3), 3)
    p_in = chance(left * (left - 1) * right, _falling(a, 3), 3)
    p_through = chance(np.zeros_like(p2), _falling(a, 3), 3)
    p4 = chance(_falling(left, 2) * _falling(right, 2), _falling(a, 4), 4)
    out = sums.out - sums.squares
    into = sums.into - sums.squares
    through = 2 * (sums.through - sums.mutual)
    apart = sums.total**2 - sums.squares - sums.mutual - out - into - through
    second = p2 * sums.squares + np.where(same, p2, 0.0) * sums.mutual
    second = second + p_out * out + p_in * into + p_through * through + p4 * apart
    mean = p2 * sums.total
    variance = second - mean**2
    # Differences of numbers near mean^2: below their rounding error the count cannot vary.
    variance[variance < 1e-12 * np.maximum(mean**2, 1e-300)] = 0.0
    return mean, variance


def null_moments(
    graph: Graph, pattern: Pattern, *, weights: Matrix | None = None
) -> tuple[Matrix, Matrix]:
    """Exact mean and variance of ``edge_sums`` under random labelling within strata.

    With weights ``w_ij`` of any directed graph and ``n^(k)`` falling factorials, ``T_ab = sum w_ij
    [type i = a][type j = b]`` has mean ``n_a n_b / n^(2) sum w`` and a second moment that is a sum
    over pairs of edges, grouped by the nuclei they share. Strata are independent, so means and
    variances add up; edges between strata must have been left out.

    Parameters
    ----------
    graph
        Neighbours; must not join two strata of the pattern.
    pattern
        The nuclei with their types and strata.
    weights
        ``(m,)`` float64, one per entry of ``graph.indices``; None for ones.

    Returns
    -------
    tuple of (K, K) float64
        Mean and variance.

    Notes
    -----
    Cost: one pass over the edges. Verified against 10,000 permutations and against all
    permutations of small graphs in the tests.
    """
    _check(graph, pattern)
    k = pattern.n_types
    mean, variance = np.zeros((k, k)), np.zeros((k, k))
    if pattern.strata is None:
        return _moments(_graph_sums(graph, weights), pattern.counts)
    row_strata = pattern.strata[graph.rows]
    if (row_strata != pattern.strata[graph.indices]).any():
        raise CallError("the graph joins two strata; take graph.within_strata(pattern.strata).")
    for stratum in np.unique(pattern.strata):
        edges = row_strata == stratum
        part = graph._keep(edges)
        sums = _graph_sums(part, None if weights is None else weights[edges])
        members = pattern.codes[pattern.strata == stratum]
        one = _moments(sums, np.bincount(members, minlength=k).astype(np.int64))
        mean, variance = mean + one[0], variance + one[1]
    return mean, variance


def permuted_sums(
    graph: Graph,
    pattern: Pattern,
    n: int,
    *,
    weights: Matrix | None = None,
    seed: int = 0,
    n_jobs: int = 1,
) -> Matrix:
    """``(n, K, K)``: edge sums of ``n`` random relabellings within strata.

    Each relabelling has a stream of its own, so the result depends on ``seed`` and on nothing else.

    >>> from nucleoscope.spatial.graph import delaunay
    >>> pattern = Pattern([[0, 0], [0, 1], [0, 2]], [0, 0, 1], ("a", "b"))
    >>> permuted_sums(delaunay(pattern), pattern, 2).shape
    (2, 2, 2)
    """
    _check(graph, pattern)
    rows, columns = graph.rows, graph.indices
    half = graph.is_symmetric and weights is None
    if half:
        once = rows < columns
        rows, columns = rows[once], columns[once]
    relabelled = Relabelling.of(pattern, rows, columns, weights)
    seeds = stream_seeds(seed, n)

    def work(part: slice) -> Matrix:
        return relabelled.sums(seeds[part])[..., 0]

    parts = spread(work, pieces(n, BATCH), n_jobs)
    sums = np.concatenate([np.zeros((0, pattern.n_types, pattern.n_types)), *parts])
    return sums + sums.transpose(0, 2, 1) if half else sums


def permutation_p(observed: Matrix, simulated: Matrix, centre: Matrix) -> Matrix:
    """Two-sided ``(1 + #{|T* - centre| >= |T - centre|}) / (n + 1)`` (Phipson and Smyth 2010)."""
    distance = np.abs(observed - centre)
    slack = 1e-9 * np.maximum(np.abs(centre), 1.0)
    extreme = (np.abs(simulated - centre) >= distance - slack).sum(axis=0)
    return np.asarray((1 + extreme) / (len(simulated) + 1))


def normal_p(z: Matrix) -> Matrix:
    """Two-sided p of a standard normal deviate."""
    from scipy.special import erfc

    return np.asarray(erfc(np.abs(z) / math.sqrt(2)))


def _false_discoveries(p: Matrix, symmetric: bool) -> Matrix:
    """BH over the pairs of types; each pair once when the graph is symmetric."""
    if not symmetric:
        return benjamini_hochberg(p.ravel()).reshape(p.shape)
    q = np.zeros_like(p)
    upper = np.triu_indices(len(p))
    q[upper] = benjamini_hochberg(p[upper])
    return np.maximum(q, q.T)


def enrichment(
    graph: Graph | Sequence[Graph],
    pattern: Pattern | Sequence[Pattern],
    *,
    weights: Matrix | None = None,
    permutations: int = 0,
    fallback: int = 999,
    seed: int = 0,
    n_jobs: int = 1,
) -> Enrichment:
    """Neighbourhood enrichment with the closed form of the random-labelling null.

    z and p come from the exact mean and variance of the edge counts over all relabellings
    (``null_moments``), so nothing is simulated. Pairs with an expected count below 5, where the
    normal approximation is poor, take their p from permutations by themselves.

    Parameters
    ----------
    graph, pattern
        Neighbours and nuclei of one image, or of several (then equally many of both, with the same
        types): images are strata, and counts, means and variances add up.
    weights
        One per entry of ``graph.indices``; only with one image.
    permutations
        When above 0, all p come from this many permutations: the check.
    fallback
        Permutations for the pairs with a small expected count; 0 keeps the closed form.
    seed, n_jobs
        Of the permutations. The number of jobs never changes the result.

    Returns
    -------
    Enrichment
        Edges between two strata of an image are left out and counted in ``n_dropped``.

    Raises
    ------
    InputError
        Graphs and patterns do not belong together.

    Examples
    --------
    >>> from nucleoscope.spatial.graph import nearest
    >>> rng = np.random.default_rng(0)
    >>> left, right = rng.random((200, 2)), rng.random((200, 2)) + [0, 1]
    >>> pattern = Pattern(np.concatenate([left, right]), np.repeat([0, 1], 200), ("a", "b"))
    >>> result = enrichment(nearest(pattern, 5), pattern)
    >>> bool(result.z[0, 0] > 10), bool(result.z[0, 1] < -10)
    (True, True)

    References
    ----------
    Cliff and Ord, Spatial Processes, 1981, chapter 1 (join counts). Palla et al. 2022, Nature
    Methods 19 (the permutation version).
    """
    graphs = [graph] if isinstance(graph, Graph) else list(graph)
    patterns = [pattern] if isinstance(pattern, Pattern) else list(pattern)
    names = _same_names(graphs, patterns)
    if weights is not None and len(graphs) != 1:
        raise CallError("weights are for one image; give one graph and one pattern.")
    before = sum(g.n_edges for g in graphs)
    parts = [_within(g, p, weights) for g, p in zip(graphs, patterns, strict=True)]
    k = len(names)
    counts, mean, variance = np.zeros((k, k)), np.zeros((k, k)), np.zeros((k, k))
    for g, p, w in parts:
        one = null_moments(g, p, weights=w)
        counts, mean, variance = counts + edge_sums(g, p, w), mean + one[0], variance + one[1]
    sd = np.sqrt(variance)
    p_values = normal_p(_ratio(counts - mean, sd, 0.0))
    chosen = np.full((k, k), permutations > 0)
    n = permutations
    if n == 0 and fallback > 0:
        chosen = (mean < MIN_EXPECTED) & (sd > 0)
        n = fallback
    if chosen.any():
        simulated = np.zeros((n, k, k))
        for index, (g, p, w) in enumerate(parts):
            simulated += permuted_sums(g, p, n, weights=w, seed=seed + index, n_jobs=n_jobs)
        p_values = np.where(chosen, permutation_p(counts, simulated, mean), p_values)
    symmetric = all(g.is_symmetric for g in graphs)
    q = _false_discoveries(p_values, symmetric)
    dropped = before - sum(g.n_edges for g, _, _ in parts)
    return Enrichment(names, counts, mean, sd, p_values, q, chosen, dropped)


def _same_names(graphs: list[Graph], patterns: list[Pattern]) -> tuple[str, ...]:
    if len(graphs) != len(patterns) or not graphs:
        raise InputError(f"{len(graphs)} graphs for {len(patterns)} patterns; one each is needed.")
    names = {pattern.names for pattern in patterns}
    if len(names) != 1:
        raise InputError("the patterns have different types; make them with one patterns_of call.")
    return names.pop()


def _within(
    graph: Graph, pattern: Pattern, weights: Matrix | None
) -> tuple[Graph, Pattern, Matrix | None]:
    _check(graph, pattern)
    if pattern.strata is None:
        return graph, pattern, weights
    keep = pattern.strata[graph.rows] == pattern.strata[graph.indices]
    return graph._keep(keep), pattern, None if weights is None else weights[keep]
