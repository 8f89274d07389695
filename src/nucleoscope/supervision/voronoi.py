"""Which click is nearest, and how far: exact Voronoi cells and distances on the pixel grid.

Clicks are rounded to the voxel that holds them. The map of nearest clicks replaces the polygons
of the published pipeline (Moradinasab et al. 2023, algorithm 1, step 6): it is exact, needs no
Qhull, and has no degenerate case (one click, collinear clicks, two clicks in one pixel).

Method: the separable lower envelope of parabolas (Felzenszwalb & Huttenlocher 2012), slice by
slice. A click at slice ``zp`` is in slice ``z`` a parabola lifted by ``(z_step (z - zp))^2``, so
the z axis costs no pass of its own. Rows hold few clicks, so their envelopes are short; columns
are done sixteen at a time in a buffer that stays in cache.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel

#: Columns per block: one cache line of float32.
_BLOCK = 16

Float = NDArray[np.float64]
Int = NDArray[np.int64]


def grid_points(shape: tuple[int, ...], points_zyx: NDArray[np.generic]) -> Int:
    """Voxel of each click, ``(n, ndim)`` int64: rounded half up, kept within half a pixel.

    Parameters
    ----------
    shape
        ``(Y, X)`` or ``(Z, Y, X)``.
    points_zyx
        ``(n, 3)`` or, for a plane, also ``(n, 2)``; pixels. A plane ignores z.

    Raises
    ------
    InputError
        No click, or one more than half a pixel outside.

    Examples
    --------
    >>> grid_points((4, 5), [[0.0, 1.2, 3.5]]).tolist()
    [[1, 4]]
    """
    given = np.asarray(points_zyx, dtype=np.float64)
    if given.ndim != 2 or given.shape[1] not in (2, 3) or given.shape[1] < len(shape):
        raise CallError(f"clicks are rows of (z, y, x); found shape {given.shape}.")
    if len(given) == 0:
        raise InputError("there is no point to start from; give at least one click.")
    size = np.asarray(shape, dtype=np.int64)
    places = given[:, -len(shape) :]
    if not ((places >= -0.5) & (places <= size - 0.5)).all():
        raise InputError(f"a point lies outside the image of shape {tuple(shape)}.")
    return np.clip(np.floor(places + 0.5), 0, size - 1).astype(np.int64)


def _weight(z_step: float) -> float:
    """``z_step^2`` rounded to 2^-20, so that sums of squares are exact and ties are ties."""
    if not (math.isfinite(z_step) and z_step > 0):
        raise CallError(f"a z step must be positive; found {z_step!r}.")
    return round(z_step * z_step * 2.0**20) / 2.0**20


@kernel
def _envelope(
    at: Int, height: Float, ids: NDArray[np.int32], limit: float, stack: Int, bound: Float
) -> int:
    """Lower envelope of ``height[i] + (t - at[i])^2``, ``at`` ascending; returns its length.

    ``stack`` gets the parabolas in order, ``bound`` where each begins to win. Parabolas higher
    than ``limit`` are left out. Those that win in one point only are kept, so that ties can go to
    the smaller id.
    """
    k = -1
    for i in range(len(at)):
        if height[i] > limit:
            continue
        s = -np.inf
        drop = False
        while k >= 0:
            j = stack[k]
            if at[j] == at[i]:
                if height[j] < height[i] or (height[j] == height[i] and ids[j] <= ids[i]):
                    drop = True
                    break
                k -= 1
                continue
            gap = at[i] - at[j]
            s = (height[i] - height[j] + gap * (at[i] + at[j])) / (2.0 * gap)
            if s < bound[k]:
                k -= 1
            else:
                break
        if drop:
            continue
        k += 1
        stack[k] = i
        bound[k] = s if k > 0 else -np.inf
    return k + 1


@kernel
def _winner(n: int, k: int, t: int, stack: Int, bound: Float, ids: NDArray[np.int32]) -> int:
    """The smallest id among the parabolas that meet exactly at ``t``; ``k`` is the last of them."""
    best = stack[k]
    while k > 0 and bound[k] == t:
        k -= 1
        if ids[stack[k]] < ids[best]:
            best = stack[k]
    return int(best)


@kernel
def _candidates(
    x0: int,
    skip: float,
    rows: tuple[Int, Int, Int, Int, Int, Float],
    clicks: tuple[Int, Float, NDArray[np.int32]],
    at: Int,
    high: Float,
    who: NDArray[np.int32],
) -> int:
    """Height and id of the nearest click of each row, in the columns of a block; their number.

    Rows higher than ``skip`` in the first column are left out. ``rows``: position, first click,
    length of the envelope, cursor, envelope, its bounds.
    """
    row_y, row_first, length, cursor, stack, bound = rows
    x, lift, ids = clicks
    m = 0
    for r in range(len(row_y)):
        a, b = row_first[r], row_first[r + 1]
        k = cursor[r]
        while k + 1 < length[r] and bound[a + k + 1] <= x0:
            k += 1
        cursor[r] = k
        i = a + stack[a + k]
        if lift[i] + float((x0 - x[i]) ** 2) > skip:
            continue
        for c in range(len(high)):
            t = x0 + c
            while k + 1 < length[r] and bound[a + k + 1] <= t:
                k += 1
            i = a + stack[a + k]
            if k > 0 and bound[a + k] == t:
                i = a + _winner(length[r], k, t, stack[a:b], bound[a:b], ids[a:b])
            high[c, m] = lift[i] + float((t - x[i]) ** 2)
            who[c, m] = ids[i]
        at[m] = row_y[r]
        m += 1
    return m


@kernel
def _column(
    n: int,
    at: Int,
    high: Float,
    who: NDArray[np.int32],
    stack: Int,
    bound: Float,
    far: NDArray[np.float32],
    near: NDArray[np.int32],
) -> float:
    """Write distance and id along one column from its envelope; the largest squared distance."""
    largest = 0.0
    height = len(far)
    for k in range(n):
        first = 0 if k == 0 else max(0, int(np.ceil(bound[k])))
        last = height if k == n - 1 else min(height, int(np.ceil(bound[k + 1])))
        if first >= last:
            continue
        i = stack[k]
        base, y = high[i], float(at[i])
        largest = max(largest, base + max((first - y) ** 2, (last - 1 - y) ** 2))
        for t in range(first, last):
            far[t] = np.float32(np.sqrt(base + (t - y) * (t - y)))
        for t in range(first, last):
            near[t] = who[i]
        if k > 0 and bound[k] == first:
            near[first] = who[_winner(n, k, first, stack, bound, who)]
    return largest


@kernel
def _slice(
    row_y: Int,
    row_first: Int,
    x: Int,
    lift: Float,
    ids: NDArray[np.int32],
    distance: NDArray[np.float32],
    cells: NDArray[np.int32],
) -> None:
    """Distances and ids of one slice; an output with no rows is not wanted.

    Clicks are sorted by row, then column. Row ``row_y[r]`` holds clicks
    ``row_first[r]:row_first[r + 1]``. One column on, no distance is larger by more than 1, so a
    parabola higher than that cannot win; most rows are left out by this.
    """
    height = max(distance.shape[0], cells.shape[0])
    width = max(distance.shape[1], cells.shape[1])
    n_rows = len(row_y)
    stack, bound = np.empty(len(x), np.int64), np.empty(len(x), np.float64)
    length, cursor = np.empty(n_rows, np.int64), np.zeros(n_rows, np.int64)
    for r in range(n_rows):
        a, b = row_first[r], row_first[r + 1]
        length[r] = _envelope(x[a:b], lift[a:b], ids[a:b], np.inf, stack[a:b], bound[a:b])
    rows, clicks = (row_y, row_first, length, cursor, stack, bound), (x, lift, ids)
    high = np.empty((_BLOCK, n_rows + 8), np.float64)
    who = np.empty((_BLOCK, n_rows + 8), np.int32)
    far = np.empty((_BLOCK, height + 16), np.float32)
    near = np.empty((_BLOCK, height + 16), np.int32)
    at, column, edge = np.empty(n_rows, np.int64), np.empty(n_rows, np.int64), np.empty(n_rows)
    largest = np.inf
    for x0 in range(0, width, _BLOCK):
        count = min(_BLOCK, width - x0)
        skip = (np.sqrt(largest) + 2 * _BLOCK) ** 2
        m = _candidates(x0, skip, rows, clicks, at, high[:count], who[:count])
        for c in range(count):
            limit = (np.sqrt(largest) + 1.0) ** 2 * (1 + 1e-9)
            n = _envelope(at[:m], high[c, :m], who[c, :m], limit, column, edge)
            largest = _column(
                n, at, high[c], who[c], column, edge, far[c, :height], near[c, :height]
            )
        if distance.shape[0] > 0:
            for t in range(height):
                for c in range(count):
                    distance[t, x0 + c] = far[c, t]
        if cells.shape[0] > 0:
            for t in range(height):
                for c in range(count):
                    cells[t, x0 + c] = near[c, t]


@kernel
def _paint(
    voxel: Int,
    ids: NDArray[np.int32],
    weight: float,
    limit2: float,
    square: NDArray[np.float32],
    cells: NDArray[np.int32],
) -> None:
    """Lower ``square`` to the squared distance of every click within the limit, in id order."""
    n_z, n_y, n_x = square.shape
    reach_y = int(np.sqrt(limit2))
    reach_z = int(np.sqrt(limit2 / weight))
    owned = cells.shape[0] > 0
    for i in range(len(ids)):
        pz, py, px = voxel[i, 0], voxel[i, 1], voxel[i, 2]
        for z in range(max(0, pz - reach_z), min(n_z, pz + reach_z + 1)):
            for y in range(max(0, py - reach_y), min(n_y, py + reach_y + 1)):
                rest = weight * (z - pz) * (z - pz) + (y - py) * (y - py)
                if rest > limit2:
                    continue
                reach = int(np.sqrt(limit2 - rest))
                for x in range(max(0, px - reach), min(n_x, px + reach + 1)):
                    d = np.float32(rest + (x - px) * (x - px))
                    if d < square[z, y, x]:
                        square[z, y, x] = d
                        if owned:
                            cells[z, y, x] = ids[i]


def _rows(voxel: Int) -> tuple[Int, Int, Int]:
    """Order of the clicks by row and column, the rows that hold any, and where each begins."""
    order = np.lexsort((voxel[:, -1], voxel[:, -2]))
    rows, first = np.unique(voxel[order, -2], return_index=True)
    return order.astype(np.int64), rows, np.append(first, len(order)).astype(np.int64)


def _exact(
    shape: tuple[int, ...],
    points_zyx: NDArray[np.generic],
    z_step: float,
    *,
    want_distance: bool,
    want_cells: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Distances and nearest clicks of every voxel; an output not wanted is empty."""
    voxel = grid_points(shape, points_zyx)
    order, rows, first = _rows(voxel)
    voxel, ids = voxel[order], (order + 1).astype(np.int32)
    depth = 1 if len(shape) == 2 else shape[0]
    weight = _weight(z_step)
    volume = (depth, *shape[-2:])
    distance = np.empty(volume if want_distance else (depth, 0, 0), np.float32)
    cells = np.empty(volume if want_cells else (depth, 0, 0), np.int32)
    x = np.ascontiguousarray(voxel[:, -1])
    for z in range(depth):
        steps = np.zeros(len(x)) if len(shape) == 2 else (voxel[:, 0] - z).astype(np.float64)
        _slice(rows, first, x, weight * steps * steps, ids, distance[z], cells[z])
    if len(shape) == 2:
        return distance[0], cells[0]
    return distance, cells


