"""Clicks to everything a network is taught: cells, instances, foreground, z ranges."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data import Points, PseudoLabels, Region, Volume
from nucleoscope.errors import InputError
from nucleoscope.supervision.clusters import BACK, PAPER_RADIUS, cluster_foreground, to_uint8
from nucleoscope.supervision.halfmax import half_maximum
from nucleoscope.supervision.voronoi import distance_map, grid_points, nearest_point
from nucleoscope.supervision.zrange import check_setting, slice_areas, z_ranges
from nucleoscope.units import z_step_px

#: One slice counts as this many pixels when the scale is unknown (the published constant).
Z_STEP = 11.0


def z_step_of(volume: Volume) -> float:
    """Slice step of a stack in xy pixels; the published 11 where the scale is unknown.

    >>> z_step_of(Volume(np.zeros((1, 2, 3, 3), np.uint8), ("DAPI",), (1.5, 0.5, 0.5)))
    3.0
    """
    return z_step_px(volume.spacing, Z_STEP)


def nuclei_channel(volume: Volume, nuclei: str | int = "DAPI") -> NDArray[np.generic]:
    """The channel in which nuclei are bright, ``(Z, Y, X)``.

    Of a brightfield image (``is_rgb``) it is what is dark in red, where haematoxylin absorbs and
    eosin hardly does; ``nuclei`` then plays no part.

    Raises
    ------
    CallError
        No such channel.

    Examples
    --------
    >>> pixel = np.array([90, 60, 160], np.uint8).reshape(3, 1, 1, 1)
    >>> nuclei_channel(Volume(pixel, ("red", "green", "blue"), is_rgb=True)).item()
    165
    """
    if not volume.is_rgb:
        return volume.channel(nuclei)
    red = volume.channel("red")
    top = np.iinfo(red.dtype.str).max if red.dtype.kind == "u" else np.max(red)
    inverted: NDArray[np.generic] = np.subtract(red.dtype.type(top), red, dtype=red.dtype)
    return inverted


def _renumber(kept: NDArray[np.int64], n: int, cells: NDArray[np.int32]) -> NDArray[np.int32]:
    """Turn cells of the kept clicks into cells of all given clicks."""
    if len(kept) == n:
        return cells
    table = np.concatenate([[0], kept + 1]).astype(np.int32)
    return np.asarray(table[cells])


def _paper(
    channel: NDArray[np.generic],
    clicks: NDArray[np.float64],
    cells: NDArray[np.int32],
    z_step: float,
    region: NDArray[np.bool_] | None,
    seed: int,
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Published instances (not background, within the plane's cell) and foreground (0 or 1)."""
    away = distance_map(channel.shape, clicks, z_step, limit=2 * PAPER_RADIUS)
    bright = to_uint8(channel, region, "paper")
    roles = cluster_foreground(bright, away, clicks, setting="paper", region=region, seed=seed)
    inside = (roles != BACK).view(np.uint8)
    return cells * inside, inside


def pseudo_labels(
    volume: Volume,
    points: Points,
    *,
    nuclei: str | int = "DAPI",
    region: Region | None = None,
    setting: str = "default",
    seed: int = 0,
) -> PseudoLabels:
    """Make everything a network is taught from one click per nucleus.

    Default: `half_maximum` in the Voronoi cells in space, z ranges from the nuclei found. What
    lies outside the region is unlabelled. ``"paper"``: `cluster_foreground` on the stack with
    zeros outside the region, foreground is what is not background, restricted to the Voronoi
    cells in the plane (Moradinasab et al. 2023, algorithm 1). The published code counts a slice
    as 11 px whatever the scale and reads the distance at a wrong plane; this takes the scale
    where it is known, and the right plane.

    Parameters
    ----------
    volume
        The stack, or an image of one slice. Where its scale is unknown one slice counts 11 px.
    points
        One click per nucleus, inside the image.
    nuclei
        The channel that shows the nuclei; a brightfield image needs none (`nuclei_channel`).
    region
        The annotated area; clicks outside it are not used. None: the whole image.
    setting
        ``"default"`` or ``"paper"``.
    seed
        Of the clustering; the default setting draws no random number.

    Returns
    -------
    PseudoLabels
        Index ``i + 1`` is row ``i`` of ``points`` as given. A click that is outside the region
        has neither cell nor slice; one that shares its voxel with an earlier click has slices
        but no cell.

    Raises
    ------
    CallError
        No such channel or setting.
    InputError
        No click, none inside the region, or one outside the image.

    Notes
    -----
    Linear in voxels; about 13 bytes per voxel besides the stack.

    Examples
    --------
    >>> y, x = np.mgrid[:40, :40]
    >>> disk = (200 * ((y - 20) ** 2 + (x - 20) ** 2 <= 64)).astype(np.uint8)
    >>> labels = pseudo_labels(Volume(disk[None, None], ("DAPI",)), Points([0], [20], [20]))
    >>> labels.z_ranges.tolist(), int(labels.instances[0, 20, 20])
    ([[True]], 1)
    """
    check_setting(setting)
    channel = nuclei_channel(volume, nuclei)
    if len(points) == 0:
        raise InputError(f"{points.name}: no points; pseudo labels need at least one click.")
    points = points.check_inside(volume.shape)
    kept = np.arange(len(points))
    if region is not None:
        kept = np.flatnonzero(region.contains(points.y, points.x))
    if kept.size == 0:
        raise InputError(
            f"{points.name}: none of {len(points)} points lies inside {region and region.name}; "
            "check that outline and points belong to the same image."
        )
    inside = None if region is None else region.mask(volume.shape[1:])
    clicks, z_step = points.zyx()[kept], z_step_of(volume)
    cells = nearest_point(volume.shape[1:], clicks)
    if setting == "paper":
        instances, foreground = _paper(channel, clicks, cells, z_step, inside, seed)
    else:
        found = half_maximum(channel, clicks, z_step, region=inside)
        instances, foreground = found.instances, found.foreground
    areas = slice_areas(instances, instances, len(kept))
    ranges = np.zeros((len(points), len(channel)), dtype=bool)
    ranges[kept], n_fallback = z_ranges(
        areas, grid_points(volume.shape, clicks)[:, 0], setting=setting
    )
    return PseudoLabels(
        _renumber(kept, len(points), cells),
        _renumber(kept, len(points), instances),
        foreground,
        ranges,
        n_fallback,
    )
