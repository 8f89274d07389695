"""How good are the nuclei found? Tables against points, image by image."""

from __future__ import annotations

from pathlib import Path

from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.inputs import POINT_SUFFIXES, REGION_SUFFIXES
from nucleoscope.io import guard
from nucleoscope.io.outlines import read_region
from nucleoscope.io.points import read_points
from nucleoscope.io.tables import read_table
from nucleoscope.metrics import Evaluation, evaluate_images, evaluate_tables
from nucleoscope.units import parse_length


def evaluate(
    predicted: str | Path | NucleusTable,
    truth: str | Path | Points | NucleusTable,
    *,
    radius: str | float = "15px",
    radius_z: float | None = None,
    roi: str | Path | Region | None = None,
    seed: int = 0,
) -> Evaluation:
    """Match found nuclei to true ones and score detection and types.

    Parameters
    ----------
    predicted
        ``OUT`` of ``detect``, one table (file or folder), or a ``NucleusTable``.
    truth
        A folder that holds ``<stem>.points.csv`` (and ``<stem>.roi.geojson``), one file of points
        or nuclei, or ``Points``.
    radius
        ``"15px"`` or ``"4.5um"``; a number is pixels.
    radius_z
        Slices; given, matching is in 3D within an ellipsoid.
    roi
        Region of a single image.
    seed
        Of the bootstrap over images.

    Returns
    -------
    Evaluation

    Raises
    ------
    InputError
        No table, no truth for an image, or a radius in um where the scale is unknown.
    """
    if isinstance(predicted, NucleusTable):
        pairs = [(predicted, _truth_of(truth), _region_of(roi))]
    else:
        pairs = list(_pairs(Path(predicted), truth, roi))
    results = [
        evaluate_tables(table, points, region=region, radius=_radius(radius, radius_z, table))
        for table, points, region in pairs
    ]
    return evaluate_images(results, seed=seed)


def _pairs(
    predicted: Path, truth: str | Path | Points | NucleusTable, roi: str | Path | Region | None
) -> list[tuple[NucleusTable, Points | NucleusTable, Region | None]]:
    tables = sorted(predicted.glob("*/nuclei.parquet")) if predicted.is_dir() else []
    if not tables:
        return [(read_table(predicted), _truth_of(truth), _region_of(roi))]
    if len(tables) == 1 and not (isinstance(truth, (str, Path)) and Path(truth).is_dir()):
        return [(read_table(tables[0]), _truth_of(truth), _region_of(roi))]
    if not isinstance(truth, (str, Path)) or not Path(truth).is_dir():
        raise CallError(
            f"{predicted} holds {len(tables)} images; give the folder that holds their points."
        )
    files = _recorded(predicted)
    found: list[tuple[NucleusTable, Points | NucleusTable, Region | None]] = []
    for table in tables:
        stem = table.parent.name
        points = _beside(Path(truth), stem, POINT_SUFFIXES)
        if points is None:
            raise InputError(f"{truth}: no {stem}.points.csv in it, but {stem} was detected in.")
        region = _beside(Path(truth), stem, REGION_SUFFIXES) or files.get(stem)
        found.append(
            (
                read_table(table),
                read_points(points),
                None if region is None else read_region(region),
            )
        )
    return found


def _recorded(folder: Path) -> dict[str, Path]:
    """The regions that the run's manifest names, by image."""
    manifest = folder / "run.json"
    if not manifest.is_file():
        raise InputError(f"{folder}: no run.json, so the run is not finished; run detect --resume.")
    entries = guard.read_json(manifest).get("inputs", [])
    return {
        str(e.get("name")): Path(e["roi"])
        for e in entries
        if e.get("roi") and Path(e["roi"]).is_file()
    }


def _beside(folder: Path, stem: str, suffixes: tuple[str, ...]) -> Path | None:
    paths = (folder / f"{stem}{suffix}" for suffix in suffixes)
    return next((path for path in paths if path.is_file()), None)


def _truth_of(truth: str | Path | Points | NucleusTable) -> Points | NucleusTable:
    if isinstance(truth, (Points, NucleusTable)):
        return truth
    path = Path(truth)
    if path.is_dir() or path.suffix == ".parquet":
        return read_table(path)
    return read_points(path)


def _region_of(roi: str | Path | Region | None) -> Region | None:
    return roi if isinstance(roi, Region) or roi is None else read_region(roi)


def _radius(
    radius: str | float, radius_z: float | None, table: NucleusTable
) -> float | tuple[float, ...]:
    """The radius in pixels, with slices first when matching is in 3D."""
    value, unit = parse_length(str(radius))
    if unit == "um":
        frame = table.frame
        if "y_um" not in frame.columns:
            raise InputError("a radius in um needs a table with y_um; give the radius in px.")
        y, y_um = frame["y"].to_numpy(), frame["y_um"].to_numpy()
        if len(y) and y.max() > 0:
            value /= float(y_um[y.argmax()] / y.max())
    return value if radius_z is None else (radius_z, value, value)
