"""The instance map: a pixel's value is the id of the nucleus that holds it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.units import Spacing, check_spacing


@dataclass(frozen=True, eq=False)
class Labels:
    """An instance map.

    Parameters
    ----------
    data
        ``(Z, Y, X)`` int32, 0 = no nucleus, otherwise the nucleus id. ``(Y, X)`` becomes one slice.
    spacing
        ``(z, y, x)`` in um per voxel, or None.

    Raises
    ------
    InputError
        Not integers, negative ids, or not two or three axes.
    """

    data: NDArray[np.int32]
    spacing: Spacing | None = None

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.dtype.kind not in "iub":
            raise InputError(f"an instance map holds integers; found {data.dtype}.")
        if data.ndim == 2:
            data = data[None]
        if data.ndim != 3:
            raise InputError(f"an instance map is (Z, Y, X); found shape {data.shape}.")
        if data.size and int(data.min()) < 0:
            raise InputError("an instance map has no negative ids.")
        if data.size and int(data.max()) > np.iinfo(np.int32).max:
            raise InputError("an instance map's ids must fit int32.")
        object.__setattr__(self, "data", data.astype(np.int32, copy=False))
        object.__setattr__(self, "spacing", check_spacing(self.spacing))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        z, y, x = self.data.shape
        return (z, y, x)

    def ids(self) -> NDArray[np.int64]:
        """The nucleus ids present, ascending, without 0."""
        counts = np.bincount(self.data.ravel())
        counts[:1] = 0
        return np.flatnonzero(counts).astype(np.int64)
