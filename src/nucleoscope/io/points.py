"""Point annotations in and out: one parser a format, found by content."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nucleoscope.data.points import Points
from nucleoscope.errors import InputError
from nucleoscope.io import guard
from nucleoscope.io.guard import DEFAULT_LIMITS, Limits
from nucleoscope.io.outlines import as_coordinates, features, shift_of
from nucleoscope.io.roi import MAGIC, parse_roi, roi_files
from nucleoscope.io.tables import restore_cells, write_csv
from nucleoscope.units import Spacing, check_spacing

_LOG = logging.getLogger("nucleoscope.io.points")


@dataclass(frozen=True)
class _Source:
    """A file's bytes and what the caller said about it."""

    data: bytes
    where: str
    image: str | None
    limits: Limits
    spacing: Spacing | None = None


@dataclass(frozen=True)
class PointFormat:
    """One row of ``POINT_FORMATS``: how to know a format by its first bytes and how to parse it."""

    name: str
    matches: Callable[[bytes], bool]
    parse: Callable[[_Source], Points]


# CSV --------------------------------------------------------------------------------------------


def _header(data: bytes) -> list[str]:
    """Lower-case column names of a CSV, whatever its separator."""
    first = data.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0].decode("utf-8", "replace")
    return [name.strip().strip('"').casefold() for name in re.split(r"[,;\t]", first.strip())]


def _has(*needed: str) -> Callable[[bytes], bool]:
    """A test for a CSV that has these columns."""
    return lambda head: set(needed) <= set(_header(head))


