"""Crops of nuclei from a slide, region by region along a space-filling curve.

The slide is cut into squares of 1024 pixels of 0.25 um. Each square that holds a nucleus is read
once for each field, with a rim, and all its crops are cut from there; a crop depends on nothing but
its nucleus. The squares follow Hilbert's curve (Hilbert 1891, Math Ann 38, 459), so that crops
that lie near each other in the store lie near each other on the slide.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.crops import CONTEXT_MPP, MORPHOLOGY_MPP, SIDE
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.slide import Box, Slide
from nucleoscope.errors import InputError
from nucleoscope.jit import kernel

UInt8s = NDArray[np.uint8]
Int64s = NDArray[np.int64]
Floats = NDArray[np.float64]

#: Side of a square in pixels of the morphology field.
BLOCK = 1024
_CELLS = 16  # finer cells within a square, for the order of its nuclei


class CropBlock(NamedTuple):
    """The crops of one square.

    ``rows`` ``(k,)`` are rows of the nuclei given; ``morphology`` and ``context``
    ``(k, 64, 64, 3)``, ``mask`` ``(k, 64, 64)``, ``border`` ``(k,)`` as in ``CropStore``.
    """

    rows: Int64s
    morphology: UInt8s
    context: UInt8s
    mask: UInt8s
    border: NDArray[np.bool_]


# Order ------------------------------------------------------------------------------------------


def hilbert(y: Int64s, x: Int64s) -> Int64s:
    """Position of each cell on Hilbert's curve through a square of a power of two.

    Parameters
    ----------
    y, x
        ``(n,)`` cells, not negative, below 2**31.

    Examples
    --------
    >>> hilbert(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])).tolist()
    [0, 1, 2, 3]
    """
    y, x = np.array(y, dtype=np.int64), np.array(x, dtype=np.int64)
    distance = np.zeros(y.shape, dtype=np.int64)
    highest = int(max(y.max(initial=0), x.max(initial=0)))
    # An even number of bits: the curve of a larger square then begins with that of a smaller one.
    bits = highest.bit_length() + highest.bit_length() % 2
    for bit in reversed(range(bits)):
        side = np.int64(1) << bit
        right, up = (x & side) > 0, (y & side) > 0
        distance += side * side * ((3 * right) ^ up)
        flip = right & ~up
        x, y = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
        x, y = np.where(up, x, y), np.where(up, y, x)
        x, y = x & (side - 1), y & (side - 1)
    return distance


def _squares(slide: Slide, nuclei: Nuclei) -> Iterator[tuple[tuple[int, int], Int64s]]:
    """Row and column of each square with nuclei, and their rows, along the curve."""
    side = _side(slide)
    yx = _centres(nuclei) + 0.5
    cells = np.floor(yx * (_CELLS / side)).astype(np.int64).clip(0)
    order = np.argsort(hilbert(cells[:, 0], cells[:, 1]), kind="stable")
    square = cells[order] // _CELLS
    cuts = np.flatnonzero((square[1:] != square[:-1]).any(axis=1)) + 1
    for rows in np.split(order, cuts):
        if rows.size:
            row, column = cells[rows[0]] // _CELLS
            yield (int(row), int(column)), rows


def _centres(nuclei: Nuclei, rows: Int64s | slice = slice(None)) -> Floats:
    """Centroids ``(k, 2)`` of some nuclei; the others' are not copied."""
    frame = nuclei.table.frame
    return np.stack([frame[axis].to_numpy(dtype=np.float64)[rows] for axis in ("y", "x")], axis=1)


def _side(slide: Slide) -> int:
    """Side of a square in pixels of level 0."""
    return max(1, round(BLOCK * MORPHOLOGY_MPP / slide.known_mpp()))


