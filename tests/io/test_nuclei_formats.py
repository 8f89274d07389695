"""Nuclei from COCO, databases, tables, drawings; spots; published collections."""

from __future__ import annotations

import json
import sqlite3
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import io as scipy_io

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.outlines import Outlines
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.collections import read_collection
from nucleoscope.io.export.coco import run_lengths, write_coco
from nucleoscope.io.export.frames import write_geoparquet
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.nuclei.coco import plane_of, unpacked_runs
from nucleoscope.io.points import read_points

# Pixels 10..13 x 20..25 and 30..31 x 5..9 (rows x columns), in corner coordinates (x, y).
RINGS = {3: [(20, 10), (26, 10), (26, 14), (20, 14)], 8: [(5, 30), (10, 30), (10, 32), (5, 32)]}
EXPECTED = [(11.5, 22.5), (30.5, 7.0)]


def places(nuclei: Nuclei) -> list[tuple[float, float]]:
    return [tuple(v) for v in nuclei.table.frame[["y", "x"]].to_numpy().round(6).tolist()]


def polygon(ring: list[tuple[int, int]], shift: float = 0.0) -> Any:
    return shapely.Polygon([(x + shift, y + shift) for x, y in ring])


# One format after the other gives the same nuclei ------------------------------------------------


def write_coco_polygons(path: Path) -> None:
    annotations = [
        {"id": i, "image_id": 1, "category_id": 2, "iscrowd": 0, "bbox": [0, 0, 1, 1],
         "segmentation": [[v for xy in ring for v in xy]]}
        for i, ring in RINGS.items()
    ]  # fmt: skip
    document = {
        "images": [{"id": 1, "file_name": "slide.png"}], "annotations": annotations,
        "categories": [{"id": 2, "name": "immune"}],
    }  # fmt: skip
    path.write_text(json.dumps(document))


