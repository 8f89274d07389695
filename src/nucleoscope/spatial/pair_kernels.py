"""Compiled loops over pairs of nuclei within reach; all serial, all deterministic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel


@kernel
def sort_by_cell(
    places: NDArray[np.float64], low: NDArray[np.float64], side: float, shape: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Counting sort of ``(n, 2 or 3)`` places into cells of a grid.

    Returns the sorted places as ``(3, n)``, where each was, and where each cell starts.
    """
    n, dims = places.shape
    cells = np.empty(n, np.int64)
    starts = np.zeros(shape[0] * shape[1] * shape[2] + 1, np.int64)
    per_unit = 1.0 / side
    for i in range(n):
        cell = np.int64(0)
        for d in range(dims):
            axis = 3 - dims + d
            step = np.int64((places[i, d] - low[axis]) * per_unit)
            cell = cell * shape[axis] + min(step, shape[axis] - 1)
        cells[i] = cell
        starts[cell + 1] += 1
    for c in range(len(starts) - 1):
        starts[c + 1] += starts[c]
    free = starts[:-1].copy()
    order = np.empty(n, np.int64)
    at = np.zeros((3, n))
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
    inner: float,
    step: float,
    n_bins: int,
    slots: NDArray[np.int32],
) -> None:
    """Slots of the distances from point ``i`` to points ``first`` to ``stop``.

    Slot 0: at most ``inner``; slot k: ``(inner + (k - 1) step, inner + k step]``; then: beyond.
    """
    zi, yi, xi = at[0, i], at[1, i], at[2, i]
    top = float(n_bins + 1)
    z, y, x = at[0, first:stop], at[1, first:stop], at[2, first:stop]
    for t in range(stop - first):
        dz, dy, dx = z[t] - zi, y[t] - yi, x[t] - xi
        value = np.ceil(np.divide(np.sqrt(dz * dz + dy * dy + dx * dx) - inner, step))
        value = value if value < top else top
        slots[t] = np.int32(value if value > 0.0 else 0.0)


@kernel
def add_weights(
    at: NDArray[np.float64],
    codes: NDArray[np.int64],
    i: int,
    first: int,
    slots: NDArray[np.int32],
    near: NDArray[np.int32],
    n_slots: int,
    table: NDArray[np.float64],
    shape: tuple[int, int, int],
    pixels_per_unit: NDArray[np.float64],
    ceiling: float,
    n_types: int,
    histogram: NDArray[np.float64],
) -> None:
    """Add ``min(1 / overlap, ceiling)`` for the pairs of ``i`` that are within reach."""
    n_near = 0
    for t in range(len(slots)):
        near[n_near] = t
        n_near += slots[t] < n_slots - 1
    base = codes[i] * n_types
    uz, uy, ux = pixels_per_unit[0], pixels_per_unit[1], pixels_per_unit[2]
    oz = shape[0] // 2 - at[0, i] * uz
    oy = shape[1] // 2 - at[1, i] * uy
    ox = shape[2] // 2 - at[2, i] * ux
    for m in range(n_near):
        t = near[m]
        j = first + t
        overlap = overlap_at(
            table, shape, at[0, j] * uz + oz, at[1, j] * uy + oy, at[2, j] * ux + ox
        )
        weight = ceiling
        if overlap * ceiling > 1.0:
            weight = np.divide(1.0, overlap)
        histogram[(base + codes[j]) * n_slots + slots[t]] += weight


@kernel
def ranges_of_cell(
    row: int,
    cx: int,
    starts: NDArray[np.int64],
    shape: NDArray[np.int64],
    reach_cells: NDArray[np.int64],
    ranges: NDArray[np.int64],
) -> int:
    """Ranges of sorted points that a cell's points are paired with; returns how many.

    Only cells that come later, so that a pair is met once. The first range is the cell's own row of
    cells and starts with the cell itself. A row of cells is one range, cut where it leaves the
    reach.
    """
    ny, nx = shape[1], shape[2]
    rz, ry, rx = reach_cells[0], reach_cells[1], reach_cells[2]
    cz, cy = row // ny, row % ny
    n = 0
    for oz in range(rz + 1):
        if cz + oz >= shape[0]:
            break
        for oy in range(-ry if oz else 0, ry + 1):
            gap_z = max(oz - 1, 0) / max(rz, 1)
            gap_y = max(abs(oy) - 1, 0) / max(ry, 1)
            left = 1.0 - gap_z * gap_z - gap_y * gap_y
            if cy + oy < 0 or cy + oy >= ny or left <= 0:
                continue
            width = int(np.ceil(rx * np.sqrt(left)))
            other = ((cz + oz) * ny + cy + oy) * nx
            own = oz == 0 and oy == 0
            first = starts[other + (cx if own else max(cx - width, 0))]
            last = starts[other + min(cx + width, nx - 1) + 1]
            if own or first < last:
                ranges[n, 0], ranges[n, 1] = first, last
                n += 1
    return n


