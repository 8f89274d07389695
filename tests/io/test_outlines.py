from __future__ import annotations

import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.data import Region
from nucleoscope.errors import InputError, NucleoscopeError, UnsafeInputError
from nucleoscope.io.guard import Limits
from nucleoscope.io.outlines import read_region, write_region
from nucleoscope.io.points import read_points
from nucleoscope.io.roi import parse_roi

SQUARE = [[0, 0], [10, 0], [10, 4], [0, 4], [0, 0]]  # x, y


def written(folder: Path, content: object, name: str = "a.roi.geojson") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_x_and_y_are_flipped_exactly_once(tmp_path: Path) -> None:
    region = read_region(written(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]}))
    assert region.contains([2.0, 8.0], [8.0, 2.0]).tolist() == [True, False]


@pytest.mark.parametrize("wrap", ["bare", "feature", "collection", "geometries", "list", "multi"])
def test_every_wrapping_of_geojson_gives_the_same_ring(wrap: str, tmp_path: Path) -> None:
    polygon = {"type": "Polygon", "coordinates": [SQUARE]}
    feature = {"type": "Feature", "properties": None, "geometry": polygon}
    document = {
        "bare": polygon,
        "feature": feature,
        "collection": {"type": "FeatureCollection", "features": [feature]},
        "geometries": {"type": "GeometryCollection", "geometries": [polygon]},
        "list": [feature],
        "multi": {"type": "MultiPolygon", "coordinates": [[SQUARE]]},
    }[wrap]
    assert len(read_region(written(tmp_path, document)).rings[0]) == 4


def test_a_hole_is_outside_and_an_island_in_it_inside(tmp_path: Path) -> None:
    hole = [[2, 1], [8, 1], [8, 3], [2, 3]]
    region = read_region(written(tmp_path, {"type": "Polygon", "coordinates": [SQUARE, hole]}))
    assert region.contains([2.0, 2.0], [5.0, 1.0]).tolist() == [False, True]


def test_qupath_counts_from_the_corner_of_the_first_pixel(tmp_path: Path) -> None:
    polygon = {"type": "Polygon", "coordinates": [SQUARE]}
    feature = {"type": "Feature", "properties": {"objectType": "annotation"}, "geometry": polygon}
    region = read_region(written(tmp_path, feature))
    assert region.mask((6, 12)).sum() == 40
    assert region.rings[0].min() == -0.5


@pytest.mark.parametrize(
    "document",
    [
        {"type": "Point", "coordinates": [1, 2]},
        {"type": "FeatureCollection", "features": []},
        {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
        {"type": "Polygon", "coordinates": [[[0], [1], [2]]]},
        {"type": "Polygon", "coordinates": [[["a", "b"]] * 3]},
        {"type": "Polygon", "coordinates": 5},
        {"type": "Polygon", "coordinates": None},
        {"type": "Polygon"},
        {"type": "Feature", "geometry": 3},
        3,
        "text",
    ],
)
def test_what_is_no_polygon_is_refused_in_one_sentence(document: object, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_region(written(tmp_path, document))
    assert "a.roi.geojson" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"type":"Polygon","coordinates":' + b"[" * 1_000_000,
        b'{"type":"Polygon","coordinates":[[[0,0],[NaN,1],[1,1]]]}',
        b'{"type":"Polygon","coordinates":[[[0,0],[1e999,1],[1,1]]]}',
        b'{"type":"Polygon","coordinates":[[[0,0],[' + b"9" * 100_000 + b",1],[1,1]]]}",
        b"",
        b"hello",
        b"\x00" * 100,
    ],
)
def test_hostile_geojson_is_refused(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises((InputError, UnsafeInputError)):
        read_region(written(tmp_path, raw))


def test_a_self_crossing_outline_is_filled_by_the_even_odd_rule(tmp_path: Path) -> None:
    bow = [[0, 0], [10, 10], [10, 0], [0, 10]]
    region = read_region(written(tmp_path, {"type": "Polygon", "coordinates": [bow]}))
    assert region.contains([5.0, 1.0], [9.0, 5.0]).tolist() == [True, False]


def test_vertices_above_the_limit_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"type": "Polygon", "coordinates": [SQUARE]})
    with pytest.raises(UnsafeInputError, match="vertices"):
        read_region(path, limits=Limits(vertices=4))


