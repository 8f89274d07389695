"""Nuclei of every origin: the same nuclei at the same place, or one sentence."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import io as scipy_io

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io import omezarr, tables
from nucleoscope.io.guard import Limits
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.nuclei.build import Rows, Source, centroids, opened_ring
from nucleoscope.io.nuclei.outlined import outwards
from nucleoscope.io.nuclei.stream import Elements, container

# Two nuclei: pixels 10..13 x 20..25 and 30..30 x 5..9 (rows x columns).
BOXES = {3: (10, 20, 13, 25), 8: (30, 5, 30, 9)}


def instance_map() -> NDArray[np.int32]:
    labels = np.zeros((50, 40), dtype=np.int32)
    for id_, (y0, x0, y1, x1) in BOXES.items():
        labels[y0 : y1 + 1, x0 : x1 + 1] = id_
    return labels


def opencv_contour(box: tuple[int, int, int, int]) -> list[list[int]]:
    """Centres of the corner pixels in (x, y), as cv2.findContours gives them."""
    y0, x0, y1, x1 = box
    corners = [[x0, y0], [x0, y1], [x1, y1], [x1, y0]]
    return corners if y1 > y0 and x1 > x0 else [[x0, y0], [x1, y1]]


def edges(box: tuple[int, int, int, int], shift: float) -> list[list[float]]:
    """A closed ring along the pixel edges in (x, y)."""
    y0, x0, y1, x1 = (v + d for v, d in zip(box, (-0.5, -0.5, 0.5, 0.5), strict=True))
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    return [[x + shift, y + shift] for x, y in ring]


def places(nuclei: Nuclei) -> list[tuple[float, float]]:
    return [tuple(v) for v in nuclei.table.frame[["y", "x"]].to_numpy().round(6).tolist()]


EXPECTED = [(11.5, 22.5), (30.0, 7.0)]


def write_hovernet(path: Path) -> None:
    nuc = {
        str(id_): {
            "bbox": [[b[0], b[1]], [b[2] + 1, b[3] + 1]], "contour": opencv_contour(b),
            "centroid": [(b[1] + b[3]) / 2, (b[0] + b[2]) / 2], "type": 2, "type_prob": 0.75,
        } for id_, b in BOXES.items()
    }  # fmt: skip
    path.write_text(json.dumps({"mag": None, "nuc": nuc}))


def write_cellvit(path: Path) -> None:
    cells = [
        {"bbox": [[b[0], b[1]], [b[2] + 1, b[3] + 1]], "contour": opencv_contour(b),
         "centroid": [(b[1] + b[3]) / 2, (b[0] + b[2]) / 2], "type": 2, "type_prob": 0.75}
        for b in BOXES.values()
    ]  # fmt: skip
    names = {"1": "Neoplastic", "2": "Inflammatory"}
    path.write_text(json.dumps({"wsi_metadata": {"a": [1]}, "type_map": names, "cells": cells}))


def qupath_feature(box: tuple[int, int, int, int], kind: str = "detection") -> dict[str, Any]:
    return {
        "type": "Feature", "id": "x", "geometry":
        {"type": "Polygon", "coordinates": [edges(box, 0.5)]},
        "properties": {"objectType": kind, "classification": {"name": "Immune", "color": [1, 2]}},
    }  # fmt: skip


def write_qupath(path: Path) -> None:
    features = [qupath_feature(box) for box in BOXES.values()]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def write_mat(path: Path) -> None:
    scipy_io.savemat(path, {"inst_map": instance_map(), "inst_type": [[2], [1]]})


def write_csv(path: Path) -> None:
    path.write_text("id,x,y,type\n3,22.5,11.5,a\n8,7,30,b\n")


FORMATS: dict[str, tuple[Callable[[Path], Any], bool, list[int], list[str]]] = {
    "nuclei.json": (write_hovernet, True, [3, 8], ["2", "2"]),
    "cells.json": (write_cellvit, True, [1, 2], ["Inflammatory", "Inflammatory"]),
    "q.geojson": (write_qupath, True, [1, 2], ["Immune", "Immune"]),
    "a.mat": (write_mat, False, [3, 8], ["2", "1"]),
    "a.csv": (write_csv, False, [3, 8], ["a", "b"]),
    "a.tif": (lambda p: tifffile.imwrite(p, instance_map()), False, [3, 8], ["", ""]),
    "a.npy": (lambda p: np.save(p, instance_map()), False, [3, 8], ["", ""]),
    "labels.zarr": (
        lambda p: omezarr.write_labels(p, Labels(instance_map())), False, [3, 8], ["", ""],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_gives_the_same_nuclei_at_the_same_place(tmp_path: Path, name: str) -> None:
    write, has_outlines, ids, types = FORMATS[name]
    write(tmp_path / name)
    nuclei = read_nuclei(tmp_path / name, image="slide")
    assert places(nuclei) == EXPECTED
    assert nuclei.table.frame["id"].tolist() == ids
    assert nuclei.table.frame["type"].tolist() == types
    assert set(nuclei.table.frame["image"]) == {"slide"}
    assert (nuclei.outlines is not None) == has_outlines
    if nuclei.outlines is not None:
        assert nuclei.outlines.areas()[0] == pytest.approx(24)  # 4 x 6 pixels
        assert nuclei.outlines.boxes()[0] == pytest.approx([9.5, 19.5, 13.5, 25.5])


def test_a_result_of_detect_brings_its_map(tmp_path: Path) -> None:
    folder = tmp_path / "OUT" / "slide"
    frame = pd.DataFrame({"id": [3, 8], "image": "slide", "y": [11.5, 30], "x": [22.5, 7]})
    tables.write_table(NucleusTable(frame), folder)
    omezarr.write_labels(folder / "labels.ome.zarr", Labels(instance_map()))
    for path in (folder, tmp_path / "OUT", folder / "nuclei.parquet", folder / "nuclei.csv"):
        nuclei = read_nuclei(path, image="slide")
        assert places(nuclei) == EXPECTED
        assert (nuclei.labels is not None) == (path.name != "nuclei.csv")
    with pytest.raises(InputError, match="no nuclei of other"):
        read_nuclei(tmp_path / "OUT", image="other")
    with pytest.raises(InputError, match="found: none"):
        read_nuclei(tmp_path)


# Coordinates ------------------------------------------------------------------------------------


def test_a_scale_maps_pixels_to_the_full_resolution(tmp_path: Path) -> None:
    write_qupath(tmp_path / "q.geojson")
    nuclei = read_nuclei(tmp_path / "q.geojson", scale=4)
    assert places(nuclei) == [((y + 0.5) * 4 - 0.5, (x + 0.5) * 4 - 0.5) for y, x in EXPECTED]
    assert nuclei.outlines is not None
    assert nuclei.outlines.areas()[0] == pytest.approx(24 * 16)
    tifffile.imwrite(tmp_path / "a.tif", instance_map())
    with pytest.raises(CallError, match="no scale"):
        read_nuclei(tmp_path / "a.tif", scale=2)
    with pytest.raises(CallError):
        read_nuclei(tmp_path / "a.tif", scale=0)


def test_a_magnification_is_reported(tmp_path: Path) -> None:
    write_hovernet(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text().replace('"mag": null', '"mag": 40')
    (tmp_path / "a.json").write_text(text)
    assert any("40x" in note for note in read_nuclei(tmp_path / "a.json").notes)
    assert not any("40x" in note for note in read_nuclei(tmp_path / "a.json", scale=2).notes)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 9), st.integers(1, 9))
def test_opencv_rectangles_become_their_pixels(y: int, x: int, height: int, width: int) -> None:
    ring = np.array([[y, x], [y, x + width], [y + height, x + width], [y + height, x]], float)
    (moved,) = outwards([ring])
    assert sorted(map(tuple, np.unique(moved, axis=0))) == sorted(
        (a, b) for a in (y - 0.5, y + height + 0.5) for b in (x - 0.5, x + width + 0.5)
    )


def test_centres_of_area_are_those_of_the_polygon() -> None:
    from nucleoscope.data.outlines import Outlines

    found = centroids(
        Outlines.from_rings(
            [[(0, 0), (0, 3), (3, 0)], [], [(5e4, 5e4), (5e4, 5e4 + 2), (5e4, 5e4 + 1)]]
        )
    )
    assert found[0] == pytest.approx([1, 1])
    assert np.isnan(found[1]).all()
    assert found[2] == pytest.approx([5e4, 5e4 + 1])


# QuPath -----------------------------------------------------------------------------------------


def write_features(path: Path, features: list[dict[str, Any]], bare: bool = False) -> Path:
    document: Any = features if bare else {"type": "FeatureCollection", "features": features}
    path.write_text(json.dumps(document))
    return path


def test_annotations_are_left_out_beside_detections(tmp_path: Path) -> None:
    tissue = qupath_feature((0, 0, 40, 40), "annotation")
    cells = [qupath_feature(box, "cell") for box in BOXES.values()]
    found = read_nuclei(write_features(tmp_path / "a.json", [tissue, *cells]))
    assert places(found) == EXPECTED
    assert "1 annotations are left out" in found.notes[0]
    assert len(read_nuclei(write_features(tmp_path / "a.json", [tissue]))) == 1


def test_the_nucleus_of_a_cell_is_taken(tmp_path: Path) -> None:
    cell = qupath_feature((5, 15, 20, 30), "cell")
    cell["nucleusGeometry"] = qupath_feature(BOXES[3])["geometry"]
    assert places(read_nuclei(write_features(tmp_path / "a.json", [cell]))) == [EXPECTED[0]]


def test_bare_lists_gzip_points_and_several_polygons_are_read(tmp_path: Path) -> None:
    features = [qupath_feature(box) for box in BOXES.values()]
    assert places(read_nuclei(write_features(tmp_path / "a", features, bare=True))) == EXPECTED
    small = edges((0, 0, 1, 1), 0.5)
    features[0]["geometry"] = {
        "type": "MultiPolygon", "coordinates": [[small], [edges(BOXES[3], 0.5)]],
    }  # fmt: skip
    features[1]["geometry"] = {"type": "Point", "coordinates": [7.5, 30.5]}
    features.append({"type": "Feature", "geometry": {"type": "LineString", "coordinates": []}})
    path = write_features(tmp_path / "a.json", features)
    packed = tmp_path / "a.geojson.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for file in (path, packed):
        found = read_nuclei(file)
        assert places(found) == EXPECTED
        assert found.outlines is not None
        assert found.outlines.is_known().tolist() == [True, False]
        assert "1 objects are no polygon or point" in found.notes[0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=8), st.integers(5, 60))
def test_streaming_gives_what_parsing_whole_gives(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], piece: int
) -> None:
    items = [{"name": text, "at": [[1, 2], {"a": "]}"}]} for text in texts]
    document = {"before": '"x": [', "items": items, "after": {"items": []}}
    path = tmp_path_factory.mktemp("s") / "a.json"
    path.write_text(json.dumps(document, ensure_ascii=False))
    from nucleoscope.io.nuclei import stream

    whole, stream._PIECE = stream._PIECE, 40 + piece
    try:
        elements = Elements(path, "items", Limits())
        assert [item for part in elements for item in part] == items
        assert elements.rest == {**document, "items": []}
    finally:
        stream._PIECE = whole


def test_a_key_counts_only_at_the_root() -> None:
    assert container(b'{"a": {"nuc": {}}, "b": "\\"nuc\\": {"}', "nuc") == -1
    assert container(b'  [{"nuc": []}]', None) == 2


# What is odd ------------------------------------------------------------------------------------


def test_an_empty_segmentation_gives_no_nuclei(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"mag": null, "nuc": {}}')
    (tmp_path / "b.json").write_text('{"cells": []}')
    (tmp_path / "c.json").write_text('{"type": "FeatureCollection", "features": []}')
    (tmp_path / "d.csv").write_text("y,x\n")
    tifffile.imwrite(tmp_path / "e.tif", np.zeros((9, 9), np.uint16))
    for name in ("a.json", "b.json", "c.json", "d.csv", "e.tif"):
        assert len(read_nuclei(tmp_path / name)) == 0, name


def test_outlines_of_two_points_are_not_used_and_said(tmp_path: Path) -> None:
    write_hovernet(tmp_path / "a.json")
    nuclei = read_nuclei(tmp_path / "a.json")
    assert nuclei.outlines is not None
    assert nuclei.outlines.is_known().tolist() == [True, False]
    assert "1 outlines have fewer than 3 vertices" in nuclei.notes[0]
    line = {"type": "Feature", "properties": {},
            "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [1, 2]]]}}  # fmt: skip
    assert places(read_nuclei(write_features(tmp_path / "b.json", [line]))) == [(2.0, 2.0)]


def test_the_same_nucleus_twice_is_one_nucleus(tmp_path: Path) -> None:
    features = [qupath_feature(BOXES[3]), qupath_feature(BOXES[8]), qupath_feature(BOXES[3])]
    nuclei = read_nuclei(write_features(tmp_path / "a.json", features))
    assert places(nuclei) == EXPECTED
    assert "1 nuclei repeat another's place" in nuclei.notes[0]


def test_two_segmentations_in_one_file_are_refused(tmp_path: Path) -> None:
    yx = [(20 * i, 20 * j) for i in range(6) for j in range(6)]
    rows = [f"{y},{x}" for y, x in yx] + [f"{y + 1},{x}" for y, x in yx]
    (tmp_path / "a.csv").write_text("\n".join(["y,x", *rows]))
    with pytest.raises(InputError, match="two segmentations of one slide; keep one"):
        read_nuclei(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"nuc": {"1": {"centroid": [NaN, 1]}}}', "not finite"),
        ('{"nuc": {"1": {"contour": [[1, 2], [NaN, 3], [4, 4]]}}}', "not finite"),
        ('{"nuc": {"1": {"type": 3}}}', "neither a finite centre nor outline"),
        ('{"nuc": {"1": {"contour": [["a", 2]]}}}', "not [x, y] numbers"),
        ('{"nuc": {"1": 5}}', "nucleus 1 is no object"),
        ('{"nuc": {"1": {"centroid": [1, 2]}', "ends inside"),
        ('{"nuc": [1]}', "not numbered"),
        ('{"nuc": {"1": {"centroid": [1, 2]}, 2: {}}}', "JSON"),
        ("y,x\n1,2\nabc,3\n", "row 2, column 'y' is 'abc'"),
        ("y,x\n1,2\n,3\n", "row 2, column 'y'"),
        ("Centroid X µm,Centroid Y µm\n1,2\n", "in um; export them in pixels"),
        ("a,b\n1,2\n", "no nuclei that are read"),
        ("", "no nuclei that are read"),
        ('{"type": "FeatureCollection", "features": [{"geometry": {"type": "Polygon", '
         '"coordinates": [5]}}]}', "not [x, y] numbers"),
    ],
)  # fmt: skip
def test_damage_is_one_sentence(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a").write_text(content)
    with pytest.raises(InputError) as error:
        read_nuclei(tmp_path / "a")
    assert said in str(error.value)


def test_pictures_foreground_maps_and_stacks_are_no_instance_maps(tmp_path: Path) -> None:
    cases = {
        "looks like a picture": np.random.default_rng(0).integers(0, 255, (40, 40)),
        "a foreground map": (instance_map() > 0) * 255,
        "2 slices": np.stack([instance_map()] * 2),
    }
    for said, array in cases.items():
        tifffile.imwrite(tmp_path / "a.tif", array.astype(np.uint8), photometric="minisblack")
        with pytest.raises(InputError, match=said):
            read_nuclei(tmp_path / "a.tif")
    one = (instance_map() == 3).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", one)
    assert len(read_nuclei(tmp_path / "a.tif")) == 1


def test_pickles_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a_seg.npy", np.array({"masks": instance_map()}, dtype=object))
    with pytest.raises(UnsafeInputError, match=r"pickle.*save the masks as TIFF"):
        read_nuclei(tmp_path / "a_seg.npy")


def test_mat_files_without_a_map_or_of_version_7_3_are_refused(tmp_path: Path) -> None:
    scipy_io.savemat(tmp_path / "a.mat", {"other": [1]})
    with pytest.raises(InputError, match="no inst_map"):
        read_nuclei(tmp_path / "a.mat")
    (tmp_path / "b.mat").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99))
    with pytest.raises(InputError, match="-v7"):
        read_nuclei(tmp_path / "b.mat")
    scipy_io.savemat(tmp_path / "c.mat", {"inst_map": instance_map(), "inst_type": [[1]]})
    with pytest.raises(InputError, match="1 types for 2 nuclei"):
        read_nuclei(tmp_path / "c.mat")
    ids = {
        "inst_map": instance_map().astype(float),
        "inst_type": [[1], [2]],
        "inst_uid": [[8], [3]],
    }
    scipy_io.savemat(tmp_path / "d.mat", ids)
    assert read_nuclei(tmp_path / "d.mat").table.frame["type"].tolist() == ["2", "1"]


def test_limits_hold(tmp_path: Path) -> None:
    write_qupath(tmp_path / "a.json")
    for limits in (Limits(rows=1), Limits(vertices=3), Limits(text_bytes=99), Limits(json_depth=3)):
        with pytest.raises(UnsafeInputError):
            read_nuclei(tmp_path / "a.json", limits=limits)
    header = b"\x93NUMPY\x01\x00" + struct.pack("<H", 118)
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (900000, 900000), }"
    (tmp_path / "a.npy").write_bytes(header + text.ljust(117) + b"\n")
    with pytest.raises((InputError, UnsafeInputError)):
        read_nuclei(tmp_path / "a.npy")


def test_tables_of_several_images_need_a_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,y,x\nA,1,2\nB,3,4\nB,5,60\n")
    assert places(read_nuclei(tmp_path / "a.csv", image="B")) == [(3, 4), (5, 60)]
    with pytest.raises(InputError, match=r"2 images \(A, B\)"):
        read_nuclei(tmp_path / "a.csv")


@pytest.mark.parametrize(
    "text", ["Y_centroid;X_centroid;CellID\n2;3;9\n", "Centroid-0\tcentroid-1\n2\t3\n"]
)
def test_other_names_and_separators_of_centres_are_known(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert places(read_nuclei(tmp_path / "a.csv")) == [(2, 3)]


def test_real_files_are_read(data: Path) -> None:
    cells = read_nuclei(data / "formats" / "openDVP_quant.csv")
    assert len(cells) == 9711
    labels = read_nuclei(data / "kumar" / "TCGA-18-5592-01Z-00-DX1.labels.tif")
    assert labels.labels is not None
    assert len(labels) == len(labels.labels.ids())
    assert len(read_nuclei(data / "formats" / "QuPath_Annotations_wo_calibs.geojson")) > 0


def test_a_source_without_a_scale_leaves_coordinates_alone() -> None:
    yx = np.array([[0.1, 0.2]])
    assert Source("a").to_level_zero(yx) is yx


# Rows: one by one and many at a time ------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 60))
def test_nuclei_one_by_one_are_those_many_at_a_time(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    rings = []
    for _ in range(n):
        ring = rng.integers(-40, 900, 2) + rng.integers(0, 12, (rng.integers(0, 9), 2))
        if len(ring) and rng.random() < 0.4:
            ring = np.vstack([ring, ring[:1]])  # closed
        if len(ring) and rng.random() < 0.3:
            ring = np.repeat(ring, 2, axis=0)  # every vertex twice
        rings.append(ring.astype(np.float64).reshape(-1, 2))
    given_centres = rng.uniform(0, 900, (n, 2))
    given_centres[rng.random(n) < 0.5] = np.nan
    single, many = Rows(), Rows()
    for ring, centre in zip(rings, given_centres, strict=True):
        place = None if np.isnan(centre).any() else (float(centre[0]), float(centre[1]))
        single.add(ring, place, kind="a")
    cut = int(rng.integers(0, n + 1))
    for part in (slice(0, cut), slice(cut, n)):
        sizes = np.array([len(ring) for ring in rings[part]], np.int64)
        vertices = np.concatenate([np.empty((0, 2)), *rings[part]])
        many.add_many(vertices, sizes, given_centres[part], ["a"] * len(sizes))
    one, other = single.packed(), many.packed()
    assert (one.vertices == other.vertices).all()
    assert (one.sizes == other.sizes).all()
    assert np.array_equal(one.centres, other.centres, equal_nan=True)
    assert (one.n_short, single.ids, single.types) == (other.n_short, many.ids, many.types)
    # A slow loop: the ring opened, then its centre.
    at = 0
    for i, ring in enumerate(rings):
        slow = opened_ring(ring)
        kept = slow if len(slow) > 2 else slow[:0]
        assert (one.vertices[at : at + one.sizes[i]] == kept).all()
        assert one.sizes[i] == len(kept)
        at += len(kept)
        if not np.isnan(given_centres[i]).any():
            assert (one.centres[i] == given_centres[i]).all()
        elif 0 < len(slow) < 3:
            assert np.allclose(one.centres[i], slow.mean(axis=0))
        elif len(kept):
            expected = centroids(Outlines.from_rings([kept]))[0]
            assert np.allclose(one.centres[i], expected, atol=1e-9)
    keep = rng.random(n) < 0.5
    some = single.only(keep, "some are left out.")
    assert len(some.ids) == int(keep.sum())
    assert (some.packed().sizes == one.sizes[keep]).all()


def test_many_pieces_of_a_file_give_every_nucleus_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    square = np.array([[0, 0], [0, 6], [6, 6], [6, 0], [0, 0]])
    features = [
        {"type": "Feature", "properties": {"objectType": "detection"},
         "geometry": {"type": "Polygon", "coordinates": [(square + 10 * i + 0.5).tolist()]}}
        for i in range(300)
    ]  # fmt: skip
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    monkeypatch.setattr("nucleoscope.io.nuclei.stream._PIECE", 1500)
    found = read_nuclei(path)
    assert found.table.frame["y"].tolist() == [10.0 * i + 3 for i in range(300)]
    assert found.outlines is not None
    assert (np.diff(found.outlines.offsets) == 4).all()
