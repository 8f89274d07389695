"""Tiles of a plane, and instances glued across them: every nucleus has exactly one owner.

A tile owns a nucleus when its half-open core holds the nucleus's centroid, and it sees a halo
beyond its core. If no nucleus is larger than the halo, its owner sees all of it and nobody
else owns it, so the glued map equals the one decoded in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei.measure import Extents, extents

Box = tuple[int, int, int, int]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]

#: What ``merge`` does with a nucleus that its tile sees only in part.
OnCut = Literal["raise", "keep"]


@dataclass(frozen=True)
class Tile:
    """A core, the halo around it, and the plane both lie in.

    Parameters
    ----------
    core
        ``(y0, x0, y1, x1)``, half-open: what the tile answers for.
    halo
        ``(y0, x0, y1, x1)``, half-open: what it sees; holds the core, within the plane.
    shape
        Rows and columns of the plane.
    """

    core: Box
    halo: Box
    shape: tuple[int, int]

    @property
    def view(self) -> tuple[slice, slice]:
        """Index of what the tile sees, ``plane[tile.view]``."""
        y0, x0, y1, x1 = self.halo
        return slice(y0, y1), slice(x0, x1)

    @property
    def is_inner(self) -> tuple[bool, bool, bool, bool]:
        """Whether the plane goes on beyond the top, left, bottom and right of the halo."""
        y0, x0, y1, x1 = self.halo
        return y0 > 0, x0 > 0, y1 < self.shape[0], x1 < self.shape[1]


def cover(shape: tuple[int, int], tile: int, halo: int) -> list[Tile]:
    """Tiles whose cores cover a plane without overlap, in raster order.

    Parameters
    ----------
    shape
        Rows and columns of the plane.
    tile
        Side of a core in pixels; those at the far borders may be smaller.
    halo
        Pixels seen beyond the core, cut at the plane's border; at least the largest nucleus.

    Raises
    ------
    CallError
        ``tile`` below 1 or ``halo`` below 0.

    Examples
    --------
    >>> [t.core for t in cover((5, 4), 4, 1)], cover((5, 4), 4, 1)[1].halo
    ([(0, 0, 4, 4), (4, 0, 5, 4)], (3, 0, 5, 4))
    """
    if tile < 1 or halo < 0:
        raise CallError(f"a tile is 1 pixel or more and a halo 0 or more; found {tile}, {halo}.")
    height, width = shape
    tiles = []
    for y0 in range(0, height, tile):
        for x0 in range(0, width, tile):
            y1, x1 = min(y0 + tile, height), min(x0 + tile, width)
            seen = (max(0, y0 - halo), max(0, x0 - halo), min(height, y1 + halo),
                    min(width, x1 + halo))  # fmt: skip
            tiles.append(Tile((y0, x0, y1, x1), seen, (height, width)))
    return tiles


def owns(tile: Tile, y: ArrayLike, x: ArrayLike) -> NDArray[np.bool_]:
    """Whether anchors (in pixels of the plane) lie in the tile's half-open core.

    >>> left, right = cover((4, 8), 4, 2)
    >>> owns(left, [1.0, 1.0], [3.5, 4.0]).tolist(), owns(right, 1.0, 4.0).tolist()
    ([True, False], True)
    """
    y0, x0, y1, x1 = tile.core
    ys, xs = np.asarray(y, dtype=np.float64), np.asarray(x, dtype=np.float64)
    return np.asarray((ys >= y0) & (ys < y1) & (xs >= x0) & (xs < x1))


def owned(tile: Tile, labels: NDArray[Any], *, on_cut: OnCut = "raise") -> Int64s:
    """Ids of the nuclei of a tile's instance map that the tile owns, ascending.

    Parameters
    ----------
    tile
        Where the map lies.
    labels
        Instance map of what the tile sees.
    on_cut
        ``"raise"`` when a nucleus reaches from the core past the halo, so that no tile sees all
        of it; ``"keep"`` to take what its owner sees.

    Raises
    ------
    InputError
        The map is not of the halo's size, or a nucleus exceeds the halo.
    """
    y0, x0, y1, x1 = tile.halo
    if labels.shape != (y1 - y0, x1 - x0):
        raise InputError(
            f"the tile at {tile.halo} is {(y1 - y0, x1 - x0)}; its instance map is {labels.shape}."
        )
    found = extents(labels, origin=(y0, x0))
    mine = owns(tile, found.y, found.x)
    if on_cut == "raise":
        _refuse_cut(tile, found, mine)
    return found.ids[mine]


def _refuse_cut(tile: Tile, found: Extents, mine: NDArray[np.bool_]) -> None:
    """Raise for the first nucleus that concerns the core and is cut by the halo."""
    low, high = found.low[:, 1:], found.high[:, 1:]
    inner = np.array(tile.is_inner)
    touches = np.concatenate([low == tile.halo[:2], high == tile.halo[2:]], axis=1)
    reaches = ((high > tile.core[:2]) & (low < tile.core[2:])).all(axis=1)
    cut = (touches & inner).any(axis=1) & (mine | reaches)
    if cut.any():
        i = int(np.flatnonzero(cut)[0])
        size = int((high[i] - low[i]).max())
        raise InputError(
            f"the nucleus at y {found.y[i]:.0f}, x {found.x[i]:.0f} is {size} pixels or more and "
            f"exceeds the halo of its tile {tile.core}; give a larger halo."
        )


def merge(
    shape: tuple[int, int], pieces: Iterable[tuple[Tile, NDArray[Any]]], *, on_cut: OnCut = "raise"
) -> Int32s:
    """Glue the instance maps of tiles to one.

    Parameters
    ----------
    shape
        Rows and columns of the plane.
    pieces
        Each tile with the instance map of what it sees; any ids. Only the nuclei it owns are
        taken, whole; where two tiles disagree about a pixel, the earlier piece keeps it.
    on_cut
        As in ``owned``.

    Returns
    -------
    ``(Y, X)`` int32, ids 1..n in the order of the pieces, within a piece in that of
    ``owned(tile, piece)``.

    Raises
    ------
    InputError
        A map is not of its halo's size, or a nucleus exceeds the halo.

    Examples
    --------
    >>> whole = np.array([[0, 4, 4, 0, 9, 9]], dtype=np.int32)
    >>> tiles = cover(whole.shape, 3, 2)
    >>> merge(whole.shape, [(t, whole[t.view]) for t in tiles]).tolist()
    [[0, 1, 1, 0, 2, 2]]
    """
    out = np.zeros(shape, dtype=np.int32)
    n = 0
    for tile, labels in pieces:
        ids = owned(tile, labels, on_cut=on_cut)
        found, at = np.unique(labels, return_inverse=True)
        number = np.zeros(found.size, dtype=np.int32)
        number[np.searchsorted(found, ids)] = n + 1 + np.arange(ids.size)
        new = number[at].reshape(labels.shape)
        there = out[tile.view]
        np.copyto(there, new, where=(new > 0) & (there == 0))
        n += ids.size
    return out
