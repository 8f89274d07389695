"""Out and in again, through every pair of writer and reader: coordinates to 0.01 px."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.points import Points
from nucleoscope.data.table import NucleusTable
from nucleoscope.io import omezarr, tiff
from nucleoscope.io.export import clicks, coco, frames, geojson, hovernet, rois
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.nuclei.build import centroids
from nucleoscope.io.points import read_points, write_points

TOLERANCE = 0.01
SPACING = (1.5, 0.4, 0.3)
ONE_FOLDER = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def polygons(draw: st.DrawFn) -> Nuclei:
    """A few regular polygons of any size at places that are no whole pixels, wider than high."""
    n = draw(st.integers(1, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    rings = []
    for i in range(n):
        k = int(rng.integers(3, 24))
        angle = np.arange(k) * 2 * np.pi / k
        middle = np.array([40.0 * i + 20, 60.0 * i + 500]) + rng.uniform(-3, 3, 2)
        radii = rng.uniform(2, 15, 2)
        rings.append(middle + radii * np.stack([np.sin(angle), np.cos(angle)], axis=1))
    outlines = Outlines.from_rings(rings)
    yx = centroids(outlines)
    frame = pd.DataFrame({"id": np.arange(n) * 3 + 2, "image": "a", "y": yx[:, 0], "x": yx[:, 1],
                          "type": rng.choice(["", "epi", "inf"], n)})  # fmt: skip
    return Nuclei(NucleusTable(frame), outlines)


WITH_OUTLINES: dict[str, Callable[..., Any]] = {
    "a.geojson": geojson.write_geojson,
    "a.geojson.gz": geojson.write_geojson,
    "a.json": hovernet.write_hovernet_json,
    "coco.json": coco.write_coco,
    "a.zip": rois.write_rois,
    "a.parquet": frames.write_geoparquet,
}


@pytest.mark.parametrize("name", list(WITH_OUTLINES))
@ONE_FOLDER
@given(nuclei=polygons())
def test_outlines_come_back_at_their_place(tmp_path: Path, name: str, nuclei: Nuclei) -> None:
    WITH_OUTLINES[name](tmp_path / name, nuclei, overwrite=True)
    found = read_nuclei(tmp_path / name, image="a")
    assert found.outlines is not None
    assert nuclei.outlines is not None
    for i in range(len(nuclei)):
        assert _distance(found.outlines[i], nuclei.outlines[i]) < TOLERANCE
    here, there = (n.table.frame[["y", "x"]].to_numpy() for n in (nuclei, found))
    assert np.abs(here - there).max() < TOLERANCE


def _distance(ring: np.ndarray, other: np.ndarray) -> float:
    """Largest distance of a vertex from the nearest of the other ring."""
    apart = np.linalg.norm(ring[:, None] - other[None], axis=2)
    return float(max(apart.min(axis=0).max(), apart.min(axis=1).max()))


@pytest.mark.parametrize("name", list(WITH_OUTLINES))
@ONE_FOLDER
@given(nuclei=polygons())
def test_types_come_back(tmp_path: Path, name: str, nuclei: Nuclei) -> None:
    WITH_OUTLINES[name](tmp_path / name, nuclei, overwrite=True)
    found = read_nuclei(tmp_path / name, image="a").table.frame["type"].tolist()
    assert found == nuclei.table.frame["type"].tolist()


@st.composite
def clouds(draw: st.DrawFn) -> Points:
    n = draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    z = rng.integers(0, 30, n).astype(float)
    return Points(z, rng.uniform(0, 500, n).round(3), rng.uniform(500, 900, n).round(3),
                  rng.choice(["epi", "inf"], n))  # fmt: skip


def write_spots(path: Path, points: Points, *, overwrite: bool) -> None:
    clicks.write_spots(path, points, spacing=SPACING, overwrite=overwrite)


POINT_PAIRS: dict[str, tuple[Callable[..., Any], float]] = {
    "a.csv": (write_points, 0.0),
    "napari.csv": (clicks.write_napari_points, 0.0),
    "a.geojson": (clicks.write_point_geojson, 0.0),
    "a.zip": (rois.write_point_roi, 0.0),
    "spots.csv": (write_spots, 0.0),
    "a.xml": (clicks.write_cell_counter, 0.5),  # whole pixels only
}


@pytest.mark.parametrize("name", list(POINT_PAIRS))
@ONE_FOLDER
@given(points=clouds())
def test_points_come_back_at_their_place(tmp_path: Path, name: str, points: Points) -> None:
    write, rounding = POINT_PAIRS[name]
    write(tmp_path / name, points, overwrite=True)
    found = read_points(tmp_path / name, spacing=SPACING)
    here, there = (_sorted(p.zyx()) for p in (points, found))
    assert np.abs(here - there).max() < TOLERANCE + rounding
    if not name.endswith(".zip"):
        assert sorted(found.types.tolist()) == sorted(points.types.tolist())


def _sorted(zyx: np.ndarray) -> np.ndarray:
    """Rows in an order that rounding does not change."""
    return zyx[np.lexsort(np.round(zyx[:, [2, 1, 0]].T, 0))]


@pytest.mark.parametrize("name", ["a.ome.tif", "a.ome.zarr", "a.mat"])
@pytest.mark.parametrize("seed", range(3))
def test_instance_maps_come_back_pixel_by_pixel(tmp_path: Path, name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plane = np.kron(rng.permutation(12).reshape(3, 4), np.ones((5, 7), int)).astype(np.int32)
    labels = Labels(plane, (1.0, 0.5, 0.5))
    write: Callable[..., Any] = {
        "a.ome.tif": tiff.write_ome_tiff, "a.ome.zarr": omezarr.write_labels,
    }.get(name, hovernet.write_hovernet_mat)  # fmt: skip
    before = read_nuclei(_saved(tmp_path / "b.ome.tif", labels))
    write(tmp_path / name, before if name == "a.mat" else labels)
    found = read_nuclei(tmp_path / name)
    assert found.labels is not None
    assert (found.labels.data == labels.data).all()
    columns = ["id", "y", "x"]
    assert (found.table.frame[columns] == before.table.frame[columns]).all().all()


def _saved(path: Path, labels: Labels) -> Path:
    tiff.write_ome_tiff(path, labels)
    return path


def test_cellprofiler_centres_come_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": [4, 9], "image": "a", "y": [1.25, 7.5], "x": [3.5, 9.0]})
    frames.write_cellprofiler(tmp_path / "a.csv", Nuclei(NucleusTable(frame)))
    found = read_nuclei(tmp_path / "a.csv").table.frame
    assert found[["id", "y", "x"]].values.tolist() == frame[["id", "y", "x"]].values.tolist()