def nearest_point(
    shape: tuple[int, ...], points_zyx: NDArray[np.generic], z_step: float = 1.0
) -> NDArray[np.int32]:
    """The Voronoi cell of every pixel: the index of the nearest click, ``argmin_j |v - p_j|``.

    The distance counts one slice as ``z_step`` pixels. Ties go to the smaller index.

    Parameters
    ----------
    shape
        ``(Y, X)``: cells in the plane, z ignored. ``(Z, Y, X)``: cells in space.
    points_zyx
        ``(n, 3)`` clicks ``(z, y, x)`` in pixels, or ``(n, 2)`` for a plane.
    z_step
        Slice step in xy pixels.

    Returns
    -------
    int32 of ``shape``, 1 to n: row ``i`` of the clicks is cell ``i + 1``. Of clicks in one voxel
    only the first has a cell.

    Raises
    ------
    InputError
        No click, or one outside.

    Examples
    --------
    >>> nearest_point((1, 5), [[0, 0, 0], [0, 0, 4]]).tolist()
    [[1, 1, 1, 2, 2]]

    References
    ----------
    Felzenszwalb & Huttenlocher 2012, Theory of Computing 8:415, section 2.
    """
    return _exact(shape, points_zyx, z_step, want_distance=False, want_cells=True)[1]


