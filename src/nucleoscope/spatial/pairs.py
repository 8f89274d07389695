"""Pairs of nuclei by distance and type, streamed into histograms; never an n x n matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError
from nucleoscope.spatial.pair_kernels import (
    list_pairs,
    list_weights,
    pair_histogram,
    sort_by_cell,
)
from nucleoscope.spatial.parallel import spread
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.window import SetCovariance, Window

#: No pair counts for more than this many times its plain weight (spatstat's ``maxedgewt``).
MAX_EDGE_WEIGHT = 100.0
#: Nuclei per grid cell that the grid aims at, and the most cells a radius is divided into.
PER_CELL, MAX_CELLS_PER_REACH = 6.0, 8
#: Pieces of work in large patterns; fixed, so that sums do not depend on the number of jobs.
PIECES, LARGE = 16, 20_000


@dataclass(frozen=True)
class Bins:
    """Evenly spaced distances ``inner + step, inner + 2 step, ... reach``.

    Examples
    --------
    >>> Bins(10.0, 5).radii.tolist()
    [2.0, 4.0, 6.0, 8.0, 10.0]
    """

    reach: float
    n: int = 50
    inner: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.reach) and self.reach > self.inner >= 0 and self.n >= 1):
            raise CallError(
                f"distances need 0 <= inner < reach and a bin or more; found inner={self.inner:g}, "
                f"reach={self.reach:g}, n={self.n}."
            )

    @property
    def step(self) -> float:
        """Width of a bin."""
        return (self.reach - self.inner) / self.n

    @property
    def layout(self) -> NDArray[np.float64]:
        """As kernels take them: inner, step, n."""
        return np.array([self.inner, self.step, self.n])

    @property
    def radii(self) -> NDArray[np.float64]:
        """``(n,)``: the upper end of each bin, which belongs to it."""
        return self.inner + self.step * np.arange(1, self.n + 1, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Grid:
    """Nuclei sorted by the cells of a grid fit for one reach.

    Parameters
    ----------
    at
        ``(3, n)`` float64, sorted; a plane has z = 0.
    order
        ``(n,)`` int64: where each sorted nucleus was.
    starts
        ``(n_cells + 1,)`` int64.
    shape, reach_cells
        ``(3,)`` int64: cells per axis, and how many of them a reach spans.
    """

    at: NDArray[np.float64]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    shape: NDArray[np.int64]
    reach_cells: NDArray[np.int64]

    @classmethod
    def of(cls, places: NDArray[np.float64], reach: float) -> Grid:
        """Sort ``(n, 2 or 3)`` places for pairs up to ``reach``."""
        n, dims = places.shape
        reach = reach * (1 + 1e-9)  # pairs exactly at reach must survive rounding to cells
        low, extent = np.zeros(3), np.zeros(3)
        if n:
            low[3 - dims :] = places.min(axis=0)
            extent[3 - dims :] = places.max(axis=0) - low[3 - dims :]
        filled = extent > 0
        volume = float(np.prod(extent[filled])) if filled.any() else 1.0
        wanted = (volume * PER_CELL / max(n, 1)) ** (1 / max(int(filled.sum()), 1))
        side = reach / min(max(round(reach / max(wanted, reach * 1e-6)), 1), MAX_CELLS_PER_REACH)
        while np.prod(np.floor(extent / side) + 1) > 4 * n + 1024:
            side *= 2.0
        shape = (np.floor(extent / side) + 1).astype(np.int64)
        span = np.where(shape > 1, math.ceil(reach / side * (1 - 1e-12)), 0).astype(np.int64)
        at, order, starts = sort_by_cell(places, low, side, shape)
        return cls(at, order, starts, shape, span)

    def row_pieces(self, n_pieces: int) -> list[NDArray[np.int64]]:
        """Ranges of cell rows that hold about equally many nuclei each."""
        n_rows = int(self.shape[0] * self.shape[1])
        before = self.starts[:: int(self.shape[2])]
        targets = np.arange(1, n_pieces) * (self.at.shape[1] / n_pieces)
        cuts = np.concatenate([[0], np.searchsorted(before, targets), [n_rows]])
        return [np.array(pair) for pair in pairwise(cuts) if pair[0] < pair[1]]


def _flat(
    covariance: SetCovariance | None,
) -> tuple[NDArray[np.float64], tuple[int, int, int], NDArray[np.float64], float]:
    """The set covariance as kernels take it: flat table, its shape, pixels per unit, ceiling."""
    if covariance is None:
        return np.empty(0), (0, 0, 0), np.ones(3), 1.0
    nz, ny, nx = covariance.table.shape
    ceiling = MAX_EDGE_WEIGHT / float(covariance.table.max())
    return covariance.table.ravel(), (nz, ny, nx), 1.0 / np.array(covariance.scale), ceiling


@dataclass(frozen=True, eq=False)
class PairList:
    """All pairs within reach, once each, for what has to look at them again and again.

    Parameters
    ----------
    grid
        The nuclei, sorted.
    start, end
        ``(m,)`` uint32: places of the two nuclei in the sorted order; pairs of a slot together.
    firsts
        ``(n + 2,)`` int64: where the pairs of each slot start.
    """

    grid: Grid
    start: NDArray[np.uint32]
    end: NDArray[np.uint32]
    firsts: NDArray[np.int64]

    @classmethod
    def of(cls, pattern: Pattern, bins: Bins, limit: int | None = None) -> PairList | None:
        """List the pairs of a pattern; None where there are more than ``limit``.

        Memory: 8 bytes per pair.
        """
        grid = Grid.of(pattern.at, bins.reach)
        ones = replace(pattern, codes=np.zeros(len(pattern), np.uint8), names=("any",))
        found = pair_sums(ones, bins, grid=grid)[0, 0] / 2
        m = int(found.sum())
        if limit is not None and m > limit:
            return None
        firsts = np.concatenate([[0], np.cumsum(found)]).astype(np.int64)
        start, end = np.empty(m, np.uint32), np.empty(m, np.uint32)
        if m:
            list_pairs(
                grid.at, grid.starts, grid.shape, grid.reach_cells, bins.layout, firsts, start, end
            )
        return cls(grid, start, end, firsts)

    @property
    def slots(self) -> NDArray[np.int32]:
        """``(m,)``: slot of each pair's distance."""
        return np.repeat(np.arange(len(self.firsts) - 1, dtype=np.int32), np.diff(self.firsts))

    @property
    def i(self) -> NDArray[np.int64]:
        """``(m,)``: first nucleus of each pair, as the pattern counts."""
        return self.grid.order[self.start]

    @property
    def j(self) -> NDArray[np.int64]:
        """``(m,)``: second nucleus of each pair."""
        return self.grid.order[self.end]

    def weights(self, covariance: SetCovariance) -> NDArray[np.float64]:
        """Translation weight of each pair, as in ``pair_sums``."""
        table, shape, per_unit, ceiling = _flat(covariance)
        return list_weights(self.grid.at, self.start, self.end, table, shape, per_unit, ceiling)


