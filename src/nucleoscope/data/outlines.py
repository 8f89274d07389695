"""Outlines of nuclei: one polygon each, in two flat arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleoscope.errors import InputError

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outlines:
    """Polygons: that of nucleus ``i`` is ``vertices[offsets[i] : offsets[i + 1]]``.

    Parameters
    ----------
    vertices
        ``(V, 2)`` float64 in ``(y, x)``, pixels of level 0, centre of the first pixel = 0. Rings
        are not closed.
    offsets
        ``(n + 1,)`` int64 from 0 to V, not falling. An empty polygon is a nucleus whose outline
        is not known; any other has three vertices or more.

    Raises
    ------
    InputError
        Shapes or offsets do not fit, a vertex is not finite, or a polygon has one or two vertices.

    Examples
    --------
    >>> outlines = Outlines.from_rings([[(0, 0), (0, 4), (4, 4)], []])
    >>> len(outlines), outlines.areas().tolist(), outlines.is_known().tolist()
    (2, [8.0, 0.0], [True, False])
    """

    vertices: Floats
    offsets: Int64s

    def __post_init__(self) -> None:
        vertices = np.asarray(self.vertices, dtype=np.float64)
        offsets = np.asarray(self.offsets, dtype=np.int64)
        if vertices.ndim != 2 or vertices.shape[1] != 2:
            raise InputError(f"outlines: vertices are (V, 2) in (y, x); found {vertices.shape}.")
        if offsets.ndim != 1 or not offsets.size or offsets[0] != 0:
            raise InputError("outlines: offsets are one axis and start at 0.")
        sizes = np.diff(offsets)
        if offsets[-1] != len(vertices) or (sizes < 0).any():
            raise InputError(
                f"outlines: offsets rise to the number of vertices, {len(vertices)}; "
                f"found {offsets[-1]}."
            )
        short = np.flatnonzero((sizes > 0) & (sizes < 3))
        if short.size:
            raise InputError(
                f"outlines: outline {short[0] + 1} has {sizes[short[0]]} vertices; it needs three."
            )
        if not np.isfinite(vertices).all():
            at = np.flatnonzero(~np.isfinite(vertices).all(axis=1))[0]
            n = int(np.searchsorted(offsets, at, side="right"))
            raise InputError(f"outlines: outline {n} has a vertex that is not a finite number.")
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "offsets", offsets)

    @classmethod
    def from_rings(cls, rings: Iterable[ArrayLike]) -> Outlines:
        """Outlines from one ``(k, 2)`` array each; an empty one is an unknown outline."""
        arrays: list[NDArray[Any]] = [
            np.asarray(ring, dtype=np.float64).reshape(-1, 2) for ring in rings
        ]
        sizes = [len(ring) for ring in arrays]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        return cls(np.concatenate([np.empty((0, 2)), *arrays]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Floats:
        """Vertices ``(k, 2)`` of one outline."""
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        return self.vertices[self.offsets[index] : self.offsets[index + 1]]

    def is_known(self) -> NDArray[np.bool_]:
        """Which nuclei have an outline."""
        known: NDArray[np.bool_] = np.diff(self.offsets) > 0
        return known

    def _owner(self) -> Int64s:
        """Which outline each vertex belongs to."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    def areas(self) -> Floats:
        """Area of each outline in square pixels, without sign (shoelace formula)."""
        n, owner = len(self), self._owner()
        first = self.vertices[np.minimum(self.offsets[:-1], max(len(self.vertices) - 1, 0))[owner]]
        y, x = (self.vertices - first).T  # near zero, so that large coordinates cost no digits
        after = np.arange(len(owner)) + 1
        last = self.offsets[1:][self.is_known()] - 1
        after[last] = self.offsets[:-1][self.is_known()]
        twice = np.bincount(owner, weights=y * x[after] - y[after] * x, minlength=n)
        return np.abs(twice) / 2

    def boxes(self) -> Floats:
        """``(n, 4)`` smallest and largest ``y0, x0, y1, x1``; NaN where unknown."""
        found = np.full((len(self), 4), np.nan)
        known = self.is_known()
        if known.any():
            starts = self.offsets[:-1][known]
            found[known, :2] = np.minimum.reduceat(self.vertices, starts, axis=0)
            found[known, 2:] = np.maximum.reduceat(self.vertices, starts, axis=0)
        return found

    def take(self, rows: ArrayLike) -> Outlines:
        """The outlines of these rows, in this order."""
        index = np.asarray(rows)
        index = np.flatnonzero(index) if index.dtype == np.bool_ else index.astype(np.int64)
        sizes = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        at = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][index] - offsets[:-1], sizes)
        return Outlines(self.vertices[at], offsets)
