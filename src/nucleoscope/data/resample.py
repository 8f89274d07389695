"""An image to another pixel size: area filter down, bilinear up, and mirrors beyond the border."""

from __future__ import annotations

from functools import lru_cache

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
    _apply(np.ascontiguousarray(image), rows, wy, columns, wx, out)
    return out
