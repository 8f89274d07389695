"""Maps averaged over mirror images: tissue has no up or down, but a network leans one way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.maps import StackMaps
from nucleoscope.data.volume import Volume

#: Which of (y, x) each view turns round.
VIEWS = ((False, False), (True, True), (True, False), (False, True))


def mirrored_maps(
    look: Callable[[Volume], StackMaps], volume: Volume, *, views: int, stride: int
) -> StackMaps:
    """Mean of the maps of the image and of its mirror images, turned back.

    Parameters
    ----------
    look
        Gives the maps of an image.
    volume
        The image.
    views
        1 to 4: how many of it as it is, turned upside down, mirrored in y, mirrored in x.
    stride
        Image pixels per map pixel; images are brought to whole map pixels before they are turned.

    Examples
    --------
    >>> volume = Volume(np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2), ("a",))
    >>> def look(v):
    ...     plane = v.data[0].astype(np.float32)
    ...     nothing = np.zeros((3, *plane.shape), np.float32)
    ...     return StackMaps(plane, plane, nothing, nothing[:0], 1)
    >>> mirrored_maps(look, volume, views=4, stride=1).centre[0].tolist()
    [[0.0, 1.0], [2.0, 3.0]]
    """
    if views <= 1:
        return look(volume)
    n_y, n_x = volume.shape[1:]
    pad = ((0, 0), (0, 0), (0, -n_y % stride), (0, -n_x % stride))
    whole = np.pad(volume.data, pad, mode="edge")
    total: list[NDArray[np.float32]] = []
    for in_y, in_x in VIEWS[:views]:
        axes = tuple(axis for axis, turned in ((-2, in_y), (-1, in_x)) if turned)
        maps = look(replace(volume, data=np.ascontiguousarray(np.flip(whole, axes))))
        signs = np.array([1, -1 if in_y else 1, -1 if in_x else 1], dtype=np.float32)
        offsets = maps.offsets * signs.reshape(3, 1, 1, 1)
        parts = [
            np.flip(part, axes) for part in (maps.foreground, maps.centre, offsets, maps.types)
        ]
        total = parts if not total else [a + b for a, b in zip(total, parts, strict=True)]
    mean = [np.ascontiguousarray(part) / np.float32(views) for part in total]
    return StackMaps(mean[0], mean[1], mean[2], mean[3], stride)
