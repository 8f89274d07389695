"""Results opened by anndata and spatialdata themselves; skipped where they are not installed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.atlas import Atlas, unit_rows
from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.io.export.scverse import (
    to_anndata,
    to_spatialdata,
    write_anndata,
    write_spatialdata,
)

# Other libraries may warn of their own future.
pytestmark = pytest.mark.filterwarnings("default")

RING = [(0.5, 0.5), (0.5, 4.5), (4.5, 4.5), (4.5, 0.5)]


def nuclei(*, known: bool = True) -> Nuclei:
    frame = pd.DataFrame(
        {"id": [3, 8], "image": ["a", "a"], "y": [2.5, 7.0], "x": [2.5, 6.0],
         "type": ["epi", "inf"], "y_um": [1.25, 3.5], "x_um": [1.25, 3.0]}
    )  # fmt: skip
    plane = np.zeros((10, 12), np.int32)
    plane[1:5, 1:5] = 3
    plane[7, 6] = 8
    second = [(6.5, 5.5), (6.5, 6.5), (7.5, 6.5), (7.5, 5.5)] if known else []
    return Nuclei(
        NucleusTable(frame), Outlines.from_rings([RING, second]), Labels(plane, (0.5, 0.5, 0.5))
    )


def test_anndata_holds_everything_where_people_look(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    atlas = Atlas(
        nuclei().table, unit_rows([[3.0, 4.0], [0.0, 1.0]]),
        features=pd.DataFrame({"f_area_um2": [9.0, 4.0]}),
        subtypes=pd.DataFrame({"subtype": ["1", "2"]}),
        map2d=pd.DataFrame({"map_x": [1.0, 2.0], "map_y": [3.0, 4.0]}),
    )  # fmt: skip
    write_anndata(tmp_path / "a.h5ad", atlas)
    data = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert data.shape == (2, 1)
    assert data.var_names.tolist() == ["f_area_um2"]
    assert data.X.ravel().tolist() == [9.0, 4.0]
    assert data.obsm["spatial"].tolist() == [[1.25, 1.25], [3.0, 3.5]]
    assert data.obsm["X_nuc2vec"].shape == (2, 2)
    assert data.obsm["X_umap"].tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert data.obs["type"].tolist() == ["epi", "inf"]
    assert str(data.obs["subtype"].dtype) == "category"
    assert data.obs_names.tolist() == ["a:3", "a:8"]


def test_anndata_of_no_nuclei_is_empty(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    write_anndata(tmp_path / "a.h5ad", NucleusTable.empty())
    assert anndata.read_h5ad(tmp_path / "a.h5ad").n_obs == 0


def test_a_stack_has_three_coordinates() -> None:
    pytest.importorskip("anndata")
    frame = nuclei().table.frame.assign(z=[1.0, 2.0]).drop(columns=["x_um", "y_um"])
    data = to_anndata(NucleusTable(frame))
    assert data.obsm["spatial"].tolist() == [[2.5, 2.5, 1.0], [6.0, 7.0, 2.0]]
    assert data.uns["nucleoscope"]["unit"] == "px"


@pytest.mark.parametrize("known", [True, False])
def test_spatialdata_is_written_and_read_back(tmp_path: Path, known: bool) -> None:
    spatialdata = pytest.importorskip("spatialdata")
    image = Volume(np.zeros((2, 1, 10, 12), np.uint8), ("DAPI", "LT"), (0.5, 0.5, 0.5), "a")
    write_spatialdata(tmp_path / "a.zarr", nuclei(known=known), image=image)
    data = spatialdata.read_zarr(tmp_path / "a.zarr")
    assert set(data.images) == {"image"}
    assert set(data.labels) == {"labels"}
    assert (np.asarray(data.labels["labels"]) == nuclei().labels.data[0]).all()  # type: ignore[union-attr]
    assert data.shapes["nuclei"].index.tolist() == [3, 8]
    assert data.tables["table"].obs["instance"].tolist() == [3, 8]
    if known:
        assert data.shapes["nuclei"].geometry.iloc[0].area == 16.0


def test_a_stack_becomes_three_dimensional_elements() -> None:
    pytest.importorskip("spatialdata")
    labels = Labels(np.ones((3, 4, 5), np.int32))
    frame = pd.DataFrame({"id": [1], "z": [1.0], "y": [2.0], "x": [2.0]})
    data = to_spatialdata(Nuclei(NucleusTable(frame), None, labels))
    assert data.labels["labels"].dims == ("z", "y", "x")
