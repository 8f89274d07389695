"""Nuclei in 3D straight from a centre map: peaks, then every voxel to the peak it points at.

A long nucleus can have two peaks and two stacked nuclei can look like one; both are decided by
the valley between peaks, measured along the straight line that joins them. Outlines come from
votes: a nucleus voxel's predicted offset says where its centre lies, and it joins the nearest
peak (the idea of the HoVer map of Graham et al. 2019, taken to 3D).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from nucleoscope.errors import CallError, InputError
from nucleoscope.jit import kernel

#: Spread of the Gaussian that takes the ripple off a centre map, in pixels of the map.
SMOOTHING = (0.3, 0.4, 0.4)


@dataclass(frozen=True)
class PeakSettings:
    """How peaks become nuclei.

    Parameters
    ----------
    threshold
        Smallest peak height that counts, in (0, 1).
    valley
        Two peaks are one nucleus when the map between them never falls below this share of the
        lower one.
    foreground
        Probability from which a voxel belongs to some nucleus.
    radius
        Typical nucleus radius in pixels of the map; sets how far apart peaks of one nucleus and
        votes for one peak may lie.
    slice_px
        What one slice step counts for when votes are compared, in pixels of the map.
    """

    threshold: float = 0.35
    valley: float = 0.9
    foreground: float = 0.5
    radius: float = 5.0
    slice_px: float = 2.0

    def __post_init__(self) -> None:
        for name in ("threshold", "valley", "foreground"):
            if not 0 < getattr(self, name) <= 1:
                raise CallError(f"{name} lies in (0, 1]; found {getattr(self, name)}.")
        if self.radius <= 0 or self.slice_px <= 0:
            raise CallError("radius and slice_px are positive.")


@dataclass(frozen=True, eq=False)
class Peaks:
    """Nucleus centres: ``zyx`` (n, 3) in pixels of the map, ``score`` (n,), best first."""

    zyx: NDArray[np.float64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)


def find_peaks(centre: NDArray[np.float32], settings: PeakSettings) -> Peaks:
    """Peaks of a centre map, with the double peaks of one nucleus merged.

    Parameters
    ----------
    centre
        ``(Z, Y, X)`` float32 in [0, 1].

    Returns
    -------
    Peaks
        Best first; positions refined to a fraction of a pixel.

    Examples
    --------
    >>> z, y, x = np.indices((5, 20, 20))
    >>> map_ = np.exp(-((z - 2) ** 2 + (y - 8) ** 2 / 4 + (x - 11) ** 2 / 4)).astype(np.float32)
    >>> find_peaks(map_, PeakSettings()).zyx.round().tolist()
    [[2.0, 8.0, 11.0]]
    """
    if centre.ndim != 3:
        raise InputError(f"a centre map is (Z, Y, X); found shape {centre.shape}.")
    smooth = ndimage.gaussian_filter(centre, SMOOTHING, output=np.float32)
    candidates, heights = _local_maxima(smooth, np.float32(settings.threshold))
    order = np.lexsort((*candidates.T[::-1], -heights))
    candidates, heights = candidates[order], heights[order]
    keep = _distinct(smooth, candidates, heights, settings)
    return Peaks(_refine(smooth, candidates[keep]), heights[keep].astype(np.float64))


@kernel
def _local_maxima(
    smooth: NDArray[np.float32], threshold: np.float32
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Voxels above threshold that no neighbour within (1, 2, 2) exceeds; of a tie, the first."""
    n_z, height, width = smooth.shape
    found = 0
    spots = np.empty((1024, 3), np.int64)
    heights = np.empty(1024, np.float32)
    for z in range(n_z):
        for y in range(height):
            for x in range(width):
                value = smooth[z, y, x]
                if not value > threshold:
                    continue
                is_peak = True
                for w in range(max(0, z - 1), min(n_z, z + 2)):
                    for v in range(max(0, y - 2), min(height, y + 3)):
                        for u in range(max(0, x - 2), min(width, x + 3)):
                            other = smooth[w, v, u]
                            before = (w, v, u) < (z, y, x)
                            if other > value or (other == value and before):
                                is_peak = False
                                break
                        if not is_peak:
                            break
                    if not is_peak:
                        break
                if is_peak:
                    if found == len(heights):
                        spots = np.concatenate((spots, np.empty_like(spots)))
                        heights = np.concatenate((heights, np.empty_like(heights)))
                    spots[found, 0], spots[found, 1], spots[found, 2] = z, y, x
                    heights[found] = value
                    found += 1
    return spots[:found], heights[:found]


