"""Where nuclei could have been: a tissue mask with a scale, holes included."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.region import Region
from nucleoscope.errors import CallError, InputError

UNITS = ("um", "px")

#: Side of a window's pixel when it is drawn from polygons or nuclei, in um (or px).
FINE = 4.0
#: A window never has more pixels than this along one axis; its pixels grow instead.
MAX_SIDE = 4096


@dataclass(frozen=True, eq=False)
class SetCovariance:
    """``|W and (W + h)|`` for all lags up to a distance.

    Parameters
    ----------
    table
        float64, one axis per dimension (three; a plane has one z): the overlap at whole-pixel
        lags, zero lag in the middle. Between whole lags it is multilinear, exactly, because a
        window is a union of pixels.
    scale
        ``(z, y, x)`` unit per pixel.
    box
        ``(z, y, x)`` sides of a window that is a rectangle; a plane is 1 deep.
    """

    table: NDArray[np.float64]
    scale: tuple[float, float, float]
    box: tuple[float, float, float] | None = None

    def at(self, lags: NDArray[np.float64]) -> NDArray[np.float64]:
        """Overlap at ``(m, 2 or 3)`` lags."""
        full = np.zeros((len(lags), 3))
        full[:, 3 - lags.shape[1] :] = lags
        value = np.zeros(len(lags))
        middle = np.array(self.table.shape) // 2
        position = full / np.array(self.scale) + middle
        low = np.floor(position).astype(np.int64)
        for corner in np.ndindex(2, 2, 2):
            index = low + corner
            weight = np.prod(1.0 - np.abs(position - index), axis=1)
            inside = ((index >= 0) & (index < self.table.shape)).all(axis=1) & (weight > 0)
            value[inside] += weight[inside] * self.table[tuple(index[inside].T)]
        return value


@dataclass(frozen=True, eq=False)
class Window:
    """The tissue: a union of pixels.

    Parameters
    ----------
    mask
        bool, ``(Y, X)`` or ``(Z, Y, X)``, True = tissue.
    scale
        Unit per pixel, one per axis.
    origin
        Coordinate of the lower corner of pixel 0, one per axis. Default: half a pixel below 0,
        because the centre of an image's first pixel is 0.
    unit
        ``"um"`` or ``"px"``.
    name
        Where it came from, for messages.

    Raises
    ------
    InputError
        Not two or three axes, no tissue at all, or a scale that is not positive.

    Examples
    --------
    >>> window = Window.box((0.0, 0.0), (10.0, 20.0))
    >>> window.size, window.n_dims, window.is_box
    (200.0, 2, True)
    """

    mask: NDArray[np.bool_]
    scale: tuple[float, ...]
    origin: tuple[float, ...] | None = None
    unit: str = "um"
    name: str = "window"

    def __post_init__(self) -> None:
        mask = np.ascontiguousarray(self.mask, dtype=bool)
        if mask.ndim not in (2, 3):
            raise InputError(f"{self.name}: a window has two or three axes; found {mask.shape}.")
        scale = tuple(float(s) for s in self.scale)
        if len(scale) != mask.ndim or not all(math.isfinite(s) and s > 0 for s in scale):
            raise InputError(f"{self.name}: a window needs a positive scale per axis: {scale}.")
        if not mask.any():
            raise InputError(f"{self.name}: the window holds no tissue.")
        if self.unit not in UNITS:
            raise CallError(f"the unit is um or px; found {self.unit!r}.")
        origin = tuple(-s / 2 for s in scale) if self.origin is None else self.origin
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "origin", tuple(float(o) for o in origin))

    @classmethod
    def box(
        cls, low: Sequence[float], high: Sequence[float], *, unit: str = "um", name: str = "box"
    ) -> Window:
        """A rectangle, or a cuboid, from its two corners; exact, whatever its size."""
        extent = tuple(float(b) - float(a) for a, b in zip(low, high, strict=True))
        return cls(np.ones((1,) * len(extent), bool), extent, tuple(low), unit, name)

    @classmethod
    def around(cls, at: NDArray[np.float64], unit: str = "um") -> Window:
        """The rectangle that nuclei suggest: their bounding box, grown by ``(n + 1) / (n - 1)``.

        The factor makes the size unbiased along each axis for uniform nuclei (Ripley and Rasson
        1977). A side of no length becomes one unit long.
        """
        n, dims = at.shape
        if n == 0:
            return cls.box((0.0,) * dims, (1.0,) * dims, unit=unit)
        low, high = at.min(axis=0), at.max(axis=0)
        half = (high - low) / 2 * ((n + 1) / max(n - 1, 1))
        half = np.where(half > 0, half * (1 + 1e-12), 0.5)
        middle = (low + high) / 2
        return cls.box(tuple(middle - half), tuple(middle + half), unit=unit, name="nuclei")

    @classmethod
    def from_region(
        cls, region: Region, *, mpp: float | None = None, pixel: float = FINE
    ) -> Window:
        """Draw polygons in image pixels as a window.

        Parameters
        ----------
        region
            Rings in pixels of level 0.
        mpp
            um per pixel; the window is then in um. None: the window is in px.
        pixel
            Side of the window's pixels in the window's unit; grows for very large regions.
        """
        factor = 1.0 if mpp is None else float(mpp)
        rings = [ring * factor for ring in region.rings]
        points = np.concatenate(rings)
        low, high = points.min(axis=0), points.max(axis=0)
        side = max(pixel, float((high - low).max()) / MAX_SIDE)
        shape = tuple(int(n) for n in np.maximum(np.ceil((high - low) / side), 1))
        drawn = Region(tuple((ring - low) / side - 0.5 for ring in rings), region.name)
        mask = drawn.mask((shape[0], shape[1]))
        unit = "px" if mpp is None else "um"
        return cls(mask, (side, side), tuple(low), unit, region.name)

    @classmethod
    def from_nuclei(
        cls, at: NDArray[np.float64], gap: float, *, unit: str = "um", pixel: float = FINE
    ) -> Window:
        """Tissue guessed from nuclei in a plane: every place within ``gap`` of a nucleus.

        Places between nuclei closer than ``2 * gap`` are filled, then the outline is drawn in by
        half of ``gap``. A window made from the nuclei themselves makes attraction look weaker; give
        the tissue where it is known.
        """
        from scipy.ndimage import distance_transform_edt

        if len(at) == 0:
            raise InputError("tissue cannot be guessed from no nuclei; give a mask or a region.")
        low = at.min(axis=0) - 2 * gap
        extent = at.max(axis=0) + 2 * gap - low
        side = max(pixel, float(extent.max()) / MAX_SIDE)
        shape = np.maximum(np.ceil(extent / side).astype(int), 1)
        empty = np.ones(tuple(shape), bool)
        empty[tuple(((at - low) / side).astype(int).T)] = False
        near = distance_transform_edt(empty) * side <= gap
        mask = distance_transform_edt(near) * side > gap / 2
        mask |= ~empty
        return cls(mask, (side, side), tuple(low), unit, "nuclei")

    def extruded(self, low: float, high: float) -> Window:
        """A plane window made into a slab from ``low`` to ``high`` in z."""
        if self.n_dims == 3:
            return self
        assert self.origin is not None  # noqa: S101  set at construction
        origin = (float(low), *self.origin)
        scale = (float(high) - float(low), *self.scale)
        return Window(self.mask[None], scale, origin, self.unit, self.name)

    def from_above(self) -> Window:
        """A slab made into a plane: tissue wherever any slice has it.

        >>> Window.box((0, 0, 0), (2, 10, 20)).from_above().size
        200.0
        """
        if self.n_dims == 2:
            return self
        assert self.origin is not None  # noqa: S101  set at construction
        above = np.asarray(self.mask.any(axis=0))
        return Window(above, self.scale[1:], self.origin[1:], self.unit, self.name)

    @property
    def corner(self) -> NDArray[np.float64]:
        """The lower corner of pixel 0."""
        return np.asarray(self.origin, dtype=np.float64)

    @property
    def n_dims(self) -> int:
        """2 or 3."""
        return self.mask.ndim

    @property
    def is_box(self) -> bool:
        """True when every pixel is tissue."""
        return bool(self.mask.all())

    @property
    def size(self) -> float:
        """Area or volume in the window's unit."""
        return float(self.mask.sum()) * math.prod(self.scale)

    @property
    def extent(self) -> NDArray[np.float64]:
        """Sides of the bounding box of the mask array."""
        return np.asarray(np.array(self.mask.shape) * np.array(self.scale), np.float64)

    def _pixels(self, at: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        index = np.floor((at - self.corner) / np.array(self.scale)).astype(np.int64)
        on_top = at == self.corner + self.extent  # the upper edge belongs to the last pixel
        index -= on_top
        return index, ((index >= 0) & (index < self.mask.shape)).all(axis=1)

    def contains(self, at: NDArray[np.float64]) -> NDArray[np.bool_]:
        """``(n,)`` bool: True for places in the tissue."""
        index, inside = self._pixels(at)
        result = np.zeros(len(at), bool)
        result[inside] = self.mask[tuple(index[inside].T)]
        return result

    def sample(self, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """``n`` places, uniform in the tissue."""
        if self.is_box:
            return np.asarray(self.corner + rng.random((n, self.n_dims)) * self.extent)
        flat = np.flatnonzero(self.mask)
        pixels = np.stack(np.unravel_index(rng.choice(flat, n), self.mask.shape), axis=1)
        spread = (pixels + rng.random((n, self.n_dims))) * np.array(self.scale)
        return np.asarray(self.corner + spread)

    def set_covariance(self, reach: float) -> SetCovariance:
        """Overlap of the window with itself for all lags up to ``reach``, by one FFT.

        ``gamma(h) = |W and (W + h)|`` is a circular correlation of the zero-padded mask with
        itself. Counts of pixels are whole numbers, so rounding makes the table exact.
        """
        from scipy.fft import irfftn, next_fast_len, rfftn

        mask = self.mask if self.n_dims == 3 else self.mask[None]
        scale = self.scale if self.n_dims == 3 else (1.0, *self.scale)
        lags = [
            0 if mask.shape[a] == 1 and self.n_dims == 2 and a == 0
            else min(math.ceil(reach / scale[a]) + 1, mask.shape[a])
            for a in range(3)
        ]  # fmt: skip
        padded = tuple(
            next_fast_len(n + m, real=True) for n, m in zip(mask.shape, lags, strict=True)
        )
        spectrum = rfftn(mask.astype(np.float64), padded)
        overlap = np.rint(irfftn(np.abs(spectrum) ** 2, padded))
        index = np.ix_(*[np.arange(-m, m + 1) % n for m, n in zip(lags, padded, strict=True)])
        table = np.ascontiguousarray(overlap[index]) * math.prod(self.scale)
        sides = (mask.shape[0] * scale[0], mask.shape[1] * scale[1], mask.shape[2] * scale[2])
        return SetCovariance(table, (scale[0], scale[1], scale[2]), sides if self.is_box else None)

    def to_border(self, at: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance of each place to where the tissue ends.

        Exact for a box. For a mask: the distance between pixel centres of the place and of the
        nearest pixel without tissue, less half a pixel.
        """
        if self.is_box:
            low = at - self.corner
            return np.asarray(np.minimum(low, self.extent - low).min(axis=1))
        from scipy.ndimage import distance_transform_edt

        padded = np.pad(self.mask, 1)
        distance = distance_transform_edt(padded, sampling=self.scale)
        index, inside = self._pixels(at)
        result = np.zeros(len(at))
        half = min(self.scale) / 2
        result[inside] = np.maximum(distance[tuple((index[inside] + 1).T)] - half, 0.0)
        return result
