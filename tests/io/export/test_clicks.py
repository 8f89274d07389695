from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.points import Points
from nucleoscope.errors import CallError
from nucleoscope.io.export.clicks import (
    write_cell_counter,
    write_napari_points,
    write_point_geojson,
    write_spots,
)
from nucleoscope.io.points import read_points

POINTS = Points(
    z=[0, 3, 3], y=[1.25, 2.5, 9.0], x=[4.0, 5.75, 6.0], type=["positive", "a & <b>", "positive"]
)


def as_rows(points: Points) -> list[tuple[float, ...]]:
    return sorted(
        (*row, kind) for row, kind in zip(points.zyx().tolist(), points.types, strict=True)
    )


def test_napari_points_come_back(tmp_path: Path) -> None:
    write_napari_points(tmp_path / "a.csv", POINTS)
    assert as_rows(read_points(tmp_path / "a.csv")) == as_rows(POINTS)


def test_qupath_points_come_back_and_count_from_the_corner(tmp_path: Path) -> None:
    write_point_geojson(tmp_path / "a.geojson", POINTS)
    assert as_rows(read_points(tmp_path / "a.geojson")) == as_rows(POINTS)
    first = json.loads((tmp_path / "a.geojson").read_text())["features"][1]
    assert first["geometry"]["coordinates"] == [[4.5, 1.75]]


def test_cell_counter_keeps_whole_pixels_types_and_slices(tmp_path: Path) -> None:
    write_cell_counter(tmp_path / "a.xml", POINTS, image="a.tif")
    found = read_points(tmp_path / "a.xml")
    whole = Points(*np.rint(POINTS.zyx()).T, type=POINTS.types)
    assert as_rows(found) == as_rows(whole)
    assert "<MarkerZ>4</MarkerZ>" in (tmp_path / "a.xml").read_text()


def test_spots_are_in_micrometres(tmp_path: Path) -> None:
    write_spots(tmp_path / "a.csv", POINTS, spacing=(2.0, 0.5, 0.25))
    frame = pd.read_csv(tmp_path / "a.csv")
    assert frame["POSITION_Z"].tolist() == [0, 6, 6]
    assert frame["POSITION_Y"].tolist() == [0.625, 1.25, 4.5]
    assert frame["POSITION_X"].tolist() == [1.0, 1.4375, 1.5]


def test_what_a_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    outside = Points(z=[0], y=[-3.0], x=[1.0])
    with pytest.raises(CallError, match="negative"):
        write_cell_counter(tmp_path / "a.xml", outside)
    with pytest.raises(CallError, match="--spacing"):
        write_spots(tmp_path / "a.csv", POINTS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("write", [write_napari_points, write_cell_counter])
def test_no_points_are_a_file_without_points(tmp_path: Path, write: object) -> None:
    path = tmp_path / "a.file"
    write(path, Points(z=[], y=[], x=[]))  # type: ignore[operator]
    assert len(read_points(path)) == 0
