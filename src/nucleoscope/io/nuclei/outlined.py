"""Nuclei in JSON: QuPath GeoJSON, HoVer-Net, CellViT.

All write ``(x, y)``. QuPath counts from the corner of the first pixel, so half a pixel is taken
off. HoVer-Net and CellViT write OpenCV contours, whose vertices are centres of the outermost pixels
of a nucleus: those rings are moved outwards by half a pixel, so that they hold the pixels whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.nuclei.build import Rows, Source, nuclei_of, opened_ring
from nucleoscope.io.nuclei.stream import Elements, container
from nucleoscope.io.outlines import as_coordinates, shift_of

Floats = NDArray[np.float64]
_NOTHING: Floats = np.empty((0, 2))

#: QuPath objects that are no nuclei.
_NOT_NUCLEI = {"annotation", "tile", "tma_core", "root", "tmacore"}


# QuPath -----------------------------------------------------------------------------------------


def is_geojson(path: Path, head: bytes) -> bool:
    """True for a FeatureCollection, a Feature or a list of features."""
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    return start[:1] in (b"{", b"[") and (b'"Feature' in head or b'"geometry"' in head)


def _features(path: Path, head: bytes, source: Source) -> Iterator[list[Any]]:
    """Features of a collection, of a bare list, or the only one, some thousand at a time."""
    is_list = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    if is_list or container(head, "features") >= 0:
        yield from Elements(path, None if is_list else "features", source.limits)
    else:
        value = guard.read_json(path, limits=source.limits)
        yield (value.get("features") or []) if "features" in value else [value]


def _ring_area(ring: Floats) -> float:
    """Area of a ring (shoelace formula)."""
    y, x = (ring - ring.mean(axis=0)).T if len(ring) else (ring[:, 0], ring[:, 1])
    return abs(float(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1)))) / 2


def _outer(geometry: dict[str, Any], where: str) -> list[Any] | None:
    """Positions of a polygon's outer ring, of the largest of several; a point as one; or None."""
    kind, value = geometry.get("type"), geometry.get("coordinates")
    if kind == "Polygon":
        return value[0] if value else []
    if kind == "Point":
        return [value]
    if kind == "MultiPolygon" and isinstance(value, list):
        rings = [polygon[0] for polygon in value if polygon]
        return max(rings, key=lambda ring: _ring_area(as_coordinates(ring, where)), default=[])
    return None


def read_geojson(path: Path, head: bytes, source: Source) -> Nuclei:
    """QuPath objects, or any polygons; where a cell has a nucleus, the nucleus is taken.

    Annotations and tiles are left out when there are detections or cells.
    """
    rows, skipped = Rows(), 0
    regions: list[NDArray[np.bool_]] = []
    with guard.collection_paused():
        for features in _features(path, head, source):
            taken = _Taken()
            for feature in features:
                if isinstance(feature, dict):
                    taken.add(feature, source.where)
            skipped += taken.skipped
            regions.append(np.array(taken.regions, dtype=bool))
            taken.give(rows, source.where)
    if skipped:
        rows.notes.append(f"{source.where}: {skipped} objects are no polygon or point; left out.")
    is_region = np.concatenate([np.zeros(0, dtype=bool), *regions])
    if is_region.any() and not is_region.all():
        note = f"{source.where}: {int(is_region.sum())} annotations are left out."
        rows = rows.only(~is_region, note)
    return nuclei_of(rows, source)


@dataclass
class _Taken:
    """What was taken from some features: positions of rings, and what the objects are."""

    rings: list[list[Any]] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)
    points: list[bool] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    regions: list[bool] = field(default_factory=list)
    skipped: int = 0

    def add(self, feature: dict[str, Any], where: str) -> None:
        """One feature."""
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        geometry = feature.get("nucleusGeometry") or feature.get("geometry")
        geometry = geometry if isinstance(geometry, dict) else {}
        try:
            ring = _outer(geometry, where)
            is_empty = ring is None or not len(ring)
        except (IndexError, KeyError, TypeError):
            raise InputError(f"{where}: its coordinates are not [x, y] numbers.") from None
        if ring is None or is_empty:
            self.skipped += 1
            return
        self.rings.append(ring)
        self.shifts.append(shift_of(properties))
        self.points.append(geometry.get("type") == "Point")
        self.classes.append(_class(properties))
        self.regions.append(str(properties.get("objectType", "")).casefold() in _NOT_NUCLEI)

    def give(self, rows: Rows, where: str) -> None:
        """Append everything to rows: one array of all positions instead of one a ring."""
        if not self.rings:
            return
        sizes = np.array([len(ring) for ring in self.rings], dtype=np.int64)
        vertices = positions(self.rings, int(sizes.sum()), where)
        vertices -= np.repeat(self.shifts, sizes)[:, None]
        is_point = np.array(self.points)
        centres = np.full((len(sizes), 2), np.nan)
        centres[is_point] = vertices[(np.cumsum(sizes) - sizes)[is_point]]
        if is_point.any():
            vertices = vertices[~np.repeat(is_point, sizes)]
            sizes = np.where(is_point, 0, sizes)
        rows.add_many(vertices, sizes, centres, self.classes)


