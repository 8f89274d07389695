"""In which slices each nucleus is present."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError
from nucleoscope.jit import kernel
from nucleoscope.supervision.project import runs

#: A slice counts when it holds this share of the nucleus's largest section, and this many pixels.
MIN_SHARE, MIN_AREA = 0.15, 2

SETTINGS = ("default", "paper")


def check_setting(setting: str) -> str:
    """Return ``setting`` if it is one of the two there are, else raise CallError.

    >>> check_setting("paper")
    'paper'
    """
    if setting not in SETTINGS:
        raise CallError(f"no setting {setting!r}; there are {', '.join(SETTINGS)}.")
    return setting


@kernel
def _areas_plane(
    foreground: NDArray[np.uint8], cells: NDArray[np.int32], areas: NDArray[np.int64]
) -> None:
    """Add to ``areas[cell, z]`` the foreground pixels of every run of equal cell.

    Eight slices are packed in the bits of a byte, then counted at once in the eight bytes of a
    word, each of which holds up to 255.
    """
    n_z, n_y, n_x = foreground.shape
    start = np.empty(n_x + 1, np.int64)
    packed, upto = np.empty(n_x, np.uint8), np.zeros(n_x + 1, np.uint64)
    spread = np.zeros(256, np.uint64)
    for value in range(256):
        for b in range(8):
            spread[value] |= np.uint64((value >> b) & 1) << np.uint64(8 * b)
    for y in range(n_y):
        n = runs(cells[y], start)
        for z0 in range(0, n_z, 8):
            packed[:] = 0
            for b in range(min(8, n_z - z0)):
                source, bit = foreground[z0 + b, y], np.uint8(1 << b)
                for x in range(n_x):
                    packed[x] |= bit if source[x] != 0 else np.uint8(0)
            # The bytes of this running sum overflow; those of a difference over 255 pixels do not.
            total = np.uint64(0)
            for x in range(n_x):
                total += spread[packed[x]]
                upto[x + 1] = total
            for r in range(n):
                target = areas[cells[y, start[r]]]
                for part in range(start[r], start[r + 1], 255):
                    inside = upto[min(part + 255, start[r + 1])] - upto[part]
                    for b in range(min(8, n_z - z0)):
                        target[z0 + b] += np.int64((inside >> np.uint64(8 * b)) & np.uint64(255))


@kernel
def _areas_space(
    foreground: NDArray[np.uint8], cells: NDArray[np.int32], areas: NDArray[np.int64]
) -> None:
    """Add to ``areas[cell, z]`` the foreground voxels of cells in space."""
    n_z, n_y, n_x = foreground.shape
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                if foreground[z, y, x] != 0 and cells[z, y, x] > 0:
                    areas[cells[z, y, x], z] += 1


def slice_areas(
    foreground: NDArray[np.generic], cells: NDArray[np.int32], n: int
) -> NDArray[np.int64]:
    """Foreground pixels of every cell in every slice, ``a_j(z)``.

    Parameters
    ----------
    foreground
        ``(Z, Y, X)``, not 0 = foreground.
    cells
        ``(Y, X)``, or ``(Z, Y, X)`` for cells in space; int32, 0 = no cell.
    n
        Number of cells.

    Returns
    -------
    int64 ``(n, Z)``; row ``i`` belongs to cell ``i + 1``.

    Examples
    --------
    >>> slice_areas(np.ones((2, 1, 3), bool), np.array([[1, 1, 2]], np.int32), 2).tolist()
    [[2, 2], [1, 1]]
    """
    if cells.shape[-2:] != foreground.shape[1:] or (
        cells.ndim == 3 and len(cells) != len(foreground)
    ):
        raise CallError(f"cells {cells.shape} do not fit a foreground of {foreground.shape}.")
    mask = foreground if foreground.dtype.itemsize == 1 else foreground != 0
    areas = np.zeros((n + 1, len(foreground)), np.int64)
    labels = np.ascontiguousarray(cells, dtype=np.int32)
    (_areas_space if cells.ndim == 3 else _areas_plane)(mask.view(np.uint8), labels, areas)
    return areas[1:]


@kernel
def _contiguous(enough: NDArray[np.bool_], z: NDArray[np.int64], ranges: NDArray[np.bool_]) -> int:
    """Keep the run around each click's slice, one missing slice bridged; the nuclei without any.

    The click's own slice counts as part of the run, but not as evidence that there is one.
    """
    n_fallback = 0
    for j in range(len(z)):
        if z[j] < 0:
            continue
        found = enough[j, z[j]]
        ends = [z[j], z[j]]
        for side, step in enumerate((-1, 1)):
            t, missing = z[j] + step, 0
            while 0 <= t < enough.shape[1] and missing < 2:
                missing = 0 if enough[j, t] else missing + 1
                if missing == 0:
                    ends[side], found = t, True
                t += step
        if not found:
            n_fallback += 1
            ends = [max(0, z[j] - 1), min(enough.shape[1] - 1, z[j] + 1)]
        ranges[j, ends[0] : ends[1] + 1] = True
    return n_fallback


def z_ranges(
    areas: NDArray[np.int64], z: NDArray[np.int64], *, setting: str = "default"
) -> tuple[NDArray[np.bool_], int]:
    """The slices that hold each nucleus, ``S_j``, from its area per slice.

    Default: slice ``z`` counts when ``a_j(z) >= max(2, 0.15 max_z a_j(z))``; of these only the
    contiguous run around the click's slice is kept, at most one slice missing in it (and then
    filled). A nucleus without any gets the click's slice and its two neighbours.
    ``"paper"``: every slice with ``a_j(z) > 0`` (Moradinasab et al. 2023, algorithm 1), so that a
    nucleus without foreground has no slice and a lone noisy pixel adds one.

    Parameters
    ----------
    areas
        ``(n, Z)`` from `slice_areas`.
    z
        ``(n,)`` int: the click's slice; -1 = no nucleus here, its row stays empty.
    setting
        ``"default"`` or ``"paper"``.

    Returns
    -------
    ranges
        ``(n, Z)`` bool.
    n_fallback
        How many nuclei had no slice of their own.

    Examples
    --------
    >>> areas = np.array([[0, 9, 0, 8, 0, 0, 7], [0, 0, 0, 0, 0, 0, 0]])
    >>> ranges, n_fallback = z_ranges(areas, np.array([1, 6]))
    >>> ranges.astype(int).tolist(), n_fallback
    ([[0, 1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 1, 1]], 1)
    """
    real = np.asarray(z) >= 0
    if check_setting(setting) == "paper":
        return (areas > 0) & real[:, None], 0
    enough = areas >= np.maximum(MIN_AREA, MIN_SHARE * areas.max(axis=1, keepdims=True))
    ranges = np.zeros(areas.shape, dtype=bool)
    return ranges, _contiguous(enough, np.asarray(z, dtype=np.int64), ranges)
