"""What lies around a nucleus: stain and texture in windows of growing width, and its neighbours.

A pathologist types a nucleus by its company: epithelium lines a lumen, fibroblasts lie in fibres,
lymphocytes crowd. Windows are Gaussian and measured on images reduced by whole blocks, so a wide
one costs less than a narrow one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from nucleoscope.learn.stain import DARKEST, UNMIX

Floats = NDArray[np.float64]
Float32 = NDArray[np.float32]

#: Spreads of the windows in nucleus radii.
WINDOWS = (0.65, 1.5, 3.3, 7.5)
#: Blocks are at most this share of a window's spread.
BLOCK = 0.5
#: Windows are cut off at this many spreads.
CUT = 2.5
#: Optical density below which there is no tissue.
EMPTY = 0.12
#: Images are worked through in squares of this side, in pixels; a multiple of every block.
SQUARE = 2048
#: What the filters before the windows, and reading between blocks, see besides, in pixels.
FILTERS = 24
#: So many neighbours are averaged over.
NEIGHBOURS = (4, 12, 32)
#: Neighbours are counted within so many radii.
WITHIN = (3.3, 6.6, 13.3)
#: Distances to the neighbours of these ranks, and what they are where there are too few, in radii.
RANKS, ALONE = (1, 3, 8), 50.0
#: Columns of `surroundings` and `crowding`, and how often `of_neighbours` repeats its input.
N_SURROUNDINGS, N_CROWDING = 11 * len(WINDOWS), len(RANKS) + len(WITHIN)
N_NEIGHBOURHOODS = len(NEIGHBOURS)


def surroundings(image: NDArray[np.uint8], yx: Floats, radius: float) -> Float32:
    """Stain, texture, fibres and emptiness around places of a stained section.

    Parameters
    ----------
    image
        ``(3, Y, X)`` uint8 or float on 0 to 255: red, green, blue.
    yx
        ``(n, 2)`` centres in pixels.
    radius
        Typical nucleus radius in pixels, the unit of the windows.

    Returns
    -------
    ndarray
        ``(n, 44)`` float32: for each of the four windows the mean of eight planes (optical
        density in three colours, haematoxylin, eosin, share of red and of blue, spots), the
        spread of the density, the share without tissue and the coherence of the fibres.

    Notes
    -----
    Works square by square with as much surround as the widest window sees; 60 bytes per pixel of
    a square.

    Examples
    --------
    >>> surroundings(np.full((3, 40, 40), 200, np.uint8), np.array([[20.0, 20.0]]), 6.0).shape
    (1, 44)
    """
    out = np.zeros((len(yx), N_SURROUNDINGS), dtype=np.float32)
    reach = int(np.ceil(CUT * WINDOWS[-1] * radius)) + FILTERS
    largest = _block(WINDOWS[-1] * radius)
    reach += -reach % largest
    for rows, (y0, x0, y1, x1) in _squares(image.shape[1:], yx, reach):
        out[rows] = _windows(image[:, y0:y1, x0:x1], yx[rows] - (y0, x0), radius)
    return out


def _squares(
    shape: tuple[int, ...], yx: Floats, reach: int
) -> Iterator[tuple[NDArray[np.int64], tuple[int, int, int, int]]]:
    """The nuclei of each square, and the half-open box that they must see."""
    key = np.clip(yx, 0, np.array(shape) - 1).astype(np.int64) // SQUARE
    for row, column in np.unique(key, axis=0).tolist():
        rows = np.flatnonzero((key == (row, column)).all(axis=1))
        y, x = row * SQUARE, column * SQUARE
        yield (
            rows,
            (
                max(0, y - reach), max(0, x - reach),
                min(shape[0], y + SQUARE + reach), min(shape[1], x + SQUARE + reach),
            ),
        )  # fmt: skip


def _block(spread: float) -> int:
    """Side of the blocks for a window: a power of two."""
    return int(2 ** max(0, np.floor(np.log2(max(1.0, BLOCK * spread)))))


def _planes(image: NDArray[np.generic]) -> Float32:
    """``(14, Y, X)``: eight that are averaged, then density, its square, emptiness and slopes."""
    light = np.clip(image.astype(np.float32) / 255, DARKEST, 1)
    density = -np.log(light)
    stains = np.tensordot(UNMIX[:, :2].T, density, 1)
    mean = density.mean(axis=0)
    total = density.sum(axis=0) + 0.15
    spots = np.abs(ndimage.gaussian_laplace(stains[0], 1.5, truncate=3))
    slope_y = ndimage.gaussian_filter(mean, 1.5, order=(1, 0), truncate=CUT)
    slope_x = ndimage.gaussian_filter(mean, 1.5, order=(0, 1), truncate=CUT)
    planes: Float32 = np.stack(
        [
            *density, *stains, density[0] / total, density[2] / total, spots,
            mean, mean**2, mean < EMPTY, slope_y**2, slope_x**2, slope_x * slope_y,
        ]
    ).astype(np.float32)  # fmt: skip
    return planes


def _reduced(planes: Float32, by: int) -> Float32:
    """Means of blocks; at the lower and right edge the last pixels are repeated."""
    n, height, width = planes.shape
    padded = np.pad(planes, ((0, 0), (0, -height % by), (0, -width % by)), mode="edge")
    blocks = padded.reshape(n, padded.shape[1] // by, by, padded.shape[2] // by, by)
    means: Float32 = blocks.mean(axis=(2, 4), dtype=np.float32)
    return means


def _windows(image: NDArray[np.generic], yx: Floats, radius: float) -> Float32:
    planes, done, columns = _planes(image), 1, []
    for share in WINDOWS:
        spread = share * radius
        by = _block(spread)
        if by > done:
            planes, done = _reduced(planes, by // done), by
        places = ((yx + 0.5) / by - 0.5).T
        mean = [
            ndimage.map_coordinates(
                ndimage.gaussian_filter(plane, spread / by, truncate=CUT), places,
                order=1, mode="nearest",
            )
            for plane in planes
        ]  # fmt: skip
        columns += mean[:8]
        columns.append(np.sqrt(np.maximum(mean[9] - mean[8] ** 2, 0)))
        columns.append(mean[10])
        across = np.hypot(mean[11] - mean[12], 2 * mean[13])
        columns.append(across / (mean[11] + mean[12] + 1e-6))
    found: Float32 = np.stack(columns, axis=1).astype(np.float32)
    return found


def crowding(yx: Floats, radius: float) -> Float32:
    """How close neighbours are: ``(n, 6)`` log distances in radii, log counts within radii.

    >>> crowding(np.array([[0.0, 0.0], [0.0, 10.0]]), 5.0)[:, 0].astype(float).round(2).tolist()
    [1.1, 1.1]
    """
    n = len(yx)
    if not n:
        return np.zeros((0, N_CROWDING), dtype=np.float32)
    tree = cKDTree(yx)
    distance = tree.query(yx, k=max(RANKS) + 1)[0] / radius
    distance = np.minimum(distance, ALONE)[:, list(RANKS)]
    counts = [tree.query_ball_point(yx, r * radius, return_length=True) for r in WITHIN]
    found: Float32 = np.concatenate(
        [np.log1p(distance), np.log(np.stack(counts, axis=1))], axis=1
    ).astype(np.float32)
    return found


def of_neighbours(yx: Floats, values: NDArray[np.floating]) -> Float32:
    """Means of values over the nearest 4, 12 and 32 other nuclei, ``(n, 3 F)``; alone: its own.

    >>> of_neighbours(np.array([[0.0, 0], [0, 1]]), np.array([[1.0], [2.0]]))[:, 0].tolist()
    [2.0, 1.0]
    """
    n = len(yx)
    if n < 2:
        return np.tile(values, (1, len(NEIGHBOURS))).astype(np.float32)
    index = cKDTree(yx).query(yx, k=min(n, NEIGHBOURS[-1] + 1))[1]
    # Of nuclei at one place the first found need not be the nucleus itself.
    is_other = index != np.arange(n)[:, None]
    columns = []
    for k in NEIGHBOURS:
        near = is_other[:, : k + 1].astype(np.float32)
        near /= near.sum(axis=1, keepdims=True)
        columns.append(np.einsum("nk,nkf->nf", near, values[index[:, : k + 1]].astype(np.float32)))
    means: Float32 = np.concatenate(columns, axis=1)
    return means