@kernel
def pair_histogram(
    at: NDArray[np.float64],
    codes: NDArray[np.int64],
    starts: NDArray[np.int64],
    shape: NDArray[np.int64],
    reach_cells: NDArray[np.int64],
    rows: NDArray[np.int64],
    bins: NDArray[np.float64],
    table: NDArray[np.float64],
    shape_of_table: tuple[int, int, int],
    pixels_per_unit: NDArray[np.float64],
    ceiling: float,
    n_types: int,
) -> NDArray[np.float64]:
    """Half-pairs by type pair and distance: ``(n_types, n_types, n_bins + 2)``.

    ``at`` is ``(3, n)`` and, like ``codes``, sorted by cell of a grid of ``shape`` cells; ``rows``
    is the range of cell rows this piece owns; ``bins`` holds inner, step, n_bins. Each pair adds 1,
    or, with a set covariance in ``table``, ``min(1 / overlap, ceiling)``. Distances go to a buffer
    in a loop that vectorises, then are counted without a branch.
    """
    inner, step, n_bins = bins[0], bins[1], int(bins[2])
    n_slots = n_bins + 2
    histogram = np.zeros(n_types * n_types * n_slots)
    slots, near = np.empty(512, np.int32), np.empty(512, np.int32)
    ranges = np.empty(((reach_cells[0] + 1) * (2 * reach_cells[1] + 1), 2), np.int64)
    for cell in range(rows[0] * shape[2], rows[1] * shape[2]):
        if starts[cell] == starts[cell + 1]:
            continue
        n = ranges_of_cell(cell // shape[2], cell % shape[2], starts, shape, reach_cells, ranges)
        for i in range(starts[cell], starts[cell + 1]):
            base = codes[i] * n_types
            for m in range(n):
                begin = i + 1 if m == 0 else ranges[m, 0]
                while begin < ranges[m, 1]:
                    end = min(begin + 512, ranges[m, 1])
                    pair_slots(at, i, begin, end, inner, step, n_bins, slots)
                    if table.size > 0:
                        add_weights(
                            at, codes, i, begin, slots[: end - begin], near, n_slots,
                            table, shape_of_table, pixels_per_unit, ceiling, n_types, histogram,
                        )  # fmt: skip
                    else:
                        for t in range(end - begin):
                            histogram[(base + codes[begin + t]) * n_slots + slots[t]] += 1.0
                    begin = end
    return histogram.reshape(n_types, n_types, n_slots)


@kernel
def list_pairs(
    at: NDArray[np.float64],
    starts: NDArray[np.int64],
    shape: NDArray[np.int64],
    reach_cells: NDArray[np.int64],
    bins: NDArray[np.float64],
    firsts: NDArray[np.int64],
    start: NDArray[np.uint32],
    end: NDArray[np.uint32],
) -> None:
    """Write every pair within reach, in sorted places; those of slot s from ``firsts[s]`` on."""
    inner, step, n_bins = bins[0], bins[1], int(bins[2])
    buffer = np.empty(512, np.int32)
    ranges = np.empty(((reach_cells[0] + 1) * (2 * reach_cells[1] + 1), 2), np.int64)
    free = firsts.copy()
    for cell in range(len(starts) - 1):
        if starts[cell] == starts[cell + 1]:
            continue
        n = ranges_of_cell(cell // shape[2], cell % shape[2], starts, shape, reach_cells, ranges)
        for i in range(starts[cell], starts[cell + 1]):
            for m in range(n):
                begin = i + 1 if m == 0 else ranges[m, 0]
                while begin < ranges[m, 1]:
                    stop = min(begin + 512, ranges[m, 1])
                    pair_slots(at, i, begin, stop, inner, step, n_bins, buffer)
                    for t in range(stop - begin):
                        if buffer[t] <= n_bins:
                            place = free[buffer[t]]
                            free[buffer[t]] += 1
                            start[place], end[place] = i, begin + t
                    begin = stop


@kernel
def list_weights(
    at: NDArray[np.float64],
    start: NDArray[np.uint32],
    end: NDArray[np.uint32],
    table: NDArray[np.float64],
    shape: tuple[int, int, int],
    pixels_per_unit: NDArray[np.float64],
    ceiling: float,
) -> NDArray[np.float64]:
    """``min(1 / overlap, ceiling)`` of each listed pair."""
    weights = np.empty(len(start))
    for e in range(len(start)):
        i, j = start[e], end[e]
        overlap = overlap_at(
            table,
            shape,
            (at[0, j] - at[0, i]) * pixels_per_unit[0] + shape[0] // 2,
            (at[1, j] - at[1, i]) * pixels_per_unit[1] + shape[1] // 2,
            (at[2, j] - at[2, i]) * pixels_per_unit[2] + shape[2] // 2,
        )
        weights[e] = ceiling
        if overlap * ceiling > 1.0:
            weights[e] = np.divide(1.0, overlap)
    return weights
