"""Compiled loops over pairs of nuclei within reach; all serial, all deterministic."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel

#: Columns after the last nucleus: loops over distances run in steps of this many.
PAD = 8
#: A distance this share of a step beyond a slot's end is at its end: steps are rounded, and 17
#: divided by a seventh of 17 is more than 7.
ROUNDING = 1e-12


class Cells(NamedTuple):
    """Nuclei sorted by the cells of a grid, and the grid.

    Parameters
    ----------
    at
        ``(3, n + PAD)`` float64, sorted; a plane has z = 0. The last ``PAD`` columns are no nuclei,
        so that loops can run on to a whole vector.
    starts
        ``(n_cells + 1,)`` int64: where the nuclei of each cell start.
    shape
        Cells per axis.
    low, per_unit
        The lower corner of the grid; cells per unit of length.
    reach
        Longest distance of a pair.
    """

    at: NDArray[np.float64]
    starts: NDArray[np.int64]
    shape: tuple[int, int, int]
    low: tuple[float, float, float]
    per_unit: tuple[float, float, float]
    reach: float


class Overlap(NamedTuple):
    """The set covariance of a window, ``|W and (W + h)|`` at any lag h, and how pairs count by it.

    Parameters
    ----------
    table
        Flat float64, zero lag in the middle, multilinear between its entries; empty for a rectangle
        and where every pair counts 1.
    shape, per_unit
        Of the table: entries per axis, and per unit of length.
    sides
        ``(z, y, x)`` of a rectangle, whose overlap is ``prod(sides - |h|)``; 0 otherwise.
    least
        No overlap counts for less than this.
    """

    table: NDArray[np.float64]
    shape: tuple[int, int, int]
    per_unit: tuple[float, float, float]
    sides: tuple[float, float, float]
    least: float


@kernel
def sort_by_cell(
    places: NDArray[np.float64],
    low: tuple[float, float, float],
    per_unit: tuple[float, float, float],
    shape: tuple[int, int, int],
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Counting sort of ``(n, 2 or 3)`` places into cells of a grid.

    Returns the sorted places as ``(3, n + PAD)``, where each was, and where each cell starts.
    """
    n, dims = places.shape
    cells = np.empty(n, np.int32)
    starts = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int64)
    for i in range(n):
        cell = np.int64(0)
        for d in range(dims):
            axis = 3 - dims + d
            step = int((places[i, d] - low[axis]) * per_unit[axis])
            cell = cell * shape[axis] + min(step, shape[axis] - 1)
        cells[i] = cell
        starts[cell + 1] += 1
    for c in range(len(starts) - 1):
        starts[c + 1] += starts[c]
    free = starts[:-1].copy()
    order = np.empty(n, np.int64)
    at = np.zeros((3, n + PAD))
    for i in range(n):
        place = free[cells[i]]
        free[cells[i]] += 1
        order[place] = i
        for d in range(dims):
            at[3 - dims + d, place] = places[i, d]
    return at, order, starts


@kernel
def corners(
    table: NDArray[np.float64], a: np.uint64, row: np.uint64, ay: float, ax: float
) -> float:
    """Bilinear mean of the four values at ``a``, next to it, and a row further."""
    one = np.uint64(1)
    low = table[a] * (1.0 - ax) + table[a + one] * ax
    high = table[a + row] * (1.0 - ax) + table[a + row + one] * ax
    value: float = low * (1.0 - ay) + high * ay
    return value


@kernel
def overlap_at(
    table: NDArray[np.float64],
    shape: tuple[int, int, int],
    pz: float,
    py: float,
    px: float,
) -> float:
    """The flat ``table`` at a place in pixels, multilinear between them; inside the table."""
    iy, ix = np.int64(py), np.int64(px)
    ay, ax = py - iy, px - ix
    nx = shape[2]
    if shape[0] == 1:
        return corners(table, np.uint64(iy * nx + ix), np.uint64(nx), ay, ax)
    start = np.int64(pz)
    az = pz - start
    a = np.uint64((start * shape[1] + iy) * nx + ix)
    near = corners(table, a, np.uint64(nx), ay, ax)
    far = corners(table, a + np.uint64(shape[1] * nx), np.uint64(nx), ay, ax)
    value: float = near * (1.0 - az) + far * az
    return value