# Regions ----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Region:
    """A square with its rim at the scale of one field."""

    pixels: UInt8s
    origin: tuple[int, int]
    step: tuple[float, float]  # level-0 pixels per pixel

    @classmethod
    def read(cls, slide: Slide, square: tuple[int, int], mpp: float) -> _Region:
        ratio = mpp / slide.known_mpp()
        # Whole pixels of a level that is coarser by a whole number, so that it is read as it is.
        unit = max(1, round(ratio))
        rim = math.ceil((SIDE / 2 + 2) * ratio / unit) * unit
        low, high = [], []
        for at, size in zip(square, slide.shape, strict=True):
            first = at * _side(slide)
            length = min(_side(slide), size - first)
            low.append(first - rim)
            high.append(first + math.ceil(length / unit) * unit + rim)
        box: Box = (low[0], low[1], high[0], high[1])
        pixels = slide.read(box, mpp=mpp)
        step = ((box[2] - box[0]) / pixels.shape[0], (box[3] - box[1]) / pixels.shape[1])
        return cls(pixels, box[:2], step)

    def corners(self, yx: Floats) -> Int64s:
        """First row and column ``(k, 2)`` of the field around each centre ``(k, 2)``."""
        at = (yx + 0.5 - np.array(self.origin)) / np.array(self.step) - SIDE / 2
        most = np.array(self.pixels.shape[:2]) - SIDE
        corners: Int64s = np.clip(np.rint(at).astype(np.int64), 0, most)
        return corners

    def cut(self, corners: Int64s) -> UInt8s:
        """The fields ``(k, 64, 64, 3)``."""
        out = np.empty((len(corners), SIDE, SIDE, 3), dtype=np.uint8)
        for i, (y, x) in enumerate(corners.tolist()):
            out[i] = self.pixels[y : y + SIDE, x : x + SIDE]
        return out

    def origins(self, corners: Int64s) -> Floats:
        """Level-0 coordinates ``(k, 2)`` of the edge at which each field begins."""
        found: Floats = np.array(self.origin) + corners * np.array(self.step)
        return found


# Outlines ---------------------------------------------------------------------------------------


@kernel
def _fill(
    vertices: Floats, first: Int64s, last: Int64s, origins: Floats, step: Floats, out: UInt8s
) -> None:
    """Set the pixels whose centre is inside polygon ``first[i]..last[i]`` (even-odd rule)."""
    side = out.shape[1]
    for i in range(out.shape[0]):
        for v in range(first[i], last[i]):
            w = v + 1 if v + 1 < last[i] else first[i]
            y0 = (vertices[v, 0] + 0.5 - origins[i, 0]) / step[0] - 0.5
            x0 = (vertices[v, 1] + 0.5 - origins[i, 1]) / step[1] - 0.5
            y1 = (vertices[w, 0] + 0.5 - origins[i, 0]) / step[0] - 0.5
            x1 = (vertices[w, 1] + 0.5 - origins[i, 1]) / step[1] - 0.5
            top = max(0, math.ceil(min(y0, y1)))
            bottom = min(side, math.ceil(max(y0, y1)))
            for row in range(top, bottom):
                at = math.ceil(x0 + (row - y0) * (x1 - x0) / (y1 - y0))
                if at < side:
                    out[i, row, max(0, at)] ^= 1
        for row in range(side):
            inside = np.uint8(0)
            for column in range(side):
                inside ^= out[i, row, column]
                out[i, row, column] = inside


@kernel
def _pick(
    labels: NDArray[np.int32], ids: Int64s, origins: Floats, step: Floats, out: UInt8s
) -> None:
    """Set the pixels whose nearest pixel of the instance map has the nucleus's id."""
    height, width = labels.shape
    side = out.shape[1]
    for i in range(out.shape[0]):
        for row in range(side):
            y = math.floor(origins[i, 0] + (row + 0.5) * step[0])
            if 0 <= y < height:
                for column in range(side):
                    x = math.floor(origins[i, 1] + (column + 0.5) * step[1])
                    if 0 <= x < width and labels[y, x] == ids[i]:
                        out[i, row, column] = 1


def _masks(nuclei: Nuclei, rows: Int64s, origins: Floats, step: tuple[float, float]) -> UInt8s:
    """Outline or instance-map pixels of each nucleus in its field; zeros where neither is known."""
    out = np.zeros((len(rows), SIDE, SIDE), dtype=np.uint8)
    steps = np.array(step, dtype=np.float64)
    if nuclei.outlines is not None:
        offsets = nuclei.outlines.offsets
        _fill(nuclei.outlines.vertices, offsets[rows], offsets[rows + 1], origins, steps, out)
    elif nuclei.labels is not None:
        ids = nuclei.table.frame["id"].to_numpy()[rows]
        _pick(nuclei.labels.data[0], ids, origins, steps, out)
    return out


