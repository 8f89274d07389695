"""Nuclei in tables: our own results, and CSV files of centres."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import InputError
from nucleoscope.io.images import read_labels
from nucleoscope.io.nuclei.build import Source, without_doubles
from nucleoscope.io.tables import read_csv, read_table

PARQUET = b"PAR1"

#: Names of the columns of centres, lower case: ours, MCMICRO's, CellProfiler's, scikit-image's.
_CENTRES = (
    ("y", "x"), ("y_centroid", "x_centroid"), ("centroid_y", "centroid_x"),
    ("location_center_y", "location_center_x"), ("centroid-0", "centroid-1"),
    ("centroid y px", "centroid x px"), ("row", "col"),
)  # fmt: skip
_IN_UM = tuple(name.casefold() for name in ("centroid y µm", "centroid y um", "y_um"))
_IDS = ("id", "cellid", "label", "objectnumber")
_TYPES = ("type", "class", "classification", "phenotype")


def is_result(path: Path, head: bytes) -> bool:
    """True for a folder of ``detect`` and for a Parquet table."""
    return path.is_dir() or head.startswith(PARQUET)


def _folder(path: Path, image: str | None) -> Path:
    """The folder that holds ``nuclei.parquet``: this one, or that of the image below it."""
    if (path / "nuclei.parquet").is_file() or (path / "nuclei.csv").is_file():
        return path
    if image and (path / image / "nuclei.parquet").is_file():
        return path / image
    below = sorted(found.parent for found in path.glob("*/nuclei.parquet"))
    if len(below) != 1 or (image and below[0].name != image):
        listed = ", ".join(folder.name for folder in below[:5]) or "none"
        raise InputError(f"{path}: it holds no nuclei of {image or 'one image'} (found: {listed}).")
    return below[0]


def read_result(path: Path, head: bytes, source: Source) -> Nuclei:
    """Our table, with the instance map beside it where there is one."""
    folder = _folder(path, source.image) if path.is_dir() else path.parent
    table = read_table(folder if path.is_dir() else path, limits=source.limits)
    table = _of_image(table, source)
    maps = folder / "labels.ome.zarr"
    if not maps.is_dir():
        return _scaled(Nuclei(table), source)
    labels = read_labels(maps, limits=source.limits)
    if labels.shape[0] > 1:
        raise InputError(f"{path}: its nuclei lie in {labels.shape[0]} slices; a slide has one.")
    return _scaled(Nuclei(table, None, labels), source)


def _of_image(table: NucleusTable, source: Source) -> NucleusTable:
    """The rows of one image of a table that may hold several.

    A table of one image is taken for the image asked for, whatever its name.
    """
    images = table.frame["image"]
    names = sorted(set(images))
    if len(names) < 2:
        frame = table.frame.assign(image=source.image) if source.image else table.frame
        return NucleusTable(frame)
    if source.image not in names:
        raise InputError(
            f"{source.where}: it holds the nuclei of {len(names)} images ({', '.join(names[:5])}) "
            f"and none of {source.image or 'an image that was named'}."
        )
    return NucleusTable(table.frame[images == source.image])


def _scaled(nuclei: Nuclei, source: Source) -> Nuclei:
    """Coordinates in pixels of level 0."""
    if source.scale == 1.0:
        return nuclei
    frame = nuclei.table.frame
    yx = source.to_level_zero(frame[["y", "x"]].to_numpy(dtype=np.float64))
    return Nuclei(NucleusTable(frame.assign(y=yx[:, 0], x=yx[:, 1])))


# CSV --------------------------------------------------------------------------------------------


def _names(head: bytes) -> list[str]:
    """Lower-case column names of the first line."""
    first = head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    separator = max(",;\t", key=first.count)
    return [name.strip().strip('"').casefold() for name in first.strip("\r").split(separator)]


def is_csv(path: Path, head: bytes) -> bool:
    """True for a header with columns of centres, in pixels or (then refused) in um."""
    names = set(_names(head))
    return any({y, x} <= names for y, x in _CENTRES) or bool(names & set(_IN_UM))


def read_centres(path: Path, head: bytes, source: Source) -> Nuclei:
    """A CSV of centres; other columns whose names the contract knows are kept."""
    names = _names(head)
    pair = next(((y, x) for y, x in _CENTRES if {y, x} <= set(names)), None)
    if pair is None:
        raise InputError(f"{path}: its centres are in um; export them in pixels.")
    if set(_TYPES) & set(names) and "score" in names and pair == ("y", "x"):
        return _scaled(Nuclei(_of_image(read_table(path, limits=source.limits), source)), source)
    frame = _frame(path, head, source)
    frame.columns = pd.Index([str(c).strip().casefold() for c in frame.columns])
    columns = {"y": _numbers(frame, pair[0], path), "x": _numbers(frame, pair[1], path)}
    table = pd.DataFrame(columns)
    table["image"] = source.image or ""
    ids = next((name for name in _IDS if name in frame and frame[name].is_unique), None)
    whole = None if ids is None else pd.to_numeric(frame[ids], errors="coerce")
    is_whole = whole is not None and bool((whole == whole.round()).all()) and len(whole) > 0
    table["id"] = whole.astype("int64") if is_whole else np.arange(1, len(frame) + 1)  # type: ignore[union-attr]
    if kind := next((name for name in _TYPES if name in frame), None):
        table["type"] = frame[kind].fillna("").astype(str)
    image = next((name for name in ("image", "filename") if name in frame), None)
    if image is not None and frame[image].nunique() > 1:
        own = replace(source, image=source.image)
        table = _of_image(NucleusTable(table.assign(image=frame[image].astype(str))), own).frame
    return _scaled(without_doubles(table, None, [], source.where), source)


def _frame(path: Path, head: bytes, source: Source) -> pd.DataFrame:
    """The CSV; one with semicolons or tabs is read as text."""
    if b"," in head.split(b"\n", 1)[0]:
        return read_csv(path, limits=source.limits)
    import io

    from nucleoscope.io import guard

    data = guard.read_bytes(path, limits=source.limits)
    source.limits.check("rows", data.count(b"\n"), source.where)
    frame: pd.DataFrame = pd.read_csv(
        io.BytesIO(data), sep="\t" if b"\t" in head.split(b"\n", 1)[0] else ";"
    )
    return frame


def _numbers(frame: pd.DataFrame, column: str, path: Path) -> pd.Series[float]:
    """A column as finite numbers; the first cell that is none is named with its row."""
    values = pd.to_numeric(frame[column], errors="coerce").astype("float64")
    bad = np.flatnonzero(~np.isfinite(values.to_numpy()))
    if bad.size:
        cell = frame[column].iloc[int(bad[0])]
        raise InputError(
            f"{path}: row {bad[0] + 1}, column {column!r} is {str(cell)!r} where a number is "
            "expected."
        )
    return values
