"""Where a nucleus of a stained section lies: between peak and centroid, as it would be clicked.

The peak of the centre map and the centroid of the outline are two estimates of one place whose
errors are largely independent, so a place between them is better than either. And whoever clicks
counts pixels in some way, from 0, from 1, or from a corner: what all clicks are off by is taken off
before training, as no network can learn it that sees images mirrored (``lesson.straightened``),
and is put back here. So found nuclei lie where their annotator would have clicked. Three numbers,
fitted on thousands of clicks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.table import NucleusTable
from nucleoscope.learn.model import PlacementSpec

Floats = NDArray[np.float64]

#: Rounds of reweighting, and the distance in pixels below which a pair counts in full.
ROUNDS, NEAR = 10, 1.0


def least_away(way: Floats, error: Floats) -> PlacementSpec:
    """Share ``a`` and shift that leave ``error - a way - shift`` shortest on average.

    Parameters
    ----------
    way, error
        ``(n, 2)`` from each nucleus's peak to its centroid, and to its click.

    Notes
    -----
    The mean distance is minimised, not that of squares, so a pair of two different nuclei bends
    little; by reweighted least squares (Weiszfeld 1937).

    Examples
    --------
    >>> way = np.array([[0.0, 2.0], [4.0, 0.0], [-2.0, 2.0], [2.0, 2.0]])
    >>> least_away(way, 0.25 * way + [1.0, 0.5])
    PlacementSpec(centroid_share=0.25, dy=1.0, dx=0.5)
    """
    design = np.zeros((len(way), 2, 3))
    design[:, :, 0] = way
    design[:, 0, 1] = design[:, 1, 2] = 1
    weight = np.ones(len(way))
    best = np.zeros(3)
    for _ in range(ROUNDS):
        root = np.sqrt(weight)[:, None]
        best[:] = np.linalg.lstsq(
            (design * root[:, :, None]).reshape(-1, 3), (error * root).ravel(), rcond=None
        )[0]
        away = np.linalg.norm(error - design @ best, axis=1)
        weight = 1 / np.maximum(away, NEAR)
    share, dy, dx = best.round(3).tolist()
    return PlacementSpec(centroid_share=min(max(share, 0.0), 1.0), dy=dy, dx=dx)


def placed(
    table: NucleusTable,
    peaks: Floats,
    factors: tuple[float, float],
    placement: PlacementSpec,
    labels: Labels,
) -> NucleusTable:
    """The table with nuclei moved from their centroids to where they would be clicked.

    Parameters
    ----------
    table
        With the centroids of the instance map ``labels``, in whose pixels and scale it is.
    peaks
        ``(n, 2)`` y and x of the peaks, row by row, in pixels of the model's scale.
    factors
        Pixels of the model per pixel of the image along y and x.
    """
    frame = table.frame.copy()
    share = placement.centroid_share
    shifts = (placement.dy, placement.dx)
    for axis, column in enumerate(("y", "x")):
        peak = (peaks[:, axis] + 0.5) / factors[axis] - 0.5
        centroid = frame[column].to_numpy()
        place = share * centroid + (1 - share) * peak + shifts[axis] / factors[axis]
        frame[column] = np.clip(place, 0, labels.shape[1 + axis] - 1)
        if labels.spacing is not None:
            frame[f"{column}_um"] = frame[column] * labels.spacing[1 + axis]
    return NucleusTable(frame)