def write_store(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE metadata (key TEXT UNIQUE, value TEXT)")
        database.execute("INSERT INTO metadata VALUES ('compression', '\"zlib\"')")
        database.execute(
            "CREATE TABLE annotations (id INTEGER PRIMARY KEY, key TEXT, objtype TEXT, "
            "cx FLOAT, cy FLOAT, geometry BLOB, properties TEXT, area FLOAT)"
        )
        for i, ring in RINGS.items():
            shape = polygon(ring, -0.5)
            row = (i, str(i), "Polygon", 0.0, 0.0, zlib.compress(shapely.to_wkb(shape)),
                   json.dumps({"type": "immune", "prob": 0.5}), shape.area)  # fmt: skip
            database.execute("INSERT INTO annotations VALUES (?,?,?,?,?,?,?,?)", row)
    database.close()


def write_geopandas_like(path: Path) -> None:
    shapes = [shapely.to_wkb(polygon(ring)) for ring in RINGS.values()]
    table = pa.table({"id": list(RINGS), "type": ["immune"] * 2, "geometry": shapes})
    geo = {"primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}}
    pq.write_table(table.replace_schema_metadata({b"geo": json.dumps(geo).encode()}), path)


def write_imagescope(path: Path) -> None:
    regions = "".join(
        f"<Region Id='{i}'><Vertices>"
        + "".join(f"<Vertex X='{x}' Y='{y}' Z='0'/>" for x, y in ring)
        + "</Vertices></Region>"
        for i, ring in RINGS.items()
    )
    path.write_text(
        "<Annotations MicronsPerPixel='0.25'><Annotation Id='1'><Attributes>"
        f"<Attribute Name='immune' Value=''/></Attributes><Regions>{regions}</Regions>"
        "</Annotation></Annotations>"
    )


def write_nucls(path: Path) -> None:
    rows = []
    for ring in RINGS.values():
        x, y = zip(*ring, strict=True)
        rows.append({"main_classification": "immune", "type": "polyline", "xmin": min(x),
                     "ymin": min(y), "xmax": max(x), "ymax": max(y),
                     "coords_x": ",".join(map(str, x)),
                     "coords_y": ",".join(map(str, y))})  # fmt: skip
    pd.DataFrame(rows).to_csv(path, index=False)


FORMATS: dict[str, tuple[Callable[[Path], None], list[int]]] = {
    "coco.json": (write_coco_polygons, [3, 8]),
    "store.db": (write_store, [3, 8]),
    "nuclei.parquet": (write_geopandas_like, [3, 8]),
    "scope.xml": (write_imagescope, [1, 2]),
    "nucls.csv": (write_nucls, [1, 2]),
}


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_format_gives_the_same_nuclei_at_the_same_place(tmp_path: Path, name: str) -> None:
    write, ids = FORMATS[name]
    write(tmp_path / name)
    nuclei = read_nuclei(tmp_path / name, image="slide")
    assert places(nuclei) == EXPECTED
    assert nuclei.table.frame["id"].tolist() == ids
    assert set(nuclei.table.frame["type"]) == {"immune"}
    assert nuclei.outlines is not None
    assert nuclei.outlines.areas().tolist() == [24, 10]
    assert nuclei.outlines.boxes()[0].tolist() == [9.5, 19.5, 13.5, 25.5]


# COCO --------------------------------------------------------------------------------------------


def pack(counts: list[int]) -> str:
    """COCO's text of run lengths, by the letter of pycocotools' rleToString."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != -1 if bits & 0x10 else value != 0
            text += chr((bits | (0x20 if more else 0)) + 48)
    return text


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=30))
def test_packed_run_lengths_come_back(counts: list[int]) -> None:
    assert unpacked_runs(pack(counts)) == counts


@settings(max_examples=30)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_run_lengths_paint_the_mask_they_were_made_of(h: int, w: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((h, w)) < 0.5
    for counts in (run_lengths(mask), pack(run_lengths(mask))):
        assert (plane_of(counts, h, w, "a") == mask).all()


def mapped() -> Nuclei:
    plane = np.zeros((40, 50), np.int32)
    plane[10:14, 20:26], plane[30:32, 5:10] = 3, 8
    frame = pd.DataFrame({"id": [3, 8], "image": "slide", "y": [11.5, 30.5], "x": [22.5, 7.0],
                          "type": ["immune", ""], "score": [0.5, 0.25]})  # fmt: skip
    rings = [[(y - 0.5, x - 0.5) for x, y in ring] for ring in RINGS.values()]
    return Nuclei(NucleusTable(frame), Outlines.from_rings(rings), Labels(plane))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["polygon", "rle"])
def test_our_coco_comes_back_with_ids_types_and_scores(
    tmp_path: Path, kind: Any, packed: bool
) -> None:
    path = tmp_path / "a.json"
    write_coco(path, mapped(), outlines=kind)
    if packed and kind == "rle":
        document = json.loads(path.read_text())
        for annotation in document["annotations"]:
            runs = annotation["segmentation"]
            runs["counts"] = pack(runs["counts"])
        path.write_text(json.dumps(document))
    found = read_nuclei(path, image="slide")
    frame = found.table.frame
    assert places(found) == EXPECTED
    assert frame[["id", "type", "score"]].values.tolist() == [[3, "immune", 0.5], [8, "", 0.25]]
    if kind == "rle":
        assert found.labels is not None
        assert (found.labels.data == mapped().labels.data).all()  # type: ignore[union-attr]


def coco(**changes: Any) -> str:
    annotation = {"id": 1, "image_id": 1, "segmentation": [[0, 0, 4, 0, 4, 4]], **changes}
    images = [{"id": i, "file_name": f"{'abc'[i - 1]}.png"} for i in (1, 2)]
    return json.dumps({"images": images, "annotations": [annotation]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (coco(), r"2 images \(a, b\) and none of an image that was named"),
        (coco(image_id="x"), "annotation 1 is not COCO's"),
        (coco(segmentation=[["a", 1]]), "annotation 1 is not COCO's"),
        (coco(segmentation={"counts": [3], "size": [2, 2]}), "do not add up to 2 x 2"),
        (coco(segmentation={"counts": "0", "size": [-1, 2]}), "annotation 1 is not COCO's"),
    ],
)
def test_odd_coco_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_nuclei(tmp_path / "a.json", image=None if "none of" in said else "a")


def test_run_lengths_among_polygons_keep_their_centre(tmp_path: Path) -> None:
    document = json.loads(coco())
    document["annotations"].append(
        {"id": 2, "image_id": 1, "segmentation": {"counts": [0, 9, 91], "size": [10, 10]}}
    )
    (tmp_path / "a.json").write_text(json.dumps(document))
    nuclei = read_nuclei(tmp_path / "a.json", image="a.png")
    assert places(nuclei)[1] == (4.0, 0.0)
    assert "run lengths among polygons" in nuclei.notes[0]


# Databases and tables ----------------------------------------------------------------------------


def test_points_and_text_geometries_of_a_store_are_read(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE annotations (id, cx, cy, geometry, properties)")
        database.execute("INSERT INTO annotations VALUES (1, 5.0, 7.0, NULL, '{}')")
        database.execute(
            "INSERT INTO annotations VALUES (2, 0, 0, 'POLYGON((0 0,4 0,4 4,0 4,0 0))', NULL)"
        )
    database.close()
    nuclei = read_nuclei(tmp_path / "a.db")
    assert places(nuclei) == [(7.0, 5.0), (2.0, 2.0)]
    before = (tmp_path / "a.db").read_bytes()
    assert before == (tmp_path / "a.db").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a.db"]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("CREATE TABLE other (id)", "no AnnotationStore"),
        ("CREATE VIEW annotations AS SELECT 1", "no AnnotationStore"),
        ("CREATE TABLE annotations (id)", "cannot be read"),
        ("CREATE TABLE annotations AS SELECT 1 AS id, 0 AS cx, 0 AS cy, x'00ff' AS geometry, "
         "'{}' AS properties", "geometry of annotation 1 is damaged"),
        ("CREATE TABLE annotations AS SELECT 1 AS id, 0 AS cx, 0 AS cy, NULL AS geometry, "
         "'{' AS properties", "not valid JSON"),
    ],
)  # fmt: skip
def test_odd_databases_are_one_sentence(tmp_path: Path, statement: str, said: str) -> None:
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute(statement)
    database.close()
    with pytest.raises(InputError, match=said):
        read_nuclei(tmp_path / "a.db")


def test_a_database_cannot_be_written_or_attached_through_the_gate(tmp_path: Path) -> None:
    write_store(tmp_path / "a.db")
    for statement in (
        "DELETE FROM annotations", "ATTACH 'b.db' AS b", "PRAGMA journal_mode = WAL",
        "CREATE TABLE t (a)",
    ):  # fmt: skip
        with (
            pytest.raises(InputError, match="cannot be read"),
            guard.sqlite(tmp_path / "a.db") as database,
        ):
            database.execute(statement)


def test_a_geometry_that_inflates_without_end_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "a.db")
    with sqlite3.connect(tmp_path / "a.db") as database:
        bomb = zlib.compress(bytes(40 << 20))
        database.execute("UPDATE annotations SET geometry = ?", (bomb,))
    database.close()
    with pytest.raises(UnsafeInputError, match="inflates too far"):
        read_nuclei(tmp_path / "a.db")


def test_our_geoparquet_keeps_its_columns(tmp_path: Path) -> None:
    write_geoparquet(tmp_path / "a.parquet", mapped())
    found = read_nuclei(tmp_path / "a.parquet")
    frame = found.table.frame
    assert frame[["id", "image", "type", "score"]].values.tolist() == [
        [3, "slide", "immune", 0.5], [8, "slide", "", 0.25],
    ]  # fmt: skip
    assert places(found) == EXPECTED
    points = Nuclei(mapped().table)
    write_geoparquet(tmp_path / "b.parquet", points)
    assert places(read_nuclei(tmp_path / "b.parquet")) == EXPECTED


# RoiSets -----------------------------------------------------------------------------------------


def test_a_roi_set_within_a_zip_is_found(tmp_path: Path) -> None:
    from nucleoscope.io.export.rois import write_rois

    write_rois(tmp_path / "RoiSet.zip", mapped())
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "RoiSet.zip", "folder/RoiSet.zip")
        archive.writestr("notes.txt", "x")
    for name in ("RoiSet.zip", "all.zip"):
        found = read_nuclei(tmp_path / name)
        assert places(found) == EXPECTED
        assert found.table.frame["id"].tolist() == [3, 8]
        assert found.table.frame["type"].tolist() == ["immune", ""]


# Hand drawings -----------------------------------------------------------------------------------


def test_boxes_of_nucls_have_a_centre_and_no_outline(tmp_path: Path) -> None:
    write_nucls(tmp_path / "a.csv")
    frame = pd.read_csv(tmp_path / "a.csv").assign(type="rectangle")
    frame.to_csv(tmp_path / "a.csv", index=False)
    nuclei = read_nuclei(tmp_path / "a.csv")
    assert places(nuclei) == EXPECTED
    assert nuclei.outlines is None


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.xml", "<Annotations><Regions><Region/></Regions>", "not well formed"),
        ("a.xml", "<Annotations><Annotation><Regions><Region><Vertices><Vertex X='a' Y='1'/>"
         "</Vertices></Region></Regions></Annotation></Annotations>", "vertex that is no number"),
        ("a.csv", "xmin,ymin,xmax,ymax,coords_x,coords_y\n1,1,2,2,a,b\n", "are no numbers"),
        ("a.csv", 'xmin,ymin,xmax,ymax,coords_x,coords_y\n1,1,2,2,"1,2",3\n', "2 x and 1 y"),
    ],
)  # fmt: skip
def test_odd_drawings_are_one_sentence(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read_nuclei(tmp_path / name)


# Spots -------------------------------------------------------------------------------------------

TRACKMATE = (
    "LABEL,ID,POSITION_X,POSITION_Y,POSITION_Z,FRAME\n"
    "Label,Spot ID,X,Y,Z,Frame\nLabel,Spot ID,X,Y,Z,Frame\n,,(unit),(unit),(unit),\n"
    "ID1,1,2.0,1.5,4.0,0\n"
)


def test_trackmate_spots_are_in_the_unit_they_name(tmp_path: Path) -> None:
    path = tmp_path / "spots.csv"
    path.write_text(TRACKMATE.replace("unit", "micron"))
    with pytest.raises(InputError, match="--spacing"):
        read_points(path)
    assert read_points(path, spacing=(2.0, 0.5, 0.5)).zyx().tolist() == [[2.0, 3.0, 4.0]]
    path.write_text(TRACKMATE.replace("unit", "pixel"))
    assert read_points(path).zyx().tolist() == [[4.0, 1.5, 2.0]]
    path.write_text(TRACKMATE + "ID2,2,2.0,1.5,4.0,1\n")
    with pytest.raises(InputError, match="2 frames"):
        read_points(path, spacing=(1.0, 1.0, 1.0))


def test_imaris_counts_from_the_corner_in_micrometres(tmp_path: Path) -> None:
    path = tmp_path / "spots_Position.csv"
    path.write_text(
        "\nPosition\n====================\nPosition X,Position Y,Position Z,Unit,Time,ID\n"
        "1.25,0.75,3,um,1,0\n"
    )
    assert read_points(path, spacing=(2.0, 0.5, 0.5)).zyx().tolist() == [[1.0, 1.0, 2.0]]


# Collections -------------------------------------------------------------------------------------

RGB_TILE = np.full((40, 50, 3), 200, np.uint8)


def save_png(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(RGB_TILE))


def in_folder(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def make_pannuke(folder: Path) -> list[str]:
    masks = np.zeros((2, 40, 50, 6))
    masks[0, 10:14, 20:26, 0], masks[0, 30:32, 5:10, 1] = 1, 1
    images = np.tile(RGB_TILE, (2, 1, 1, 1)).astype(float)
    np.save(in_folder(folder / "Fold 1" / "images" / "fold1" / "images.npy"), images)
    np.save(in_folder(folder / "Fold 1" / "masks" / "fold1" / "masks.npy"), masks)
    return ["neoplastic", "inflammatory"]


def make_mat(folder: Path, names: tuple[str, str], images: str, labels: str) -> None:
    save_png(folder / images / "train_1.png")
    content = {"inst_map": mapped().labels.data[0].astype(float),  # type: ignore[union-attr]
               names[0]: [[1], [2]], names[1]: [[3], [8]]}  # fmt: skip
    scipy_io.savemat(in_folder(folder / labels / "train_1.mat"), content)


def make_consep(folder: Path) -> list[str]:
    make_mat(folder, ("inst_type", "inst_uid"), "Train/Images", "Train/Labels")
    return ["other", "inflammatory"]


def make_lizard(folder: Path) -> list[str]:
    make_mat(folder, ("class", "id"), "lizard_images1/Lizard_Images1",
             "lizard_labels/Lizard_Labels/Labels")  # fmt: skip
    return ["neutrophil", "epithelial"]


def make_monuseg(folder: Path) -> list[str]:
    tifffile.imwrite(in_folder(folder / "Tissue Images" / "TCGA-1.tif"), RGB_TILE)
    write_imagescope(in_folder(folder / "Annotations" / "TCGA-1.xml"))
    return ["immune", "immune"]


def make_nucls(folder: Path) -> list[str]:
    save_png(folder / "rgb" / "TCGA-1_left-1.png")
    write_nucls(in_folder(folder / "csv" / "TCGA-1_left-1.csv"))
    return ["immune", "immune"]


@pytest.mark.parametrize("make", [make_pannuke, make_consep, make_lizard, make_monuseg, make_nucls])
@pytest.mark.parametrize("is_named", [True, False])
def test_a_collection_is_read_from_its_folders(
    tmp_path: Path, make: Callable[[Path], list[str]], is_named: bool
) -> None:
    types = make(tmp_path)
    name = make.__name__.removeprefix("make_")
    examples = list(read_collection(tmp_path, name=name if is_named else None))
    assert examples[0].image.is_rgb
    assert examples[0].image.shape == (1, 40, 50)
    assert places(examples[0].nuclei) == EXPECTED
    assert examples[0].nuclei.table.frame["type"].tolist() == types
    if name == "pannuke":
        assert [len(e.nuclei) for e in examples] == [2, 0]


def test_other_folders_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="no collection 'x'"):
        list(read_collection(tmp_path, name="x"))
    with pytest.raises(InputError, match="has not the folders of consep"):
        list(read_collection(tmp_path, name="consep"))
    with pytest.raises(InputError, match="no such folder"):
        list(read_collection(tmp_path / "absent"))
    make_pannuke(tmp_path)
    masks = tmp_path / "Fold 1" / "masks" / "fold1" / "masks.npy"
    np.save(masks, np.zeros((2, 40, 50, 4)))
    with pytest.raises(InputError, match="is not PanNuke's"):
        list(read_collection(tmp_path))
    np.save(masks, np.array([{}], dtype=object))
    with pytest.raises(UnsafeInputError, match="pickle"):
        list(read_collection(tmp_path))