def test_a_round_trip_keeps_outline_hole_and_island(tmp_path: Path) -> None:
    rings = tuple(
        np.array([[a, a], [a, 40.25 - a], [40.25 - a, 40.25 - a], [40.25 - a, a]])
        for a in (0.0, 5.5, 10.125)
    )
    path = tmp_path / "a.geojson"
    write_region(path, Region((*rings, np.array([[50, 50], [50, 60], [60, 60.0]]))))
    document = json.loads(path.read_text())
    geometry = document["features"][0]["geometry"]
    assert [len(polygon) for polygon in geometry["coordinates"]] == [2, 1, 1]
    assert all(r[0] == r[-1] for polygon in geometry["coordinates"] for r in polygon)
    back = read_region(path)
    mask = Region(rings).mask((45, 45))
    assert np.array_equal(back.mask((45, 45)), mask)


def test_written_geojson_is_valid_for_shapely(tmp_path: Path) -> None:
    shapely = pytest.importorskip("shapely")
    path = tmp_path / "a.geojson"
    write_region(path, Region(([[0, 0], [0, 9], [9, 9], [9, 0]], [[2, 2], [2, 4], [4, 4]])))
    geometry = json.loads(path.read_text())["features"][0]["geometry"]
    shape = shapely.from_geojson(json.dumps(geometry))
    assert shape.is_valid
    assert shape.area == 81 - 2


# ImageJ


def roi(kind: int, box: tuple[int, int, int, int], xy: list[tuple[int, int]] = [], *,  # noqa: B006
        floats: list[tuple[float, float]] = [], shape: list[float] = []) -> bytes:  # noqa: B006  # fmt: skip
    """A .roi as ImageJ's RoiEncoder writes it; ``box`` is top, left, bottom, right."""
    options = 128 if floats else 0
    head = struct.pack(">4shBBhhhhH", b"Iout", 228, kind, 0, *box, len(xy or floats))
    head = head.ljust(36, b"\0") + struct.pack(">i", len(shape))
    head = head.ljust(50, b"\0") + struct.pack(">h", options)
    head = head.ljust(64, b"\0")
    if shape:
        return head + struct.pack(f">{len(shape)}f", *shape)
    top, left = box[:2]
    places = xy or [(int(x), int(y)) for x, y in floats]
    body = struct.pack(f">{len(places)}h", *(x - left for x, _ in places))
    body += struct.pack(f">{len(places)}h", *(y - top for _, y in places))
    body += struct.pack(f">{len(floats)}f", *(x for x, _ in floats))
    return head + body + struct.pack(f">{len(floats)}f", *(y for _, y in floats))


@pytest.mark.parametrize("kind", [0, 7, 8])
def test_an_imagej_outline_holds_the_pixels_it_shows(kind: int, tmp_path: Path) -> None:
    raw = roi(kind, (2, 3, 6, 13), [(3, 2), (13, 2), (13, 6), (3, 6)])
    mask = read_region(written(tmp_path, raw, "a.roi")).mask((10, 20))
    assert np.argwhere(mask).min(axis=0).tolist() == [2, 3]
    assert np.argwhere(mask).max(axis=0).tolist() == [5, 12]
    assert mask.sum() == 40


def test_an_imagej_rectangle_and_oval_fill_their_box(tmp_path: Path) -> None:
    mask = read_region(written(tmp_path, roi(1, (2, 3, 6, 13)), "a.roi")).mask((10, 20))
    assert mask[2:6, 3:13].all()
    assert mask.sum() == 40
    oval = read_region(written(tmp_path, roi(2, (0, 0, 40, 60)), "a.roi")).mask((50, 70))
    assert oval.sum() == pytest.approx(np.pi * 20 * 30, rel=0.01)


