"""Do nearby nuclei look alike? Statistics of embeddings, or of any features, over the tissue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.seeds import generator
from nucleoscope.spatial.enrichment import permutation_p
from nucleoscope.spatial.envelope import global_envelope
from nucleoscope.spatial.graph import Graph
from nucleoscope.spatial.kernels import mark_products
from nucleoscope.spatial.pairs import Bins
from nucleoscope.spatial.parallel import spread
from nucleoscope.spatial.pattern import Pattern

Array = NDArray[np.float64]


def _standard(marks: NDArray[np.floating], n: int) -> Array:
    """Marks with mean 0 and mean squared length 1; refuses what cannot be."""
    values = np.asarray(marks, np.float64)
    if values.ndim != 2 or len(values) != n:
        raise InputError(f"{n} nuclei need ({n}, D) marks; found {values.shape}.")
    if not np.isfinite(values).all():
        raise InputError("a mark is not a finite number; leave those nuclei out first.")
    centred = values - (values.mean(axis=0) if n else 0.0)
    power = float((centred**2).sum()) / max(n, 1)
    return centred / math.sqrt(power) if power > 0 else centred


def permutation_within(
    strata: NDArray[np.int64] | None, n: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """A random order of ``n`` nuclei that keeps each within its stratum."""
    if strata is None:
        return rng.permutation(n)
    order = np.arange(n)
    for stratum in np.unique(strata):
        own = np.flatnonzero(strata == stratum)
        order[own] = rng.permutation(own)
    return order


@dataclass(frozen=True, eq=False)
class MarkCorrelation:
    """Likeness of nuclei against their distance.

    Parameters
    ----------
    radii
        ``(m,)``: upper end of each distance bin, in ``unit``.
    observed, expected, low, high
        ``(m,)``: correlation (1 = the same, 0 = unrelated), the mean of the relabellings, and the
        95 % global envelope; NaN in a bin without pairs.
    p
        One two-sided p for the whole curve.
    n_pairs
        ``(m,)`` pairs used.
    unit
        ``"um"`` or ``"px"``.
    """

    radii: Array
    observed: Array
    expected: Array
    low: Array
    high: Array
    p: float
    n_pairs: NDArray[np.int64]
    unit: str

    def to_frame(self) -> pd.DataFrame:
        """One row per distance."""
        columns = {
            "r": self.radii, "observed": self.observed, "expected": self.expected, "low": self.low,
            "high": self.high, "n_pairs": self.n_pairs, "p": self.p,
        }  # fmt: skip
        return pd.DataFrame(columns)


def _some_pairs(
    pattern: Pattern, bins: Bins, max_pairs: int, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Pairs within reach of randomly chosen nuclei, about ``max_pairs`` of them, with slots."""
    from scipy.spatial import cKDTree

    empty = np.zeros(0, np.int32)
    n = len(pattern)
    if n < 2:
        return empty, empty, empty
    rng = generator(seed, 1)
    tree = cKDTree(pattern.at)
    probe = rng.permutation(n)[: min(n, 1000)]
    around = tree.query_ball_point(pattern.at[probe], bins.reach, return_length=True).mean() - 1
    n_anchors = n if around <= 0 else min(n, max(1, round(max_pairs / float(around))))
    anchors = np.sort(rng.permutation(n)[:n_anchors])
    found = cKDTree(pattern.at[anchors]).sparse_distance_matrix(
        tree, bins.reach, output_type="ndarray"
    )
    start, end = anchors[found["i"]].astype(np.int32), found["j"].astype(np.int32)
    slots = np.maximum(np.ceil((found["v"] - bins.inner) / bins.step), 1).astype(np.int32) - 1
    keep = (start != end) & (slots < bins.n) & (found["v"] >= bins.inner)
    return start[keep], end[keep], slots[keep]


