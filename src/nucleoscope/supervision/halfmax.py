"""One nucleus per click: the connected voxels near it that are bright against its surroundings.

Clustering all voxels of a stack at once (Qu et al. 2019) misses dim nuclei beside bright ones.
Here every click gets a threshold of its own, between the level of its core and that of its
surroundings, inside its own Voronoi cell in space. All lengths are shares of the median nucleus
radius, which is estimated from the image; there is nothing to set.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from nucleoscope.data.maps import BACKGROUND, NUCLEUS, UNLABELLED
from nucleoscope.jit import kernel
from nucleoscope.supervision.voronoi import grid_points, nearest_within

#: The threshold lies this far up from the surroundings to the core.
LEVEL = 0.4
#: The surroundings are this quantile of the cell (the core is its median).
QUANTILE = 0.1
#: In median radii: the core, the farthest voxel of a nucleus, the blur, the unlabelled rim.
CORE, REACH, BLUR, RIM = 0.5, 2.0, 1 / 6, 0.25
#: Bounds (px) of the window in which the radius is first looked for, and its value for one click.
WINDOW, LONE_WINDOW = (8.0, 64.0), 24.0
#: As many nuclei are measured for the median radius.
_SAMPLE = 64

Float32 = NDArray[np.float32]


class Nuclei(NamedTuple):
    """What half-maximum labelling gives: ``instances``, ``foreground`` as in PseudoLabels."""

    instances: NDArray[np.int32]
    foreground: NDArray[np.uint8]
    radius: float


@kernel
def _blur_plane(plane: Float32, taps: Float32, out: Float32) -> None:
    """Correlate a plane with symmetric ``taps`` along y and x, edges repeated."""
    n_y, n_x = plane.shape
    reach = len(taps) // 2
    row = np.empty(n_x + 2 * reach, np.float32)
    middle = row[reach : reach + n_x]
    for y in range(n_y):
        middle[:] = 0
        for k in range(len(taps)):
            source, weight = plane[min(max(y + k - reach, 0), n_y - 1)], taps[k]
            for x in range(n_x):
                middle[x] += weight * source[x]
        row[:reach], row[reach + n_x :] = middle[0], middle[n_x - 1]
        target = out[y]
        target[:] = 0
        for k in range(len(taps)):
            weight = taps[k]
            for x in range(n_x):
                target[x] += weight * row[x + k]


def blur(channel: NDArray[np.generic], sigma: float) -> Float32:
    """Gaussian blur of every slice of ``(Z, Y, X)``, ``sigma`` in pixels, as float32.

    >>> blur(np.full((1, 3, 4), 7, np.uint8), 1.0).round(3).tolist()[0][0]
    [7.0, 7.0, 7.0, 7.0]
    """
    reach = max(1, int(np.ceil(3 * sigma)))
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    out = np.empty(channel.shape, np.float32)
    for z in range(len(channel)):
        _blur_plane(channel[z].astype(np.float32), taps, out[z])
    return out


@kernel
def _collect(
    smooth: Float32, own: NDArray[np.int32], box: NDArray[np.int64], me: int, values: Float32
) -> int:
    """Copy the voxels of one cell within a half-open box ``z0 z1 y0 y1 x0 x1``; their number."""
    n = 0
    for z in range(box[0], box[1]):
        for y in range(box[2], box[3]):
            for x in range(box[4], box[5]):
                if own[z, y, x] == me:
                    values[n] = smooth[z, y, x]
                    n += 1
    return n


@kernel
def _flood(
    smooth: Float32, own: NDArray[np.int32], seed: int, limit: float, stack: NDArray[np.int64]
) -> None:
    """Negate ``own`` in the six-connected part of a cell that is at least ``limit``."""
    n_z, n_y, n_x = own.shape
    plane, level, cell = n_y * n_x, smooth.ravel(), own.ravel()
    me = cell[seed]
    cell[seed] = -me
    stack[0] = seed
    n = 1
    while n > 0:
        n -= 1
        at = stack[n]
        z, y, x = at // plane, at // n_x % n_y, at % n_x
        for k in range(6):
            if k == 0 and x > 0:
                to = at - 1
            elif k == 1 and x < n_x - 1:
                to = at + 1
            elif k == 2 and y > 0:
                to = at - n_x
            elif k == 3 and y < n_y - 1:
                to = at + n_x
            elif k == 4 and z > 0:
                to = at - plane
            elif k == 5 and z < n_z - 1:
                to = at + plane
            else:
                continue
            if cell[to] == me and level[to] >= limit:
                cell[to] = -me
                stack[n] = to
                n += 1


def _box(center: NDArray[np.int64], reach: NDArray[np.int64], shape: tuple[int, ...]) -> Any:
    """Half-open box ``z0 z1 y0 y1 x0 x1`` around a voxel, within the image."""
    low, high = np.maximum(center - reach, 0), np.minimum(center + reach + 1, shape)
    return np.stack([low, high], axis=1).ravel()


def _grow(
    smooth: Float32, own: NDArray[np.int32], voxel: NDArray[np.int64], radius: float, z_step: float
) -> Float32:
    """Negate ``own`` in the nucleus of each click; the thresholds, ``[0]`` their median.

    ``own`` is the nearest click (1 to n) within reach, 0 beyond.
    """
    far = np.array([REACH * radius / z_step, REACH * radius, REACH * radius]).astype(np.int64)
    flat = np.array([0, CORE * radius, CORE * radius]).astype(np.int64)
    disk = np.hypot(*np.indices((2 * flat[1] + 1,) * 2) - flat[1]) <= CORE * radius
    values = np.empty(int(np.prod(np.minimum(2 * far + 1, own.shape))), np.float32)
    stack = np.empty(values.size, np.int64)
    threshold = np.full(len(voxel) + 1, np.nan, np.float32)
    for me, center in enumerate(voxel, start=1):
        z, _, y0, y1, x0, x1 = _box(center, flat, own.shape)
        oy, ox = y0 - center[1] + flat[1], x0 - center[2] + flat[1]
        mine = (own[z, y0:y1, x0:x1] == me) & disk[oy : oy + y1 - y0, ox : ox + x1 - x0]
        if not mine.any():
            continue
        core = smooth[z, y0:y1, x0:x1]
        n = _collect(smooth, own, _box(center, far, own.shape), me, values)
        at = int(QUANTILE * (n - 1))
        inside, around = np.median(core[mine]), np.partition(values[:n], at)[at]
        threshold[me] = around + LEVEL * (inside - around)
        if inside > around:
            y, x = divmod(int(np.argmax(np.where(mine, core, -np.inf))), x1 - x0)
            seed = np.ravel_multi_index((z, y0 + y, x0 + x), own.shape)
            _flood(smooth, own, int(seed), float(threshold[me]), stack)
    threshold[np.isnan(threshold)] = np.nanmedian(threshold)
    return threshold


@kernel
def _settle(
    smooth: Float32,
    own: NDArray[np.int32],
    threshold: Float32,
    region: NDArray[np.bool_],
    rim: int,
    foreground: NDArray[np.uint8],
) -> None:
    """Write the foreground, and turn ``own`` into the instance map.

    Background: inside the region, below the threshold of the nearest click (``threshold[0]``
    where none is near), and off the rim of every nucleus (``rim`` px in its slice, the same
    pixel in the slices above and below).
    """
    n_z, n_y, n_x = own.shape
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                dark = smooth[z, y, x] < threshold[abs(own[z, y, x])]
                foreground[z, y, x] = BACKGROUND if dark and region[y, x] else UNLABELLED
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                if own[z, y, x] >= 0:
                    continue
                for dz in (-1, 1):
                    if 0 <= z + dz < n_z and own[z + dz, y, x] >= 0:
                        foreground[z + dz, y, x] = UNLABELLED
                if 0 < x < n_x - 1 and 0 < y < n_y - 1:
                    beside = max(own[z, y, x - 1], own[z, y, x + 1])
                    if max(beside, own[z, y - 1, x], own[z, y + 1, x]) < 0:
                        continue
                for b in range(max(0, y - rim), min(n_y, y + rim + 1)):
                    for a in range(max(0, x - rim), min(n_x, x + rim + 1)):
                        if (b - y) ** 2 + (a - x) ** 2 <= rim * rim:
                            foreground[z, b, a] = UNLABELLED
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                if own[z, y, x] < 0:
                    foreground[z, y, x] = NUCLEUS
                    own[z, y, x] = -own[z, y, x]
                else:
                    own[z, y, x] = 0


def _window(points_zyx: NDArray[np.float64], z_step: float) -> float:
    """Median distance between neighbouring clicks, in px, within `WINDOW`."""
    if len(points_zyx) < 2:
        return LONE_WINDOW
    place = points_zyx * (z_step, 1.0, 1.0)
    gaps = cKDTree(place).query(place, k=2)[0][:, 1]
    return float(np.clip(np.median(gaps), *WINDOW))


def median_radius(
    channel: NDArray[np.generic], points_zyx: NDArray[np.generic], z_step: float
) -> float:
    """Median radius of the nuclei in px, ``sqrt(area / pi)`` in the slice of the click.

    At most 64 nuclei, evenly chosen, are outlined in their own slice as in `half_maximum`, within
    the median distance between neighbouring clicks.

    Parameters
    ----------
    channel
        ``(Z, Y, X)`` nuclei.
    points_zyx
        ``(n, 3)`` clicks in pixels.
    z_step
        Slice step in xy pixels.

    Returns
    -------
    float, at least 2.

    Examples
    --------
    >>> y, x = np.mgrid[:41, :41]
    >>> disk = 100.0 * ((y - 20) ** 2 + (x - 20) ** 2 <= 81)
    >>> 8 < median_radius(disk[None], np.array([[0, 20, 20]]), 1.0) < 10
    True
    """
    clicks = np.asarray(points_zyx, dtype=np.float64)
    voxel = grid_points(channel.shape, clicks)
    window = _window(clicks, z_step)
    tree = cKDTree(voxel * (z_step, 1.0, 1.0))
    half = int(np.ceil(window))
    radii = []
    for j in np.unique(np.linspace(0, len(voxel) - 1, _SAMPLE).astype(np.int64)):
        z, y, x = voxel[j]
        y0, x0 = max(0, y - half), max(0, x - half)
        crop = channel[z, y0 : y + half + 1, x0 : x + half + 1].astype(np.float32)
        smooth = ndimage.gaussian_filter(crop, window / 16)
        rows, columns = np.indices(crop.shape)
        place = np.stack([np.full(crop.shape, z * z_step), rows + y0, columns + x0], axis=-1)
        gap = np.hypot(rows + y0 - y, columns + x0 - x)
        mine = (gap <= window) & (gap <= tree.query(place)[0] + 1e-6)
        radii.append(_section_radius(smooth, mine, gap <= window / 6))
    return max(2.0, float(np.median(radii)))


def _section_radius(smooth: Float32, mine: NDArray[np.bool_], core: NDArray[np.bool_]) -> float:
    """Radius of the bright section around the core of one crop; 0 when the core is not bright."""
    if not (mine & core).any():
        return 0.0
    inside, around = np.median(smooth[mine & core]), np.quantile(smooth[mine], QUANTILE)
    bright = mine & (smooth >= around + LEVEL * (inside - around)) & (inside > around)
    parts = ndimage.label(bright)[0]
    touched = parts[bright & core]
    area = np.isin(parts, touched).sum() if touched.size else 0
    return float(np.sqrt(area / np.pi))


def half_maximum(
    channel: NDArray[np.generic],
    points_zyx: NDArray[np.generic],
    z_step: float,
    *,
    region: NDArray[np.bool_] | None = None,
    radius: float | None = None,
) -> Nuclei:
    """Outline the nucleus of every click by a threshold of its own.

    In the blurred image, ``t_j = b_j + 0.4 (c_j - b_j)``: ``c_j`` is the median of the core (half
    a radius around the click, in its slice), ``b_j`` the 10 % quantile of the click's cell within
    two radii. The nucleus is what is at least ``t_j`` and connected with the core within the cell
    (six neighbours). Background is what is darker than ``t_j`` and not beside a nucleus; the rest
    is unlabelled. (Half way up, 0.5, cuts the rim off: sections come out a quarter too small.)

    Parameters
    ----------
    channel
        ``(Z, Y, X)`` nuclei, any dtype.
    points_zyx
        ``(n, 3)`` clicks in pixels.
    z_step
        Slice step in xy pixels.
    region
        ``(Y, X)`` bool: where every nucleus has a click; outside, nothing is called background.
    radius
        Median nucleus radius in px; None: `median_radius`.

    Returns
    -------
    Nuclei
        ``instances`` ``(Z, Y, X)`` int32, index 1 to n of the click; ``foreground`` uint8
        0 background, 1 nucleus, 255 unlabelled; ``radius`` in px.

    Raises
    ------
    InputError
        No click, or one outside.

    Notes
    -----
    Linear in voxels; holds two arrays of four bytes per voxel besides the two returned.

    Examples
    --------
    >>> y, x = np.mgrid[:41, :41]
    >>> disk = 100.0 * ((y - 20) ** 2 + (x - 20) ** 2 <= 81)
    >>> nuclei = half_maximum(disk[None], np.array([[0, 20, 20]]), 1.0)
    >>> int(nuclei.instances[0, 20, 20]), int(nuclei.foreground[0, 0, 0])
    (1, 0)
    """
    r = median_radius(channel, points_zyx, z_step) if radius is None else radius
    voxel = grid_points(channel.shape, points_zyx)
    smooth = blur(channel, BLUR * r)
    own = nearest_within(channel.shape, points_zyx, z_step, REACH * r)[1]
    threshold = _grow(smooth, own, voxel, r, z_step)
    everywhere = np.ones(channel.shape[1:], dtype=bool)
    foreground = np.empty(channel.shape, np.uint8)
    rim = max(1, round(RIM * r))
    _settle(smooth, own, threshold, everywhere if region is None else region, rim, foreground)
    return Nuclei(own, foreground, r)
