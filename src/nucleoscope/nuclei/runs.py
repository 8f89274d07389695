"""Runs of equal pixels and their connected components: what decoding works on instead of pixels.

A map of nuclei has some hundred thousand runs where it has millions of pixels, so components,
areas, holes and overlaps cost next to nothing once the runs are known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel

Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


class Runs(NamedTuple):
    """Maximal horizontal stretches of one nonzero value, in raster order.

    Row ``y`` holds runs ``first[y]`` to ``first[y + 1]``; a run covers ``start <= x < stop``.
    """

    first: Int64s
    start: Int32s
    stop: Int32s

    def rows(self) -> Int64s:
        """The row of each run."""
        return np.repeat(np.arange(self.first.size - 1), np.diff(self.first))

    def lengths(self) -> Int64s:
        """Pixels of each run."""
        return (self.stop - self.start).astype(np.int64)

    def select(self, keep: NDArray[np.bool_]) -> Runs:
        """The runs where ``keep`` is true."""
        before = np.concatenate([[0], np.cumsum(keep, dtype=np.int64)])
        return Runs(before[self.first], self.start[keep], self.stop[keep])

    def components(self, value: Int32s | None = None) -> tuple[Int64s, int]:
        """4-connected component (0..n-1, in raster order) of each run, and n.

        With ``value``, one per run, only runs of equal value are connected.
        """
        if value is None:
            value = np.zeros(self.start.size, dtype=np.int32)
        return _join(self, value)

    def gaps(self, width: int) -> Runs:
        """The runs of the complement in rows of ``width`` pixels."""
        return Runs(*_gaps(self, width))

    def without_small(self, min_area: int) -> Parts:
        """The 4-connected components of ``min_area`` pixels or more."""
        part, n = self.components()
        area = np.bincount(part, weights=self.lengths(), minlength=n)
        keep = area >= min_area
        kept = keep[part]
        return Parts(self.select(kept), (np.cumsum(keep) - 1)[part[kept]], int(keep.sum()))

    def paint(self, image: NDArray[Any], value: NDArray[Any]) -> None:
        """Write ``value[i]`` into the pixels of run ``i``, in place."""
        _paint(image, self, value)


class Parts(NamedTuple):
    """Connected components: ``part[i]`` in 0..n-1 is the component of run ``i``."""

    runs: Runs
    part: Int64s
    n: int


def find_runs(image: NDArray[Any]) -> Runs:
    """The runs of ``(Y, X)`` integers, ``image`` C-contiguous.

    >>> find_runs(np.array([[0, 7, 7], [5, 0, 5]], dtype=np.int32)).start.tolist()
    [1, 0, 2]
    """
    return Runs(*_scan(image))


@kernel
def _scan(image: NDArray[Any]) -> tuple[Int64s, Int32s, Int32s]:
    height, width = image.shape
    first = np.zeros(height + 1, np.int64)
    start = np.empty(width + image.size // 64, np.int32)
    stop = np.empty(start.size, np.int32)
    n = 0
    for y in range(height):
        if n + width > start.size:  # room for a row of single pixels
            more = np.empty(start.size + width, np.int32)
            start, stop = np.concatenate((start, more)), np.concatenate((stop, more))
        row = image[y]
        x = 0
        while x < width:
            value = row[x]
            begin = x
            x += 1
            while x < width and row[x] == value:
                x += 1
            if value != 0:
                start[n] = begin
                stop[n] = x
                n += 1
        first[y + 1] = n
    return first, start[:n].copy(), stop[:n].copy()


@kernel
def _root(parent: Int64s, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def _join(runs: Runs, value: Int32s) -> tuple[Int64s, int]:
    first, start, stop = runs
    parent = np.arange(start.size)
    for y in range(1, first.size - 1):
        i, j = first[y - 1], first[y]
        while i < first[y] and j < first[y + 1]:
            if start[i] < stop[j] and start[j] < stop[i] and value[i] == value[j]:
                a, b = _root(parent, i), _root(parent, j)
                parent[max(a, b)] = min(a, b)
            if stop[i] < stop[j]:
                i += 1
            else:
                j += 1
    n = 0
    component = np.empty(start.size, np.int64)
    for i in range(start.size):  # a parent never comes after its child
        if parent[i] == i:
            component[i] = n
            n += 1
        else:
            component[i] = component[parent[i]]
    return component, n


@kernel
def _gaps(runs: Runs, width: int) -> tuple[Int64s, Int32s, Int32s]:
    first, start, stop = runs
    height = first.size - 1
    begin = np.empty(start.size + height, np.int32)
    end = np.empty(start.size + height, np.int32)
    rows = np.zeros(height + 1, np.int64)
    n = 0
    for y in range(height):
        x = 0
        for i in range(first[y], first[y + 1]):
            if start[i] > x:
                begin[n], end[n] = x, start[i]
                n += 1
            x = stop[i]
        if x < width:
            begin[n], end[n] = x, width
            n += 1
        rows[y + 1] = n
    return rows, begin[:n].copy(), end[:n].copy()


@kernel
def _paint(image: NDArray[Any], runs: Runs, value: NDArray[Any]) -> None:
    first, start, stop = runs
    for y in range(first.size - 1):
        for i in range(first[y], first[y + 1]):
            for x in range(start[i], stop[i]):
                image[y, x] = value[i]