@kernel
def pair_slots(
    at: NDArray[np.float64],
    i: int,
    first: int,
    stop: int,
    bins: tuple[float, float, int],
    slots: NDArray[np.int32],
) -> None:
    """Slots of the distances from point ``i`` to points ``first`` to ``stop``, and a few beyond.

    Slot 0: at most ``inner``; slot k: ``(inner + (k - 1) step, inner + k step]``; then: beyond.
    Whole vectors of ``PAD`` distances are computed, because a remainder done one by one takes
    longer.
    """
    inner, step, top = bins[0], bins[1], float(bins[2] + 1)
    zi, yi, xi = at[0, i], at[1, i], at[2, i]
    whole = first + (stop - first + PAD - 1) // PAD * PAD
    z, y, x = at[0, first:whole], at[1, first:whole], at[2, first:whole]
    for t in range(whole - first):
        dz, dy, dx = z[t] - zi, y[t] - yi, x[t] - xi
        value = np.ceil(np.divide(np.sqrt(dz * dz + dy * dy + dx * dx) - inner, step) - ROUNDING)
        value = value if value < top else top
        slots[t] = np.int32(value if value > 0.0 else 0.0)


@kernel
def box_weights(
    at: NDArray[np.float64],
    i: int,
    first: int,
    stop: int,
    sides: tuple[float, float, float],
    least: float,
    weights: NDArray[np.float64],
) -> None:
    """``1 / overlap`` in a rectangle, of point ``i`` and points ``first`` to ``stop``."""
    zi, yi, xi = at[0, i], at[1, i], at[2, i]
    whole = first + (stop - first + PAD - 1) // PAD * PAD
    z, y, x = at[0, first:whole], at[1, first:whole], at[2, first:whole]
    for t in range(whole - first):
        overlap = (
            max(sides[0] - abs(z[t] - zi), 0.0)
            * max(sides[1] - abs(y[t] - yi), 0.0)
            * max(sides[2] - abs(x[t] - xi), 0.0)
        )
        weights[t] = np.divide(1.0, max(overlap, least))


@kernel
def add_mask_weights(
    at: NDArray[np.float64],
    own: NDArray[np.float64],
    types: NDArray[np.int64],
    i: int,
    first: int,
    slots: NDArray[np.int32],
    near: NDArray[np.int32],
    n_bins: int,
    overlap: Overlap,
) -> None:
    """Add ``1 / overlap`` in a mask for the pairs of ``i`` that are within reach."""
    n_near = 0
    for t in range(len(slots)):
        near[n_near] = t
        n_near += slots[t] <= n_bins
    table, shape, (uz, uy, ux) = overlap.table, overlap.shape, overlap.per_unit
    oz = shape[0] // 2 - at[0, i] * uz
    oy = shape[1] // 2 - at[1, i] * uy
    ox = shape[2] // 2 - at[2, i] * ux
    for m in range(n_near):
        t = near[m]
        j = first + t
        size = overlap_at(table, shape, at[0, j] * uz + oz, at[1, j] * uy + oy, at[2, j] * ux + ox)
        own[types[j] + slots[t]] += np.divide(1.0, max(size, overlap.least))


@kernel
def ranges_of(cells: Cells, i: int, ranges: NDArray[np.int64]) -> int:
    """Ranges of sorted points that point ``i`` is paired with; returns how many.

    Only points that come later, so that a pair is met once. Every row of cells along x is one
    range, cut to the width that the reach leaves at the row's distance. The first range is the
    point's own row and starts after the point.
    """
    at, starts, (nz, ny, nx) = cells.at, cells.starts, cells.shape
    reach, (per_z, per_y, per_x) = cells.reach, cells.per_unit
    x = at[2, i] - cells.low[2]
    up, along = (at[0, i] - cells.low[0]) * per_z, (at[1, i] - cells.low[1]) * per_y
    cz, cy = min(int(up), nz - 1), min(int(along), ny - 1)
    lowest = max(int(along - reach * per_y), 0)
    highest = min(int(along + reach * per_y), ny - 1)
    last_z = min(int(up + reach * per_z), nz - 1)
    n = 0
    for oz in range(cz, last_z + 1):
        gap_z = np.divide(max(oz - up, 0.0), per_z)
        for oy in range(cy if oz == cz else lowest, highest + 1):
            gap_y = np.divide(max(oy - along, along - oy - 1.0, 0.0), per_y)
            left = reach * reach - gap_z * gap_z - gap_y * gap_y
            if left < 0.0:
                continue
            width, row = np.sqrt(left), (oz * ny + oy) * nx
            ranges[n, 0] = starts[row + max(int((x - width) * per_x), 0)]
            ranges[n, 1] = starts[row + min(int((x + width) * per_x), nx - 1) + 1]
            n += 1
    ranges[0, 0] = i + 1
    return n


