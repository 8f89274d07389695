"""Nuclei in databases and tables of geometries: tiatoolbox's AnnotationStore, GeoParquet."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.nuclei.build import Rows, Source, nuclei_of
from nucleoscope.io.nuclei.tables import PARQUET

_NOTHING = np.empty((0, 2))
#: Most bytes of one geometry: a million vertices.
_MOST_WKB = 16 << 20


# tiatoolbox -------------------------------------------------------------------------------------


def is_store(path: Path, head: bytes) -> bool:
    """True for a SQLite database."""
    return head.startswith(guard.SQLITE)


def read_store(path: Path, head: bytes, source: Source) -> Nuclei:
    """The polygons and points of a tiatoolbox AnnotationStore (``.db``).

    Its coordinates are ``(x, y)`` with the centre of the first pixel at 0; properties ``type`` and
    ``prob`` (or ``type_prob``) are used.
    """
    rows = Rows()
    with guard.sqlite(path) as database:
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"
        tables = {str(name) for (name,) in database.execute(query)}
        if "annotations" not in tables:
            listed = ", ".join(sorted(tables)[:5]) or "none"
            raise InputError(f"{path}: it is no AnnotationStore (its tables: {listed}).")
        packing = None
        if "metadata" in tables:
            found = database.execute("SELECT value FROM metadata WHERE key = 'compression'")
            packing = next((str(value).strip('"') for (value,) in found), None)
        if packing not in (None, "null", "None", "zlib"):
            raise InputError(f"{path}: its geometries are packed with {packing[:40]!r}, not zlib.")
        query = "SELECT id, cx, cy, geometry, properties FROM annotations ORDER BY id"
        for number, x, y, geometry, properties in database.execute(query):
            facts = guard.parse_json(properties or "{}", where=source.where, limits=source.limits)
            facts = facts if isinstance(facts, dict) else {}
            ring = _ring(geometry, packing == "zlib", int(number), source)
            centre = (float(y), float(x)) if not len(ring) else None
            prob = facts.get("type_prob", facts.get("prob"))
            rows.add(
                ring, centre, kind=str(facts.get("type", "")), id=int(number),
                prob=float(prob) if isinstance(prob, int | float) else float("nan"),
            )  # fmt: skip
            source.limits.check("rows", len(rows.ids), source.where)
    return nuclei_of(rows, source)


def _ring(geometry: Any, is_packed: bool, number: int, source: Source) -> Any:
    """The outer ring ``(y, x)`` of a stored geometry; empty for a point."""
    if geometry is None:
        return _NOTHING
    try:
        if isinstance(geometry, bytes) and is_packed:
            unpacker = zlib.decompressobj()
            geometry = unpacker.decompress(geometry, _MOST_WKB)
            if unpacker.unconsumed_tail:
                raise UnsafeInputError(f"{source.where}: annotation {number} inflates too far.")
        is_text = isinstance(geometry, str)
        shape = shapely.from_wkt(geometry) if is_text else shapely.from_wkb(geometry)
    except (zlib.error, shapely.errors.ShapelyError):
        raise InputError(
            f"{source.where}: the geometry of annotation {number} is damaged."
        ) from None
    return _outer(shape)


def _outer(shape: Any) -> Any:
    """The outer ring ``(y, x)`` of a polygon, of the largest of several; empty for others."""
    if shape is None or shape.is_empty:
        return _NOTHING
    if shape.geom_type == "MultiPolygon":
        shape = max(shape.geoms, key=lambda part: float(part.area))
    if shape.geom_type != "Polygon":
        return _NOTHING
    return shapely.get_coordinates(shape.exterior)[:, ::-1]


# GeoParquet -------------------------------------------------------------------------------------


def is_geoparquet(path: Path, head: bytes) -> bool:
    """True for Parquet whose metadata have ``geo``."""
    if path.is_dir() or not head.startswith(PARQUET):
        return False
    import pyarrow.parquet as pq

    return b"geo" in (pq.read_schema(path).metadata or {})


def read_geoparquet(path: Path, head: bytes, source: Source) -> Nuclei:
    """Polygons or points in WKB, counted from the corner of the first pixel; ours and geopandas'.

    Columns ``id, type, type_prob, score`` and whatever else the nucleus table knows are kept.
    """
    import pyarrow.parquet as pq

    source.limits.check("file_bytes", path.stat().st_size, source.where)
    file = pq.ParquetFile(path)
    source.limits.check("rows", file.metadata.num_rows, source.where)
    geo = guard.parse_json(file.schema_arrow.metadata[b"geo"], where=source.where)
    name = str(geo.get("primary_column", "geometry"))
    column = (geo.get("columns") or {}).get(name) or {}
    if column.get("encoding") != "WKB" or name not in file.schema_arrow.names:
        raise InputError(f"{source.where}: its geometry column is not WKB.")
    frame = file.read().to_pandas()
    shapes = shapely.from_wkb(frame.pop(name).to_numpy())
    frame = _of_image(frame, source)
    shapes = shapes[frame.index]
    rows = Rows()
    ids = frame["id"].tolist() if "id" in frame else list(range(1, len(frame) + 1))
    types = frame["type"].fillna("").astype(str) if "type" in frame else [""] * len(frame)
    for number, kind, shape in zip(ids, types, shapes, strict=True):
        ring = _outer(shape)
        centre = None
        if not len(ring) and shape is not None and not shape.is_empty:
            centre = (float(shape.centroid.y) - 0.5, float(shape.centroid.x) - 0.5)
        rows.add(ring - 0.5, centre, kind=kind, id=int(number))
    return _with_columns(nuclei_of(rows, source), frame, source)


def _of_image(frame: pd.DataFrame, source: Source) -> pd.DataFrame:
    """The rows of one image of a table that may hold several."""
    names = sorted(set(frame["image"].astype(str))) if "image" in frame else []
    if len(names) < 2:
        return frame
    if source.image not in names:
        raise InputError(
            f"{source.where}: it holds the nuclei of {len(names)} images ({', '.join(names[:5])}) "
            f"and none of {source.image or 'an image that was named'}."
        )
    return frame[frame["image"] == source.image]


def _with_columns(nuclei: Nuclei, frame: pd.DataFrame, source: Source) -> Nuclei:
    """The nuclei with the other columns of their file; a table of ours keeps its own centres."""
    table = nuclei.table.frame
    if source.scale != 1.0 or "id" not in frame or len(frame) != len(table):
        return nuclei
    extra = frame.set_index("id").reindex(table["id"])
    kept = [c for c in extra.columns if c not in ("image", "type")]
    more = {c: extra[c].to_numpy() for c in kept if extra[c].dtype.kind in "fiub"}
    image = source.image or (str(extra["image"].iloc[0]) if "image" in extra and len(extra) else "")
    made = NucleusTable(table.assign(**more, image=image))
    return Nuclei(made, nuclei.outlines, nuclei.labels, nuclei.notes)
