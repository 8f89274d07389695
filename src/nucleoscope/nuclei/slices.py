"""Nuclei slice by slice, then joined: the published way from maps to nuclei in 3D."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.data.maps import HoverMaps, StackMaps
from nucleoscope.nuclei.hover import LECL, decode, instance_types
from nucleoscope.nuclei.link import Setting, link
from nucleoscope.nuclei.peaks import Peaks


def nuclei_by_slice(
    maps: StackMaps, shape: tuple[int, int, int], *, setting: Setting = "paper"
) -> tuple[NDArray[np.int32], Peaks]:
    """Decode every slice as HoverNet does and link the slices.

    Parameters
    ----------
    maps
        ``offsets`` hold the HV maps as HoVer-Net has them: vertical in row 1, horizontal in row 2.
    shape
        ``(Z, Y, X)`` of the instance map to make.
    setting
        Of ``link``: ``paper`` unites centroids within a disc over all slices.

    Returns
    -------
    labels
        ``(Z, Y, X)`` int32; nucleus ``i + 1`` is peak ``i``.
    peaks
        Centroids in pixels of the map, scores the mean foreground probability.
    """
    slices, scores = [], []
    for foreground, vertical, horizontal in zip(
        maps.foreground, maps.offsets[1], maps.offsets[2], strict=True
    ):
        hover = HoverMaps(foreground, np.stack([horizontal, vertical]))
        plane = decode(hover, settings=LECL)
        slices.append(plane)
        scores.append(instance_types(plane, hover).score)
    linked = link(slices, scores=scores, setting=setting).data
    ids = np.flatnonzero(np.bincount(linked.ravel())[1:]) + 1
    numbers = np.zeros(int(linked.max(initial=0)) + 1, dtype=np.int32)
    numbers[ids] = np.arange(1, len(ids) + 1)
    linked = numbers[linked]
    index = np.arange(1, len(ids) + 1)
    if not len(ids):
        return np.zeros(shape, np.int32), Peaks(np.zeros((0, 3)), np.zeros(0))
    centres = np.array(ndimage.center_of_mass(linked > 0, linked, index))
    score = np.asarray(ndimage.mean(maps.foreground, linked, index), dtype=np.float64)
    full = linked.repeat(maps.stride, axis=1).repeat(maps.stride, axis=2)
    return np.ascontiguousarray(full[:, : shape[1], : shape[2]]), Peaks(centres, score)
