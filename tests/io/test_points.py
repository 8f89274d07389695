from __future__ import annotations

import logging
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleoscope.data import Points
from nucleoscope.errors import InputError, NucleoscopeError, UnsafeInputError
from nucleoscope.io.guard import Limits
from nucleoscope.io.points import POINT_FORMATS, n_duplicates, read_points, write_points


def written(folder: Path, text: str | bytes, name: str = "a.points.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# The contract's CSV


def test_y_and_x_are_enough_and_other_columns_do_not_matter(tmp_path: Path) -> None:
    points = read_points(written(tmp_path, "note, X ,Y\nhello,3,2.5\n"))
    assert points.zyx().tolist() == [[0, 2.5, 3]]
    assert points.types.tolist() == [""]
    assert points.ids.tolist() == [1]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_spreadsheets_of_any_country_are_read(separator: str, ending: str, tmp_path: Path) -> None:
    rows = [
        ["id", "z", "y", "x", "type"],
        ["7", "2", "1.5", "4", "positive"],
        ["9", "0", "2", "3", ""],
    ]
    text = "\ufeff" + ending.join(separator.join(row) for row in rows) + ending
    points = read_points(written(tmp_path, text))
    assert points.ids.tolist() == [7, 9]
    assert points.zyx().tolist() == [[2, 1.5, 4], [0, 2, 3]]
    assert points.types.tolist() == ["positive", ""]


@pytest.mark.parametrize("bad", ["", "abc", "nan", "NaN", "inf", "1e999", "1,5"])
def test_a_value_that_is_no_number_is_named_with_row_and_column(bad: str, tmp_path: Path) -> None:
    path = written(tmp_path, f'y,x\n1,2\n3,"{bad}"\n')
    with pytest.raises(InputError, match=r"a\.points\.csv: row 2 \(line 3\), column 'x'"):
        read_points(path)


def test_ids_that_repeat_or_are_not_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="repeat"):
        read_points(written(tmp_path, "id,y,x\n1,2,3\n1,4,5\n"))
    with pytest.raises(InputError, match="whole number"):
        read_points(written(tmp_path, "id,y,x\n1.5,2,3\n"))


def test_a_header_alone_is_no_points_and_an_empty_file_is_an_error(tmp_path: Path) -> None:
    assert len(read_points(written(tmp_path, "id,z,y,x,type\n"))) == 0
    for text in ("", "\n", "a,b\n1,2\n", "1,2\n3,4\n", "\x00\x01\x02"):
        with pytest.raises(InputError, match="columns y and x"):
            read_points(written(tmp_path, text))


def test_points_at_one_place_are_kept_and_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "y,x\n1,2\n1,2\n1,2\n1,3\n")
    with caplog.at_level(logging.WARNING):
        points = read_points(path)
    assert len(points) == 4
    assert n_duplicates(points) == 2
    assert "2 points repeat" in caplog.text


def test_rows_above_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeInputError, match="rows"):
        read_points(written(tmp_path, "y,x\n1,2\n1,3\n"), limits=Limits(rows=1))


def test_a_large_table_of_points_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 100_000
    points = Points(rng.integers(0, 12, n), rng.random(n) * 9e3, rng.random(n) * 9e3)
    write_points(tmp_path / "a.csv", points)
    assert np.array_equal(read_points(tmp_path / "a.csv").zyx(), points.zyx())


coordinates = hnp.arrays(
    np.float64, st.tuples(st.integers(0, 6), st.just(3)),
    elements=st.floats(-1e6, 1e6, allow_subnormal=False),
)  # fmt: skip
texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zs")), max_size=8)


@settings(max_examples=40, deadline=None)
@given(coordinates, st.data())
def test_a_round_trip_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, zyx: np.ndarray, data: st.DataObject
) -> None:
    odd = st.sampled_from(["=1+1", "-a", "@x", "+1", "'=", "NA", "nan"])
    kinds = data.draw(st.lists(texts | odd, min_size=len(zyx), max_size=len(zyx)))
    points = Points(*zyx.T, np.array(kinds, dtype=np.str_))
    path = tmp_path_factory.mktemp("trip") / "a.csv"
    write_points(path, points)
    back = read_points(path)
    assert np.array_equal(back.zyx(), zyx)
    assert back.types.tolist() == points.types.tolist()
    assert back.ids.tolist() == points.ids.tolist()


