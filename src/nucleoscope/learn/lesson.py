"""A lesson: one training image with everything its points taught."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.data.maps import BACKGROUND, UNLABELLED, PseudoLabels
from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume

#: Nuclei of fewer voxels keep their click as centre.
SOLID = 20
#: As many are needed to tell what all clicks are off by, and that is at most so many pixels.
ENOUGH, MOST_OFF = 30, 1.5
#: What is farther than this many radii from every nucleus is none, where all were clicked.
RIM_RADII = 0.4


@dataclass(frozen=True, eq=False)
class Partial:
    """What an image is known by of which only some nuclei were clicked.

    Parameters
    ----------
    clicks
        ``(n, 3)`` float64 z, y, x, all inside the region.
    types
        ``(n, G)`` int64, as in ``Lesson``.
    proposals
        ``(m, 3)`` places that look like nuclei and were not clicked.
    is_likely
        ``(m,)`` bool: those that are taken for nuclei before there is a network to ask.
    area
        ``(Y, X)`` bool: the annotated region.
    radius, z_step
        Of a nucleus and of a slice step, in pixels.
    share
        Of the nuclei that were clicked, as estimated.
    """

    clicks: NDArray[np.float64]
    types: NDArray[np.int64]
    proposals: NDArray[np.float64]
    is_likely: NDArray[np.bool_]
    area: NDArray[np.bool_]
    radius: float
    z_step: float
    share: float


@dataclass(frozen=True, eq=False)
class Lesson:
    """One training image with everything its points taught.

    Parameters
    ----------
    volume
        The channels the network sees, in its order.
    instances
        ``(Z, Y, X)`` int32, 1..n.
    foreground
        ``(Z, Y, X)`` uint8: 0 background, 1 nucleus, 255 not taught.
    centres
        ``(n, 3)`` float64 z, y, x.
    types
        ``(n, G)`` int64, -1 where unknown, else 0..T-1; G groups (one per marker).
    is_taught
        ``(n,)`` bool: inside the region, so its centre counts.
    voronoi
        ``(Z, Y, X)`` int32 or None: -1 on edges between cells, the click's number on a small disk
        around it, 0 where nothing is said (Qu et al. 2019).
    partial
        Only where not every nucleus was clicked.
    clicks
        ``(n, 3)`` where the nuclei were clicked, if ``centres`` are elsewhere; or None.
    """

    volume: Volume
    instances: NDArray[np.int32]
    foreground: NDArray[np.uint8]
    centres: NDArray[np.float64]
    types: NDArray[np.int64]
    is_taught: NDArray[np.bool_]
    voronoi: NDArray[np.int32] | None = None
    partial: Partial | None = None
    clicks: NDArray[np.float64] | None = None


def make_lesson(
    volume: Volume,
    pseudo: PseudoLabels,
    points: Points,
    types: NDArray[np.int64],
    is_taught: NDArray[np.bool_],
) -> Lesson:
    """Join an image and its pseudo labels; a centre is halfway from the click to the centroid.

    Clicks are a few pixels off and pseudo labels miss parts; their errors are independent. In
    colour, where outlines take in stain beside the nucleus, all clicks are moved alike.
    """
    clicks = points.zyx()
    placed = straightened if volume.is_rgb else between
    centres = placed(clicks, pseudo.instances)
    return Lesson(
        volume, pseudo.instances, pseudo.foreground, centres, types, is_taught, clicks=clicks
    )


def as_complete(lesson: Lesson, area: NDArray[np.bool_], radius: float) -> Lesson:
    """The lesson, with all background that was left open because it is dark.

    In a stained section much is dark that is no nucleus. Where every nucleus was clicked, what is
    ``RIM_RADII`` away from all of them is none.

    Parameters
    ----------
    lesson
        Of a single plane.
    area
        ``(Y, X)``: where every nucleus was clicked.
    radius
        Of the nuclei in pixels.
    """
    empty = lesson.instances[0] == 0
    y, x = np.rint(lesson.centres[:, 1:]).astype(np.int64).T
    empty[y.clip(0, empty.shape[0] - 1), x.clip(0, empty.shape[1] - 1)] = False
    away = ndimage.distance_transform_edt(empty) > RIM_RADII * radius
    foreground = lesson.foreground.copy()
    foreground[0][away & area & (foreground[0] == UNLABELLED)] = BACKGROUND
    return replace(lesson, foreground=foreground)


def between(clicks: NDArray[np.float64], instances: NDArray[np.int32]) -> NDArray[np.float64]:
    """Halfway from every click to the centroid of its instance, where that is solid.

    >>> instances = np.zeros((1, 9, 9), np.int32)
    >>> instances[0, :5, :5] = 1
    >>> between(np.array([[0.0, 4.0, 2.0]]), instances).tolist()
    [[0.0, 3.0, 2.0]]
    """
    centres = clicks.astype(np.float64)
    solid, centroid = _centroids(instances, len(clicks))
    centres[solid] = 0.5 * centres[solid] + 0.5 * centroid
    return centres


def straightened(clicks: NDArray[np.float64], instances: NDArray[np.int32]) -> NDArray[np.float64]:
    """The clicks without what they are all off by.

    Programs count pixels from 0, from 1, or from the corner of the first, and a network that sees
    images mirrored cannot learn that. It is the median way from click to
    centroid, at most ``MOST_OFF`` pixels, and none where there are fewer than ``ENOUGH`` to tell.

    >>> instances = np.zeros((1, 9, 400), np.int32)
    >>> for i in range(40):
    ...     instances[0, :5, 10 * i : 10 * i + 5] = i + 1
    >>> clicks = np.array([[0.0, 3.0, 10 * i + 3.0] for i in range(40)])
    >>> straightened(clicks, instances)[0].tolist()
    [0.0, 2.0, 2.0]
    """
    solid, centroid = _centroids(instances, len(clicks))
    if len(solid) < ENOUGH:
        return clicks.astype(np.float64)
    off = np.median(centroid - clicks[solid], axis=0)
    top = np.array(instances.shape) - 1.0
    return np.clip(clicks + np.clip(off, -MOST_OFF, MOST_OFF), 0, top)


def _centroids(
    instances: NDArray[np.int32], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of the clicks with a solid instance, and its centroid."""
    counts = np.bincount(instances.ravel(), minlength=n + 1)[1:]
    solid = np.flatnonzero(counts >= SOLID)
    if not solid.size:
        return solid, np.zeros((0, 3))
    ones = np.broadcast_to(np.ones(1, dtype=np.uint8), instances.shape)
    return solid, np.asarray(ndimage.center_of_mass(ones, instances, solid + 1))
