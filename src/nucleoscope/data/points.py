"""An annotator's clicks: one per nucleus, in one slice, with a type."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.errors import InputError


@dataclass(frozen=True, eq=False)
class Points:
    """Clicks in pixels of level 0; the centre of the first pixel is 0.

    Parameters
    ----------
    z, y, x
        float64 ``(n,)``; ``z`` is a 0-based slice, 0 for 2D images.
    type
        ``(n,)`` of str; ``""`` = untyped. Default: all untyped.
    id
        int64 ``(n,)``, unique. Default: 1 to n.
    name
        Where they came from, for messages.

    Raises
    ------
    InputError
        Lengths differ, a coordinate is NaN or infinite, or ids repeat. Names the row.

    Examples
    --------
    >>> points = Points(z=[0.0, 2.0], y=[5.0, 6.0], x=[7.0, 8.0], type=["positive", ""])
    >>> len(points), points.id.tolist()
    (2, [1, 2])
    """

    z: NDArray[np.float64]
    y: NDArray[np.float64]
    x: NDArray[np.float64]
    type: NDArray[np.str_] | None = None
    id: NDArray[np.int64] | None = None
    name: str = "points"

    def __post_init__(self) -> None:
        z, y, x = (np.atleast_1d(np.asarray(a, dtype=np.float64)) for a in (self.z, self.y, self.x))
        n = len(y)
        types = (
            np.full(n, "", dtype=np.str_) if self.type is None else np.asarray(self.type, np.str_)
        )
        ids = np.arange(1, n + 1) if self.id is None else np.asarray(self.id, dtype=np.int64)
        for what, array in (("z", z), ("y", y), ("x", x), ("type", types), ("id", ids)):
            if array.shape != (n,):
                raise InputError(f"{self.name}: {n} points but {array.shape} values of {what}.")
        for what, array in (("z", z), ("y", y), ("x", x)):
            bad = np.flatnonzero(~np.isfinite(array))
            if bad.size:
                raise InputError(f"{self.name}: row {bad[0] + 1}, {what} is not a finite number.")
        if len(np.unique(ids)) != n:
            raise InputError(f"{self.name}: point ids repeat.")
        for what, array in (("z", z), ("y", y), ("x", x), ("type", types), ("id", ids)):
            object.__setattr__(self, what, array)

    def __len__(self) -> int:
        return len(self.y)

    @property
    def types(self) -> NDArray[np.str_]:
        """The types, never None."""
        assert self.type is not None  # noqa: S101  set at construction
        return self.type

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids, never None."""
        assert self.id is not None  # noqa: S101  set at construction
        return self.id

    def zyx(self) -> NDArray[np.float64]:
        """Coordinates ``(n, 3)``."""
        return np.stack([self.z, self.y, self.x], axis=1)

    def where(self, keep: NDArray[np.bool_]) -> Points:
        """The points for which ``keep`` is True; ids stay."""
        return Points(
            self.z[keep], self.y[keep], self.x[keep], self.types[keep], self.ids[keep], self.name
        )

    def check_inside(self, shape: tuple[int, int, int]) -> Points:
        """The points, all inside a ``(Z, Y, X)`` image of ``shape``.

        Programs that count from the corner of the first pixel reach half a pixel further: a point
        less than a pixel beyond the border in y or x is moved onto it.

        Raises
        ------
        InputError
            Names the first point outside, and says so when y and x look swapped.
        """
        limits = np.asarray(shape, dtype=np.float64) - 0.5
        slack = np.array([0.0, 1.0, 1.0])
        zyx = self.zyx()
        if not ((zyx < -0.5) | (zyx > limits)).any():
            return self
        outside = ((zyx < -0.5 - slack) | (zyx > limits + slack)).any(axis=1)
        if not outside.any():
            _, y, x = np.clip(zyx, -0.5, limits).T
            return Points(self.z, y, x, self.types, self.ids, self.name)
        first = int(np.flatnonzero(outside)[0])
        swapped = zyx[:, [0, 2, 1]]
        swap_fits = not ((swapped < -0.5 - slack) | (swapped > limits + slack)).any()
        z, y, x = zyx[first]
        hint = (
            "all would fit with y and x swapped, so check the column order"
            if swap_fits
            else "check that the file belongs to this image and that z starts at 0"
        )
        raise InputError(
            f"{self.name}: {int(outside.sum())} of {len(self)} points lie outside the image of "
            f"{shape[0]} slices of {shape[1]} x {shape[2]} (first: row {first + 1}, "
            f"z={z:g} y={y:g} x={x:g}); {hint}."
        )

    def to_frame(self) -> pd.DataFrame:
        """Columns id, z, y, x, type."""
        return pd.DataFrame(
            {
                "id": self.ids,
                "z": self.z,
                "y": self.y,
                "x": self.x,
                "type": self.types.astype(object),
            }
        )