def positions(rings: list[list[Any]], n: int, where: str) -> Floats:
    """Positions ``[x, y]`` of many rings as ``(n, 2)`` in ``(y, x)``; a third number is left out.

    >>> positions([[[1, 2], [3, 4]], [[5, 6, 0]]], 3, "a").tolist()
    [[2.0, 1.0], [4.0, 3.0], [6.0, 5.0]]
    """
    try:
        flat = list(chain.from_iterable(rings))
        if set(map(len, flat)) - {2}:
            return as_coordinates(flat, where).copy()
        numbers = np.fromiter(chain.from_iterable(flat), np.float64, 2 * n)
    except (TypeError, ValueError):
        raise InputError(f"{where}: its coordinates are not [x, y] numbers.") from None
    found: Floats = numbers.reshape(-1, 2)[:, ::-1].copy()
    return found


def _class(properties: dict[str, Any]) -> str:
    """Name of QuPath's classification."""
    value = properties.get("classification")
    name = value.get("name") or value.get("names") if isinstance(value, dict) else value
    return ": ".join(map(str, name)) if isinstance(name, list) else str(name or "")


# HoVer-Net and CellViT --------------------------------------------------------------------------

#: Value of ``contours`` in files whose contours enclose their pixels whole.
PIXEL_EDGES = "pixel edges"
_OUR_EDGES = re.compile(rb'"contours"\s*:\s*"' + PIXEL_EDGES.encode() + b'"')


def is_hovernet(path: Path, head: bytes) -> bool:
    """True for a root with ``nuc``, or with numbered nuclei themselves (its first version)."""
    return container(head, "nuc") >= 0


def read_hovernet(path: Path, head: bytes, source: Source) -> Nuclei:
    """``{"mag": m, "nuc": {id: {centroid, contour, type, type_prob}}}``.

    Our own files also name the types and say that contours run along pixel edges; HoVer-Net's run
    through the centres of the outermost pixels.
    """
    pieces, rows = Elements(path, "nuc", source.limits), Rows()
    is_full = _OUR_EDGES.search(head[: container(head, "nuc")]) is not None
    for piece in pieces:
        if not isinstance(piece, dict):
            raise InputError(f"{source.where}: its nuclei are not numbered.")
        numbers = [int(key) if key.isascii() and key.isdigit() and len(key) < 19 else None
                   for key in piece]  # fmt: skip
        _add_cells(rows, list(piece.values()), numbers, source, is_full=is_full)
    names = pieces.rest.get("type_names")
    if isinstance(names, dict):
        rows.types = [str(names.get(kind, kind)) for kind in rows.types]
    magnification = pieces.rest.get("mag")
    if magnification and source.scale == 1.0:
        rows.notes.append(
            f"{source.where}: its coordinates are pixels at {magnification}x; if the slide's full "
            "resolution is another, give scale."
        )
    return nuclei_of(rows, source)


def is_cellvit(path: Path, head: bytes) -> bool:
    """True for a root with ``cells``."""
    return container(head, "cells") >= 0


def read_cellvit(path: Path, head: bytes, source: Source) -> Nuclei:
    """``{"cells": [{centroid, contour, type, type_prob}], "type_map": {number: name}}``."""
    pieces, rows = Elements(path, "cells", source.limits), Rows()
    for piece in pieces:
        _add_cells(rows, piece, [None] * len(piece), source)
    names = pieces.rest.get("type_map")
    if isinstance(names, dict):
        rows.types = [str(names.get(kind, kind)) for kind in rows.types]
    return nuclei_of(rows, source)


def _add_cells(
    rows: Rows,
    cells: list[Any],
    ids: list[int | None],
    source: Source,
    *,
    is_full: bool = False,
) -> None:
    """Cells of HoVer-Net or CellViT; all rings but full ones are moved outwards at once."""
    rings: list[Floats] = []
    for n, cell in enumerate(cells):
        if not isinstance(cell, dict):
            raise InputError(f"{source.where}: nucleus {len(rows.ids) + n + 1} is no object.")
        contour = cell.get("contour") or []
        rings.append(as_coordinates(contour, source.where) if contour else _NOTHING)
    moved = [opened_ring(ring) for ring in rings] if is_full else outwards(rings)
    for cell, id_, ring in zip(cells, ids, moved, strict=True):
        kind, prob, centre = cell.get("type"), cell.get("type_prob"), cell.get("centroid")
        place = None if centre is None else as_coordinates([centre], source.where)[0]
        rows.add(
            ring,
            None if place is None else (float(place[0]), float(place[1])),
            kind="" if kind is None else str(kind),
            prob=float("nan") if prob is None else float(prob),
            id=id_,
        )


def outwards(rings: list[Floats], distance: float = 0.5) -> list[Floats]:
    """Rings moved outwards by half a pixel, corners kept; those that are no area stay as they are.

    >>> outwards([np.array([[0.0, 0.0], [0.0, 2.0], [2.0, 2.0], [2.0, 0.0]])])[0].min().tolist()
    -0.5
    """
    moved = [opened_ring(ring) for ring in rings]
    usable = [i for i, ring in enumerate(moved) if len(ring) >= 3]
    if not usable:
        return moved
    sizes = [len(moved[i]) for i in usable]
    vertices = np.concatenate([moved[i] for i in usable])
    if not np.isfinite(vertices).all():
        return moved  # refused with its number by the outlines themselves
    parts = shapely.linearrings(vertices, indices=np.repeat(np.arange(len(usable)), sizes))
    grown = shapely.buffer(shapely.polygons(parts), distance, join_style="mitre", mitre_limit=1.5)
    pieces = shapely.get_num_geometries(grown)
    for i, shape, n in zip(usable, grown, pieces, strict=True):
        if n == 1 and not shape.is_empty and shape.geom_type == "Polygon":
            moved[i] = shapely.get_coordinates(shape.exterior)
    return moved
