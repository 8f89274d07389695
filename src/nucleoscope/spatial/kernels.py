"""The few loops that are compiled; all serial, all deterministic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel


@kernel
def shuffle(labels: NDArray[np.uint8], starts: NDArray[np.int64], seed: np.uint64) -> None:
    """Shuffle ``labels`` in place within each run ``starts[s]:starts[s + 1]`` (Fisher-Yates).

    Random numbers are SplitMix64's (Steele, Lea and Flood 2014), one stream per seed; an index
    below ``m`` is the high half of a 32-bit product (Lemire 2019), biased by less than m / 2^32.
    """
    state = np.uint64(seed)
    for run in range(len(starts) - 1):
        low = starts[run]
        for i in range(starts[run + 1] - low - 1, 0, -1):
            state += np.uint64(0x9E3779B97F4A7C15)
            bits = state
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            high = (bits ^ (bits >> np.uint64(31))) >> np.uint64(32)
            j = np.int64((high * np.uint64(i + 1)) >> np.uint64(32))
            kept = labels[low + i]
            labels[low + i] = labels[low + j]
            labels[low + j] = kept


@kernel
def permuted_pair_sums(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    weights: NDArray[np.float64],
    slots: NDArray[np.int32],
    labels: NDArray[np.uint8],
    starts: NDArray[np.int64],
    seeds: NDArray[np.uint64],
    n_types: int,
    n_slots: int,
) -> NDArray[np.float64]:
    """Sums by type pair and slot for every seed's shuffle: ``(seeds, n_types, n_types, n_slots)``.

    ``weights`` may be empty, for ones; ``slots`` may be empty, for slot 0.
    """
    result = np.zeros((len(seeds), n_types * n_types * n_slots))
    counts = np.zeros(n_types * n_types * n_slots, np.int64)
    for p in range(len(seeds)):
        shuffled = labels.copy()
        shuffle(shuffled, starts, seeds[p])
        if len(weights) == 0:
            counts[:] = 0
            if len(slots) == 0:
                for e in range(len(rows)):
                    pair = shuffled[rows[e]] * n_types + shuffled[columns[e]]
                    counts[pair * n_slots] += 1
            else:
                for e in range(len(rows)):
                    pair = shuffled[rows[e]] * n_types + shuffled[columns[e]]
                    counts[pair * n_slots + slots[e]] += 1
            result[p] = counts
        else:
            for e in range(len(rows)):
                slot = slots[e] if len(slots) else 0
                pair = shuffled[rows[e]] * n_types + shuffled[columns[e]]
                result[p, pair * n_slots + slot] += weights[e]
    return result.reshape(len(seeds), n_types, n_types, n_slots)


@kernel
def cell_order(
    cells: NDArray[np.int64], n_cells: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counting sort: the order that puts points cell by cell, and where each cell starts."""
    starts = np.zeros(n_cells + 1, np.int64)
    for i in range(len(cells)):
        starts[cells[i] + 1] += 1
    for c in range(n_cells):
        starts[c + 1] += starts[c]
    free = starts[:-1].copy()
    order = np.empty(len(cells), np.int64)
    for i in range(len(cells)):
        order[free[cells[i]]] = i
        free[cells[i]] += 1
    return order, starts


@kernel
def overlap_at(
    table: NDArray[np.float64],
    shape: tuple[int, int, int],
    pz: float,
    py: float,
    px: float,
) -> float:
    """The flat ``table`` at a place in pixels, multilinear between them; inside the table."""
    iy, ix = np.uint64(py), np.uint64(px)
    ay, ax = py - iy, px - ix
    nx = np.uint64(shape[2])
    plane = np.uint64(shape[1]) * nx
    value, az, start, planes = 0.0, 0.0, np.uint64(0), 1
    if shape[0] > 1:
        start = np.uint64(pz)
        az, planes = pz - start, 2
    for k in range(planes):
        a = (start + np.uint64(k)) * plane + iy * nx + ix
        low = table[a] * (1.0 - ax) + table[a + np.uint64(1)] * ax
        high = table[a + nx] * (1.0 - ax) + table[a + nx + np.uint64(1)] * ax
        value += (az if k else 1.0 - az) * (low * (1.0 - ay) + high * ay)
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
    or, with a set covariance in ``table``, ``min(1 / overlap, ceiling)``. A row of cells is one
    contiguous range of points; distances go to a buffer in a loop that vectorises, then are
    counted without a branch.
    """
    inner, step, n_bins = bins[0], bins[1], int(bins[2])
    n_slots = n_bins + 2
    histogram = np.zeros(n_types * n_types * n_slots)
    slots, near = np.empty(512, np.int32), np.empty(512, np.int32)
    weighted = table.size > 0
    ny, nx = shape[1], shape[2]
    rz, ry, rx = reach_cells[0], reach_cells[1], reach_cells[2]
    for row in range(rows[0], rows[1]):
        cz, cy = row // ny, row % ny
        for cx in range(nx):
            cell = row * nx + cx
            if starts[cell] == starts[cell + 1]:
                continue
            for oz in range(rz + 1):
                if cz + oz >= shape[0]:
                    break
                for oy in range(-ry if oz else 0, ry + 1):
                    if cy + oy < 0 or cy + oy >= ny:
                        continue
                    gap_z = max(oz - 1, 0) / max(rz, 1)
                    gap_y = max(abs(oy) - 1, 0) / max(ry, 1)
                    left = 1.0 - gap_z * gap_z - gap_y * gap_y
                    if left <= 0:
                        continue
                    width = int(np.ceil(rx * np.sqrt(left)))
                    other = ((cz + oz) * ny + cy + oy) * nx
                    first = starts[other + max(cx - width, 0)]
                    last = starts[other + min(cx + width, nx - 1) + 1]
                    own = oz == 0 and oy == 0
                    for i in range(starts[cell], starts[cell + 1]):
                        base = codes[i] * n_types
                        begin = i + 1 if own else first
                        while begin < last:
                            end = min(begin + 512, last)
                            pair_slots(at, i, begin, end, inner, step, n_bins, slots)
                            if weighted:
                                add_weights(
                                    at, codes, i, begin, slots[: end - begin], near, n_slots,
                                    table, shape_of_table, pixels_per_unit, ceiling, n_types,
                                    histogram,
                                )  # fmt: skip
                            else:
                                for t in range(end - begin):
                                    index = (base + codes[begin + t]) * n_slots + slots[t]
                                    histogram[index] += 1.0
                            begin = end
    return histogram.reshape(n_types, n_types, n_slots)


@kernel
def mark_products(
    marks: NDArray[np.float32],
    start: NDArray[np.int32],
    end: NDArray[np.int32],
    slots: NDArray[np.int32],
    n_slots: int,
) -> NDArray[np.float64]:
    """Sum over pairs of ``marks[start] . marks[end]`` by slot; marks have a multiple of 8 parts."""
    result = np.zeros(n_slots)
    length = marks.shape[1]
    for e in range(len(start)):
        a, b = marks[start[e]], marks[end[e]]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0)
        for d in range(0, length, 8):
            s0 += a[d] * b[d]
            s1 += a[d + 1] * b[d + 1]
            s2 += a[d + 2] * b[d + 2]
            s3 += a[d + 3] * b[d + 3]
            s4 += a[d + 4] * b[d + 4]
            s5 += a[d + 5] * b[d + 5]
            s6 += a[d + 6] * b[d + 6]
            s7 += a[d + 7] * b[d + 7]
        result[slots[e]] += float((s0 + s4) + (s1 + s5)) + float((s2 + s6) + (s3 + s7))
    return result
