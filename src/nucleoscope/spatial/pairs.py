"""Pairs of nuclei by distance and type, streamed into histograms; never an n x n matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError
from nucleoscope.spatial.pair_kernels import (
    Cells,
    Overlap,
    list_pairs,
    list_weights,
    pair_histogram,
    sort_by_cell,
)
from nucleoscope.spatial.parallel import pieces, spread
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.window import SetCovariance, Window

#: No pair counts for more than this many times its plain weight (spatstat's ``maxedgewt``).
MAX_EDGE_WEIGHT = 100.0
#: Nuclei per cube of the grid that is aimed at, the most cubes a radius is divided into, and the
#: cells along x a cube is divided into.
PER_CELL, MAX_CELLS_PER_REACH, CELLS_PER_SIDE = 6.0, 8, 2
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
    def layout(self) -> tuple[float, float, int]:
        """As kernels take them: inner, step, n."""
        return float(self.inner), self.step, int(self.n)

    @property
    def radii(self) -> NDArray[np.float64]:
        """``(n,)``: the upper end of each bin, which belongs to it."""
        return self.inner + self.step * np.arange(1, self.n + 1, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Grid:
    """Nuclei sorted by the cells of a grid fit for one reach.

    Cells are as deep and high as fits about six nuclei in a cube, and half as wide: a
    nucleus meets the others row by row, from the cell where its reach starts to where it ends.

    Parameters
    ----------
    cells
        The sorted nuclei and the grid, as kernels take them.
    order
        ``(n,)`` int64: where each sorted nucleus was.
    """

    cells: Cells
    order: NDArray[np.int64]

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
        sides = np.array([side, side, side / CELLS_PER_SIDE])
        while np.prod(np.floor(extent / sides) + 1) > 4 * n + 1024:
            sides *= 2.0
        nz, ny, nx = (int(n) for n in np.floor(extent / sides) + 1)
        corner = (float(low[0]), float(low[1]), float(low[2]))
        per_unit = (float(1 / sides[0]), float(1 / sides[1]), float(1 / sides[2]))
        at, order, starts = sort_by_cell(places, corner, per_unit, (nz, ny, nx))
        return cls(Cells(at, starts, (nz, ny, nx), corner, per_unit, float(reach)), order)

    @property
    def at(self) -> NDArray[np.float64]:
        """``(3, n)`` float64: the sorted nuclei."""
        return self.cells.at[:, : len(self.order)]


def _overlap(covariance: SetCovariance | None, *, tabled: bool = False) -> Overlap:
    """The set covariance as kernels take it; ``tabled`` asks for the table of a rectangle too."""
    unit, nowhere = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    if covariance is None:
        return Overlap(np.empty(0), (0, 0, 0), unit, nowhere, 1.0)
    least = float(covariance.table.max()) / MAX_EDGE_WEIGHT
    if covariance.box is not None and not tabled:
        return Overlap(np.empty(0), (0, 0, 0), unit, covariance.box, least)
    (nz, ny, nx), (sz, sy, sx) = covariance.table.shape, covariance.scale
    per_unit = (1.0 / sz, 1.0 / sy, 1.0 / sx)
    return Overlap(covariance.table.ravel(), (nz, ny, nx), per_unit, nowhere, least)


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
            list_pairs(grid.cells, bins.layout, firsts, start, end)
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
        overlap = _overlap(covariance, tabled=True)
        return list_weights(self.grid.cells.at, self.start, self.end, overlap)


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
    overlap = _overlap(covariance)

    def work(part: slice) -> NDArray[np.float64]:
        return pair_histogram(grid.cells, codes, part.start, part.stop, bins.layout, overlap, k)

    n = len(pattern)
    own = pieces(n, -(-n // PIECES) if n > LARGE else n)
    half = sum(spread(work, own, n_jobs), np.zeros((k, k, bins.n + 2)))
    return np.ascontiguousarray((half + half.transpose(1, 0, 2))[:, :, :-1])


def window_covariance(window: Window, reach: float) -> SetCovariance:
    """The window's set covariance, padded so that every lag up to ``reach`` is in the table."""
    covariance = window.set_covariance(reach)
    flat = (0 if window.n_dims == 2 else 1, 1, 1)
    padded = np.pad(covariance.table, [(n, n) for n in flat])
    return replace(covariance, table=np.ascontiguousarray(padded))
