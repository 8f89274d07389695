"""Nuclei in JSON: QuPath GeoJSON, HoVer-Net, CellViT.

All write ``(x, y)``. QuPath counts from the corner of the first pixel, so half a pixel is taken
off. HoVer-Net and CellViT write OpenCV contours, whose vertices are centres of the outermost pixels
of a nucleus: those rings are moved outwards by half a pixel, so that they hold the pixels whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import InputError
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


def _features(path: Path, head: bytes, source: Source) -> Iterator[dict[str, Any]]:
    """Features of a collection, of a bare list, or the only one."""
    is_list = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"["
    if is_list or container(head, "features") >= 0:
        pieces = Elements(path, None if is_list else "features", source.limits)
        for piece in pieces:
            yield from (feature for feature in piece if isinstance(feature, dict))
    else:
        from nucleoscope.io import guard

        value = guard.read_json(path, limits=source.limits)
        features = value.get("features") if "features" in value else [value]
        yield from features or []


def _ring_area(ring: Floats) -> float:
    """Area of a ring (shoelace formula)."""
    y, x = (ring - ring.mean(axis=0)).T if len(ring) else (ring[:, 0], ring[:, 1])
    return abs(float(np.dot(y, np.roll(x, -1)) - np.dot(x, np.roll(y, -1)))) / 2


def _outer(geometry: dict[str, Any], where: str) -> Floats | None:
    """The outer ring of a polygon, of the largest of several; a point as one vertex; or None."""
    kind, value = geometry.get("type"), geometry.get("coordinates")
    if kind == "Point":
        return as_coordinates([value], where)
    if kind == "Polygon":
        return as_coordinates(value[0], where) if value else _NOTHING
    if kind == "MultiPolygon" and isinstance(value, list):
        rings = [as_coordinates(polygon[0], where) for polygon in value if polygon]
        return max(rings, key=_ring_area, default=_NOTHING)
    return None


def read_geojson(path: Path, head: bytes, source: Source) -> Nuclei:
    """QuPath objects, or any polygons; where a cell has a nucleus, the nucleus is taken.

    Annotations and tiles are left out when there are detections or cells.
    """
    rows, kinds, skipped = Rows(), [], 0
    for feature in _features(path, head, source):
        properties = feature.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        geometry = feature.get("nucleusGeometry") or feature.get("geometry")
        geometry = geometry if isinstance(geometry, dict) else {}
        try:
            ring = _outer(geometry, source.where)
        except (IndexError, KeyError, TypeError):
            raise InputError(f"{source.where}: its coordinates are not [x, y] numbers.") from None
        if ring is None or not len(ring):
            skipped += 1
            continue
        ring = ring - shift_of(properties)
        is_point = geometry.get("type") == "Point"
        centre = (float(ring[0, 0]), float(ring[0, 1])) if is_point else None
        kinds.append(str(properties.get("objectType", "")).casefold())
        rows.add(_NOTHING if is_point else ring, centre, kind=_class(properties))
    if skipped:
        rows.notes.append(f"{source.where}: {skipped} objects are no polygon or point; left out.")
    return nuclei_of(_only_nuclei(rows, kinds, source.where), source)


def _class(properties: dict[str, Any]) -> str:
    """Name of QuPath's classification."""
    value = properties.get("classification")
    name = value.get("name") or value.get("names") if isinstance(value, dict) else value
    return ": ".join(map(str, name)) if isinstance(name, list) else str(name or "")


def _only_nuclei(rows: Rows, kinds: list[str], where: str) -> Rows:
    """The rows without regions, when there are objects that are none."""
    keep = [kind not in _NOT_NUCLEI for kind in kinds]
    if all(keep) or not any(keep):
        return rows
    only = Rows(notes=[*rows.notes, f"{where}: {keep.count(False)} annotations are left out."])
    for i in np.flatnonzero(keep):
        only.add(rows.rings[i], rows.centres[i], kind=rows.types[i], prob=rows.probs[i])
    return only


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
