"""Regions of interest in and out: GeoJSON and ImageJ ROIs.

Files are in ``(x, y)`` and become ``(y, x)`` here. ImageJ and QuPath count from the corner of the
first pixel, we count from its centre, so their outlines move by half a pixel.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nucleoscope.data.region import Region
from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.io.roi import MAGIC, parse_roi, roi_files

Ring = NDArray[np.float64]


def as_coordinates(value: Any, where: str) -> Ring:
    """GeoJSON positions ``[[x, y], ...]`` as ``(n, 2)`` in ``(y, x)``.

    Raises
    ------
    InputError
        Not numbers, or not two to a position.
    """
    try:
        array = np.array([position[:2] for position in value], dtype=np.float64)
    except (TypeError, ValueError, KeyError, IndexError):
        raise InputError(f"{where}: its coordinates are not [x, y] numbers.") from None
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"{where}: its coordinates are not [x, y] numbers.")
    return array[:, ::-1]


def features(value: Any, where: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each geometry of a GeoJSON document with the properties of its feature."""
    items = value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, dict):
            raise InputError(f"{where}: it is not GeoJSON.")
        kind = item.get("type")
        if kind == "FeatureCollection":
            yield from features(item.get("features") or [], where)
        elif kind == "Feature":
            properties = item.get("properties")
            for geometry, _ in features(item.get("geometry") or [], where):
                yield geometry, properties if isinstance(properties, dict) else {}
        elif kind == "GeometryCollection":
            yield from features(item.get("geometries") or [], where)
        elif "coordinates" in item:
            yield item, {}
        else:
            raise InputError(f"{where}: it is not GeoJSON.")


def shift_of(properties: dict[str, Any]) -> float:
    """Half a pixel for QuPath's objects, which count from the corner of the first pixel."""
    return 0.5 if "objectType" in properties else 0.0


def _geojson(data: bytes, where: str, limits: Limits) -> Iterator[Ring]:
    """The rings of all polygons."""
    for geometry, properties in features(guard.parse_json(data, where=where, limits=limits), where):
        polygons = {
            "Polygon": [geometry["coordinates"]],
            "MultiPolygon": geometry["coordinates"],
        }.get(str(geometry.get("type")), [])
        if not isinstance(polygons, list):
            raise InputError(f"{where}: its coordinates are not [x, y] numbers.")
        for polygon in polygons:
            for ring in polygon if isinstance(polygon, list) else [polygon]:
                yield as_coordinates(ring, where) - shift_of(properties)


def read_region(path: Path | str, *, limits: Limits = DEFAULT_LIMITS) -> Region:
    """Read an outline: GeoJSON polygons, an ImageJ .roi, or a zip of them.

    Parameters
    ----------
    path
        All polygons in the file make one region, filled by the even-odd rule.

    Returns
    -------
    Region
        In ``(y, x)`` pixels, the centre of the first pixel at 0.

    Raises
    ------
    InputError
        No polygon in it, damaged, or of another format.
    UnsafeInputError
        Nested too deeply, too large, or an archive that is not plain.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.roi.geojson"
    >>> write_region(path, Region(([[0, 0], [0, 9], [5, 9]],)))
    >>> read_region(path).rings[0].tolist()
    [[0.0, 0.0], [0.0, 9.0], [5.0, 9.0]]
    """
    path, where = Path(path), str(path)
    if path.is_dir():
        raise InputError(f"{path}: it is a folder; give a file of outlines.")
    data = guard.read_bytes(path, limits=limits)
    with guard.reading(path):
        if data.startswith((MAGIC, guard.ZIP)):
            files = roi_files(data, where, limits)
            rings = [
                ring - 0.5 for name, raw in files.items() for ring in parse_roi(raw, name).rings
            ]
        elif data.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
            rings = list(_geojson(data, where, limits))
        else:
            raise InputError(f"{where}: it is neither GeoJSON nor an ImageJ ROI.")
        limits.check("vertices", sum(len(ring) for ring in rings), where)
        if not rings:
            raise InputError(f"{where}: it holds no polygon.")
        return Region(tuple(rings), where)


def _nested(rings: tuple[Ring, ...]) -> list[list[int]]:
    """Polygons as lists of ring numbers, the outer one first, holes behind it."""
    regions = [Region((ring,)) for ring in rings]
    inside = np.array(
        [[r is not s and bool(r.contains(s.rings[0][:1, 0], s.rings[0][:1, 1])[0])
          for r in regions] for s in regions]
    ).reshape(len(rings), len(rings))  # fmt: skip
    depth = inside.sum(axis=1)
    polygons = {i: [i] for i in range(len(rings)) if depth[i] % 2 == 0}
    for hole in np.flatnonzero(depth % 2):
        owner = next(i for i in polygons if inside[hole, i] and depth[i] == depth[hole] - 1)
        polygons[owner].append(int(hole))
    return list(polygons.values())


def write_region(path: Path | str, region: Region, *, overwrite: bool = False) -> None:
    """Write a region as a GeoJSON FeatureCollection of one feature, in ``[x, y]`` pixels.

    Raises
    ------
    CallError
        The file exists and is not from this run.
    """

    def closed(ring: Ring) -> list[list[float]]:
        return [[float(x), float(y)] for y, x in [*ring, ring[0]]]

    polygons = [[closed(region.rings[i]) for i in group] for group in _nested(region.rings)]
    single = len(polygons) == 1
    geometry = {
        "type": "Polygon" if single else "MultiPolygon",
        "coordinates": polygons[0] if single else polygons,
    }
    feature = {"type": "Feature", "properties": {"name": "roi"}, "geometry": geometry}
    document = {"type": "FeatureCollection", "features": [feature]}
    guard.write_json(path, document, overwrite=overwrite)
