"""Nuclei as QuPath GeoJSON: detections with outline, class, colour and measurements, streamed.

QuPath counts from the corner of the first pixel and in ``(x, y)``; we count from its centre and in
``(y, x)``, so coordinates move by half a pixel on the way out and back on the way in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.io import guard

#: Nuclei whose text is in memory at a time.
BLOCK = 10_000
#: Colours of types, in order of name (Okabe and Ito 2008).
COLOURS = (
    (213, 94, 0), (0, 114, 178), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
    (240, 228, 66), (153, 153, 153),
)  # fmt: skip
#: Columns that are not measurements: QuPath has its own place for them.
NOT_MEASURED = ("id", "image", "type", "subtype")


def write_geojson(
    path: Path | str,
    nuclei: Nuclei,
    *,
    tolerance: float = 0.0,
    overwrite: bool = False,
) -> None:
    """Write nuclei as QuPath detections; ``.geojson.gz`` is compressed.

    Parameters
    ----------
    path
        File to write.
    nuclei
        A nucleus without an outline becomes a point. All numeric columns become measurements.
    tolerance
        Simplify outlines by at most this many pixels, staying valid; 0 keeps every vertex.
    overwrite
        Replace a file that is there.

    Raises
    ------
    CallError
        The file is there.
    ResourceError
        The disk is full.

    Notes
    -----
    Memory is the nuclei and the text of 10,000 of them. Every polygon is closed and does not cross
    itself: one that does is repaired, keeping its largest part. The name of a detection is the
    nucleus's id, its UUID is made from image and id, so that the same nuclei give the same file.

    Examples
    --------
    >>> import tempfile
    >>> from nucleoscope.data.table import NucleusTable
    >>> table = NucleusTable(pd.DataFrame({"id": [7], "y": [1.0], "x": [2.0], "type": ["a"]}))
    >>> path = Path(tempfile.mkdtemp()) / "a.geojson"
    >>> write_geojson(path, Nuclei(table))
    >>> '"coordinates":[2.5,1.5]' in path.read_text().replace(" ", "")
    True
    """
    guard.write_stream(
        path, _parts(nuclei, tolerance), compress=str(path).endswith(".gz"), overwrite=overwrite
    )


def _parts(nuclei: Nuclei, tolerance: float) -> Iterator[bytes]:
    """The document, piece by piece."""
    yield b'{"type":"FeatureCollection","features":[\n'
    colours = _classifications(nuclei.table.frame["type"])
    for start in range(0, len(nuclei), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(nuclei)))
        lead = b",\n" if start else b""
        yield lead + ",\n".join(_features(nuclei.take(rows), tolerance, colours)).encode()
    yield b"\n]}\n"


def _classifications(types: pd.Series[Any]) -> dict[str, str]:
    """The JSON of each type's class; a nucleus without a type has none."""
    names = sorted(set(types) - {""})
    return {"": ""} | {
        name: '"classification":'
        + json.dumps({"name": name, "color": COLOURS[i % len(COLOURS)]}, ensure_ascii=False)
        + ","
        for i, name in enumerate(names)
    }


def _features(nuclei: Nuclei, tolerance: float, colours: dict[str, str]) -> Iterator[str]:
    """One GeoJSON feature per nucleus."""
    frame = nuclei.table.frame
    geometries = _geometries(nuclei, tolerance)
    measurements = _measurements(frame)
    is_flat = not np.isfinite(frame["z"].to_numpy()).any()
    planes = np.zeros(len(frame)) if is_flat else frame["z"].fillna(0).round().to_numpy()
    stems = {image: _uuid_stem(image) for image in set(frame["image"])}
    for ident, image, kind, plane, geometry, measured in zip(
        frame["id"].tolist(), frame["image"], frame["type"], planes.tolist(), geometries,
        measurements, strict=True,
    ):  # fmt: skip
        if not is_flat:
            geometry = geometry[:-1] + f',"plane":{{"c":-1,"z":{int(plane)},"t":0}}}}'
        yield (
            f'{{"type":"Feature","id":"{stems[image]}{ident & 0xFFFFFFFFFFFF:012x}",'
            f'"geometry":{geometry},"properties":{{"objectType":"detection",{colours[kind]}'
            f'"name":"{ident}","measurements":{measured}}}}}'
        )


def _uuid_stem(image: str) -> str:
    """The first four groups of the UUIDs of an image's nuclei (version 8, RFC 9562)."""
    digest = hashlib.sha256(image.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-8{digest[12:15]}-8{digest[15:18]}-"


def _measurements(frame: pd.DataFrame) -> Iterator[str]:
    """Every numeric column of each row as JSON; unknown values are left out, as QuPath wants."""
    columns = [
        c for c in frame.columns
        if c not in NOT_MEASURED and frame[c].dtype.kind in "fiub"
        and not (c in ("z_min", "z_max", "n_slices") and frame["z"].isna().all())
    ]  # fmt: skip
    heads = [json.dumps(str(c), ensure_ascii=False) + ":" for c in columns]
    texts = []
    for head, column in zip(heads, columns, strict=True):
        values = frame[column].to_numpy(dtype=np.float64)
        texts.append([head + f"{v:.9g}" if v - v == 0 else "" for v in values.tolist()])
    if not texts:
        return iter(["{}"] * len(frame))
    return ("{" + ",".join(filter(None, row)) + "}" for row in zip(*texts, strict=True))


def _geometries(nuclei: Nuclei, tolerance: float) -> list[str]:
    """The GeoJSON geometry of each nucleus: its outline, or its centre."""
    import shapely

    xy = nuclei.table.frame[["x", "y"]].to_numpy(dtype=np.float64) + 0.5
    shapes = shapely.points(np.round(xy, 3))
    if nuclei.outlines is not None and nuclei.outlines.is_known().any():
        known = np.flatnonzero(nuclei.outlines.is_known())
        shapes[known] = polygons(nuclei.outlines.take(known), tolerance)
    texts: list[str] = shapely.to_geojson(shapes).tolist()
    return texts


def polygons(outlines: Any, tolerance: float = 0.0) -> NDArray[Any]:
    """Valid shapely polygons of ``Outlines`` that are all known, in QuPath's ``(x, y)``.

    Rounded to a thousandth of a pixel; a polygon that crosses itself becomes the largest part of
    its repair.
    """
    import shapely

    xy = np.round(outlines.vertices[:, ::-1] + 0.5, 3)
    owner = np.repeat(np.arange(len(outlines)), np.diff(outlines.offsets))
    shapes: NDArray[Any] = shapely.polygons(shapely.linearrings(xy, indices=owner))
    if tolerance > 0:
        shapes = shapely.simplify(shapes, tolerance, preserve_topology=True)
    for i in np.flatnonzero(~shapely.is_valid(shapes)):
        parts = [p for p in shapely.get_parts(shapely.make_valid(shapes[i])) if p.area > 0]
        flat = [q for p in parts for q in shapely.get_parts(p) if q.geom_type == "Polygon"]
        if flat:
            shapes[i] = shapely.Polygon(max(flat, key=lambda p: float(p.area)).exterior)
    return shapes
