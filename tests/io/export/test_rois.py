"""ROIs that ImageJ's own layout, as two readers know it, gives back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.points import Points
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError
from nucleoscope.io.export.rois import encode_roi, write_point_roi, write_rois
from nucleoscope.io.outlines import read_region
from nucleoscope.io.points import read_points
from nucleoscope.io.roi import parse_roi

RING = [(0.5, 1.5), (0.25, 30000.75), (2.5, 3.5)]


def nuclei(**columns: Any) -> Nuclei:
    frame = pd.DataFrame({"id": [3, 8], "y": [1.0, 5.0], "x": [2.0, 6.0]} | columns)
    return Nuclei(NucleusTable(frame), Outlines.from_rings([RING, []]))


@given(st.integers(0, 1000), st.integers(3, 40), st.integers(0, 9))
def test_a_polygon_survives_to_a_hundredth_of_a_pixel(seed: int, n: int, place: int) -> None:
    yx = np.random.default_rng(seed).uniform(-50, 30000, (n, 2))
    found = parse_roi(encode_roi(yx, slice_number=place), "a.roi")
    assert np.abs(found.rings[0] - yx).max() < 0.01


def test_roifile_reads_the_same_outline() -> None:
    roifile = pytest.importorskip("roifile")
    yx = np.array(RING) + 0.5
    roi = roifile.ImagejRoi.frombytes(encode_roi(yx, slice_number=4))
    assert np.abs(roi.coordinates()[:, ::-1] - yx).max() < 0.01
    assert roi.z_position == 4
    assert roi.roitype == roifile.ROI_TYPE.POLYGON
    points = roifile.ImagejRoi.frombytes(encode_roi(yx, kind=10))
    assert points.roitype == roifile.ROI_TYPE.POINT
    assert np.abs(points.coordinates()[:, ::-1] - yx).max() < 0.01


def test_outlines_come_back_from_the_archive(tmp_path: Path) -> None:
    write_rois(tmp_path / "set.zip", nuclei(z=[2.0, 4.0], type=["a/b", ""]).take([0]))
    (ring,) = read_region(tmp_path / "set.zip").rings
    assert np.abs(ring - np.array(RING)).max() < 0.01


def test_nuclei_without_outline_are_points_in_their_slice(tmp_path: Path) -> None:
    write_rois(tmp_path / "set.zip", nuclei(z=[2.0, 4.0]).take([1]))
    assert read_points(tmp_path / "set.zip").zyx().tolist() == [[4.0, 5.0, 6.0]]


def test_points_come_back_with_their_slices(tmp_path: Path) -> None:
    points = Points(z=[0, 3, 3], y=[1.25, 2.5, 9.0], x=[4.0, 5.5, 6.0], type=["a", "b", "a"])
    write_point_roi(tmp_path / "points.zip", points)
    found = read_points(tmp_path / "points.zip").zyx()
    assert sorted(found.tolist()) == sorted(points.zyx().tolist())


def test_what_a_roi_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="65,535 points; found 70,000"):
        encode_roi(np.zeros((70_000, 2)))
    with pytest.raises(CallError, match="one image; found 2"):
        write_rois(tmp_path / "a.zip", nuclei(image=["a", "b"]))
    assert not list(tmp_path.iterdir())
