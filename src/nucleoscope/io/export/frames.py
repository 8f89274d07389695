"""Nuclei as tables of other programs: CellProfiler CSV, GeoParquet, embedding-atlas Parquet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nucleoscope.data.atlas import Atlas
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.errors import CallError
from nucleoscope.io import guard
from nucleoscope.io.export.geojson import polygons
from nucleoscope.io.tables import write_csv

#: Our columns and CellProfiler's names of the same measurements.
CELLPROFILER = {
    "y": "Location_Center_Y", "x": "Location_Center_X", "z": "Location_Center_Z",
    "area_px": "AreaShape_Area", "volume_px": "AreaShape_Volume",
    "type": "Classify_Type", "type_prob": "Classify_Probability", "score": "Detection_Score",
}  # fmt: skip


def write_cellprofiler(path: Path | str, nuclei: Nuclei, *, overwrite: bool = False) -> None:
    """Write one row per nucleus with CellProfiler's column names.

    ``ImageNumber`` counts the images in order of name from 1, ``ObjectNumber`` is the nucleus's
    id, ``Metadata_FileName`` the image. Other columns keep their names after ``Nucleoscope_``.

    Raises
    ------
    CallError
        The file is there.
    """
    frame = nuclei.table.frame
    numbers = {image: i + 1 for i, image in enumerate(sorted(set(frame["image"])))}
    out = pd.DataFrame(
        {
            "ImageNumber": frame["image"].map(numbers).astype("int64"),
            "ObjectNumber": frame["id"],
            "Metadata_FileName": frame["image"],
        }
    )
    for column in frame.columns:
        if column not in ("id", "image"):
            out[CELLPROFILER.get(column, f"Nucleoscope_{column}")] = frame[column]
    write_csv(out, path, overwrite=overwrite)


def write_geoparquet(path: Path | str, nuclei: Nuclei, *, overwrite: bool = False) -> None:
    """Write GeoParquet 1.1: the table with a ``geometry`` column of WKB polygons or points.

    Coordinates are ``(x, y)`` pixels counted from the corner of the first pixel, without a
    reference system, as QuPath and GIS programs draw them.

    Raises
    ------
    CallError
        The file is there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import shapely

    frame = nuclei.table.frame
    shapes: Any = shapely.points(frame[["x", "y"]].to_numpy(dtype=np.float64) + 0.5)
    shapes = np.atleast_1d(shapes)
    if nuclei.outlines is not None and nuclei.outlines.is_known().any():
        known = np.flatnonzero(nuclei.outlines.is_known())
        shapes[known] = polygons(nuclei.outlines.take(known))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    table = table.append_column("geometry", pa.array(list(shapely.to_wkb(shapes)), pa.binary()))
    column: dict[str, Any] = {
        "encoding": "WKB", "crs": None, "edges": "planar",
        "geometry_types": sorted({shape.geom_type for shape in shapes}),
    }  # fmt: skip
    if len(shapes):
        column["bbox"] = [float(v) for v in shapely.total_bounds(shapes)]
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    metadata = {**(table.schema.metadata or {}), b"geo": json.dumps(geo).encode()}
    with guard.atomic_write(path, overwrite=overwrite) as temp:
        pq.write_table(table.replace_schema_metadata(metadata), temp, compression="zstd")


def write_embedding_atlas(path: Path | str, atlas: Atlas, *, overwrite: bool = False) -> None:
    """Write Parquet for embedding-atlas: ``projection_x, projection_y``, types, vectors.

    Open it with ``embedding-atlas FILE --x projection_x --y projection_y --vector vector``.

    Raises
    ------
    CallError
        The atlas has no 2D map yet, or the file is there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if atlas.map2d is None:
        raise CallError("the atlas has no 2D map yet; run nucleoscope subtypes on it first.")
    parts = [atlas.table.frame, *[f for f in (atlas.subtypes, atlas.features) if f is not None]]
    frame = pd.concat(parts, axis=1)
    frame["projection_x"] = atlas.map2d["map_x"].to_numpy()
    frame["projection_y"] = atlas.map2d["map_y"].to_numpy()
    vectors = np.ascontiguousarray(atlas.embedding, dtype=np.float32)
    table = pa.Table.from_pandas(frame, preserve_index=False).append_column(
        "vector", pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    )
    with guard.atomic_write(path, overwrite=overwrite) as temp:
        pq.write_table(table, temp, compression="zstd")
