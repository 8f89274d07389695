"""What the features need to know of every pixel: stains, depth inside a nucleus, its ring.

A frame is one image, or a column of crops of ``height`` rows each that do not see each other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
Bytes = NDArray[np.uint8]

#: Optical density vectors (red, green, blue) of hematoxylin and eosin: Ruifrok & Johnston 2001,
#: Anal Quant Cytol Histol 23, 291. The third direction is their cross product.
HEMATOXYLIN = (0.650, 0.704, 0.286)
EOSIN = (0.072, 0.990, 0.105)
#: Grey levels of the co-occurrence matrix are this wide, in OD; the last one is open.
LEVEL_OD = 0.05
N_LEVELS = 32


class Frame(NamedTuple):
    """Maps of one frame; ``labels`` count the nuclei from 1, 0 is background."""

    labels: Int32s
    hematoxylin: Float32s
    eosin: Float32s
    density: Float32s
    image: Bytes
    height: int
    boxes: Int64s


def optical_density() -> Float32s:
    """OD of each 8-bit value: ``log10(255 / max(value, 1))``, 0 for white.

    >>> optical_density()[[255, 0]].round(3).tolist()
    [0.0, 2.4070000648498535]
    """
    values = np.maximum(np.arange(256), 1)
    return np.log10(255.0 / values).astype(np.float32)


def unmixing() -> Floats:
    """Rows that turn OD of red, green, blue into hematoxylin, eosin and the residual.

    >>> (unmixing() @ np.array(EOSIN)).round(2).tolist()[1]
    1.0
    """
    h = np.array(HEMATOXYLIN) / np.linalg.norm(HEMATOXYLIN)
    e = np.array(EOSIN) / np.linalg.norm(EOSIN)
    rest = np.cross(h, e)
    inverse: Floats = np.linalg.inv(np.stack([h, e, rest / np.linalg.norm(rest)])).T
    return inverse


def make_frame(image: Bytes, labels: Int32s, n: int, height: int) -> Frame:
    """Stains and boxes of ``n`` nuclei; ``image`` is ``(Y, X, 3)``, ``labels`` ``(Y, X)``."""
    density = optical_density()
    hematoxylin, eosin = _stains(image, density, unmixing()[:2])
    return Frame(labels, hematoxylin, eosin, density, image, height, _boxes(labels, n))


@kernel
def _stains(image: Bytes, density: Float32s, mix: Floats) -> tuple[Float32s, Float32s]:
    """Hematoxylin and eosin of every pixel, in OD, negative amounts set to 0."""
    rows, columns = image.shape[:2]
    hematoxylin = np.empty((rows, columns), np.float32)
    eosin = np.empty((rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            r, g, b = density[image[y, x, 0]], density[image[y, x, 1]], density[image[y, x, 2]]
            hematoxylin[y, x] = max(mix[0, 0] * r + mix[0, 1] * g + mix[0, 2] * b, 0.0)
            eosin[y, x] = max(mix[1, 0] * r + mix[1, 1] * g + mix[1, 2] * b, 0.0)
    return hematoxylin, eosin


@kernel
def _boxes(labels: Int32s, n: int) -> Int64s:
    """``(n, 4)`` half-open boxes ``y0, x0, y1, x1``; empty ones for absent labels."""
    boxes = np.zeros((n, 4), np.int64)
    boxes[:, 0] = labels.shape[0]
    boxes[:, 1] = labels.shape[1]
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            i = labels[y, x] - 1
            if i >= 0:
                boxes[i, 0] = min(boxes[i, 0], y)
                boxes[i, 1] = min(boxes[i, 1], x)
                boxes[i, 2] = max(boxes[i, 2], y + 1)
                boxes[i, 3] = max(boxes[i, 3], x + 1)
    return boxes


def ring_of(frame: Frame, reach_px: float) -> Int32s:
    """The nucleus each background pixel within ``reach_px`` is nearest to, otherwise 0.

    Distances are chamfer 3-4 (Borgefors 1986, CVGIP 34, 344), at most 8 % off; a tie goes to
    the smaller label.
    """
    return _ring(frame.labels, frame.height, int(np.floor(3 * reach_px)))


@kernel
def _ring(labels: Int32s, height: int, reach: int) -> Int32s:
    """Two passes that carry distance and label together, as one number."""
    rows, columns = labels.shape
    far = np.int64(reach + 1) << 32
    best = np.empty((rows, columns), np.int64)
    for step in (1, -1):
        for row in range(rows):
            y = row if step == 1 else rows - 1 - row
            edge = 0 if step == 1 else height - 1
            for column in range(columns):
                x = column if step == 1 else columns - 1 - column
                if step == 1:
                    best[y, x] = labels[y, x] if labels[y, x] > 0 else far
                if labels[y, x] > 0:
                    continue
                least = best[y, x]
                if 0 <= x - step < columns:
                    least = min(least, best[y, x - step] + (np.int64(3) << 32))
                if y % height != edge:
                    least = min(least, best[y - step, x] + (np.int64(3) << 32))
                    if x > 0:
                        least = min(least, best[y - step, x - 1] + (np.int64(4) << 32))
                    if x + 1 < columns:
                        least = min(least, best[y - step, x + 1] + (np.int64(4) << 32))
                best[y, x] = least
    owner = np.zeros((rows, columns), np.int32)
    for y in range(rows):
        for x in range(columns):
            if labels[y, x] == 0 and best[y, x] < far:
                owner[y, x] = best[y, x] & np.int64(0xFFFFFFFF)
    return owner


@kernel
def depth_of(labels: Int32s, height: int) -> Int32s:
    """Three times the distance of each pixel of a nucleus to the nearest pixel that is not its own.

    Chamfer 3-4; outside the frame nothing belongs to anybody; 0 in the background.
    """
    rows, columns = labels.shape
    depth = np.zeros((rows, columns), np.int32)
    for step in (1, -1):
        for row in range(rows):
            y = row if step == 1 else rows - 1 - row
            edge = 0 if step == 1 else height - 1
            for column in range(columns):
                x = column if step == 1 else columns - 1 - column
                own = labels[y, x]
                if own == 0:
                    continue
                least = 1 << 30 if step == 1 else int(depth[y, x])
                for dx, weight, ahead in ((-step, 3, 0), (-1, 4, 1), (0, 3, 1), (1, 4, 1)):
                    yy, xx = y - step * ahead, x + dx
                    inside = 0 <= xx < columns and not (ahead == 1 and y % height == edge)
                    if inside and labels[yy, xx] == own:
                        least = min(least, int(depth[yy, xx]) + weight)
                    else:
                        least = min(least, weight)
                depth[y, x] = least
    return depth


def dense(labels: NDArray[Any]) -> tuple[Int32s, Int64s]:
    """Labels counted from 1 in ascending order of ids, and those ids.

    >>> dense(np.array([[0, 9, 4]]))[0].tolist()
    [[0, 2, 1]]
    """
    top = int(labels.max(initial=0))
    if top > 4 * labels.size:  # too sparse to count
        ids, places = np.unique(labels, return_inverse=True)
        first = 0 if ids.size and ids[0] == 0 else 1
        ids = ids[ids > 0]
        return (places.reshape(labels.shape) + first).astype(np.int32), ids.astype(np.int64)
    present = np.bincount(labels.ravel(), minlength=1) > 0
    present[0] = False
    ranks = (np.cumsum(present) * present).astype(np.int32)
    return np.ascontiguousarray(ranks[labels]), np.flatnonzero(present)