def _frame(source: _Source) -> pd.DataFrame:
    """A CSV as text, column names in lower case; comma, semicolon or tab."""
    first = source.data.split(b"\n", 1)[0]
    separator = max((b",", b";", b"\t"), key=first.count).decode()
    source.limits.check("rows", source.data.count(b"\n"), source.where)
    try:
        text = source.data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = source.data.decode("latin-1")
    try:
        frame = pd.read_csv(
            io.StringIO(text), sep=separator, dtype=str, keep_default_na=False,
            skip_blank_lines=True, index_col=False,
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise InputError(f"{source.where}: it is not a table ({str(error).strip()}).") from None
    frame.columns = pd.Index([str(c).strip().casefold() for c in frame.columns])
    return frame


def _numbers(frame: pd.DataFrame, column: str, where: str) -> NDArray[np.float64]:
    """A column as finite numbers; the first cell that is none is named with its row."""
    text = frame[column].str.strip()
    values: NDArray[np.float64] = pd.to_numeric(text, errors="coerce").to_numpy(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        row = int(bad[0])
        raise InputError(
            f"{where}: row {row + 1} (line {row + 2}), column {column!r} is {text.iloc[row]!r} "
            "where a number is expected."
        )
    return values


def _whole(frame: pd.DataFrame, column: str, where: str) -> NDArray[np.int64]:
    """A column as whole numbers."""
    values = _numbers(frame, column, where)
    bad = np.flatnonzero((values != np.round(values)) | (np.abs(values) > 2**53))
    if bad.size:
        raise InputError(f"{where}: row {bad[0] + 1}, column {column!r} is not a whole number.")
    return values.astype(np.int64)


def _contract(source: _Source) -> Points:
    """``y,x`` and optionally ``id,z,type``; z counts from 0."""
    frame, where = _frame(source), source.where
    n = len(frame)
    z = _numbers(frame, "z", where) if "z" in frame and _any(frame["z"]) else np.zeros(n)
    types = np.full(n, "")
    if "type" in frame:
        types = restore_cells(frame["type"].str.strip()).to_numpy(dtype=object).astype(np.str_)
    ids = _whole(frame, "id", where) if "id" in frame and _any(frame["id"]) else None
    y, x = _numbers(frame, "y", where), _numbers(frame, "x", where)
    return Points(z, y, x, types, ids, where)


def _any(column: pd.Series[str]) -> bool:
    """True when a column holds anything at all."""
    return bool((column.str.strip() != "").any())


def _napari(source: _Source) -> Points:
    """Napari's ``index,axis-0,axis-1[,axis-2]``: the last two axes are y and x."""
    frame, where = _frame(source), source.where
    axes = sorted(
        (c for c in frame if re.fullmatch(r"axis-\d+", str(c))), key=lambda c: int(str(c)[5:])
    )
    values = [_numbers(frame, str(axis), where) for axis in axes]
    if len(values) > 3:
        varied = [axes[i] for i, v in enumerate(values[:-3]) if len(np.unique(v)) > 1]
        if varied:
            raise InputError(f"{where}: points of {len(axes)} axes vary along {varied[0]}.")
    z = values[-3] if len(values) > 2 else np.zeros(len(frame))
    types = frame["class"] if "class" in frame else [""] * len(frame)
    return Points(z, values[-2], values[-1], np.array(list(types), dtype=np.str_), None, where)


_SLICE = "z-slice position"


def _sheet(source: _Source) -> Points:
    """The sheets of the LECL authors: Y is stored negative, slices count from 1.

    Category holds digits, 1 for the nucleus and one more for each marker it has: ``1`` becomes
    ``negative`` and ``12`` ``positive``; with other markers the digits themselves are the type.
    """
    frame, where = _frame(source), source.where
    frame = _of_image(frame, source)
    y = _numbers(frame, "y", where)
    if (y > 0).any() and (y < 0).any():
        raise InputError(f"{where}: Y is negative in some rows and positive in others.")
    z = _numbers(frame, _SLICE, where)
    if (z < 1).any():
        row = int(np.flatnonzero(z < 1)[0])
        raise InputError(f"{where}: row {row + 1}, {_SLICE!r} is {z[row]:g}; it counts from 1.")
    digits = frame["category"].str.strip().str.removesuffix(".0")
    bad = np.flatnonzero(~digits.str.fullmatch(r"[1-9]+").to_numpy(dtype=bool))
    if bad.size:
        raise InputError(
            f"{where}: row {bad[0] + 1}, column 'category' is {digits.iloc[bad[0]]!r} where digits "
            "such as 1 or 12 are expected."
        )
    if set(digits) <= {"1", "12"}:
        digits = digits.map({"1": "negative", "12": "positive"})
    types = np.array(list(digits), dtype=np.str_)
    return Points(z - 1, np.abs(y), _numbers(frame, "x", where), types, None, where)


def _of_image(frame: pd.DataFrame, source: _Source) -> pd.DataFrame:
    """The rows of one image of a sheet that may hold several."""
    stems = frame["filename"].map(lambda name: PurePath(str(name).strip()).name.split(".")[0])
    names = sorted(set(stems))
    if source.image is not None:
        wanted = PurePath(source.image).name.split(".")[0]
        if wanted not in names:
            raise InputError(f"{source.where}: no row is of {wanted}; it has {', '.join(names)}.")
        return frame[stems == wanted].reset_index(drop=True)
    if len(names) > 1:
        raise InputError(
            f"{source.where}: it holds the points of {len(names)} images "
            f"({', '.join(names[:5])}); say which with image=."
        )
    return frame


def _trackmate(source: _Source) -> Points:
    """TrackMate's spots: micrometres from the centre of the first pixel, or pixels.

    Its second to fourth lines repeat the names and say the units.
    """
    frame, where = _frame(source), source.where
    columns = [f"position_{axis}" for axis in "zyx"]
    head = frame.head(3)
    is_text = pd.to_numeric(head["position_x"].str.strip(), errors="coerce").isna()
    extra = int(is_text.to_numpy().argmin()) if not is_text.all() else len(head)
    units = {text.strip("() ").casefold() for text in head["position_x"].head(extra)}
    frame = frame.iloc[extra:].reset_index(drop=True)
    frames = (
        frame["frame"].str.strip() if "frame" in frame else frame["position_x"].map(lambda _: "0")
    )
    if frames.nunique() > 1:
        raise InputError(
            f"{where}: its spots lie in {frames.nunique()} frames; keep one time point."
        )
    zyx = np.stack([_numbers(frame, c, where) if c in frame else np.zeros(len(frame))
                    for c in columns], axis=1)  # fmt: skip
    if not units & {"pixel", "pixels"}:
        zyx = zyx / _steps(source)
    types = frame["type"] if "type" in frame else pd.Series([""] * len(frame), dtype=str)
    return _of_zyx(zyx, restore_cells(types.str.strip()).tolist(), where)


def _imaris(source: _Source) -> Points:
    """Imaris' Position statistics: micrometres from the corner of the first voxel."""
    lines = source.data.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines[:20]) if b"position x" in line.lower())
    frame = _frame(replace(source, data=b"".join(lines[at:])))
    where = source.where
    if "time" in frame and frame["time"].nunique() > 1:
        raise InputError(f"{where}: its spots are of several times; keep one time point.")
    zyx = np.stack([_numbers(frame, f"position {axis}", where) for axis in "zyx"], axis=1)
    return _of_zyx(zyx / _steps(source) - 0.5, [""] * len(frame), where)


