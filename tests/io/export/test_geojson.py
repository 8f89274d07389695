"""What QuPath needs of a GeoJSON file, read back with plain JSON and shapely."""

from __future__ import annotations

import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import shape

from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError
from nucleoscope.io.export import geojson
from nucleoscope.io.export.geojson import write_geojson

SQUARE = [(0.0, 0.0), (0.0, 4.0), (4.0, 4.0), (4.0, 0.0)]
BOW_TIE = [(0.0, 0.0), (4.0, 4.0), (0.0, 4.0), (4.0, 0.0)]


def nuclei(rings: list[Any], **columns: Any) -> Nuclei:
    n = len(rings)
    frame = pd.DataFrame({"id": np.arange(1, n + 1), "y": [1.0] * n, "x": [2.0] * n} | columns)
    return Nuclei(NucleusTable(frame), Outlines.from_rings(rings))


def features(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    document = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    assert document["type"] == "FeatureCollection"
    found: list[dict[str, Any]] = document["features"]
    return found


def test_outlines_move_by_half_a_pixel_and_are_closed(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", nuclei([SQUARE]))
    (feature,) = features(tmp_path / "a.geojson")
    ring = feature["geometry"]["coordinates"][0]
    assert ring == [[0.5, 0.5], [4.5, 0.5], [4.5, 4.5], [0.5, 4.5], [0.5, 0.5]]


def test_a_nucleus_without_outline_is_a_point(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", nuclei([SQUARE, []]))
    kinds = [f["geometry"]["type"] for f in features(tmp_path / "a.geojson")]
    assert kinds == ["Polygon", "Point"]


def test_detections_have_class_colour_measurements_and_a_uuid(tmp_path: Path) -> None:
    many = nuclei([SQUARE, SQUARE, SQUARE], type=['é"p', "inf", ""], area_um2=[9.5, np.nan, 3])
    write_geojson(tmp_path / "a.geojson", many)
    one, two, three = features(tmp_path / "a.geojson")
    assert one["properties"]["objectType"] == "detection"
    assert one["properties"]["classification"]["name"] == 'é"p'
    assert len(one["properties"]["classification"]["color"]) == 3
    assert "classification" not in three["properties"]
    assert one["properties"]["measurements"]["area_um2"] == 9.5
    assert "area_um2" not in two["properties"]["measurements"]
    assert len({uuid.UUID(f["id"]) for f in (one, two, three)}) == 3
    assert [f["properties"]["name"] for f in (one, two, three)] == ["1", "2", "3"]


def test_nuclei_of_a_stack_say_their_plane(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", nuclei([SQUARE, []], z=[2.6, 0.0]))
    planes = [f["geometry"]["plane"]["z"] for f in features(tmp_path / "a.geojson")]
    assert planes == [3, 0]


def test_a_polygon_that_crosses_itself_is_repaired(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", nuclei([BOW_TIE]))
    geometry = shape(features(tmp_path / "a.geojson")[0]["geometry"])
    assert geometry.is_valid
    assert geometry.area == pytest.approx(4.0)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 2.0]))
def test_every_polygon_is_valid_whatever_the_outline(seed: int, tolerance: float) -> None:
    rng = np.random.default_rng(seed)
    rings = Outlines.from_rings([rng.uniform(0, 9, (int(rng.integers(3, 12)), 2))])
    assert shapely.is_valid(geojson.polygons(rings, tolerance)).all()


def test_simplifying_drops_vertices_and_keeps_the_shape(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    circle = 50 + 20 * np.stack([np.sin(angle), np.cos(angle)], -1)
    write_geojson(tmp_path / "a.geojson", nuclei([circle]), tolerance=0.5)
    found = shape(features(tmp_path / "a.geojson")[0]["geometry"])
    assert len(found.exterior.coords) < 60
    assert found.area == pytest.approx(np.pi * 400, rel=0.03)


def test_blocks_join_to_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geojson, "BLOCK", 3)
    write_geojson(tmp_path / "a.geojson.gz", nuclei([SQUARE] * 8))
    names = [f["properties"]["name"] for f in features(tmp_path / "a.geojson.gz")]
    assert names == [str(i) for i in range(1, 9)]


def test_the_same_nuclei_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.geojson.gz", "b.geojson.gz"):
        write_geojson(tmp_path / name, nuclei([SQUARE, []]))
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()


def test_no_nuclei_are_an_empty_collection(tmp_path: Path) -> None:
    write_geojson(tmp_path / "a.geojson", nuclei([]))
    assert features(tmp_path / "a.geojson") == []


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.geojson"
    path.write_text("mine")
    with pytest.raises(CallError, match="overwrite"):
        write_geojson(path, nuclei([SQUARE]))
    assert path.read_text() == "mine"
