"""ImageJ's binary .roi format, and zip archives of them.

Layout after ImageJ's own ``RoiDecoder`` (Schneider, Rasband, Eliceiri 2012, Nat Methods 9, 671):
big-endian, a header of 64 bytes, then coordinates, then a second header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.guard import Limits

MAGIC = b"Iout"
_HEADER = 64
_AT_TYPE, _AT_TOP, _AT_COUNT, _AT_FLOATS, _AT_SHAPE = 6, 8, 16, 18, 36
_AT_OPTIONS, _AT_POSITION, _AT_HEADER2 = 50, 56, 60
_AT2_Z, _AT2_COUNTERS = 8, 48
_SUB_PIXEL = 128
_POLYGON, _RECTANGLE, _OVAL, _FREEHAND, _TRACED, _POINTS = 0, 1, 2, 7, 8, 10
_NAMES = {3: "line", 4: "freehand line", 5: "polyline", 6: "no ROI", 9: "angle"}
_MOVE, _LINE, _QUAD, _CUBIC, _CLOSE = range(5)
_OVAL_POINTS = 128


@dataclass(frozen=True, eq=False)
class Roi:
    """One ROI as ImageJ stores it.

    Parameters
    ----------
    rings
        Closed outlines ``(k, 2)`` as ``(y, x)``, in ImageJ's corner coordinates (the first pixel
        spans 0 to 1). Empty for points.
    points
        ``(n, 3)`` as ``(z, y, x)``: z 0-based slice, y and x in pixels. Empty for outlines.
    """

    rings: tuple[NDArray[np.float64], ...]
    points: NDArray[np.float64]


def roi_files(data: bytes, where: str, limits: Limits) -> dict[str, bytes]:
    """The .roi files of one file: itself, those of a zip, or those of a RoiSet.zip within a zip.

    Raises
    ------
    InputError, UnsafeInputError
        As of ``guard.read_zip``.
    """
    if not data.startswith(guard.ZIP):
        return {where: data}
    found = guard.read_zip(data, where, limits, suffix=".roi")
    if found:
        return found
    inner = guard.read_zip(data, where, limits, suffix=".zip")
    if len(inner) != 1:
        return {}
    (name, packed), *_ = inner.items()
    return guard.read_zip(packed, f"{where}: {name}", limits, suffix=".roi")


def _unpack(code: str, data: bytes, at: int, where: str) -> tuple[float, ...]:
    """Big-endian numbers at a position inside the file."""
    size = struct.calcsize(">" + code)
    if at < 0 or at + size > len(data):
        raise InputError(f"{where}: the ROI is cut short.")
    return struct.unpack_from(">" + code, data, at)


def _array(kind: str, n: int, data: bytes, at: int, where: str) -> NDArray[np.float64]:
    """``n`` big-endian numbers as float64."""
    dtype = np.dtype(kind)
    if at < 0 or at + n * dtype.itemsize > len(data):
        raise InputError(f"{where}: the ROI claims {n} values that the file does not hold.")
    return np.frombuffer(data, dtype, n, at).astype(np.float64)


def parse_roi(data: bytes, where: str) -> Roi:
    """Parse one .roi file.

    Raises
    ------
    InputError
        Not a ROI, cut short, or of a kind that has no inside (line, angle).
    """
    if not data.startswith(MAGIC) or len(data) < _HEADER:
        raise InputError(f"{where}: it is not an ImageJ ROI.")
    (kind,) = (int(v) for v in _unpack("B", data, _AT_TYPE, where))
    (shape_size,) = (int(v) for v in _unpack("i", data, _AT_SHAPE, where))
    none = np.empty((0, 3))
    if shape_size > 0:
        return Roi(_composite(_array(">f4", shape_size, data, _HEADER, where), where), none)
    if kind in (_RECTANGLE, _OVAL):
        return Roi((_box(kind, data, where),), none)
    if kind in (_POLYGON, _FREEHAND, _TRACED):
        ring = _coordinates(data, where)
        if len(ring) < 3:
            raise InputError(f"{where}: an outline of {len(ring)} points has no inside.")
        return Roi((ring,), none)
    if kind == _POINTS:
        return Roi((), _points(data, where))
    name = _NAMES.get(kind, f"number {kind}")
    raise InputError(f"{where}: an ImageJ ROI of type {name} is neither an area nor points.")


def _is_sub_pixel(data: bytes, where: str) -> bool:
    """True when coordinates are stored as floats."""
    (options,) = _unpack("h", data, _AT_OPTIONS, where)
    return bool(int(options) & _SUB_PIXEL)


def _box(kind: int, data: bytes, where: str) -> NDArray[np.float64]:
    """A rectangle, or an oval as a polygon of 128 points (its area is 0.04 % small)."""
    top, left, bottom, right = _unpack("4h", data, _AT_TOP, where)
    if _is_sub_pixel(data, where):
        x, y, width, height = _unpack("4f", data, _AT_FLOATS, where)
        if width > 0 and height > 0:
            top, left, bottom, right = y, x, y + height, x + width
    if bottom <= top or right <= left:
        raise InputError(f"{where}: the ROI is empty.")
    if kind == _RECTANGLE:
        return np.array([[top, left], [top, right], [bottom, right], [bottom, left]], dtype=float)
    angle = np.arange(_OVAL_POINTS) * (2 * np.pi / _OVAL_POINTS)
    middle = np.array([(top + bottom) / 2, (left + right) / 2])
    radii = np.array([(bottom - top) / 2, (right - left) / 2])
    ring: NDArray[np.float64] = middle + radii * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return ring


def _coordinates(data: bytes, where: str) -> NDArray[np.float64]:
    """Vertices ``(n, 2)`` as ``(y, x)``, absolute."""
    (count,) = (int(v) for v in _unpack("H", data, _AT_COUNT, where))
    if count == 0:  # more than 65,535 points: the count moved
        (count,) = (int(v) for v in _unpack("i", data, _AT_FLOATS, where))
    if count < 0:
        raise InputError(f"{where}: the ROI has a negative number of points.")
    if _is_sub_pixel(data, where):
        at = _HEADER + 4 * count
        x = _array(">f4", count, data, at, where)
        y = _array(">f4", count, data, at + 4 * count, where)
        return np.stack([y, x], axis=1)
    top, left = _unpack("2h", data, _AT_TOP, where)
    x = _array(">i2", count, data, _HEADER, where) + left
    y = _array(">i2", count, data, _HEADER + 2 * count, where) + top
    return np.stack([y, x], axis=1)


def _points(data: bytes, where: str) -> NDArray[np.float64]:
    """Points ``(n, 3)``; their slice is their own, the ROI's, or the first."""
    yx = _coordinates(data, where)
    (position,) = (int(v) for v in _unpack("i", data, _AT_POSITION, where))
    (header2,) = (int(v) for v in _unpack("i", data, _AT_HEADER2, where))
    slices = np.full(len(yx), max(position, 1), dtype=np.float64)
    if header2 > 0:
        (z,) = (int(v) for v in _unpack("i", data, header2 + _AT2_Z, where))
        slices[:] = z if z > 0 else slices
        has_counters = header2 + _AT2_COUNTERS + 4 <= len(data)
        (at,) = _unpack("i", data, header2 + _AT2_COUNTERS, where) if has_counters else (0,)
        if at > 0:
            own = _array(">i4", len(yx), data, int(at), where) // 256
            slices = np.where(own > 0, own, slices)
    return np.column_stack([slices - 1, yx])


def _composite(path: NDArray[np.float64], where: str) -> tuple[NDArray[np.float64], ...]:
    """Rings of a combined ROI, stored as a path of segments; curves become their end points."""
    lengths = {_MOVE: 2, _LINE: 2, _QUAD: 4, _CUBIC: 6, _CLOSE: 0}
    rings: list[list[tuple[float, float]]] = []
    at = 0
    while at < len(path):
        code = int(path[at])
        if code not in lengths or at + 1 + lengths[code] > len(path):
            raise InputError(f"{where}: the combined ROI is damaged.")
        if code == _MOVE:
            rings.append([])
        if code != _CLOSE:
            if not rings:
                raise InputError(f"{where}: the combined ROI is damaged.")
            x, y = path[at + lengths[code] - 1 : at + lengths[code] + 1]
            rings[-1].append((float(y), float(x)))
        at += 1 + lengths[code]
    found = tuple(np.array(ring) for ring in rings if len(ring) >= 3)
    if not found:
        raise InputError(f"{where}: the combined ROI holds no area.")
    return found