def mark_correlation(
    pattern: Pattern,
    marks: NDArray[np.floating],
    bins: Bins,
    *,
    permutations: int = 199,
    max_pairs: int = 300_000,
    seed: int = 0,
    n_jobs: int = 1,
) -> MarkCorrelation:
    """Correlation of embeddings of two nuclei against the distance between them.

    ``c(r) = mean over pairs at r of (h_i - m).(h_j - m) / mean |h - m|^2``, the multivariate
    correlogram (Stoyan and Stoyan 1994, section 14; Wartenberg 1985). Tested against relabelling:
    embeddings are dealt out again, within strata where the pattern has them, and the whole curve
    gets one p from the global envelope test.

    Parameters
    ----------
    pattern
        Nuclei. To ask about one type only, pass ``pattern.where(...)``.
    marks
        ``(n, D)`` float: embeddings, or any features on a common scale.
    bins
        Distances.
    permutations
        Of the test.
    max_pairs
        Pairs used, about; the nuclei they start from are drawn at random.
    seed, n_jobs
        The number of jobs never changes the result.

    Returns
    -------
    MarkCorrelation
        p is NaN where there is no pair, 1 where all marks are equal.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> at = rng.random((300, 2)) * 100
    >>> pattern = Pattern(at, np.zeros(300), ("any",))
    >>> result = mark_correlation(pattern, at, Bins(20.0, 4), permutations=39)
    >>> bool(result.observed[0] > 0.9), result.p
    (True, 0.025)
    """
    if permutations < 19:
        raise CallError(f"an envelope needs 19 permutations or more; found {permutations}.")
    n = len(pattern)
    standard = _standard(marks, n)
    padded = np.zeros((n, -(-standard.shape[1] // 8) * 8), np.float32)
    padded[:, : standard.shape[1]] = standard
    start, end, slots = _some_pairs(pattern, bins, max_pairs, seed)
    counts = np.bincount(slots, minlength=bins.n).astype(np.int64)

    def curve(order: NDArray[np.int64]) -> Array:
        sums = mark_products(padded[order], start, end, slots, bins.n)
        empty = np.full(bins.n, np.nan)
        return np.asarray(np.divide(sums, counts, out=empty, where=counts > 0))

    def work(number: int) -> Array:
        return curve(permutation_within(pattern.strata, n, generator(seed, 2, number)))

    observed = curve(np.arange(n))
    simulated = np.stack(spread(work, range(permutations), n_jobs))
    p, low, high = global_envelope(observed, simulated)
    expected = simulated.mean(axis=0)
    return MarkCorrelation(
        bins.radii, observed, expected, low, high, float(p), counts, pattern.unit
    )


@dataclass(frozen=True, eq=False)
class Coupling:
    """How well a nucleus's look follows from its neighbours'.

    Parameters
    ----------
    r2
        Part of the variance of the marks that a linear map of the neighbours' mean mark explains.
    expected
        Mean ``r2`` over the relabellings, which holds the optimism of the fit.
    p
        Two-sided, from the relabellings.
    residual
        ``(n,)``: length of what is left unexplained per nucleus; NaN without neighbours.
    """

    r2: float
    expected: float
    p: float
    residual: Array

    def to_frame(self) -> pd.DataFrame:
        """One row."""
        return pd.DataFrame({"r2": [self.r2], "expected": [self.expected], "p": [self.p]})


def _fit(marks: Array, around: Array, ridge: float) -> tuple[float, Array]:
    """``r2`` and residuals of ``marks ~ around @ B`` with a small ridge."""
    gram = around.T @ around
    gram[np.diag_indices_from(gram)] += ridge * max(float(np.trace(gram)) / len(gram), 1e-12)
    residual = marks - around @ np.linalg.solve(gram, around.T @ marks)
    return 1.0 - float((residual**2).sum() / (marks**2).sum()), residual


def coupling(
    graph: Graph,
    pattern: Pattern,
    marks: NDArray[np.floating],
    *,
    permutations: int = 99,
    ridge: float = 1e-3,
    seed: int = 0,
    n_jobs: int = 1,
) -> Coupling:
    """Morphology-neighbourhood coupling: predict each embedding from its neighbours' mean.

    Parameters
    ----------
    graph, pattern
        Neighbours and nuclei of one image; relabelling stays within the pattern's strata.
    marks
        ``(n, D)`` float.
    permutations
        Relabellings for p.
    ridge
        Of the linear map, relative to the mean power of the predictors.
    seed, n_jobs
        The number of jobs never changes the result.

    Returns
    -------
    Coupling
        NaN where fewer than two nuclei have a neighbour or all marks are equal.

    Examples
    --------
    >>> line = Graph.from_edges(60, np.arange(59), np.arange(1, 60), np.ones(59))
    >>> pattern = Pattern(np.zeros((60, 2)), np.zeros(60), ("any",))
    >>> result = coupling(line, pattern, np.sin(np.arange(60.0) / 9)[:, None])
    >>> bool(result.r2 > 0.9), result.p
    (True, 0.01)
    """
    standard = _standard(marks, graph.n)
    degree = graph.degrees
    known = degree > 0
    residual = np.full(graph.n, np.nan)
    if known.sum() < 2 or not (standard[known] != 0).any():
        return Coupling(np.nan, np.nan, np.nan, residual)
    matrix = graph.to_csr()

    def fit(order: NDArray[np.int64]) -> tuple[float, Array]:
        dealt = standard[order]
        around = (matrix @ dealt)[known] / degree[known, None]
        return _fit(dealt[known], around, ridge)

    def work(number: int) -> float:
        return fit(permutation_within(pattern.strata, graph.n, generator(seed, number)))[0]

    r2, left = fit(np.arange(graph.n))
    residual[known] = np.linalg.norm(left, axis=1)
    simulated = np.array(spread(work, range(permutations), n_jobs))
    expected = float(simulated.mean())
    p = permutation_p(np.array(r2), simulated, np.array(expected))
    return Coupling(r2, expected, float(p), residual)