def test_a_written_type_is_no_formula(tmp_path: Path) -> None:
    write_points(tmp_path / "a.csv", Points([0], [1], [2], np.array(["=cmd|' /C calc'!A0"])))
    assert ",'=cmd" in (tmp_path / "a.csv").read_text().replace('"', "")


# Other formats, each with its origin of coordinates


def test_napari_counts_from_zero(tmp_path: Path) -> None:
    two = read_points(written(tmp_path, "index,axis-0,axis-1\n0.0,4.0,5.0\n"))
    assert two.zyx().tolist() == [[0, 4, 5]]
    three = read_points(written(tmp_path, "index,axis-0,axis-1,axis-2\n0.0,31.0,4.5,5.0\n"))
    assert three.zyx().tolist() == [[31, 4.5, 5]]
    four = read_points(written(tmp_path, "index,axis-0,axis-1,axis-2,axis-3\n0,1,31,4,5\n"))
    assert four.zyx().tolist() == [[31, 4, 5]]
    with pytest.raises(InputError, match="vary along axis-0"):
        read_points(written(tmp_path, "index,axis-0,axis-1,axis-2,axis-3\n0,1,3,4,5\n1,2,3,4,5\n"))


CELL = """<?xml version="1.0" encoding="UTF-8"?>
<CellCounter_Marker_File><Image_Properties/><Marker_Data><Current_Type>1</Current_Type>
<Marker_Type><Type>1</Type></Marker_Type>
<Marker_Type><Type>2</Type><Name>positive</Name>
<Marker><MarkerX>32</MarkerX><MarkerY>248</MarkerY><MarkerZ>{z}</MarkerZ></Marker></Marker_Type>
<Marker_Type><Type>3</Type>
<Marker><MarkerX>5</MarkerX><MarkerY>6</MarkerY><MarkerZ>1</MarkerZ></Marker></Marker_Type>
</Marker_Data></CellCounter_Marker_File>"""


def test_cell_counter_slices_count_from_one(tmp_path: Path) -> None:
    points = read_points(written(tmp_path, CELL.format(z=10), "a.xml"))
    assert points.zyx().tolist() == [[9, 248, 32], [0, 6, 5]]
    assert points.types.tolist() == ["positive", "3"]
    for bad in ("0", "-1", "x", "", "1e9999"):
        with pytest.raises(InputError, match="marker 1"):
            read_points(written(tmp_path, CELL.format(z=bad), "a.xml"))
    with pytest.raises(UnsafeInputError):
        evil = CELL.format(z=1).replace("<CellC", "<!DOCTYPE x><CellC", 1)
        read_points(written(tmp_path, evil, "a.xml"))


SHEET = "Filename,X,Y,Z-slice position,Category\n"


def test_the_authors_sheet_is_flipped_and_counted_from_zero(tmp_path: Path) -> None:
    path = written(tmp_path, SHEET + "a.tif,3.5,-7,1,1\na.tif,4,-8,12,12\n")
    points = read_points(path)
    assert points.zyx().tolist() == [[0, 7, 3.5], [11, 8, 4]]
    assert points.types.tolist() == ["negative", "positive"]
    more = read_points(written(tmp_path, SHEET + "a.tif,3,-7,1,123\na.tif,4,-8,2,13\n"))
    assert more.types.tolist() == ["123", "13"]


def test_a_sheet_of_several_images_asks_which(tmp_path: Path) -> None:
    path = written(tmp_path, SHEET + "a.tif,3,-7,1,1\nb.tif,4,-8,2,12\nb.tif,5,-9,3,1\n")
    with pytest.raises(InputError, match=r"2 images \(a, b\).*image="):
        read_points(path)
    assert read_points(path, image="folder/b.ome.tif").y.tolist() == [8, 9]
    with pytest.raises(InputError, match="no row is of c"):
        read_points(path, image="c.tif")


@pytest.mark.parametrize(
    ("row", "what"),
    [("a,3,7,1,1\na,3,-7,1,1", "negative in some"), ("a,3,-7,0,1", "counts from 1"),
     ("a,3,-7,1,x", "category"), ("a,3,-7,1,", "category"), ("a,,-7,1,1", "column 'x'")],
)  # fmt: skip
def test_a_wrong_sheet_names_what_is_wrong(row: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=what):
        read_points(written(tmp_path, SHEET + row + "\n"))


