"""Training masks of a projection: the cluster labels of Qu et al. 2019 in the plane.

Sizes are shares of the nucleus radius; at the published radius of 10 px they are the published
numbers (components of 30 px, disks of 5, 7, 10 and 3 px).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.data import Points
from nucleoscope.errors import InputError
from nucleoscope.supervision.clusters import (
    BACK,
    NUCLEUS,
    PAPER_RADIUS,
    cluster_foreground,
    to_uint8,
)
from nucleoscope.supervision.halfmax import median_radius
from nucleoscope.supervision.voronoi import cell_edges, distance_map, grid_points
from nucleoscope.supervision.zrange import check_setting

#: Published sizes in px and px^2: least component, dilation, erosion, background margin, disk.
_LEAST, _GROW, _SHRINK, _MARGIN, _DISK = 30, 5, 7, 10, 3
#: Published radius of the disk around a click in the Voronoi label, px.
_DOT = 2

_EIGHT = np.ones((3, 3), dtype=bool)

Bool = NDArray[np.bool_]


class Plane(NamedTuple):
    """``instances`` int32 and ``unlabelled`` bool, both ``(Y, X)``; the rest is background."""

    instances: NDArray[np.int32]
    unlabelled: Bool


def _without_small(nucleus: Bool, least: float) -> Bool:
    """Drop eight-connected components of fewer pixels than ``least``."""
    parts = ndimage.label(nucleus, _EIGHT)[0]
    big = np.bincount(parts.ravel()) >= least
    big[0] = False
    return np.asarray(big[parts])


def _patched(part: Bool, grow: int, shrink: int) -> Bool:
    """Dilate by a disk, fill holes, erode by a larger one: gaps close, the outline steps back."""
    wide = ndimage.distance_transform_edt(~part) <= grow
    return np.asarray(ndimage.distance_transform_edt(ndimage.binary_fill_holes(wide)) > shrink)


def _nuclei(nucleus: Bool, cells: NDArray[np.int32], scale: float) -> Bool:
    """The union of the patched nucleus of every cell, each in its box with a margin of 12 px."""
    out = np.zeros(nucleus.shape, dtype=bool)
    margin = int(np.ceil(12 * scale))
    grow, shrink = max(1, round(_GROW * scale)), max(2, round(_SHRINK * scale))
    for j, box in enumerate(ndimage.find_objects(np.where(nucleus, cells, 0)), start=1):
        if box is None:
            continue
        part = np.pad(nucleus[box] & (cells[box] == j), margin)
        done = _patched(part, grow, shrink)
        place, inner = [], []
        for side, size in zip(box, nucleus.shape, strict=True):
            low, high = max(0, side.start - margin), min(size, side.stop + margin)
            place.append(slice(low, high))
            inner.append(slice(low - side.start + margin, high - side.start + margin))
        out[tuple(place)] |= done[tuple(inner)]
    return out


def _by_point(
    nuclei: Bool, voxel: NDArray[np.int64], cells: NDArray[np.int32], scale: float
) -> NDArray[np.int32]:
    """One instance per click: its component within its cell, or a small disk where there is none.

    The id is that of the cell, so of the click.
    """
    near = distance_map(nuclei.shape, voxel, limit=4 * _DISK * scale) <= max(1.0, _DISK * scale)
    parts = ndimage.label(nuclei, _EIGHT)[0]
    instances = np.zeros(nuclei.shape, np.int32)
    reach = int(np.ceil(3 * PAPER_RADIUS * scale))
    for y, x in voxel:
        box = (slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1))
        cell, part = cells[y, x], parts[y, x]
        mine = cells[box] == cell
        instances[box][mine & (parts[box] == part if part else near[box])] = cell
    return instances


def projected_labels(
    nuclei: NDArray[np.generic],
    points: Points,
    cells: NDArray[np.int32],
    setting: str = "default",
    *,
    seed: int = 0,
) -> Plane:
    """Instances and unlabelled pixels of a projection, from clicks alone.

    Cluster ``(I / 10, D)`` in the plane; drop small components; in every Voronoi cell dilate,
    fill and erode what is nucleus; background is the background cluster off the nuclei and away
    from clicks; all else is unlabelled (Moradinasab et al. 2023, algorithm 1, after Qu et al.
    2019). ``"paper"``: published sizes; an instance is a component, whether or not it was
    clicked, and a click without component is lost. Default: sizes follow the median nucleus
    radius; the instance of a click is its component within its cell, numbered as the cell;
    components without a click become unlabelled, and a click without one gets a small disk.

    Parameters
    ----------
    nuclei
        ``(Y, X)`` projection of the nuclei channel; other than uint8 it is scaled with `to_uint8`.
    points
        Clicks; z plays no part.
    cells
        ``(Y, X)`` int32 from `nearest_point` of the same points; 0 = not annotated, unlabelled.
    setting
        ``"default"`` or ``"paper"``.
    seed
        Of the clustering.

    Returns
    -------
    Plane

    Raises
    ------
    InputError
        No click, or one outside.

    Examples
    --------
    >>> y, x = np.mgrid[:60, :60]
    >>> disk = (200 * ((y - 30) ** 2 + (x - 30) ** 2 <= 100)).astype(np.uint8)
    >>> plane = projected_labels(disk, Points([0], [30], [30]), np.ones((60, 60), np.int32))
    >>> int(plane.instances[30, 30]), bool(plane.unlabelled[30, 41]), int(plane.instances[0, 0])
    (1, True, 0)
    """
    paper = check_setting(setting) == "paper"
    if cells.shape != nuclei.shape:
        raise InputError(f"cells {cells.shape} do not fit a projection of {nuclei.shape}.")
    given = nuclei[None]
    stack = given.astype(np.uint8) if given.dtype == np.uint8 else to_uint8(given, None, setting)
    clicks = points.zyx() * (0, 1, 1)
    voxel = grid_points(nuclei.shape, clicks)
    radius = PAPER_RADIUS if paper else median_radius(stack, clicks, 1.0)
    scale = radius / PAPER_RADIUS
    away = distance_map(stack.shape, clicks, limit=2 * radius)
    # Both settings: one slice, and a disk of half a radius (published: 5 px) around the clicks.
    roles = cluster_foreground(stack, away, clicks, radius=radius, seed=seed)[0]
    found = _without_small(roles == NUCLEUS, _LEAST * scale * scale)
    found = _nuclei(found, cells, scale)
    if paper:
        instances = ndimage.label(found, _EIGHT)[0].astype(np.int32)
    else:
        instances = _by_point(found, voxel, cells, scale)
    background = (roles == BACK) & ~found & (instances == 0) & (away[0] > _MARGIN * scale)
    if not paper:
        background &= cells > 0
    return Plane(instances, (instances == 0) & ~background)


def voronoi_labels(
    cells: NDArray[np.int32],
    clicks: NDArray[np.float64],
    ids: NDArray[np.integer],
    region: Bool | None = None,
) -> NDArray[np.int32]:
    """The Voronoi label of Qu et al. 2019: background on cell walls, nucleus close to clicks.

    Parameters
    ----------
    cells
        ``(Y, X)`` int32 from `nearest_point`; 0 = not annotated.
    clicks
        ``(n, 3)``; z plays no part.
    ids
        ``(n,)``, positive: what is written for each click.
    region
        ``(Y, X)`` bool; outside, nothing is said. None: everywhere.

    Returns
    -------
    int32 ``(Y, X)``: -1 on the walls, the click's id within 2 px of it, 0 elsewhere.

    Examples
    --------
    >>> cells = np.repeat([[1] * 5 + [2] * 5], 5, axis=0).astype(np.int32)
    >>> label = voronoi_labels(cells, np.array([[0, 2, 1], [0, 2, 8]]), np.array([1, 2]))
    >>> label[2].tolist()
    [1, 1, 1, 1, -1, -1, 2, 2, 2, 2]
    """
    out = np.where(cell_edges(cells), -1, 0).astype(np.int32)
    n_y, n_x = cells.shape
    for (y, x), i in zip(grid_points(cells.shape, clicks * (0, 1, 1)), ids, strict=True):
        rows, columns = np.ogrid[max(0, y - 2) : min(n_y, y + 3), max(0, x - 2) : min(n_x, x + 3)]
        disk = (rows - y) ** 2 + (columns - x) ** 2 <= _DOT * _DOT
        out[rows, columns] = np.where(disk, i, out[rows, columns])
    if region is not None:
        out[~region] = 0
    return out
