"""A slide: a colour image that is read region by region, at any pixel size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import CallError, InputError

UInt8s = NDArray[np.uint8]
Box = tuple[int, int, int, int]

#: ``(level, box in pixels of that level, inside it) -> (h, w, 3) uint8``.
ReadRegion = Callable[[int, Box], UInt8s]

#: A level may be coarser than what is asked for by this: scanners' "40x" is 0.23 to 0.26 um.
_COARSER = 1.1

#: Micrometres per pixel outside this range are a wrong unit, not a slide.
PLAUSIBLE_MPP = (0.05, 50.0)


def check_mpp(mpp: float | None, where: str) -> float | None:
    """Return ``mpp`` as a float, or None; raise InputError when it cannot be a slide's.

    >>> check_mpp(0.25, "a.svs")
    0.25
    """
    if mpp is None:
        return None
    low, high = PLAUSIBLE_MPP
    if not (math.isfinite(mpp) and low <= mpp <= high):
        raise InputError(
            f"{where}: {mpp:g} um per pixel is not between {low:g} and {high:g}; give the real "
            "pixel size with --mpp."
        )
    return float(mpp)


@dataclass(frozen=True, eq=False)
class Slide:
    """A brightfield image ``(Y, X, 3)`` uint8 with its scale, read in parts.

    Parameters
    ----------
    name
        The file's stem; used in messages and in the ``image`` column of tables.
    level_shapes
        Rows and columns of each level, the full resolution first.
    mpp
        Micrometres per pixel of level 0, or None when unknown.
    reader
        Reads a box of a level, in that level's pixels and inside it.
    notes
        What the reader had to decide or found odd, one sentence each.

    Raises
    ------
    InputError
        No level, an empty one, levels that do not shrink, or an implausible ``mpp``.

    Examples
    --------
    >>> slide = Slide.from_array(np.zeros((40, 60, 3), np.uint8), mpp=0.5)
    >>> slide.shape, slide.levels, slide.read((-8, 0, 24, 16), mpp=1.0).shape
    ((40, 60), (1.0,), (16, 8, 3))
    """

    name: str
    level_shapes: tuple[tuple[int, int], ...]
    mpp: float | None
    reader: ReadRegion = field(repr=False)
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shapes = tuple((int(y), int(x)) for y, x in self.level_shapes)
        if not shapes or min(min(shape) for shape in shapes) < 1:
            raise InputError(f"{self.name}: the slide is empty, levels {list(shapes)}.")
        if any(b[0] > a[0] or b[1] > a[1] for a, b in pairwise(shapes)):
            raise InputError(f"{self.name}: its levels {list(shapes)} do not become smaller.")
        object.__setattr__(self, "level_shapes", shapes)
        object.__setattr__(self, "mpp", check_mpp(self.mpp, self.name))

    @classmethod
    def from_array(cls, rgb: UInt8s, *, mpp: float | None = None, name: str = "image") -> Slide:
        """A slide of one level from ``(Y, X, 3)`` uint8.

        Raises
        ------
        InputError
            Another shape or dtype.
        """
        array = np.ascontiguousarray(rgb)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
            raise InputError(
                f"{name}: a slide is (Y, X, 3) uint8; found {array.shape} {array.dtype}."
            )

        def reader(level: int, box: Box) -> UInt8s:
            y0, x0, y1, x1 = box
            return array[y0:y1, x0:x1]

        return cls(name, (array.shape[:2],), mpp, reader)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of level 0."""
        return self.level_shapes[0]

    @property
    def levels(self) -> tuple[float, ...]:
        """How many level-0 pixels a pixel of each level spans; the first is 1."""
        height, width = self.shape
        return tuple((height / y + width / x) / 2 for y, x in self.level_shapes)

    def known_mpp(self) -> float:
        """Micrometres per pixel, which must be known.

        Raises
        ------
        InputError
            Unknown; asks for it.
        """
        if self.mpp is None:
            raise InputError(f"{self.name}: its pixel size is unknown; give it with --mpp.")
        return self.mpp

    def with_mpp(self, mpp: float) -> Slide:
        """The same slide with this many micrometres per pixel."""
        return replace(self, mpp=mpp)

    def read(self, box: Box, *, mpp: float | None = None) -> UInt8s:
        """Read a region, resampled to ``mpp``.

        Parameters
        ----------
        box
            ``(y0, x0, y1, x1)`` half-open, pixels of level 0; may reach beyond the border, where
            the image goes on mirrored at its edge.
        mpp
            Micrometres per pixel wanted; default those of level 0.

        Returns
        -------
        ``(h, w, 3)`` uint8, where ``h`` is ``(y1 - y0) * self.mpp / mpp`` rounded, at least 1; its
        pixels share the box out evenly. Coarser than level 0: read from the coarsest level that
        is fine enough and averaged by area; finer: bilinear.

        Raises
        ------
        CallError
            An empty box.
        InputError
            ``mpp`` is asked for and the slide's is unknown.

        Notes
        -----
        Memory is the region in pixels of the level that is read, and the result.
        """
        y0, x0, y1, x1 = (int(v) for v in box)
        if y1 <= y0 or x1 <= x0:
            raise CallError(f"{self.name}: the box {tuple(box)} is empty.")
        if mpp is None:
            return self._padded(0, (y0, x0, y1, x1))
        ratio = (check_mpp(mpp, "the wanted scale") or 1.0) / self.known_mpp()
        shape = (max(1, round((y1 - y0) / ratio)), max(1, round((x1 - x0) / ratio)))
        return self._scaled((y0, x0, y1, x1), shape, ratio)

    def _scaled(self, box: Box, shape: tuple[int, int], ratio: float) -> UInt8s:
        """A box of level 0 as ``shape`` pixels, each of ``ratio`` pixels of level 0."""
        from nucleoscope.data.resample import resample

        level = max((i for i, d in enumerate(self.levels) if d <= ratio * _COARSER), default=0)
        fy, fx = (a / b for a, b in zip(self.shape, self.level_shapes[level], strict=True))
        y0, y1, x0, x1 = box[0] / fy, box[2] / fy, box[1] / fx, box[3] / fx
        # One pixel more on each side for the bilinear filter.
        outer = (math.floor(y0) - 1, math.floor(x0) - 1, math.ceil(y1) + 1, math.ceil(x1) + 1)
        if (y0, x0, y1 - y0, x1 - x0) == (outer[0] + 1, outer[1] + 1, *shape):
            return self._padded(level, (int(y0), int(x0), int(y1), int(x1)))
        part = self._padded(level, outer)
        inner = (y0 - outer[0], x0 - outer[1], y1 - outer[0], x1 - outer[1])
        return resample(part, shape, box=inner)

    def _padded(self, level: int, box: Box) -> UInt8s:
        """A box of a level, in its pixels, mirrored beyond the border."""
        from nucleoscope.data.resample import gathered, mirrored

        height, width = self.level_shapes[level]
        y0, x0, y1, x1 = box
        if min(y0, x0) >= 0 and y1 <= height and x1 <= width:
            return self.reader(level, box)
        rows, columns = mirrored(y0, y1, height), mirrored(x0, x1, width)
        top, left = int(rows.min()), int(columns.min())
        inside = self.reader(level, (top, left, int(rows.max()) + 1, int(columns.max()) + 1))
        return gathered(inside, rows - top, columns - left)