def _steps(source: _Source) -> NDArray[np.float64]:
    """The spacing, which positions in micrometres need."""
    if source.spacing is None:
        raise InputError(
            f"{source.where}: its spots are in micrometres; give the voxel size of their image "
            "with --spacing Z,Y,X."
        )
    return np.asarray(source.spacing, dtype=np.float64)


def _of_zyx(zyx: NDArray[np.float64], types: list[str], where: str) -> Points:
    """Points from rows of z, y, x."""
    return Points(zyx[:, 0], zyx[:, 1], zyx[:, 2], np.array(types, dtype=np.str_), None, where)


# Other formats ----------------------------------------------------------------------------------


def _cell_counter(source: _Source) -> Points:
    """ImageJ Cell Counter XML: MarkerZ counts from 1; the type is the name or the number."""
    where = source.where
    root = guard.parse_xml(source.data, where=where, limits=source.limits)
    rows: list[tuple[float, float, float]] = []
    types: list[str] = []
    for kind in root.iter("Marker_Type"):
        number = (kind.findtext("Type") or "").strip()
        label = (kind.findtext("Name") or "").strip() or number
        for marker in kind.findall("Marker"):
            texts = [(marker.findtext(f"Marker{a}") or "").strip() for a in "ZYX"]
            if not all(re.fullmatch(r"-?\d{1,9}(\.\d{1,9})?", t, re.ASCII) for t in texts):
                raise InputError(f"{where}: marker {len(rows) + 1} has no X, Y and Z numbers.")
            z, y, x = (float(t) for t in texts)
            if z < 1:
                raise InputError(f"{where}: marker {len(rows) + 1} is in slice {z:g}, not 1 or up.")
            rows.append((z - 1, y, x))
            types.append(label)
    zyx = np.array(rows, dtype=np.float64).reshape(-1, 3)
    return _of_zyx(zyx, types, where)


def _geojson(source: _Source) -> Points:
    """GeoJSON points; the type is QuPath's classification, the slice its plane."""
    where = source.where
    rows: list[NDArray[np.float64]] = []
    types: list[str] = []
    for geometry, properties in features(
        guard.parse_json(source.data, where=where, limits=source.limits), where
    ):
        coordinates = geometry["coordinates"]
        found = {"Point": [coordinates], "MultiPoint": coordinates}.get(str(geometry.get("type")))
        if not found:
            continue
        yx = as_coordinates(found, where) - shift_of(properties)
        plane = geometry.get("plane")
        z = plane.get("z", 0) if isinstance(plane, dict) else 0
        label = properties.get("classification")
        name = label.get("name") if isinstance(label, dict) else label
        if not isinstance(z, int | float):
            raise InputError(f"{where}: a plane of its points is not a number.")
        rows.append(np.column_stack([np.full(len(yx), z), yx]))
        types += [str(name or "")] * len(yx)
    if not rows:
        raise InputError(f"{where}: it is GeoJSON without a point.")
    return _of_zyx(np.concatenate(rows), types, where)


