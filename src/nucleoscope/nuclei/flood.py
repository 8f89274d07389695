"""Marker-controlled watershed within a foreground, one connected component at a time.

The order of flooding is that of scikit-image 0.26 (level, then age), so the result is the same; but
a component with one marker is painted, and only the others need a queue, small enough for the
cache.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel
from nucleoscope.nuclei.runs import Parts, Runs

Float32s = NDArray[np.float32]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

# What a foreground component holds, when it is not the index of its only marker.
NONE, SEVERAL = -1, -2


def watershed(foreground: Parts, markers: Parts, interior: Float32s) -> Int32s:
    """Grow markers within the foreground over the energy ``-G interior``, ``G`` a 3x3 Gaussian.

    Parameters
    ----------
    foreground, markers
        Connected components. Markers may reach beyond the foreground; those parts are cut.
    interior
        ``(Y, X)`` float32, 0 outside the foreground; flooding starts where it is highest.

    Returns
    -------
    (Y, X) int32, ids 1..n in raster order of the markers; foreground without a marker is 0.
    """
    runs, part = foreground.runs, foreground.part
    only, used = _meet(runs, part, foreground.n, markers.runs, markers.part, markers.n)
    number = np.cumsum(used).astype(np.int32)  # a marker beside the foreground has no pixel
    value = np.where(only >= 0, number[np.maximum(only, 0)], np.int32(-1)).astype(np.int32)
    image = np.zeros(interior.shape, dtype=np.int32)
    held = runs.select(only[part] != NONE)
    held.paint(image, value[part[only[part] != NONE]])
    is_shared = only[part] == SEVERAL
    if is_shared.any():
        _plant(image, runs, is_shared, markers.runs, number[markers.part])
        chosen = np.flatnonzero(is_shared)
        chosen = chosen[np.argsort(part[chosen], kind="stable")]
        _flood(image, interior, part[chosen], runs.rows()[chosen],
               runs.start[chosen], runs.stop[chosen])  # fmt: skip
    return image


@kernel
def reflect(i: int, n: int) -> int:
    """Index mirrored at the first and last pixel, which are not repeated."""
    if n == 1:
        return 0
    while i < 0 or i >= n:
        i = -i if i < 0 else 2 * n - 2 - i
    return i


@kernel
def _meet(
    runs: Runs, part: Int64s, n: int, marker_runs: Runs, marker: Int64s, n_markers: int
) -> tuple[Int64s, NDArray[np.bool_]]:
    """The only marker of each component, or NONE or SEVERAL; and which markers meet one."""
    only = np.full(n, NONE)
    used = np.zeros(n_markers + 1, np.bool_)  # never empty
    for y in range(runs.first.size - 1):
        i, j = runs.first[y], marker_runs.first[y]
        while i < runs.first[y + 1] and j < marker_runs.first[y + 1]:
            if runs.start[i] < marker_runs.stop[j] and marker_runs.start[j] < runs.stop[i]:
                used[marker[j]] = True
                c = part[i]
                if only[c] == NONE:
                    only[c] = marker[j]
                elif only[c] != marker[j]:
                    only[c] = SEVERAL
            if runs.stop[i] < marker_runs.stop[j]:
                i += 1
            else:
                j += 1
    return only, used


@kernel
def _plant(
    image: Int32s, runs: Runs, is_shared: NDArray[np.bool_], marker_runs: Runs, marker: Int32s
) -> None:
    """Write the markers into the components that hold several."""
    for y in range(runs.first.size - 1):
        i, j = runs.first[y], marker_runs.first[y]
        while i < runs.first[y + 1] and j < marker_runs.first[y + 1]:
            if is_shared[i]:
                begin = max(runs.start[i], marker_runs.start[j])
                for x in range(begin, min(runs.stop[i], marker_runs.stop[j])):
                    image[y, x] = marker[j]
            if runs.stop[i] < marker_runs.stop[j]:
                i += 1
            else:
                j += 1


@kernel
def _energy(interior: Float32s, y: int, x: int) -> float:
    """Negative 3x3 Gaussian at one pixel."""
    height, width = interior.shape
    up, down = reflect(y - 1, height), reflect(y + 1, height)
    left, right = reflect(x - 1, width), reflect(x + 1, width)
    corners = interior[up, left] + interior[up, right] + interior[down, left]
    sides = interior[up, x] + interior[y, left] + interior[y, right] + interior[down, x]
    two = np.float32(2)
    return float(-(corners + interior[down, right] + two * (sides + two * interior[y, x])))


@kernel
def _push(value: Float32s, age: Int64s, place: Int64s, n: int, new: tuple[float, int, int]) -> None:
    """Sift a new element up a heap of ``n``, ordered by value, then age."""
    i = n
    while i > 0:
        up = (i - 1) // 2
        if value[up] < new[0] or (value[up] == new[0] and age[up] <= new[1]):
            break
        value[i], age[i], place[i] = value[up], age[up], place[up]
        i = up
    value[i], age[i], place[i] = new


@kernel
def _pop(value: Float32s, age: Int64s, place: Int64s, n: int) -> int:
    """Take the lowest element off a heap of ``n``; its place."""
    lowest = place[0]
    last_value, last_age, last_place = value[n - 1], age[n - 1], place[n - 1]
    i, down = 0, 1
    while down < n - 1:
        right = down + 1
        if right < n - 1 and (
            value[right] < value[down] or (value[right] == value[down] and age[right] < age[down])
        ):
            down = right
        if last_value < value[down] or (last_value == value[down] and last_age <= age[down]):
            break
        value[i], age[i], place[i] = value[down], age[down], place[down]
        i, down = down, 2 * down + 1
    value[i], age[i], place[i] = last_value, last_age, last_place
    return int(lowest)


@kernel
def _flood(
    image: Int32s, interior: Float32s, part: Int64s, row: Int64s, start: Int32s, stop: Int32s
) -> None:
    """Grow markers (> 0) over the open pixels (-1) of the runs given, grouped by component."""
    value = np.empty(0, np.float32)
    age = np.empty(0, np.int64)
    place = np.empty(0, np.int64)
    width = image.shape[1]
    begin = 0
    while begin < row.size:
        end, area = begin, 0
        while end < row.size and part[end] == part[begin]:
            area += stop[end] - start[end]
            end += 1
        if area > value.size:
            value = np.empty(2 * area, np.float32)
            age = np.empty(2 * area, np.int64)
            place = np.empty(2 * area, np.int64)
        n = 0
        for i in range(begin, end):
            y = row[i]
            for x in range(start[i], stop[i]):
                if image[y, x] > 0 and _has_open(image, y, x):
                    _push(value, age, place, n, (_energy(interior, y, x), 0, y * width + x))
                    n += 1
        _grow(image, interior, value, age, place, n)
        begin = end


@kernel
def _grow(
    image: Int32s, interior: Float32s, value: Float32s, age: Int64s, place: Int64s, n: int
) -> None:
    """Empty a heap of ``n``, giving every open pixel the id of the neighbour that reached it."""
    height, width = image.shape
    clock = 0
    while n > 0:
        level = value[0]  # water never falls: a lower pixel beyond is flooded at this level
        here = _pop(value, age, place, n)
        n -= 1
        y, x = here // width, here % width
        for b, a in ((y - 1, x), (y, x - 1), (y, x + 1), (y + 1, x)):
            if 0 <= b < height and 0 <= a < width and image[b, a] == -1:
                clock += 1
                image[b, a] = image[y, x]
                if _has_open(image, b, a):  # else it has nothing to pass on, now or later
                    energy = max(level, _energy(interior, b, a))
                    _push(value, age, place, n, (energy, clock, b * width + a))
                    n += 1


@kernel
def _has_open(image: Int32s, y: int, x: int) -> bool:
    """Whether a 4-neighbour is still open."""
    height, width = image.shape
    return bool(
        (y > 0 and image[y - 1, x] == -1)
        or (x > 0 and image[y, x - 1] == -1)
        or (x + 1 < width and image[y, x + 1] == -1)
        or (y + 1 < height and image[y + 1, x] == -1)
    )