@kernel
def most_ranges(cells: Cells) -> int:
    """How many ranges a point can have."""
    deep = int(2.0 * cells.reach * cells.per_unit[0]) + 3
    wide = int(2.0 * cells.reach * cells.per_unit[1]) + 3
    return min(deep, cells.shape[0]) * min(wide, cells.shape[1])


@kernel
def pair_histogram(
    cells: Cells,
    codes: NDArray[np.int64],
    first: int,
    stop: int,
    bins: tuple[float, float, int],
    overlap: Overlap,
    n_types: int,
) -> NDArray[np.float64]:
    """Half-pairs by type pair and distance: ``(n_types, n_types, n_bins + 2)``.

    ``codes`` are sorted as ``cells``; this piece owns points ``first`` to ``stop``; ``bins`` are
    inner, step, n_bins. Distances, and overlaps in a rectangle, go to buffers in loops that
    vectorise, then are counted without a branch.
    """
    at, n_slots = cells.at, bins[2] + 2
    histogram = np.zeros((n_types, n_types * n_slots))
    types = codes * n_slots
    slots, near, weights = np.empty(512, np.int32), np.empty(512, np.int32), np.ones(512)
    ranges = np.empty((most_ranges(cells), 2), np.int64)
    for i in range(first, stop):
        own = histogram[codes[i]]
        for m in range(ranges_of(cells, i, ranges)):
            begin = ranges[m, 0]
            while begin < ranges[m, 1]:
                end = min(begin + 512, ranges[m, 1])
                pair_slots(at, i, begin, end, bins, slots)
                if overlap.table.size > 0:
                    some = slots[: end - begin]
                    add_mask_weights(at, own, types, i, begin, some, near, bins[2], overlap)
                else:
                    if overlap.sides[1] > 0:
                        box_weights(at, i, begin, end, overlap.sides, overlap.least, weights)
                    for t in range(end - begin):
                        own[types[begin + t] + slots[t]] += weights[t]
                begin = end
    return histogram.reshape(n_types, n_types, n_slots)


@kernel
def list_pairs(
    cells: Cells,
    bins: tuple[float, float, int],
    firsts: NDArray[np.int64],
    start: NDArray[np.uint32],
    end: NDArray[np.uint32],
) -> None:
    """Write every pair within reach, in sorted places; those of slot s from ``firsts[s]`` on."""
    buffer = np.empty(512, np.int32)
    ranges = np.empty((most_ranges(cells), 2), np.int64)
    free = firsts.copy()
    for i in range(cells.at.shape[1] - PAD):
        for m in range(ranges_of(cells, i, ranges)):
            begin = ranges[m, 0]
            while begin < ranges[m, 1]:
                stop = min(begin + 512, ranges[m, 1])
                pair_slots(cells.at, i, begin, stop, bins, buffer)
                for t in range(stop - begin):
                    if buffer[t] <= bins[2]:
                        place = free[buffer[t]]
                        free[buffer[t]] += 1
                        start[place], end[place] = i, begin + t
                begin = stop


@kernel
def list_weights(
    at: NDArray[np.float64],
    start: NDArray[np.uint32],
    end: NDArray[np.uint32],
    overlap: Overlap,
) -> NDArray[np.float64]:
    """``1 / overlap`` of each listed pair; the overlap has a table."""
    weights = np.empty(len(start))
    table, shape, (uz, uy, ux) = overlap.table, overlap.shape, overlap.per_unit
    for e in range(len(start)):
        i, j = start[e], end[e]
        size = overlap_at(
            table,
            shape,
            (at[0, j] - at[0, i]) * uz + shape[0] // 2,
            (at[1, j] - at[1, i]) * uy + shape[1] // 2,
            (at[2, j] - at[2, i]) * ux + shape[2] // 2,
        )
        weights[e] = np.divide(1.0, max(size, overlap.least))
    return weights
