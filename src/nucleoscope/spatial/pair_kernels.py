"""Compiled loops over pairs of nuclei within reach; all serial, all deterministic.

Nuclei are sorted by cell of a grid. The nuclei that those of one cell are paired with are copied
next to each other (``gather``), so that their distances come from one loop that vectorises. That
loop works in single precision relative to the cell; where a distance comes close to the edge of a
bin the block is done again in double precision, so slots are those of double precision.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel

#: Nuclei gathered at a time: few enough to stay in the first cache.
BLOCK = 1024
#: Places after them that the vector loop may write to.
SPARE = 32


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
def gather(
    at: NDArray[np.float64],
    codes: NDArray[np.int64],
    ranges: NDArray[np.int64],
    n_ranges: int,
    skip: int,
    own: int,
    near: NDArray[np.float32],
    places: NDArray[np.int64],
    types: NDArray[np.int64],
) -> int:
    """Copy up to BLOCK nuclei of the ranges, after the first ``skip``; returns how many.

    ``near`` gets their places relative to nucleus ``own``, ``places`` their indices, ``types``
    their codes. What is left of ``near`` is set to infinity.
    """
    done, seen = 0, 0
    for m in range(n_ranges):
        first, last = ranges[m, 0], ranges[m, 1]
        if seen + last - first <= skip:
            seen += last - first
            continue
        first += max(skip - seen, 0)
        seen = max(seen, skip)
        last = min(last, first + BLOCK - done)
        for t in range(last - first):
            j = first + t
            near[0, done + t] = at[0, j] - at[0, own]
            near[1, done + t] = at[1, j] - at[1, own]
            near[2, done + t] = at[2, j] - at[2, own]
            places[done + t] = j
            types[done + t] = codes[j]
        done += last - first
        seen += last - first
        if done == BLOCK:
            break
    near[1, done : done + SPARE] = np.inf
    return done


@kernel
def fill_slots(
    at: NDArray[np.float64],
    i: int,
    own: int,
    first: int,
    stop: int,
    near: NDArray[np.float32],
    places: NDArray[np.int64],
    bins: NDArray[np.float64],
    is_flat: bool,
    slots: NDArray[np.int32],
) -> None:
    """Slots of the distances from nucleus ``i`` to gathered nuclei ``first`` to ``stop``.

    Slot 0: at most ``inner``; slot k: ``(inner + (k - 1) step, inner + k step]``; then: beyond.
    Unsigned places need no check for negatives, and whole vectors no rest.
    """
    inner, per_step, top = np.float32(bins[0]), np.float32(1.0 / bins[1]), np.float32(bins[2] + 1)
    half, nought = np.float32(0.5), np.float32(0.0)
    safe = np.float32(0.5 - bins[3])
    z = np.float32(at[0, i] - at[0, own])
    y = np.float32(at[1, i] - at[1, own])
    x = np.float32(at[2, i] - at[2, own])
    n_unsafe = np.int32(0)
    for u in range((stop - first + SPARE - 1) // SPARE * SPARE):
        t = np.uint64(first + u)
        dy, dx = near[1, t] - y, near[2, t] - x
        square = dy * dy + dx * dx
        if not is_flat:
            dz = near[0, t] - z
            square += dz * dz
        scaled = (np.sqrt(square) - inner) * per_step
        value = np.ceil(scaled)
        n_unsafe += np.int32(np.abs(value - scaled - half) > safe)
        value = value if value < top else top
        slots[np.uint64(u)] = np.int32(value if value > nought else nought)
    if n_unsafe > 0:
        for u in range(stop - first):
            j = places[first + u]
            gz, gy, gx = at[0, j] - at[0, i], at[1, j] - at[1, i], at[2, j] - at[2, i]
            exact = np.sqrt(gz * gz + gy * gy + gx * gx) - bins[0]
            exact = min(np.ceil(np.divide(exact, bins[1])), bins[2] + 1)
            slots[u] = np.int32(max(exact, 0.0))


@kernel
def weigh(
    at: NDArray[np.float64],
    i: int,
    places: NDArray[np.int64],
    n: int,
    table: NDArray[np.float64],
    shape: tuple[int, int, int],
    pixels_per_unit: NDArray[np.float64],
    ceiling: float,
    weights: NDArray[np.float64],
) -> None:
    """``min(1 / overlap, ceiling)`` of nucleus ``i`` with each of ``n`` places."""
    floor = 1.0 / ceiling
    uz, uy, ux = pixels_per_unit[0], pixels_per_unit[1], pixels_per_unit[2]
    oz = shape[0] // 2 - at[0, i] * uz
    oy = shape[1] // 2 - at[1, i] * uy
    ox = shape[2] // 2 - at[2, i] * ux
    for m in range(n):
        j = np.uint64(places[m])
        overlap = overlap_at(
            table, shape, at[0, j] * uz + oz, at[1, j] * uy + oy, at[2, j] * ux + ox
        )
        weights[m] = np.divide(1.0, max(overlap, floor))


@kernel
def add_pairs(
    at: NDArray[np.float64],
    i: int,
    row: int,
    first: int,
    stop: int,
    n_slots: int,
    places: NDArray[np.int64],
    types: NDArray[np.int64],
    slots: NDArray[np.int32],
    table: NDArray[np.float64],
    shape: tuple[int, int, int],
    pixels_per_unit: NDArray[np.float64],
    ceiling: float,
    kept: NDArray[np.int64],
    keys: NDArray[np.int64],
    weights: NDArray[np.float64],
    histogram: NDArray[np.float64],
) -> None:
    """Add the weights of the pairs of nucleus ``i`` that are within reach."""
    n = 0
    for u in range(stop - first):
        kept[n] = places[first + u]
        keys[n] = row + types[first + u] * n_slots + slots[u]
        n += slots[u] < n_slots - 1
    weigh(at, i, kept, n, table, shape, pixels_per_unit, ceiling, weights)
    for m in range(n):
        histogram[np.uint64(keys[m])] += weights[m]


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
    is the range of cell rows this piece owns; ``bins`` holds inner, step, n_bins, and how close to
    an edge (in bins) single precision is not trusted. Each pair adds 1, or, with a set covariance
    in ``table``, ``min(1 / overlap, ceiling)``.
    """
    n_slots = int(bins[2]) + 2
    counts = np.zeros(n_types * n_types * n_slots, np.int64)
    histogram = np.zeros(n_types * n_types * n_slots)
    is_flat = at[0].min() == at[0].max()
    near, slots = np.empty((3, BLOCK + SPARE), np.float32), np.empty(BLOCK + SPARE, np.int32)
    places, types = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    kept, keys, weights = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64), np.empty(BLOCK)
    ranges = np.empty(((reach_cells[0] + 1) * (2 * reach_cells[1] + 1), 2), np.int64)
    for cell in range(rows[0] * shape[2], rows[1] * shape[2]):
        own, end = starts[cell], starts[cell + 1]
        if own == end:
            continue
        n = ranges_of_cell(cell // shape[2], cell % shape[2], starts, shape, reach_cells, ranges)
        for skip in range(0, (ranges[:n, 1] - ranges[:n, 0]).sum(), BLOCK):
            stop = gather(at, codes, ranges, n, skip, own, near, places, types)
            for i in range(own, end):
                first = max(i - own + 1 - skip, 0)
                if first >= stop:
                    continue
                fill_slots(at, i, own, first, stop, near, places, bins, is_flat, slots)
                row = codes[i] * n_types * n_slots
                if table.size > 0:
                    add_pairs(
                        at, i, row, first, stop, n_slots, places, types, slots, table,
                        shape_of_table, pixels_per_unit, ceiling, kept, keys, weights, histogram,
                    )  # fmt: skip
                else:
                    for u in range(stop - first):
                        key = row + types[first + u] * n_slots + slots[u]
                        counts[np.uint64(key)] += 1
    return (histogram + counts).reshape(n_types, n_types, n_slots)


@kernel
def list_pairs(
    at: NDArray[np.float64],
    codes: NDArray[np.int64],
    starts: NDArray[np.int64],
    shape: NDArray[np.int64],
    reach_cells: NDArray[np.int64],
    bins: NDArray[np.float64],
    firsts: NDArray[np.int64],
    start: NDArray[np.uint32],
    end: NDArray[np.uint32],
) -> None:
    """Write every pair within reach, in sorted places, the pairs of a slot from its first on."""
    free = firsts.copy()
    n_bins = int(bins[2])
    is_flat = at[0].min() == at[0].max()
    near, slots = np.empty((3, BLOCK + SPARE), np.float32), np.empty(BLOCK + SPARE, np.int32)
    places, types = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.int64)
    ranges = np.empty(((reach_cells[0] + 1) * (2 * reach_cells[1] + 1), 2), np.int64)
    for cell in range(len(starts) - 1):
        own, stop_own = starts[cell], starts[cell + 1]
        if own == stop_own:
            continue
        n = ranges_of_cell(cell // shape[2], cell % shape[2], starts, shape, reach_cells, ranges)
        for skip in range(0, (ranges[:n, 1] - ranges[:n, 0]).sum(), BLOCK):
            stop = gather(at, codes, ranges, n, skip, own, near, places, types)
            for i in range(own, stop_own):
                first = max(i - own + 1 - skip, 0)
                if first >= stop:
                    continue
                fill_slots(at, i, own, first, stop, near, places, bins, is_flat, slots)
                for u in range(stop - first):
                    if slots[u] <= n_bins:
                        place = free[slots[u]]
                        free[slots[u]] += 1
                        start[place], end[place] = i, places[first + u]


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