def pair_sums(
    pattern: Pattern,
    bins: Bins,
    *,
    covariance: SetCovariance | None = None,
    grid: Grid | None = None,
    n_jobs: int = 1,
) -> NDArray[np.float64]:
    """Ordered pairs of different nuclei by type pair and distance.

    Parameters
    ----------
    pattern
        The nuclei.
    bins
        Distances.
    covariance
        Set covariance of the window: each pair then counts ``1 / |W and (W + x_j - x_i)|``, at most
        100 times ``1 / |W|``. None: each pair counts 1.
    grid
        ``Grid.of(pattern.at, bins.reach)`` when it is at hand.
    n_jobs
        Threads; the sums do not depend on it, not even in their last bit.

    Returns
    -------
    (K, K, n + 1) float64
        Slot 0 holds pairs at most ``bins.inner`` apart, slot k those of bin k. Symmetric.

    Notes
    -----
    O(n k) for k neighbours within reach; memory does not depend on the number of pairs.

    Examples
    --------
    >>> line = Pattern([[0, 0], [0, 1], [0, 3]], [0, 0, 1], ("a", "b"))
    >>> pair_sums(line, Bins(3.0, 3))[0, 1].tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    grid = Grid.of(pattern.at, bins.reach) if grid is None else grid
    k = pattern.n_types
    if len(pattern) < 2:
        return np.zeros((k, k, bins.n + 1))
    codes = pattern.codes[grid.order].astype(np.int64)
    table, shape, per_unit, ceiling = _flat(covariance)

    def work(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return pair_histogram(
            grid.at, codes, grid.starts, grid.shape, grid.reach_cells, rows, bins.layout,
            table, shape, per_unit, ceiling, k,
        )  # fmt: skip

    n_pieces = PIECES if len(pattern) > LARGE else 1
    half = sum(spread(work, grid.row_pieces(n_pieces), n_jobs), np.zeros((k, k, bins.n + 2)))
    return np.ascontiguousarray((half + half.transpose(1, 0, 2))[:, :, :-1])


def window_covariance(window: Window, reach: float) -> SetCovariance:
    """The window's set covariance, padded so that every lag up to ``reach`` is in the table."""
    covariance = window.set_covariance(reach)
    flat = (0 if window.n_dims == 2 else 1, 1, 1)
    padded = np.pad(covariance.table, [(n, n) for n in flat])
    return SetCovariance(np.ascontiguousarray(padded), covariance.scale)