def _rois(source: _Source) -> Points:
    """ImageJ point ROIs, alone or in a zip."""
    files = roi_files(source.data, source.where, source.limits)
    found = [parse_roi(raw, name).points for name, raw in files.items()]
    zyx = np.concatenate([np.empty((0, 3)), *found])
    if not len(zyx):
        raise InputError(f"{source.where}: it holds no point ROI.")
    return _of_zyx(zyx, [""] * len(zyx), source.where)


def _is_json(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[")


#: A new format is one row here; the first that matches the first 4 kB is taken.
POINT_FORMATS = [
    PointFormat("ImageJ point ROI", lambda head: head.startswith((MAGIC, guard.ZIP)), _rois),
    PointFormat(
        "Cell Counter XML", lambda head: b"<CellCounter_Marker_File" in head, _cell_counter
    ),
    PointFormat("GeoJSON", _is_json, _geojson),
    PointFormat("LECL sheet", _has("filename", "x", "y", _SLICE, "category"), _sheet),
    PointFormat("TrackMate spots", _has("position_x", "position_y"), _trackmate),
    PointFormat("Imaris spots", lambda head: b"position x,position y" in head.lower(), _imaris),
    PointFormat("napari points", _has("axis-0", "axis-1"), _napari),
    PointFormat("points CSV", _has("y", "x"), _contract),
]


def read_points(
    path: Path | str,
    *,
    image: str | None = None,
    spacing: Spacing | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Points:
    """Read point annotations of any known format.

    Parameters
    ----------
    path
        CSV with ``y,x`` (optionally ``id,z,type``), napari points CSV, Cell Counter XML, the LECL
        authors' sheet, GeoJSON points, ImageJ point ROI or RoiSet zip, TrackMate or Imaris spots.
    image
        Which image of a sheet that holds several.
    spacing
        ``(z, y, x)`` um of the image, for spots in micrometres.

    Returns
    -------
    Points
        In pixels, the centre of the first pixel at 0, slices counted from 0. Points at the same
        place are kept and reported in the log; see ``n_duplicates``.

    Raises
    ------
    InputError
        No known format, or a value that is not a number: its row and column are named.
    UnsafeInputError
        Above a limit, or XML with entities.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.points.csv"
    >>> write_points(path, Points(z=[1.0], y=[2.5], x=[3.0], type=["positive"]))
    >>> points = read_points(path)
    >>> points.zyx().tolist(), points.types.tolist()
    ([[1.0, 2.5, 3.0]], ['positive'])
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: it is a folder; give a file of points.")
    data = guard.read_bytes(path, limits=limits)
    guard.refuse_java(data[:8], str(path))
    with guard.reading(path):
        row = next((row for row in POINT_FORMATS if row.matches(data[:4096])), None)
        if row is None:
            names = ", ".join(row.name for row in POINT_FORMATS)
            found = ", ".join(_header(data[:4096]))[:80] or "nothing"
            found = found if found.isprintable() else "no text"
            raise InputError(
                f"{path}: its first line is {found!r}, which is none of {names}; a CSV needs the "
                "columns y and x."
            )
        points = row.parse(_Source(data, str(path), image, limits, check_spacing(spacing)))
    if n := n_duplicates(points):
        _LOG.warning("%s: %d points repeat the place of another.", path, n)
    return points


def n_duplicates(points: Points) -> int:
    """How many points lie exactly where an earlier one lies.

    >>> n_duplicates(Points(z=[0, 0], y=[1, 1], x=[2, 2]))
    1
    """
    return int(pd.DataFrame(points.zyx()).duplicated().sum())


def write_points(path: Path | str, points: Points, *, overwrite: bool = False) -> None:
    """Write points as CSV ``id,z,y,x,type``, formulas in types made harmless.

    Raises
    ------
    CallError
        The file exists and is not from this run.
    """
    write_csv(points.to_frame(), path, overwrite=overwrite)
