"""Where each nucleus is, how large it is, and its outline; from an instance map to the table."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel
from nucleoscope.nuclei.runs import Runs, find_runs
from nucleoscope.units import Spacing

Floats = NDArray[np.float64]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]


class IdRuns(NamedTuple):
    """An instance map as runs: ``ids`` ascending, ``ids[owner[i]]`` is the id of run ``i``.

    The rows of a ``(Z, Y, X)`` map are counted through its slices: row ``z * Y + y``.
    """

    runs: Runs
    owner: Int64s
    ids: Int64s

    @classmethod
    def of(cls, image: NDArray[Any]) -> IdRuns:
        """The runs of a ``(Y, X)`` or ``(Z, Y, X)`` instance map; ids are 1 to 2**31 - 1."""
        if image.dtype != np.int32:
            if image.size and int(image.max()) > np.iinfo(np.int32).max:
                raise InputError(f"an id of {int(image.max())} does not fit int32; relabel.")
            image = image.astype(np.int32)
        flat = np.ascontiguousarray(image).reshape(math.prod(image.shape[:-1]), image.shape[-1])
        runs = find_runs(flat)
        values = flat[runs.rows(), runs.start]
        if values.size and values.min() < 0:
            raise InputError(f"an instance map has no negative ids; found {values.min()}.")
        return cls(runs, *_ranked(values))


def _ranked(values: Int32s) -> tuple[Int64s, Int64s]:
    """Rank of each value among the distinct ones, and those, ascending."""
    if values.size and values.max() > 4 * values.size:  # too sparse to count
        ids, owner = np.unique(values, return_inverse=True)
        return owner.astype(np.int64), ids.astype(np.int64)
    is_there = np.bincount(values) > 0
    return (np.cumsum(is_there) - 1)[values], np.flatnonzero(is_there).astype(np.int64)


class Extents(NamedTuple):
    """One entry per nucleus, ids ascending; coordinates in pixels, first pixel's centre = 0.

    ``size`` counts pixels or voxels, ``z, y, x`` is the centroid, ``low`` and ``high`` are the
    half-open box as ``(n, 3)`` in ``z, y, x``, ``n_slices`` counts the slices that hold it.
    """

    ids: Int64s
    size: Int64s
    z: Floats
    y: Floats
    x: Floats
    low: Int64s
    high: Int64s
    n_slices: Int64s


def extents(image: NDArray[Any], *, origin: tuple[int, int] = (0, 0)) -> Extents:
    """Size, centroid, box and number of slices of every nucleus, in one pass over the runs.

    Parameters
    ----------
    image
        ``(Y, X)`` or ``(Z, Y, X)`` instance map, any ids.
    origin
        Row and column of its first pixel in the whole image. Sums are exact integers, so a
        nucleus has the same centroid, bit for bit, in every tile that holds all of it.

    Examples
    --------
    >>> found = extents(np.array([[0, 5, 5], [0, 5, 5]], dtype=np.int32))
    >>> found.ids.tolist(), found.y.tolist(), found.x.tolist(), found.size.tolist()
    ([5], [0.5], [1.5], [4])
    """
    height = max(image.shape[-2], 1)
    runs, owner, ids = IdRuns.of(image)
    n, rows, length = ids.size, runs.rows(), runs.lengths()
    z, y = rows // height, rows % height + origin[0]
    start, stop = runs.start + np.int64(origin[1]), runs.stop + np.int64(origin[1])

    def total(weights: NDArray[Any]) -> Floats:
        sums = np.bincount(owner, weights=weights.astype(np.float64), minlength=n)
        return sums.astype(np.float64)

    size = total(length)
    low = np.full((n, 3), np.iinfo(np.int64).max)
    high = np.zeros((n, 3), dtype=np.int64)
    for axis, (first, last) in enumerate(((z, z + 1), (y, y + 1), (start, stop))):
        np.minimum.at(low[:, axis], owner, first)
        np.maximum.at(high[:, axis], owner, last)
    depth = int(z.max()) + 1 if z.size else 1
    slices = np.unique(owner * depth + z) // depth
    return Extents(
        ids, size.astype(np.int64), total(length * z) / size, total(length * y) / size,
        total(length * (start + stop - 1)) / (2 * size), low, high,
        np.bincount(slices, minlength=n),
    )  # fmt: skip


def measure(
    labels: Labels,
    *,
    volume: Volume | None = None,
    image: str = "",
    scores: ArrayLike | None = None,
) -> NucleusTable:
    """One row per nucleus, ids ascending and as they are in the map.

    Parameters
    ----------
    labels
        Instance map; its ``spacing`` (or the volume's) gives the micrometres.
    volume
        The image it was made from: gives the name, the scale, and whether it is 2D. Without
        it a map of one slice is taken for 2D, and its ``z`` is empty.
    image
        Value of the ``image`` column; default the volume's name.
    scores
        Detection probability of each nucleus, in ascending order of ids; default 1.

    Returns
    -------
    Columns ``id, image, z, y, x, z_min, z_max, n_slices, score, type, type_prob``, then
    ``z_um, y_um, x_um`` and ``area_um2`` (2D) or ``volume_um3``; ``area_px`` or ``volume_px``
    instead where the scale is unknown.

    Raises
    ------
    InputError
        Volume and instance map differ in shape.
    CallError
        Not one score per nucleus.

    Examples
    --------
    >>> data = np.zeros((1, 4, 4), dtype=np.int32)
    >>> data[0, 1:3, 1:3] = 7
    >>> measure(Labels(data, (1.0, 0.5, 0.5))).frame[["id", "y", "x_um", "area_um2"]].values
    array([[7.  , 1.5 , 0.75, 1.  ]])
    """
    if volume is not None and volume.shape != labels.shape:
        raise InputError(
            f"{volume.name}: the image is {volume.shape} but its instance map is {labels.shape}."
        )
    is_2d = labels.shape[0] == 1 if volume is None else volume.is_2d
    spacing = labels.spacing or (volume.spacing if volume is not None else None)
    found = extents(labels.data)
    score = np.ones(found.ids.size) if scores is None else np.asarray(scores, dtype=np.float64)
    if score.shape != found.ids.shape:
        raise CallError(f"scores: {score.size} given for {found.ids.size} nuclei.")
    columns: dict[str, Any] = {
        "id": found.ids,
        "image": image or (volume.name if volume is not None else ""),
        "z": np.nan if is_2d else found.z,
        "y": found.y,
        "x": found.x,
        "z_min": found.low[:, 0],
        "z_max": found.high[:, 0] - 1,
        "n_slices": found.n_slices,
        "score": score,
    }
    columns |= _physical(found, spacing, is_2d)
    return NucleusTable(pd.DataFrame(columns))


def _physical(found: Extents, spacing: Spacing | None, is_2d: bool) -> dict[str, Floats]:
    """The columns that carry a unit."""
    size = found.size.astype(np.float64)
    if spacing is None:
        return {"area_px" if is_2d else "volume_px": size}
    sz, sy, sx = spacing
    place: dict[str, Floats] = {"y_um": found.y * sy, "x_um": found.x * sx}
    if is_2d:
        return place | {"area_um2": size * (sy * sx)}
    return {"z_um": found.z * sz} | place | {"volume_um3": size * (sz * sy * sx)}


class Contours(NamedTuple):
    """Outlines: that of ``ids[i]`` is ``x, y`` from ``offsets[i]`` to ``offsets[i + 1]``.

    Rings run along pixel edges (half-integer coordinates), clockwise on screen, only corners,
    not closed; so a ring's area is its pixels and a single pixel has four corners.
    """

    ids: Int64s
    x: Floats
    y: Floats
    offsets: Int64s


def contours(labels: NDArray[Any]) -> Contours:
    """Trace the outer outline of every nucleus of a ``(Y, X)`` instance map.

    Of a nucleus in several 4-connected pieces the largest piece is traced; holes are not.
    Every ring is a simple polygon.

    Examples
    --------
    >>> outline = contours(np.array([[0, 3, 3]], dtype=np.int32))
    >>> outline.x.tolist(), outline.y.tolist()
    ([0.5, 2.5, 2.5, 0.5], [-0.5, -0.5, 0.5, 0.5])
    """
    runs, nucleus, ids = IdRuns.of(labels)
    part, n = runs.components(nucleus.astype(np.int32))
    pieces = np.zeros(labels.shape, dtype=np.int32)
    runs.paint(pieces, (part + 1).astype(np.int32))
    first_run = np.unique(part, return_index=True)[1]  # holds the piece's top left pixel
    area = np.bincount(part, weights=runs.lengths(), minlength=n)
    owner = nucleus[first_run]
    order = np.lexsort((np.arange(n), -area, owner))
    chosen = first_run[order[np.unique(owner[order], return_index=True)[1]]]
    return Contours(ids, *_trace_all(pieces, runs.rows()[chosen], runs.start[chosen]))


@kernel
def _trace_all(pieces: Int32s, rows: Int64s, columns: Int32s) -> tuple[Floats, Floats, Int64s]:
    """Trace each piece twice: once to count corners, once to keep them."""
    nothing = np.empty(0, np.float64)
    offsets = np.zeros(rows.size + 1, np.int64)
    for i in range(rows.size):
        offsets[i + 1] = offsets[i] + _trace(pieces, rows[i], columns[i], nothing, nothing)
    x, y = np.empty(offsets[-1], np.float64), np.empty(offsets[-1], np.float64)
    for i in range(rows.size):
        here = slice(offsets[i], offsets[i + 1])
        _trace(pieces, rows[i], columns[i], x[here], y[here])
    return x, y, offsets


@kernel
def _trace(pieces: Int32s, row: int, column: int, xs: Floats, ys: Floats) -> int:
    """Walk pixel edges with the piece on the right, from its first pixel; number of corners.

    At a corner where the piece touches itself diagonally, crossing over keeps the ring simple,
    because a 4-connected piece encloses one of the two other pixels there.
    """
    piece = pieces[row, column]
    y, x, dy, dx = row, column, 0, 1  # a corner, and the heading: first to the right
    n = 0
    while True:
        if n < xs.size:
            xs[n], ys[n] = x - 0.5, y - 0.5
        n += 1
        turned = False
        while not turned:
            y, x = y + dy, x + dx
            if _is_piece(pieces, y + (dy - dx - 1) // 2, x + (dx + dy - 1) // 2, piece):
                dy, dx = -dx, dy  # the pixel ahead on the left belongs to it
                turned = True
            elif not _is_piece(pieces, y + (dy + dx - 1) // 2, x + (dx - dy - 1) // 2, piece):
                dy, dx = dx, -dy
                turned = True
        if y == row and x == column:
            return n


@kernel
def _is_piece(pieces: Int32s, y: int, x: int, piece: int) -> bool:
    """Whether a pixel, which may lie outside, belongs to the piece."""
    height, width = pieces.shape
    return bool(0 <= y < height and 0 <= x < width and pieces[y, x] == piece)