def test_sub_pixel_coordinates_are_absolute(tmp_path: Path) -> None:
    raw = roi(0, (2, 3, 6, 13), floats=[(3.25, 2.5), (13.5, 2.5), (13.5, 6.75)])
    ring = read_region(written(tmp_path, raw, "a.roi")).rings[0]
    assert (ring + 0.5).tolist() == [[2.5, 3.25], [2.5, 13.5], [6.75, 13.5]]


def test_a_combined_roi_keeps_its_hole(tmp_path: Path) -> None:
    def path(ring: list[tuple[int, int]]) -> list[float]:
        steps = [[1, *p] for p in ring]
        steps[0][0] = 0
        return [float(v) for step in steps for v in step] + [4.0]

    shape = path([(0, 0), (10, 0), (10, 10), (0, 10)]) + path([(2, 2), (5, 2), (5, 5), (2, 5)])
    mask = read_region(written(tmp_path, roi(9, (0, 0, 10, 10), shape=shape), "a.roi")).mask(
        (12, 12)
    )
    assert mask.sum() == 100 - 9


@pytest.mark.parametrize("kind", [3, 4, 5, 6, 9, 77])
def test_lines_and_angles_are_refused_by_name(kind: int, tmp_path: Path) -> None:
    raw = roi(kind, (2, 3, 6, 13), [(3, 2), (13, 2), (13, 6)])
    with pytest.raises(InputError, match="neither an area nor points"):
        read_region(written(tmp_path, raw, "a.roi"))


def test_our_reading_is_that_of_roifile(tmp_path: Path) -> None:
    roifile = pytest.importorskip("roifile", reason="roifile, the oracle, is not installed")
    corners = np.array([[3, 2], [13, 2], [13.5, 6.5]], dtype=np.float32)
    theirs = roifile.ImagejRoi.frompoints(corners)
    ours = parse_roi(theirs.tobytes(), "a").rings[0]
    assert np.allclose(ours[:, ::-1], theirs.coordinates())


@pytest.mark.parametrize("n", range(0, 80, 7))
def test_a_roi_cut_short_is_refused(n: int, tmp_path: Path) -> None:
    raw = roi(0, (2, 3, 6, 13), [(3, 2), (13, 2), (13, 6), (3, 6)])[:n]
    with pytest.raises(InputError):
        read_region(written(tmp_path, raw.ljust(4, b"x"), "a.roi"))


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=0, max_size=200))
def test_no_bytes_make_the_roi_parser_raise_anything_else(tail: bytes) -> None:
    try:
        parse_roi(b"Iout" + tail, "a")
    except NucleoscopeError:
        return


def test_a_zip_of_rois_is_one_region(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("1.roi", roi(1, (0, 0, 4, 4)))
        file.writestr("2.roi", roi(1, (6, 6, 10, 10)))
    region = read_region(written(tmp_path, buffer.getvalue(), "set.zip"))
    assert region.mask((12, 12)).sum() == 32


# Real files


def test_the_lesion_outline_holds_every_annotated_nucleus(data: Path) -> None:
    for stack in ("d1_test_01", "d1_train_01"):
        region = read_region(data / "plaque" / f"{stack}.roi.geojson")
        points = read_points(data / "plaque" / f"{stack}.points.csv")
        assert region.contains(points.y, points.x).mean() > 0.97
        assert region.contains(points.x, points.y).mean() < 0.97


def test_real_rois_of_imagej_are_read(data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(data / "formats" / "imagej_rois" / "TCGA-S4-A8RO.zip") as outer:
        path = written(tmp_path, outer.read("RoiSet.zip"), "RoiSet.zip")
    with zipfile.ZipFile(path) as inner:
        n = sum(name.endswith(".roi") for name in inner.namelist())
    region = read_region(path)
    assert len(region.rings) == n > 10


def test_a_real_qupath_export_is_read(data: Path) -> None:
    region = read_region(data / "formats" / "QuPath_Annotations_wo_calibs.geojson")
    assert len(region.rings) == 43
