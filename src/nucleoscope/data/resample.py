"""An image to another pixel size: area filter down, bilinear up, and mirrors beyond the border."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel

UInt8s = NDArray[np.uint8]
Floats = NDArray[np.float32]
Int64s = NDArray[np.int64]


def mirrored(start: int, stop: int, size: int) -> Int64s:
    """Indices ``start..stop-1`` of a line of ``size`` pixels that goes on mirrored at its edges.

    The border pixel is repeated (``b a | a b``), so the mirror lies on the pixel's edge and the
    rule is the same on every level of a pyramid.

    >>> mirrored(-2, 5, 3).tolist()
    [1, 0, 0, 1, 2, 2, 1]
    """
    at = np.arange(start, stop, dtype=np.int64) % (2 * size)
    return np.minimum(at, 2 * size - 1 - at)


def gathered(image: UInt8s, rows: Int64s, columns: Int64s) -> UInt8s:
    """Pixels at the crossings of some rows and columns, both as ``mirrored`` gives them.

    The same as ``image[rows[:, None], columns]``, but copied in the few rectangles between mirrors
    instead of pixel by pixel.

    >>> image = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> gathered(image, mirrored(-1, 2, 2), mirrored(1, 5, 3)).tolist()
    [[1, 2, 2, 1], [1, 2, 2, 1], [4, 5, 5, 4]]
    """
    out = np.empty((len(rows), len(columns), *image.shape[2:]), dtype=image.dtype)
    across = _runs(columns)
    for down, source in _runs(rows):
        band = image[source]
        for right, taken in across:
            out[down, right] = band[:, taken]
    return out


def _runs(at: Int64s) -> list[tuple[slice, slice]]:
    """Where to put and where to take each stretch between two mirrors."""
    cuts = [0, *(np.flatnonzero(np.diff(at) == 0) + 1).tolist(), len(at)] if len(at) else []
    found = []
    for low, high in pairwise(cuts):
        first, last = int(at[low]), int(at[high - 1])
        if first <= last:
            found.append((slice(low, high), slice(first, last + 1)))
        else:
            found.append((slice(low, high), slice(first, last - 1 if last else None, -1)))
    return found


@lru_cache(maxsize=64)
def _weights(size: int, start: float, step: float, n: int) -> tuple[Int64s, Floats]:
    """First source pixel ``(n,)`` and weights ``(n, taps)`` of each of ``n`` output pixels.

    Output pixel ``i`` covers ``[start + i step, start + (i + 1) step)`` of the source, whose pixel
    ``k`` covers ``[k, k + 1)``. With ``step > 1`` a source pixel weighs what of it is covered;
    otherwise the two nearest centres weigh linearly.
    """
    low = start + step * np.arange(n)
    if step > 1.0:
        first = np.floor(low + 1e-9)
        taps = int(np.ceil(step)) + 1
        k = first[:, None] + np.arange(taps)
        weights = np.clip(np.minimum(k + 1, (low + step)[:, None]) - np.maximum(k, low[:, None]),
                          0.0, None)  # fmt: skip
    else:
        centre = low + step / 2 - 0.5
        first = np.floor(centre + 1e-9)
        part = np.clip(centre - first, 0.0, 1.0)
        weights = np.stack([1.0 - part, part], axis=1)
    taps = weights.shape[1]
    # Weights beyond the source go to its border pixel.
    at = np.clip(first[:, None] + np.arange(taps), 0, size - 1).astype(np.int64)
    moved = np.minimum(at[:, 0], max(size - taps, 0))
    inside = np.zeros((n, min(taps, size)))
    np.add.at(inside, (np.arange(n)[:, None], at - moved[:, None]), weights)
    inside /= inside.sum(axis=1, keepdims=True)
    return moved, inside.astype(np.float32)


@kernel
def _apply(
    source: UInt8s, rows: Int64s, wy: Floats, columns: Int64s, wx: Floats, out: UInt8s
) -> None:
    """Weigh rows, then columns: ``source (Y, X, C)`` to ``out (h, w, C)``, rounded to nearest."""
    _, width, depth = source.shape
    line = np.empty(width * depth, np.float32)
    for i in range(out.shape[0]):
        line[:] = 0.0
        for k in range(wy.shape[1]):
            weight = wy[i, k]
            if weight != 0.0:
                row = source[rows[i] + k].reshape(-1)
                for x in range(line.size):
                    line[x] += weight * np.float32(row[x])
        for j in range(out.shape[1]):
            for c in range(depth):
                total = np.float32(0.0)
                for k in range(wx.shape[1]):
                    total += wx[j, k] * line[(columns[j] + k) * depth + c]
                out[i, j, c] = np.uint8(min(np.float32(255.0), total + np.float32(0.5)))


@kernel
def _apply_two(
    source: UInt8s, rows: Int64s, wy: Floats, columns: Int64s, wx: Floats, out: UInt8s
) -> None:
    """The same where two pixels are weighed along either axis, as in growing: without the loops."""
    _, width, depth = source.shape
    line = np.empty(width * depth, np.float32)
    for i in range(out.shape[0]):
        above, below = source[rows[i]].reshape(-1), source[rows[i] + 1].reshape(-1)
        upper, lower = wy[i, 0], wy[i, 1]
        for x in range(line.size):
            line[x] = upper * np.float32(above[x]) + lower * np.float32(below[x])
        for j in range(out.shape[1]):
            at = columns[j] * depth
            left, right = wx[j, 0], wx[j, 1]
            for c in range(depth):
                total = left * line[at + c] + right * line[at + depth + c]
                out[i, j, c] = np.uint8(min(np.float32(255.0), total + np.float32(0.5)))


def resample(
    image: UInt8s, shape: tuple[int, int], *, box: tuple[float, float, float, float] | None = None
) -> UInt8s:
    """An image at another size: each axis shrinks by area weights and grows bilinearly.

    Parameters
    ----------
    image
        ``(Y, X, C)`` uint8, contiguous.
    shape
        Rows and columns wanted.
    box
        ``(y0, x0, y1, x1)`` of the image to take, in its pixels, edges as numbers: pixel ``k``
        covers ``[k, k + 1)``. Default all of it.

    Returns
    -------
    ``(h, w, C)`` uint8; the image itself where nothing changes.

    Examples
    --------
    >>> image = np.arange(16, dtype=np.uint8).reshape(4, 4, 1)
    >>> resample(image, (2, 2))[..., 0].tolist()
    [[3, 5], [11, 13]]
    """
    height, width = image.shape[:2]
    y0, x0, y1, x1 = box or (0.0, 0.0, float(height), float(width))
    h, w = shape
    if (y0, x0, y1, x1) == (0, 0, h, w) == (0, 0, height, width):
        return image
    rows, wy = _weights(height, y0, (y1 - y0) / h, h)
    columns, wx = _weights(width, x0, (x1 - x0) / w, w)
    out = np.empty((h, w, image.shape[2]), dtype=np.uint8)
    weigh = _apply_two if wy.shape[1] == wx.shape[1] == 2 else _apply
    weigh(np.ascontiguousarray(image), rows, wy, columns, wx, out)
    return out
