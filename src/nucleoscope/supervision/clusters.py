"""Foreground by clustering intensity against distance to the nearest click.

The published pseudo labels (Qu et al. 2019; Moradinasab et al. 2023, algorithm 1): k-means with
three clusters on ``(I / 10, D)`` over all voxels, where ``I`` is the 8-bit nuclei channel and
``D`` the distance to the nearest click, clipped. Here the same Lloyd iterations run on the joint
histogram of ``I`` and ``D``, with the number of voxels as weight, so their cost does not depend on
the size of the image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nucleoscope.jit import kernel
from nucleoscope.seeds import spawn
from nucleoscope.supervision.voronoi import grid_points
from nucleoscope.supervision.zrange import check_setting

#: Roles of the clusters, the values of a cluster map.
BACK, BETWEEN, NUCLEUS = 0, 1, 2

#: Published radius (px): the distance is clipped at twice it.
PAPER_RADIUS = 10.0
#: Bins of the distance; fine enough to keep the integer squared distances up to 20 px apart.
_BINS = 1024
_K = 3

Float = NDArray[np.float64]
U8 = NDArray[np.uint8]


class Fit(NamedTuple):
    """Centres ``(k, 2)``, the cluster of every row, and the weighted sum of squares."""

    centres: Float
    labels: NDArray[np.int64]
    inertia: float


@kernel
def _lloyd(rows: Float, weight: Float, centres: Float, labels: NDArray[np.int64]) -> float:
    """Weighted Lloyd iterations in place until no row moves; returns the sum of squares."""
    k = len(centres)
    total = np.inf
    for _ in range(300):
        sums = np.zeros((k, 3))
        inertia = 0.0
        moved = False
        for i in range(len(rows)):
            best, at = np.inf, 0
            for c in range(k):
                a, b = rows[i, 0] - centres[c, 0], rows[i, 1] - centres[c, 1]
                d = a * a + b * b
                if d < best:
                    best, at = d, c
            moved |= labels[i] != at
            labels[i] = at
            inertia += weight[i] * best
            sums[at, 0] += weight[i] * rows[i, 0]
            sums[at, 1] += weight[i] * rows[i, 1]
            sums[at, 2] += weight[i]
        total = inertia
        if not moved:
            break
        for c in range(k):
            if sums[c, 2] > 0:
                centres[c, 0] = sums[c, 0] / sums[c, 2]
                centres[c, 1] = sums[c, 1] / sums[c, 2]
    return total


def _spread(rows: Float, weight: Float, k: int, draw: np.random.Generator) -> Float:
    """Initial centres by k-means++ (Arthur & Vassilvitskii 2007): far ones are likelier."""
    chance = weight.astype(np.float64)
    centres = np.empty((k, rows.shape[1]))
    nearest = np.full(len(rows), np.inf)
    for c in range(k):
        centres[c] = rows[draw.choice(len(rows), p=chance / chance.sum())]
        nearest = np.minimum(nearest, ((rows - centres[c]) ** 2).sum(axis=1))
        if (weight * nearest).sum() > 0:
            chance = weight * nearest
    return centres


def weighted_kmeans(
    rows: Float, weight: Float, k: int = 3, *, n_init: int = 10, seed: int = 0
) -> Fit:
    """k-means of weighted rows in two dimensions: the best of ``n_init`` k-means++ starts.

    Parameters
    ----------
    rows
        ``(n, 2)`` float64.
    weight
        ``(n,)``, positive.
    k, n_init, seed
        Clusters, starts, seed; the same seed gives the same answer.

    Returns
    -------
    Fit

    Examples
    --------
    >>> rows = np.array([[0.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    >>> weighted_kmeans(rows, np.array([1.0, 3.0, 1.0]), 2).centres[:, 1].round(2).max()
    np.float64(9.0)
    """
    best: Fit | None = None
    for draw in spawn(seed, n_init):
        centres = _spread(rows, weight, k, draw)
        labels = np.full(len(rows), -1, np.int64)
        inertia = _lloyd(rows, weight, centres, labels)
        if best is None or inertia < best.inertia:
            best = Fit(centres, labels, inertia)
    assert best is not None  # noqa: S101  n_init is at least 1
    return best


@kernel
def _histogram(
    values: U8,
    distance: NDArray[np.float32],
    inside: NDArray[np.bool_],
    scale: float,
    counts: NDArray[np.int64],
    sums: Float,
) -> None:
    """Count voxels by intensity and distance bin, and add up the distances of every bin."""
    n_z, n_y, n_x = values.shape
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                if inside[y, x]:
                    b = int(distance[z, y, x] * scale + 0.5)
                    counts[values[z, y, x], b] += 1
                    sums[b] += distance[z, y, x]


@kernel
def _look_up(
    values: U8,
    distance: NDArray[np.float32],
    inside: NDArray[np.bool_],
    scale: float,
    table: U8,
    out: U8,
) -> None:
    """Give every voxel the cluster of its intensity and distance."""
    n_z, n_y, n_x = values.shape
    for z in range(n_z):
        for y in range(n_y):
            for x in range(n_x):
                if inside[y, x]:
                    out[z, y, x] = table[values[z, y, x], int(distance[z, y, x] * scale + 0.5)]


def dilated(
    shape: tuple[int, ...], voxel: NDArray[np.int64], reach: tuple[int, int]
) -> tuple[NDArray[np.int64], ...]:
    """Index of the voxels in a ball around any click: ``reach`` slices, ``reach`` px, each once.

    ``(4, 4)`` is a ball of radius 4 counted in voxels; ``(1, 5)`` a disk of 5 in three slices.

    >>> [a.tolist() for a in dilated((1, 3, 3), np.array([[0, 0, 0]]), (0, 1))]
    [[0, 0, 0], [0, 0, 1], [0, 1, 0]]
    """
    reach_z, r = reach
    grid = np.mgrid[-reach_z : reach_z + 1, -r : r + 1, -r : r + 1].reshape(3, -1).T
    plane = (grid[:, 1:] ** 2).sum(axis=1)
    ball = plane + (grid[:, 0] ** 2 if reach_z == r else 0) <= r * r
    around = (voxel[:, None] + grid[ball]).reshape(-1, 3)
    around = around[((around >= 0) & (around < shape)).all(axis=1)]
    flat = np.unique(np.ravel_multi_index(tuple(around.T), shape))
    return np.unravel_index(flat, shape)


def _roles(
    clusters: U8, voxel: NDArray[np.int64], around: tuple[NDArray[np.int64], ...], centres: Float
) -> U8:
    """Role of each cluster: nucleus holds most clicks, background least of their surroundings.

    Voxels outside the region carry cluster 255 and count for none. Of equals the nucleus is the
    brighter one, background the darker one, then the one farther from clicks.
    """
    hits = np.bincount(clusters[tuple(voxel.T)], minlength=256)[:_K]
    near = np.bincount(clusters[around], minlength=256)[:_K]
    nucleus = max(range(_K), key=lambda c: (hits[c], centres[c, 0]))
    back = min(
        (c for c in range(_K) if c != nucleus),
        key=lambda c: (near[c], centres[c, 0], -centres[c, 1]),
    )
    roles = np.full(256, BACK, np.uint8)
    roles[:_K] = BETWEEN
    roles[nucleus], roles[back] = NUCLEUS, BACK
    return roles


def cluster_foreground(
    nuclei: U8,
    distance: NDArray[np.float32],
    points_zyx: NDArray[np.generic],
    *,
    setting: str = "default",
    region: NDArray[np.bool_] | None = None,
    radius: float = PAPER_RADIUS,
    seed: int = 0,
    n_init: int = 10,
) -> U8:
    """Cluster voxels by intensity and distance into background, between and nucleus.

    k-means, k = 3, of ``f = (I / 10, min(D, 2 r) 10 / r)``; the published clip of 20 px and scale
    are those of ``r = 10``. The nucleus cluster holds most clicks; of the other two, background
    is the one with fewer voxels close to a click.

    Parameters
    ----------
    nuclei
        ``(Z, Y, X)`` uint8, from `to_uint8`; a plane has one slice.
    distance
        float32 of the same shape, px, from `distance_map`.
    points_zyx
        ``(n, 3)`` clicks in pixels.
    setting
        ``"default"``: only voxels of the region are clustered; close to a click is a disk of
        ``r / 2`` in its slice and the two beside it. ``"paper"``: all voxels, with zeros outside
        the region; close is a ball of 4 in voxels, whatever the slice step.
    region
        ``(Y, X)`` bool; None = everywhere.
    radius
        Median nucleus radius in px (`median_radius`); ``"paper"`` takes 10.
    seed, n_init
        Of `weighted_kmeans`.

    Returns
    -------
    uint8 ``(Z, Y, X)``: 0 background, 1 between, 2 nucleus. Outside the region 0 in ``"default"``.

    Raises
    ------
    InputError
        No click, or one outside.

    Examples
    --------
    >>> y, x = np.mgrid[:40, :40]
    >>> disk = (200 * ((y - 20) ** 2 + (x - 20) ** 2 <= 64)).astype(np.uint8)[None]
    >>> away = np.hypot(y - 20, x - 20).astype(np.float32)[None]
    >>> roles = cluster_foreground(disk, away, np.array([[0, 20, 20]]))
    >>> int(roles[0, 20, 20]), int(roles[0, 0, 0])
    (2, 0)

    References
    ----------
    Qu et al. 2019, section 2.1; Moradinasab et al. 2023, algorithm 1.
    """
    paper = check_setting(setting) == "paper"
    radius = PAPER_RADIUS if paper else radius
    voxel = grid_points(nuclei.shape, points_zyx)
    everywhere = np.ones(nuclei.shape[1:], dtype=bool)
    inside = everywhere if paper or region is None else region
    values = np.where(region, nuclei, np.uint8(0)) if paper and region is not None else nuclei
    away = np.minimum(distance, np.float32(2 * radius))
    scale = (_BINS - 1) / (2 * radius)
    counts, sums = np.zeros((256, _BINS), np.int64), np.zeros(_BINS)
    _histogram(values, away, inside, scale, counts, sums)
    level, at = np.nonzero(counts)
    rows = np.column_stack([level / 10, sums[at] / counts.sum(axis=0)[at] * (10 / radius)])
    weight = counts[level, at].astype(np.float64)
    fit = weighted_kmeans(rows, weight, _K, n_init=n_init, seed=seed)
    table = np.zeros((256, _BINS), np.uint8)
    table[level, at] = fit.labels
    out = np.full(nuclei.shape, 255, np.uint8)
    _look_up(values, away, inside, scale, table, out)
    reach = (4, 4) if paper else (1, max(1, round(radius / 2)))
    roles = _roles(out, voxel, dilated(nuclei.shape, voxel, reach), fit.centres)
    _map(out.reshape(-1), roles)
    return out


@kernel
def _map(values: U8, table: U8) -> None:
    """Replace every value by its entry in the table."""
    for i in range(len(values)):
        values[i] = table[values[i]]


def _levels(channel: NDArray[np.generic]) -> int:
    """How many values an unsigned dtype has."""
    return int(2 ** (8 * channel.dtype.itemsize))


def _quantiles(channel: NDArray[np.generic], inside: NDArray[np.bool_]) -> tuple[float, float]:
    """The 0.1 % and 99.9 % quantiles of a channel within a region."""
    if channel.dtype.kind == "u":
        counts = np.zeros(_levels(channel), np.int64)
        for plane in channel:
            counts += np.bincount(plane[inside], minlength=len(counts))
        share = np.cumsum(counts) / counts.sum()
        low, high = np.searchsorted(share, (0.001, 0.999))
    else:
        low, high = np.quantile(channel[:, inside].astype(np.float64), (0.001, 0.999))
    return float(low), float(high)


def to_uint8(
    channel: NDArray[np.generic],
    region: NDArray[np.bool_] | None = None,
    setting: str = "default",
) -> U8:
    """Scale a channel to 8 bits with one constant for the whole stack.

    ``floor(255 (v - low) / (high - low) + 0.5)``, clipped. Default: ``low`` and ``high`` are the
    0.1 % and 99.9 % quantiles in the region. ``"paper"``: the minimum and maximum of the stack
    after everything outside the region was set to 0; an 8-bit channel keeps its values.

    Parameters
    ----------
    channel
        ``(Z, Y, X)``.
    region
        ``(Y, X)`` bool; None = everywhere.
    setting
        ``"default"`` or ``"paper"``.

    Returns
    -------
    uint8 ``(Z, Y, X)``; zeros where the channel is constant.

    Examples
    --------
    >>> to_uint8(np.array([[[0, 500, 1000]]], np.uint16), setting="paper").tolist()
    [[[0, 128, 255]]]
    """
    paper = check_setting(setting) == "paper"
    inside = np.ones(channel.shape[1:], dtype=bool) if region is None else region
    if paper and not inside.all():
        channel = np.where(inside, channel, channel.dtype.type(0))
    if paper and channel.dtype == np.uint8:
        return channel.astype(np.uint8)
    if paper or not inside.any():
        low, high = float(np.min(channel)), float(np.max(channel))
    else:
        low, high = _quantiles(channel, inside)
    if high <= low:
        return np.zeros(channel.shape, np.uint8)
    return _scaled(channel, low, high)


def _scaled(channel: NDArray[np.generic], low: float, high: float) -> U8:
    """Scale linearly to 0 to 255, by table for whole numbers."""
    kind = channel.dtype.kind
    levels = np.arange(_levels(channel)) if kind == "u" else channel
    scaled = np.floor(255 * (levels.astype(np.float64) - low) / (high - low) + 0.5)
    table = np.clip(scaled, 0, 255).astype(np.uint8)
    return table[channel] if kind == "u" else table