def test_geojson_points_carry_type_plane_and_qupaths_origin(tmp_path: Path) -> None:
    plain = '{"type": "MultiPoint", "coordinates": [[1, 2], [3, 4]]}'
    assert read_points(written(tmp_path, plain, "a.geojson")).zyx()[:, 1:].tolist() == [
        [2, 1],
        [4, 3],
    ]
    qupath = (
        '{"type":"FeatureCollection","features":[{"type":"Feature","geometry":{"type":"Point",'
        '"coordinates":[10.5,20.5],"plane":{"c":-1,"z":3,"t":0}},"properties":{"objectType":'
        '"annotation","classification":{"name":"Tumour","color":[1,2,3]}}}]}'
    )
    points = read_points(written(tmp_path, qupath, "a.geojson"))
    assert points.zyx().tolist() == [[3, 20, 10]]
    assert points.types.tolist() == ["Tumour"]
    for bad in ('{"type":"Point","coordinates":[1]}', '{"type":"Point","coordinates":["a","b"]}',
                '{"a":1}', "[1]", '{"type":"FeatureCollection","features":[]}'):  # fmt: skip
        with pytest.raises(InputError):
            read_points(written(tmp_path, bad, "a.geojson"))


def multipoint(points: list[tuple[int, int, int]]) -> bytes:
    """A multi-point .roi with a slice for each point, as ImageJ stores it."""
    n = len(points)
    y, x = [p[1] for p in points], [p[2] for p in points]
    top, left = min(y), min(x)
    header2 = 64 + 4 * n
    head = struct.pack(">4shBBhhhhH", b"Iout", 228, 10, 0, top, left, max(y), max(x), n).ljust(
        64, b"\0"
    )
    head = head[:60] + struct.pack(">i", header2)
    body = struct.pack(f">{n}h", *(v - left for v in x)) + struct.pack(
        f">{n}h", *(v - top for v in y)
    )
    second = bytes(48) + struct.pack(">i", header2 + 64) + bytes(12)
    return head + body + second + struct.pack(f">{n}i", *((p[0] + 1) << 8 for p in points))


def test_an_imagej_multipoint_roi_keeps_each_points_slice(tmp_path: Path) -> None:
    places = [(0, 5, 9), (11, 40, 3)]
    points = read_points(written(tmp_path, multipoint(places), "a.roi"))
    assert points.zyx().tolist() == [list(p) for p in places]


HEADS = [
    b"", b"y,x\n", SHEET.encode(), b"Iout", b"{", b"PK\x03\x04", b"index,axis-0,axis-1\n",
    b"<CellCounter_Marker_File>",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(HEADS))
def test_no_bytes_make_a_parser_raise_anything_else(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, head: bytes
) -> None:
    path = written(tmp_path_factory.mktemp("fuzz"), head + tail)
    try:
        assert isinstance(read_points(path), Points)
    except NucleoscopeError as error:
        assert str(path) in str(error)


def test_every_format_has_a_row_of_its_own() -> None:
    assert len({row.name for row in POINT_FORMATS}) == len(POINT_FORMATS) == 8


# Real files


def test_the_real_point_files_are_read(data: Path) -> None:
    plaque = read_points(data / "plaque" / "d1_test_01.points.csv")
    assert (len(plaque), set(plaque.types)) == (184, {"positive", "negative"})
    assert plaque.zyx()[0].tolist() == [5, 9.9, 263]
    cells = read_points(data / "cells3d" / "napari_points.csv")
    assert len(cells) == 15
    assert set(cells.z) == {31}
    cells.check_inside((60, 256, 256))
    brain = read_points(data / "lightsheet_brain" / "cell_counter.xml")
    assert len(brain) == 46
    assert brain.zyx()[0].tolist() == [9, 248, 32]
    brain.check_inside((30, 384, 384))
    histology = read_points(data / "crc_histophenotypes" / "img1.points.csv")
    assert set(histology.types) == {"fibroblast", "inflammatory", "others", ""}
    qupath = read_points(data / "formats" / "QuPath_Annotations_wo_calibs.geojson")
    assert set(qupath.types) == {"calibpoints"}


def test_truth_is_where_the_points_are(data: Path) -> None:
    points = read_points(data / "plaque" / "d1_test_01.points.csv")
    truth = read_points(data / "plaque" / "d1_test_01.truth.csv")
    assert points.ids.tolist() == truth.ids.tolist()
    assert np.abs(points.zyx()[:, 1:] - truth.zyx()[:, 1:]).max() < 15