def _distinct(
    smooth: NDArray[np.float32],
    spots: NDArray[np.int64],
    heights: NDArray[np.float32],
    settings: PeakSettings,
) -> NDArray[np.int64]:
    """Indices of peaks that no better peak reaches without crossing a valley."""
    if len(spots) < 2:
        return np.arange(len(spots))
    reach = 1.5 * settings.radius
    # Three slices up or down count like `reach` in the plane.
    scaled = spots * np.array([reach / 3.1, 1.0, 1.0])
    pairs = cKDTree(scaled).query_pairs(reach * 1.42, output_type="ndarray")
    if not len(pairs):
        return np.arange(len(spots))
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    lowest = _lowest_between(smooth, spots[pairs[:, 0]], spots[pairs[:, 1]])
    joined = lowest > settings.valley * heights[pairs[:, 1]]
    is_kept = np.ones(len(spots), dtype=bool)
    # Rows come in order of the weaker peak, so a better one is settled before it is asked.
    for better, weaker in pairs[joined]:
        if is_kept[better]:
            is_kept[weaker] = False
    return np.flatnonzero(is_kept)


def _lowest_between(
    smooth: NDArray[np.float32], start: NDArray[np.int64], end: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Smallest value on the straight line from each start to each end, at nine places."""
    steps = np.linspace(0.0, 1.0, 9)
    lines = start[:, None, :] + (end - start)[:, None, :] * steps[None, :, None]
    values = ndimage.map_coordinates(
        smooth, lines.reshape(-1, 3).T, order=1, mode="nearest", output=np.float32
    )
    lowest: NDArray[np.float32] = values.reshape(len(start), -1).min(axis=1)
    return lowest


def _refine(smooth: NDArray[np.float32], spots: NDArray[np.int64]) -> NDArray[np.float64]:
    """Peak positions by the parabola through each peak and its two neighbours, per axis."""
    refined = spots.astype(np.float64)
    shape = np.array(smooth.shape)
    middle = smooth[tuple(spots.T)].astype(np.float64)
    for axis in range(3):
        step = np.zeros(3, dtype=np.int64)
        step[axis] = 1
        before = smooth[tuple(np.maximum(spots - step, 0).T)]
        after = smooth[tuple(np.minimum(spots + step, shape - 1).T)]
        curvature = before - 2 * middle + after
        is_inner = (spots[:, axis] > 0) & (spots[:, axis] < shape[axis] - 1) & (curvature < 0)
        shift = np.divide(before - after, 2 * curvature, out=np.zeros_like(middle), where=is_inner)
        refined[:, axis] += np.clip(shift, -0.5, 0.5)
    return refined


def grow(
    foreground: NDArray[np.float32],
    offsets: NDArray[np.float32],
    peaks: Peaks,
    settings: PeakSettings,
    *,
    shape: tuple[int, int, int],
) -> NDArray[np.int32]:
    """Give every nucleus voxel to the peak it points at.

    Parameters
    ----------
    foreground
        ``(Z, h, w)`` float32 probability of nucleus.
    offsets
        ``(3, Z, h, w)`` float32: z (slices), y, x (pixels of the map) from the voxel to the
        centre of its nucleus.
    shape
        ``(Z, Y, X)`` of the instance map to make: the map's size or a whole multiple in y and x;
        maps are read between pixels, so outlines are smooth.

    Returns
    -------
    ndarray
        ``(Z, Y, X)`` int32; peak ``i`` is nucleus ``i + 1``. Each nucleus is one piece and holds
        at least its own peak.
    """
    out = np.zeros(shape, dtype=np.int32)
    if not len(peaks):
        return out
    scale = shape[1] // foreground.shape[1]
    cell = max(2.0, 1.5 * settings.radius)
    rows, cols = int(foreground.shape[1] / cell) + 1, int(foreground.shape[2] / cell) + 1
    bucket = (peaks.zyx[:, 1] / cell).astype(np.int64).clip(0, rows - 1) * cols + (
        peaks.zyx[:, 2] / cell
    ).astype(np.int64).clip(0, cols - 1)
    order = np.argsort(bucket, kind="stable")
    starts = np.searchsorted(bucket[order], np.arange(rows * cols + 1))
    _assign(
        out, foreground, offsets, peaks.zyx, order, starts,
        (rows, cols, cell, settings.slice_px, settings.foreground, scale),
    )  # fmt: skip
    seeds = peaks.zyx.copy()
    seeds[:, 1:] = (seeds[:, 1:] + 0.5) * scale - 0.5
    _keep_connected(out, np.rint(seeds).astype(np.int64))
    return out


@kernel
def _assign(
    out: NDArray[np.int32],
    foreground: NDArray[np.float32],
    offsets: NDArray[np.float32],
    peaks: NDArray[np.float64],
    order: NDArray[np.int64],
    starts: NDArray[np.int64],
    settings: tuple[int, int, float, float, float, int],
) -> None:
    """Write the nearest peak (by vote) into ``out``; buckets hold the peaks by their (y, x)."""
    rows, cols, cell, slice_px, level, scale = settings
    n_z, height, width = out.shape
    h, w = foreground.shape[1], foreground.shape[2]
    limit = cell * cell
    for z in range(n_z):
        for y in range(height):
            fy = (y + 0.5) / scale - 0.5
            y0 = min(max(int(np.floor(fy)), 0), h - 1)
            y1 = min(y0 + 1, h - 1)
            ay = min(max(fy - y0, 0.0), 1.0)
            for x in range(width):
                fx = (x + 0.5) / scale - 0.5
                x0 = min(max(int(np.floor(fx)), 0), w - 1)
                x1 = min(x0 + 1, w - 1)
                ax = min(max(fx - x0, 0.0), 1.0)
                w00, w01 = (1 - ay) * (1 - ax), (1 - ay) * ax
                w10, w11 = ay * (1 - ax), ay * ax
                probability = (
                    w00 * foreground[z, y0, x0] + w01 * foreground[z, y0, x1]
                    + w10 * foreground[z, y1, x0] + w11 * foreground[z, y1, x1]
                )  # fmt: skip
                if probability < level:
                    continue
                # The nearer of the four map pixels votes: averaging offsets across the seam of
                # two nuclei would point between them.
                v, u = (y1 if ay > 0.5 else y0), (x1 if ax > 0.5 else x0)
                vz = z + offsets[0, z, v, u]
                vy = fy + offsets[1, z, v, u]
                vx = fx + offsets[2, z, v, u]
                row = min(max(int(vy / cell), 0), rows - 1)
                col = min(max(int(vx / cell), 0), cols - 1)
                best, nearest = 0, limit
                for r in range(max(0, row - 1), min(rows, row + 2)):
                    for c in range(max(0, col - 1), min(cols, col + 2)):
                        for k in range(starts[r * cols + c], starts[r * cols + c + 1]):
                            i = order[k]
                            dz = (vz - peaks[i, 0]) * slice_px
                            dy, dx = vy - peaks[i, 1], vx - peaks[i, 2]
                            distance = dz * dz + dy * dy + dx * dx
                            if distance < nearest:
                                nearest = distance
                                best = i + 1
                out[z, y, x] = best


@kernel
def _keep_connected(out: NDArray[np.int32], seeds: NDArray[np.int64]) -> None:
    """Keep of each nucleus the piece that holds its seed (6-connected); write the seed itself."""
    n_z, height, width = out.shape
    reached = np.zeros(out.shape, np.bool_)
    stack = np.empty((out.size if out.size < 4096 else 4096, 3), np.int32)
    # All seeds are written before any piece is followed, or a better peak's piece could run over
    # a weaker peak's voxel and that nucleus would be lost; of two at one voxel the better stays.
    for i in range(len(seeds) - 1, -1, -1):
        seeds[i, 0] = min(max(seeds[i, 0], 0), n_z - 1)
        seeds[i, 1] = min(max(seeds[i, 1], 0), height - 1)
        seeds[i, 2] = min(max(seeds[i, 2], 0), width - 1)
        out[seeds[i, 0], seeds[i, 1], seeds[i, 2]] = i + 1
    for i in range(len(seeds)):
        z, y, x = seeds[i, 0], seeds[i, 1], seeds[i, 2]
        if out[z, y, x] != i + 1:
            continue
        reached[z, y, x] = True
        stack[0, 0], stack[0, 1], stack[0, 2] = z, y, x
        top = 1
        while top > 0:
            top -= 1
            z, y, x = stack[top, 0], stack[top, 1], stack[top, 2]
            for side in range(6):
                w, v, u = z, y, x
                if side == 0:
                    w -= 1
                elif side == 1:
                    w += 1
                elif side == 2:
                    v -= 1
                elif side == 3:
                    v += 1
                elif side == 4:
                    u -= 1
                else:
                    u += 1
                if w < 0 or v < 0 or u < 0 or w >= n_z or v >= height or u >= width:
                    continue
                if reached[w, v, u] or out[w, v, u] != i + 1:
                    continue
                reached[w, v, u] = True
                if top == len(stack):
                    stack = np.concatenate((stack, np.empty_like(stack)))
                stack[top, 0], stack[top, 1], stack[top, 2] = w, v, u
                top += 1
    for z in range(n_z):
        for y in range(height):
            for x in range(width):
                if not reached[z, y, x]:
                    out[z, y, x] = 0
