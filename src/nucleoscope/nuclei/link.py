"""Instances of neighbouring slices to nuclei in 3D.

A nucleus is a track: at most one instance per slice, each the best partner of the one before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from nucleoscope.data.labels import Labels
from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei.measure import Extents, IdRuns, extents
from nucleoscope.units import Spacing

Floats = NDArray[np.float64]
Int64s = NDArray[np.int64]

#: Two instances may be one nucleus from this overlap on ...
MIN_IOU = 0.25
#: ... or when their centroids are closer than this many radii.
MAX_SHIFT = 0.5
#: Slices a track may miss in a row.
MAX_GAP = 1
#: A slice splits a track when its area is below this share of the largest area on either side,
MAX_NECK = 0.5
#: and when either side holds this many slices.
MIN_SIDE = 2
#: A track of one slice counts when its score is at least this.
LONE_SCORE = 0.8
#: Radius in pixels of the discs of the paper's rule.
DISC = 4

Setting = Literal["default", "paper"]


class _Nodes(NamedTuple):
    """The instances of all slices, slice after slice, ids ascending."""

    z: Int64s
    ids: Int64s
    y: Floats
    x: Floats
    area: Floats
    first: Int64s  # of each slice


def link(
    slices: Sequence[NDArray[np.integer[Any]]],
    *,
    spacing: Spacing | None = None,
    radius: float | None = None,
    scores: Sequence[ArrayLike] | None = None,
    setting: Setting = "default",
) -> Labels:
    """One id per nucleus through the slices of a stack.

    ``default``: instances of adjacent slices are candidates when IoU > 0.25 or their centroids
    are closer than half a radius; among candidates the assignment of highest total similarity
    ``IoU + 1 / (1 + d / r)`` is taken (Hungarian). Ends and beginnings that remain are joined
    across one missing slice by the same rule. A track is split where its area falls below half
    of the maximum on either side (two nuclei on top of each other), and counts when it holds
    two slices or its best score is 0.8 or more; a single slice is taken as it is.

    ``paper``: discs of radius 4 around all centroids, united over all slices; each 8-connected
    component is one nucleus (the published inference of LECL, MLHC 2022). Here every instance
    keeps its own slice. Nuclei on top of each other, or within about 9 pixels, are fused.

    Parameters
    ----------
    slices
        Z instance maps ``(Y, X)``, ids of each slice its own.
    spacing
        ``(z, y, x)`` in um, kept in the result.
    radius
        Radius of a nucleus in pixels; default the median of the instances' equivalent radius.
    scores
        For each slice one detection probability per instance, ascending ids. Without them a
        track of one slice does not count.
    setting
        See above.

    Returns
    -------
    Labels ``(Z, Y, X)``, ids 1..n in order of their first instance; ``traces`` tells which
    instance became which nucleus.

    Raises
    ------
    CallError
        No slice, an unknown setting, a radius that is not positive, or not one score per instance.
    InputError
        The slices differ in shape or are not 2D instance maps.

    Examples
    --------
    >>> plane = np.zeros((8, 8), dtype=np.int32)
    >>> plane[2:6, 2:6] = 5
    >>> link([plane, plane, 0 * plane]).data[:, 3, 3].tolist()
    [1, 1, 0]
    """
    _check(slices, radius, setting)
    nodes = _nodes(slices)
    if setting == "paper":
        track = _discs(nodes, slices[0].shape)
    else:
        after = _successors(slices, nodes, radius or _median_radius(nodes))
        track = _split(nodes, _chains(after))
        track = _drop_lone(nodes, track, scores, len(slices))
    return Labels(_painted(slices, nodes, _renumber(track)), spacing)


def traces(slices: Sequence[NDArray[np.integer[Any]]], linked: Labels) -> Int64s:
    """Rows ``(z, id in the slice, id in 3D)`` of every instance; 3D id 0 = it did not count.

    >>> plane = np.array([[7, 7], [0, 0]], dtype=np.int32)
    >>> traces([plane, plane], link([plane, plane])).tolist()
    [[0, 7, 1], [1, 7, 1]]
    """
    rows = [np.zeros((0, 3), dtype=np.int64)]
    for z, plane in enumerate(slices):
        runs, index, ids = IdRuns.of(plane)
        at = np.unique(index, return_index=True)[1]
        nucleus = linked.data[z][runs.rows()[at], runs.start[at]]
        rows.append(np.stack([np.full(ids.size, z), ids, nucleus.astype(np.int64)], axis=1))
    return np.concatenate(rows)


def _check(slices: Sequence[NDArray[np.integer[Any]]], radius: float | None, setting: str) -> None:
    if not slices:
        raise CallError("link needs one slice or more; found none.")
    if setting not in ("default", "paper"):
        raise CallError(f"setting is 'default' or 'paper'; found {setting!r}.")
    if radius is not None and not radius > 0:
        raise CallError(f"radius is a positive number of pixels; found {radius!r}.")
    for z, plane in enumerate(slices):
        if plane.ndim != 2 or plane.dtype.kind not in "iu":
            raise InputError(
                f"slice {z}: an instance map is (Y, X) integers; "
                f"found {plane.dtype} of shape {plane.shape}."
            )
        if plane.shape != slices[0].shape:
            raise InputError(f"slice {z} is {plane.shape} but slice 0 is {slices[0].shape}.")


def _nodes(slices: Sequence[NDArray[np.integer[Any]]]) -> _Nodes:
    found: list[Extents] = [extents(plane) for plane in slices]
    counts = [each.ids.size for each in found]
    return _Nodes(
        np.repeat(np.arange(len(slices)), counts),
        np.concatenate([each.ids for each in found]),
        np.concatenate([each.y for each in found]),
        np.concatenate([each.x for each in found]),
        np.concatenate([each.size for each in found]).astype(np.float64),
        np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
    )


def _median_radius(nodes: _Nodes) -> float:
    return float(np.sqrt(np.median(nodes.area) / np.pi)) if nodes.area.size else 1.0


def _successors(slices: Sequence[NDArray[np.integer[Any]]], nodes: _Nodes, radius: float) -> Int64s:
    """The node each node is followed by, or -1: adjacent slices first, then across gaps."""
    after = np.full(nodes.z.size, -1)
    is_headed = np.zeros(nodes.z.size, dtype=bool)  # something comes before it
    for gap in range(1, MAX_GAP + 2):
        for z in range(len(slices) - gap):
            i, j, similarity = _candidates(slices, nodes, z, z + gap, radius)
            free = (after[i] < 0) & ~is_headed[j]
            i, j = _assign(i[free], j[free], similarity[free])
            after[i] = j
            is_headed[j] = True
    return after


def _candidates(
    slices: Sequence[NDArray[np.integer[Any]]], nodes: _Nodes, z: int, other: int, radius: float
) -> tuple[Int64s, Int64s, Floats]:
    """Pairs of nodes of two slices that may be one nucleus, and how similar they are."""
    a = slice(nodes.first[z], nodes.first[z + 1])
    b = slice(nodes.first[other], nodes.first[other + 1])
    i, j, shared = _overlaps(slices[z], slices[other], nodes.ids[a], nodes.ids[b])
    near_i, near_j = _close(nodes, a, b, MAX_SHIFT * radius)
    width = max(b.stop - b.start, 1)
    key = np.concatenate([i * width + j, near_i * width + near_j])
    pairs, at = np.unique(key, return_inverse=True)
    overlap = np.bincount(at[: i.size], weights=shared, minlength=pairs.size)
    i, j = pairs // width + a.start, pairs % width + b.start
    iou = overlap / (nodes.area[i] + nodes.area[j] - overlap)
    distance = np.hypot(nodes.y[i] - nodes.y[j], nodes.x[i] - nodes.x[j])
    keep = (iou > MIN_IOU) | (distance < MAX_SHIFT * radius)
    similarity = iou + 1.0 / (1.0 + distance / radius)
    return i[keep], j[keep], similarity[keep]


def _overlaps(
    a: NDArray[np.integer[Any]], b: NDArray[np.integer[Any]], ids_a: Int64s, ids_b: Int64s
) -> tuple[Int64s, Int64s, Int64s]:
    """Ranks of overlapping ids of two maps and the pixels they share, from runs of equal pairs."""
    at = np.flatnonzero((a > 0) & (b > 0))
    first, second = a.ravel()[at], b.ravel()[at]
    is_new = np.ones(at.size, dtype=bool)
    is_new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    begin = np.flatnonzero(is_new)
    length = np.diff(np.append(begin, at.size))
    return np.searchsorted(ids_a, first[begin]), np.searchsorted(ids_b, second[begin]), length


def _close(nodes: _Nodes, a: slice, b: slice, reach: float) -> tuple[Int64s, Int64s]:
    """Ranks of nodes of two slices whose centroids are within ``reach`` pixels."""
    if a.start == a.stop or b.start == b.stop:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    one = cKDTree(np.stack([nodes.y[a], nodes.x[a]], axis=1))
    two = cKDTree(np.stack([nodes.y[b], nodes.x[b]], axis=1))
    found = one.sparse_distance_matrix(two, reach, output_type="ndarray")
    return found["i"].astype(np.int64), found["j"].astype(np.int64)


def _assign(i: Int64s, j: Int64s, similarity: Floats) -> tuple[Int64s, Int64s]:
    """One-to-one pairs of highest total similarity; alone-standing pairs need no solver."""
    if i.size == 0:
        return i, j
    n = int(max(i.max(), j.max())) + 1
    block = _blocks(i, j, n)[i]
    order = np.argsort(block, kind="stable")
    edges = np.bincount(block, minlength=n)
    chosen = [order[edges[block[order]] == 1]]
    several = order[edges[block[order]] > 1]
    cuts = np.flatnonzero(np.diff(block[several])) + 1
    for group in np.split(several, cuts) if several.size else []:
        rows, r = np.unique(i[group], return_inverse=True)
        columns, c = np.unique(j[group], return_inverse=True)
        gain = np.zeros((rows.size, columns.size))
        gain[r, c] = similarity[group]
        taken_r, taken_c = linear_sum_assignment(gain, maximize=True)
        is_taken = np.zeros(gain.shape, dtype=bool)
        is_taken[taken_r, taken_c] = True
        chosen.append(group[is_taken[r, c]])
    pairs = np.sort(np.concatenate(chosen))
    return i[pairs], j[pairs]


def _blocks(i: Int64s, j: Int64s, n: int) -> Int64s:
    """Connected component of each of ``n`` nodes under the edges ``i - j``."""
    graph = coo_array((np.ones(i.size, dtype=np.int8), (i, j)), shape=(n, n))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _chains(after: Int64s) -> Int64s:
    """Track of each node."""
    i = np.flatnonzero(after >= 0)
    return _blocks(i, after[i], after.size)


def _split(nodes: _Nodes, track: Int64s) -> Int64s:
    """Cut tracks at deep minima of their area; new tracks get new numbers."""
    track = track.copy()
    order = np.lexsort((nodes.z, track))
    cuts = np.flatnonzero(np.diff(track[order])) + 1
    n = int(track.max()) + 1 if track.size else 0
    for members in np.split(order, cuts):
        if members.size < 2 * MIN_SIDE + 1:
            continue
        for begin in _necks(nodes.area[members]):
            track[members[begin:]] = n
            n += 1
    return track


def _necks(area: Floats) -> list[int]:
    """Where the parts after the first begin, ascending."""
    inner = np.arange(MIN_SIDE, area.size - MIN_SIDE)
    if inner.size == 0:
        return []
    left = np.maximum.accumulate(area)[inner - 1]
    right = np.maximum.accumulate(area[::-1])[::-1][inner + 1]
    depth = area[inner] / np.minimum(left, right)
    deepest = int(np.argmin(depth))
    if depth[deepest] >= MAX_NECK:
        return []
    neck = int(inner[deepest])
    # The neck goes to the side whose next slice is nearer to it in area.
    begin = neck + 1 if area[neck - 1] <= area[neck + 1] else neck
    later = [begin + at for at in _necks(area[begin:])]
    return [*_necks(area[:begin]), begin, *later]


def _drop_lone(
    nodes: _Nodes, track: Int64s, scores: Sequence[ArrayLike] | None, depth: int
) -> Int64s:
    """Set tracks of one slice without a high score to -1, unless there is one slice only."""
    score = np.zeros(track.size)
    if scores is not None:
        given = [np.asarray(each, dtype=np.float64).ravel() for each in scores]
        if [each.size for each in given] != np.diff(nodes.first).tolist():
            raise CallError("scores: give, for each slice, one score per instance.")
        score = np.concatenate(given)
    if depth == 1 or track.size == 0:
        return track
    length = np.bincount(track)
    best = np.zeros(length.size)
    np.maximum.at(best, track, score)
    counts = (length >= 2) | (best >= LONE_SCORE)
    return np.where(counts[track], track, -1)


def _discs(nodes: _Nodes, shape: tuple[int, ...]) -> Int64s:
    """Component of the united discs around all centroids, for each node."""
    y, x = np.rint(nodes.y).astype(np.int64), np.rint(nodes.x).astype(np.int64)
    dy, dx = np.mgrid[-DISC : DISC + 1, -DISC : DISC + 1]
    inside = dy**2 + dx**2 <= DISC**2
    canvas = np.zeros((shape[0] + 2 * DISC, shape[1] + 2 * DISC), dtype=bool)
    canvas[y[:, None] + DISC + dy[inside], x[:, None] + DISC + dx[inside]] = True
    component = ndimage.label(canvas[DISC:-DISC, DISC:-DISC], np.ones((3, 3)))[0]
    return np.asarray(component[y, x], dtype=np.int64)


def _renumber(track: Int64s) -> NDArray[np.int32]:
    """Ids 1..n in order of the first node; -1 becomes 0."""
    found, first, at = np.unique(track, return_index=True, return_inverse=True)
    counted = np.flatnonzero(found >= 0)
    number = np.zeros(found.size, dtype=np.int32)
    number[counted[np.argsort(first[counted])]] = 1 + np.arange(counted.size)
    return number[at]


def _painted(
    slices: Sequence[NDArray[np.integer[Any]]], nodes: _Nodes, number: NDArray[np.int32]
) -> NDArray[np.int32]:
    """The slices with the ids of their nodes replaced."""
    out = np.zeros((len(slices), *slices[0].shape), dtype=np.int32)
    for z, plane in enumerate(slices):
        runs, index, _ = IdRuns.of(plane)
        runs.paint(out[z], number[nodes.first[z] : nodes.first[z + 1]][index])
    return out
