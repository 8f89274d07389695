from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import shapely

from nucleoscope.data.atlas import Atlas, unit_rows
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError
from nucleoscope.io.export.frames import (
    write_cellprofiler,
    write_embedding_atlas,
    write_geoparquet,
)

RING = [(0.0, 0.0), (0.0, 4.0), (4.0, 4.0)]


def nuclei() -> Nuclei:
    frame = pd.DataFrame(
        {"id": [3, 8], "image": ["b", "a"], "y": [1.0, 5.0], "x": [2.0, 6.0], "area_px": [8.0, 1.0],
         "type": ["=cmd", "x"]}
    )  # fmt: skip
    return Nuclei(NucleusTable(frame), Outlines.from_rings([RING, []]))


def test_cellprofiler_names_numbers_and_guards_against_formulas(tmp_path: Path) -> None:
    write_cellprofiler(tmp_path / "a.csv", nuclei())
    frame = pd.read_csv(tmp_path / "a.csv")
    assert frame["ImageNumber"].tolist() == [2, 1]
    assert frame["ObjectNumber"].tolist() == [3, 8]
    assert frame["Location_Center_X"].tolist() == [2.0, 6.0]
    assert frame["AreaShape_Area"].tolist() == [8.0, 1.0]
    assert frame["Classify_Type"][0] == "'=cmd"
    assert "Nucleoscope_n_slices" in frame


def test_geoparquet_holds_polygons_that_shapely_reads(tmp_path: Path) -> None:
    write_geoparquet(tmp_path / "a.parquet", nuclei())
    table = pq.read_table(tmp_path / "a.parquet")
    geo = json.loads(table.schema.metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == ["Point", "Polygon"]
    assert column["bbox"] == [0.5, 0.5, 6.5, 5.5]
    one, two = shapely.from_wkb(table["geometry"].to_pylist())
    assert one.area == 8.0
    assert (two.x, two.y) == (6.5, 5.5)
    assert table["id"].to_pylist() == [3, 8]


def test_geoparquet_of_no_nuclei_is_a_table_without_rows(tmp_path: Path) -> None:
    write_geoparquet(tmp_path / "a.parquet", nuclei().take([]))
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 0


def test_embedding_atlas_has_places_and_vectors(tmp_path: Path) -> None:
    atlas = Atlas(
        nuclei().table,
        unit_rows([[3.0, 4.0], [0.0, 1.0]]),
        map2d=pd.DataFrame({"map_x": [1.0, 2.0], "map_y": [3.0, 4.0]}),
    )
    write_embedding_atlas(tmp_path / "a.parquet", atlas)
    table = pq.read_table(tmp_path / "a.parquet")
    assert table["projection_y"].to_pylist() == [3.0, 4.0]
    assert np.allclose(np.array(table["vector"].to_pylist()), [[0.6, 0.8], [0, 1]], atol=1e-3)
    with pytest.raises(CallError, match="no 2D map"):
        write_embedding_atlas(tmp_path / "b.parquet", Atlas(atlas.table, atlas.embedding))
