"""Does a feature vary smoothly over the tissue? Moran's I with its exact null moments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.seeds import generator
from nucleoscope.spatial.enrichment import benjamini_hochberg, normal_p, permutation_p
from nucleoscope.spatial.graph import Graph
from nucleoscope.spatial.parallel import spread

Array = NDArray[np.float64]


@dataclass(frozen=True)
class _Weights:
    """Sums that the variance needs (Cliff and Ord 1981, p. 46)."""

    s0: float
    s1: float
    s2: float

    @classmethod
    def of(cls, graph: Graph) -> _Weights:
        matrix = graph.to_csr()
        both = matrix + matrix.T
        out = np.asarray(matrix.sum(axis=1)).ravel()
        into = np.asarray(matrix.sum(axis=0)).ravel()
        return cls(
            float(matrix.sum()), float((both.data**2).sum()) / 2, float(((out + into) ** 2).sum())
        )


def _statistic(graph: Graph, centred: Array, s0: float) -> Array:
    lagged = graph.to_csr() @ centred
    power = (centred**2).sum(axis=0)
    top = (centred * lagged).sum(axis=0)
    factor = graph.n / s0 if s0 > 0 else 0.0
    undefined = np.full(power.shape, np.nan)
    return np.asarray(np.divide(factor * top, power, out=undefined, where=power > 0))


def moran_moments(graph: Graph, values: Array) -> tuple[float, Array]:
    """Mean and variance of Moran's I over all permutations of the values (randomisation).

    ``E = -1 / (n - 1)``; the variance depends on the weights through S0, S1, S2 and on the values
    through their kurtosis (Cliff and Ord 1981, eq. 2.37). NaN below four nuclei or without edges.
    """
    n = float(graph.n)
    w = _Weights.of(graph)
    if n < 4 or w.s0 == 0:
        return np.nan, np.full(values.shape[1], np.nan)
    centred = values - values.mean(axis=0)
    m2 = (centred**2).mean(axis=0)
    m4 = (centred**4).mean(axis=0)
    b2 = np.divide(m4, m2**2, out=np.ones_like(m2), where=m2 > 0)
    first = n * ((n * n - 3 * n + 3) * w.s1 - n * w.s2 + 3 * w.s0**2)
    second = b2 * ((n * n - n) * w.s1 - 2 * n * w.s2 + 6 * w.s0**2)
    whole = (n - 1) * (n - 2) * (n - 3) * w.s0**2
    mean = -1.0 / (n - 1)
    return mean, np.maximum((first - second) / whole - mean**2, 0.0)


def moran(
    graph: Graph,
    values: NDArray[np.floating],
    names: tuple[str, ...],
    *,
    permutations: int = 0,
    seed: int = 0,
    n_jobs: int = 1,
) -> pd.DataFrame:
    """Moran's I of any number of features at once.

    ``I = n / S0 * sum_ij w_ij (x_i - m)(x_j - m) / sum_i (x_i - m)^2`` with weight 1 per edge.

    Parameters
    ----------
    graph
        Neighbours.
    values
        ``(n, f)`` float, one column per feature; a column with a NaN is not defined.
    names
        ``f`` names.
    permutations
        When above 0, p comes from this many permutations of the values: the check. Otherwise from
        the exact mean and variance over all permutations and the normal approximation.
    seed, n_jobs
        Of the permutations; the number of jobs never changes the result.

    Returns
    -------
    pandas.DataFrame
        feature, i, expected, sd, z, p (two-sided), q. A constant feature has I NaN, z 0 and p 1.

    Examples
    --------
    >>> line = Graph.from_edges(50, np.arange(49), np.arange(1, 50), np.ones(49))
    >>> frame = moran(line, np.arange(50.0)[:, None], ("slope",))
    >>> bool(frame["i"][0] > 0.9), bool(frame["p"][0] < 1e-6)
    (True, True)
    """
    if values.shape != (graph.n, len(names)):
        raise InputError(f"Moran's I needs ({graph.n}, {len(names)}) values; found {values.shape}.")
    given = values.astype(np.float64)
    centred = given - (given.mean(axis=0) if graph.n else 0.0)
    mean, variance = moran_moments(graph, given)
    s0 = float(len(graph.indices))
    i = _statistic(graph, centred, s0)
    sd = np.sqrt(variance)
    gap = np.where(np.isfinite(i), i - mean, 0.0)
    z = np.divide(gap, sd, out=np.zeros_like(sd), where=sd > 0)
    p = normal_p(z)
    if permutations > 0:

        def work(number: int) -> Array:
            order = generator(seed, number).permutation(graph.n)
            return _statistic(graph, centred[order], s0)

        simulated = np.stack(spread(work, range(permutations), n_jobs))
        p = np.where(np.isfinite(i), permutation_p(i, simulated, np.full_like(i, mean)), 1.0)
    undefined = ~np.isfinite(sd) | np.isnan(given).any(axis=0)
    p, z = np.where(undefined, np.nan, p), np.where(undefined, np.nan, z)
    return pd.DataFrame(
        {
            "feature": np.array(names, object), "i": i, "expected": mean, "sd": sd, "z": z, "p": p,
            "q": benjamini_hochberg(p),
        }
    )  # fmt: skip
