"""The outline of every nucleus of an instance map, in 2D and in stacks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.outlines import Outlines
from nucleoscope.nuclei.measure import Contours, contours


def outlines_of(labels: Labels, ids: ArrayLike) -> tuple[Outlines, NDArray[np.int64]]:
    """Outlines in the order of ``ids``, each from the slice where the nucleus is largest.

    Parameters
    ----------
    labels
        Instance map of one or several slices.
    ids
        ``(n,)`` nucleus ids; one that is not in the map has no outline.

    Returns
    -------
    Outlines, and the slice ``(n,)`` each was taken from (0 without an outline).

    Notes
    -----
    Rings run along pixel edges, so an outline's area is its nucleus's pixels in that slice (of
    its largest 4-connected piece, holes filled).

    Examples
    --------
    >>> plane = np.zeros((2, 3, 4), np.int32)
    >>> plane[0, 1, 1] = plane[1, 1, 1:3] = 7
    >>> outlines, z = outlines_of(Labels(plane), [7, 9])
    >>> outlines.areas().tolist(), z.tolist()
    ([2.0, 0.0], [1, 0])
    """
    wanted = np.asarray(ids, dtype=np.int64)
    place = {int(ident): i for i, ident in enumerate(wanted)}
    rings: list[NDArray[np.float64]] = [np.empty((0, 2))] * len(wanted)
    best = np.zeros(len(wanted))
    at = np.zeros(len(wanted), np.int64)
    for z, plane in enumerate(labels.data):
        traced = contours(plane)
        found = Outlines(np.stack([traced.y, traced.x], axis=1), traced.offsets)
        for ident, ring, area in zip(
            traced.ids.tolist(), _rings(traced), found.areas(), strict=True
        ):
            i = place.get(ident)
            if i is not None and area > best[i]:
                rings[i], best[i], at[i] = ring, area, z
    return Outlines.from_rings(rings), at


def _rings(traced: Contours) -> list[NDArray[np.float64]]:
    yx = np.stack([traced.y, traced.x], axis=1)
    return np.split(yx, traced.offsets[1:-1]) if len(traced.ids) else []
