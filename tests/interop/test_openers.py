"""Our files opened by the libraries of the programs they are for; skipped where one is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.io.export.frames import write_geoparquet
from nucleoscope.io.export.geojson import write_geojson
from nucleoscope.io.export.rois import write_rois
from nucleoscope.io.export.scverse import to_anndata
from nucleoscope.io.omezarr import write_labels
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.nuclei.measure import contours, measure

# Other libraries may warn of their own future.
pytestmark = pytest.mark.filterwarnings("default")


def nuclei(n: int = 40) -> Nuclei:
    """Discs on a grid, with the outlines of their instance map."""
    plane = np.zeros((200, 320), np.int32)
    y, x = np.indices(plane.shape)
    for i in range(n):
        plane[np.hypot(y - 20 - 40 * (i // 8), x - 20 - 40 * (i % 8)) < 8 + i % 5] = i + 1
    labels = Labels(plane, (1.0, 0.5, 0.5))
    traced = contours(plane)
    outlines = Outlines(np.stack([traced.y, traced.x], axis=1), traced.offsets)
    table = measure(labels, image="a")
    frame = table.frame.assign(type=np.where(table.frame["id"] % 3 == 0, "inf", "epi"))
    return Nuclei(NucleusTable(frame), outlines, labels)


def test_geopandas_opens_geoparquet(tmp_path: Path) -> None:
    geopandas = pytest.importorskip("geopandas")
    many = nuclei()
    write_geoparquet(tmp_path / "a.parquet", many)
    frame = geopandas.read_parquet(tmp_path / "a.parquet")
    assert frame.geometry.is_valid.all()
    assert np.allclose(frame.geometry.area, many.table.frame["area_um2"] / 0.25)
    assert np.abs(frame.geometry.centroid.x - 0.5 - frame["x"]).max() < 0.01
    assert np.abs(frame.geometry.centroid.y - 0.5 - frame["y"]).max() < 0.01


def test_shapely_opens_geojson(tmp_path: Path) -> None:
    import json

    from shapely.geometry import shape

    many = nuclei()
    write_geojson(tmp_path / "a.geojson", many)
    shapes = [
        shape(f["geometry"]) for f in json.loads((tmp_path / "a.geojson").read_text())["features"]
    ]
    assert all(s.is_valid for s in shapes)
    assert np.allclose([s.area for s in shapes], many.table.frame["area_um2"] / 0.25)


def test_roifile_opens_the_roi_set(tmp_path: Path) -> None:
    roifile = pytest.importorskip("roifile")
    many = nuclei()
    write_rois(tmp_path / "a.zip", many)
    rois = roifile.roiread(tmp_path / "a.zip")
    assert len(rois) == len(many)
    assert many.outlines is not None
    for i, roi in enumerate(rois):
        assert np.abs(roi.coordinates()[:, ::-1] - 0.5 - many.outlines[i]).max() < 0.01


def test_squidpy_works_on_our_anndata() -> None:
    squidpy = pytest.importorskip("squidpy")
    data = to_anndata(nuclei())
    squidpy.gr.spatial_neighbors(data, coord_type="generic", n_neighs=4)
    squidpy.gr.nhood_enrichment(
        data, cluster_key="type", n_perms=50, seed=0, show_progress_bar=False
    )
    assert data.uns["type_nhood_enrichment"]["zscore"].shape == (2, 2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_opens_our_labels(tmp_path: Path, version: str) -> None:
    ome_io = pytest.importorskip("ome_zarr.io")
    ome_reader = pytest.importorskip("ome_zarr.reader")
    many = nuclei()
    assert many.labels is not None
    write_labels(
        tmp_path / "labels.ome.zarr", many.labels, table=many.table,
        version=version,  # type: ignore[arg-type]
    )  # fmt: skip
    place = ome_io.parse_url(tmp_path / "labels.ome.zarr", mode="r")
    assert place is not None
    nodes = list(ome_reader.Reader(place)())
    assert nodes
    assert (np.asarray(nodes[0].data[0]).squeeze() == many.labels.data[0]).all()


def test_tifffile_opens_our_instance_map_with_its_scale(tmp_path: Path) -> None:
    import tifffile

    many = nuclei()
    assert many.labels is not None
    write_ome_tiff(tmp_path / "a.ome.tif", many.labels)
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tif:
        assert (tif.asarray().squeeze() == many.labels.data[0]).all()
        assert tif.ome_metadata is not None
        assert 'PhysicalSizeX="0.5"' in tif.ome_metadata
    assert pd.Series(np.unique(many.labels.data)).max() == 40