# Crops ------------------------------------------------------------------------------------------


def check_inside(slide: Slide, nuclei: Nuclei) -> None:
    """Raise InputError when a nucleus lies outside the slide, or its map has another size."""
    yx = _centres(nuclei)
    limits = np.array(slide.shape, dtype=np.float64)
    outside = ((yx < -1.0) | (yx > limits)).any(axis=1)
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        swapped = not ((yx[:, ::-1] < -1.0) | (yx[:, ::-1] > limits)).any()
        hint = (
            "all would fit with y and x swapped"
            if swapped
            else "check that they belong to this slide and are in its full-resolution pixels"
        )
        raise InputError(
            f"{slide.name}: {int(outside.sum())} of {len(nuclei)} nuclei lie outside its "
            f"{slide.shape[0]} x {slide.shape[1]} pixels (first: row {first + 1}, "
            f"y={yx[first, 0]:g} x={yx[first, 1]:g}); {hint}."
        )
    if nuclei.labels is not None and nuclei.outlines is None:
        shape = nuclei.labels.shape
        if shape != (1, *slide.shape):
            raise InputError(
                f"{slide.name}: the slide has {slide.shape[0]} x {slide.shape[1]} pixels and its "
                f"instance map {' x '.join(map(str, shape))}; give the map of full resolution."
            )


def crop_blocks(slide: Slide, nuclei: Nuclei) -> Iterator[CropBlock]:
    """Cut the morphology and the context field of every nucleus, square by square.

    Parameters
    ----------
    slide
        With a known ``mpp``.
    nuclei
        Their outlines give the masks; without outlines their instance map does.

    Yields
    ------
    CropBlock
        All nuclei once, in the order of the curve.

    Raises
    ------
    InputError
        ``mpp`` unknown, or a nucleus outside the slide.

    Notes
    -----
    Morphology: 64 x 64 pixels of 0.25 um; context: 64 x 64 of 1 um; both centred on the pixel
    nearest to the centroid, by area average from finer and bilinear from coarser pixels, mirrored
    beyond the slide's border. Memory: two squares (about 4 MB each) and a square's crops; the
    next square is read while one is cut.

    Examples
    --------
    >>> import pandas as pd
    >>> from nucleoscope.data.table import NucleusTable
    >>> slide = Slide.from_array(np.full((300, 300, 3), 200, np.uint8), mpp=0.5)
    >>> table = NucleusTable(pd.DataFrame({"id": [1], "y": [20.0], "x": [150.0]}))
    >>> block = next(crop_blocks(slide, Nuclei(table)))
    >>> block.morphology.shape, block.border.tolist()
    ((1, 64, 64, 3), [True])
    """
    slide.known_mpp()
    check_inside(slide, nuclei)

    def load(square: tuple[int, int]) -> tuple[_Region, _Region]:
        return (
            _Region.read(slide, square, MORPHOLOGY_MPP),
            _Region.read(slide, square, CONTEXT_MPP),
        )

    with ThreadPoolExecutor(1, thread_name_prefix="squares") as ahead:
        pending: tuple[Int64s, Any] | None = None
        for square, rows in _squares(slide, nuclei):
            job = ahead.submit(load, square)
            if pending is not None:
                yield _cut(slide, nuclei, pending[0], *pending[1].result())
            pending = rows, job
        if pending is not None:
            yield _cut(slide, nuclei, pending[0], *pending[1].result())


def _cut(
    slide: Slide, nuclei: Nuclei, rows: Int64s, morphology: _Region, context: _Region
) -> CropBlock:
    """The crops of one square."""
    yx = _centres(nuclei, rows)
    corners, wide = morphology.corners(yx), context.corners(yx)
    mask = _masks(nuclei, rows, morphology.origins(corners), morphology.step)
    low = context.origins(wide)
    high = low + SIDE * np.array(context.step)
    border = ((low < 0) | (high > np.array(slide.shape))).any(axis=1)
    return CropBlock(rows, morphology.cut(corners), context.cut(wide), mask, border)
