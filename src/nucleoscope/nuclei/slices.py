"""Nuclei slice by slice, then joined: the published way from maps to nuclei in 3D."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.data.maps import HoverMaps, StackMaps
from nucleoscope.nuclei.hover import LECL, instance_types
from nucleoscope.nuclei.hover import decode as decode_hover
from nucleoscope.nuclei.link import Setting, link
from nucleoscope.nuclei.peaks import Peaks

#: Instances by HV maps or connected parts; slices linked by overlap, or united as published.
Way = Literal["linked", "united", "components", "components-united"]
#: Way to decode -> whether slices are decoded by HV maps, and how they are linked.
WAYS: dict[str, tuple[bool, Setting]] = {
    "linked": (True, "default"),
    "united": (True, "paper"),
    "components": (False, "default"),
    "components-united": (False, "paper"),
}
#: Components of fewer pixels are dropped (Qu et al. 2019).
LEAST = 20

_EIGHT = np.ones((3, 3), dtype=bool)


def components(foreground: NDArray[np.float32]) -> NDArray[np.int32]:
    """Instances of one slice: eight-connected pixels above a half, small ones dropped, filled.

    The post-processing of Qu et al. 2019 (MIDL): remove below 20 px, fill holes, label.

    Parameters
    ----------
    foreground
        ``(Y, X)`` probability of nucleus.

    Examples
    --------
    >>> foreground = np.zeros((9, 9), np.float32)
    >>> foreground[1:7, 1:7], foreground[8, 8] = 1.0, 1.0
    >>> foreground[3, 3] = 0.0
    >>> np.bincount(components(foreground).ravel()).tolist()
    [45, 36]
    """
    parts, _ = ndimage.label(foreground > 0.5, _EIGHT)
    is_large = np.bincount(parts.ravel()) >= LEAST
    is_large[0] = False
    found: NDArray[np.int32] = ndimage.label(
        ndimage.binary_fill_holes(is_large[parts]), _EIGHT
    )[0].astype(np.int32)  # fmt: skip
    return found


def nuclei_by_slice(
    maps: StackMaps, shape: tuple[int, int, int], *, decode: Way = "linked"
) -> tuple[NDArray[np.int32], Peaks]:
    """Decode every slice by itself and link the slices.

    Parameters
    ----------
    maps
        ``offsets`` hold the HV maps as HoVer-Net has them: vertical in row 1, horizontal in row 2.
        Maps at half resolution are enlarged first, for all constants are in pixels of the image.
    shape
        ``(Z, Y, X)`` of the instance map to make.
    decode
        ``linked``: every slice as HoVer-Net does, then linked by overlap; ``united``: centroids
        within a disc united over all slices instead (LECL's published inference, which fuses
        neighbours above and below each other); ``components`` of the foreground (Qu et al. 2019),
        linked; ``components-united``.

    Returns
    -------
    labels
        ``(Z, Y, X)`` int32; nucleus ``i + 1`` is peak ``i``.
    peaks
        Centroids in pixels of the map, scores the mean foreground probability.
    """
    by_offsets, setting = WAYS[decode]
    slices, scores = [], []
    chance = np.stack([_enlarged(plane, maps.stride) for plane in maps.foreground])
    for z, foreground in enumerate(chance):
        hv = [_enlarged(maps.offsets[axis, z], maps.stride) for axis in (2, 1)]
        hover = HoverMaps(foreground, np.stack(hv))
        plane = decode_hover(hover, settings=LECL) if by_offsets else components(foreground)
        slices.append(plane)
        scores.append(instance_types(plane, hover).score)
    linked = link(slices, scores=scores, setting=setting).data[:, : shape[1], : shape[2]]
    ids = np.flatnonzero(np.bincount(linked.ravel())[1:]) + 1
    numbers = np.zeros(int(linked.max(initial=0)) + 1, dtype=np.int32)
    numbers[ids] = np.arange(1, len(ids) + 1)
    linked = numbers[linked]
    index = np.arange(1, len(ids) + 1)
    if not len(ids):
        return np.zeros(shape, np.int32), Peaks(np.zeros((0, 3)), np.zeros(0))
    centres = np.array(ndimage.center_of_mass(linked > 0, linked, index))
    centres[:, 1:] = (centres[:, 1:] + 0.5) / maps.stride - 0.5
    seen = chance[:, : shape[1], : shape[2]]
    score = np.asarray(ndimage.mean(seen, linked, index), dtype=np.float64)
    return linked, Peaks(centres, score)


def _enlarged(plane: NDArray[np.float32], stride: int) -> NDArray[np.float32]:
    """A map at the resolution of the image: the published constants are in its pixels."""
    if stride == 1:
        return plane
    out: NDArray[np.float32] = ndimage.zoom(plane, stride, order=1, mode="nearest", grid_mode=True)
    return out