def distance_map(
    shape: tuple[int, ...],
    points_zyx: NDArray[np.generic],
    z_step: float = 1.0,
    limit: float | None = None,
) -> NDArray[np.float32]:
    """Distance of every voxel to the nearest click, in xy pixels; one slice is ``z_step`` pixels.

    Parameters
    ----------
    shape, points_zyx, z_step
        As in `nearest_point`.
    limit
        Distances above it are set to it (the published clip is 20 px), which also is faster: only
        the voxels around clicks are visited. None: exact everywhere.

    Returns
    -------
    float32 of ``shape``. No other array of that size is made.

    Raises
    ------
    InputError
        No click, or one outside.

    Examples
    --------
    >>> distance_map((2, 1, 5), [[0, 0, 0]], z_step=3.0)[:, :, ::4].tolist()
    [[[0.0, 4.0]], [[3.0, 5.0]]]
    >>> distance_map((1, 5), [[0, 0]], limit=2.0).tolist()
    [[0.0, 1.0, 2.0, 2.0, 2.0]]
    """
    if limit is None:
        return _exact(shape, points_zyx, z_step, want_distance=True, want_cells=False)[0]
    return _limited(shape, points_zyx, z_step, limit, want_cells=False)[0]


def nearest_within(
    shape: tuple[int, ...], points_zyx: NDArray[np.generic], z_step: float, limit: float
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Both at once around the clicks: distance cut at ``limit`` px, and nearest click or 0.

    Parameters
    ----------
    shape, points_zyx, z_step, limit
        As in `distance_map`.

    Returns
    -------
    distance
        float32 of ``shape``, at most ``limit``.
    cells
        int32 of ``shape``: index of the nearest click (1 to n, ties to the smaller) within
        ``limit``, 0 beyond.

    Raises
    ------
    InputError
        No click, or one outside.

    Examples
    --------
    >>> nearest_within((1, 5), [[0, 0]], 1.0, 2.0)[1].tolist()
    [[1, 1, 1, 0, 0]]
    """
    return _limited(shape, points_zyx, z_step, limit, want_cells=True)


def _limited(
    shape: tuple[int, ...],
    points_zyx: NDArray[np.generic],
    z_step: float,
    limit: float,
    *,
    want_cells: bool,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Distances cut at ``limit`` and, if wanted, the clicks within it."""
    if not (math.isfinite(limit) and limit > 0):
        raise CallError(f"a distance limit must be positive; found {limit!r}.")
    voxel = grid_points(shape, points_zyx)
    if len(shape) == 2:
        voxel = np.pad(voxel, ((0, 0), (1, 0)))
    volume = (1, *shape) if len(shape) == 2 else tuple(shape)
    # A little above the square, so that a voxel exactly at the limit is owned.
    square = np.full(volume, np.nextafter(np.float32(limit * limit), np.float32(np.inf)))
    cells = np.zeros(volume if want_cells else (0, 0, 0), np.int32)
    ids = np.arange(1, len(voxel) + 1, dtype=np.int32)
    _paint(voxel, ids, _weight(z_step), limit * limit, square, cells)
    np.sqrt(square, out=square)
    np.minimum(square, np.float32(limit), out=square)
    return (square[0], cells[0] if want_cells else cells) if len(shape) == 2 else (square, cells)


def cell_edges(cells: NDArray[np.int32]) -> NDArray[np.bool_]:
    """The one-pixel walls between Voronoi cells, closed so that nothing leaks diagonally.

    A pixel is a wall when one of its four neighbours belongs to another cell (a cell minus its
    erosion with a disk of 1); the walls are then closed with a disk of 1 (Qu et al. 2019;
    closing added by Moradinasab et al. 2023). Only the Qu baseline needs this.

    Parameters
    ----------
    cells
        ``(Y, X)`` int32 from `nearest_point`.

    Returns
    -------
    bool ``(Y, X)``.

    Examples
    --------
    >>> cell_edges(np.array([[1, 1, 1, 2, 2, 2]])).astype(int).tolist()
    [[0, 0, 1, 1, 0, 0]]
    """
    edge = np.zeros(cells.shape, dtype=bool)
    across = cells[:, 1:] != cells[:, :-1]
    down = cells[1:] != cells[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    cross = ndimage.generate_binary_structure(2, 1)
    closed = ndimage.binary_closing(np.pad(edge, 1), cross)[1:-1, 1:-1]
    return np.asarray(edge | closed)
