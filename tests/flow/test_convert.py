"""Every format through the one door: what goes in comes out the other side, to 0.01 px."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.points import Points
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError, MissingExtraError
from nucleoscope.flow.convert import convert
from nucleoscope.io.export import WRITERS, writer_for
from nucleoscope.io.images import read_labels, read_volume
from nucleoscope.io.nuclei import read_nuclei
from nucleoscope.io.omezarr import write_labels
from nucleoscope.io.points import read_points
from nucleoscope.io.tables import write_table
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.nuclei.measure import measure


def labels(slices: int = 1) -> Labels:
    y, x = np.indices((60, 90))
    data = np.zeros((slices, 60, 90), np.int32)
    for z in range(slices):
        for i in range(6):
            inside = np.hypot(y - 15 - 30 * (i // 3), x - 15 - 30 * (i % 3)) < 7 + i / 2 - z
            data[z][inside] = 10 + i
    return Labels(data, (1.0, 0.5, 0.5))


def result_folder(tmp_path: Path, slices: int = 1) -> Path:
    """What detect leaves behind for one image."""
    folder = tmp_path / "OUT" / "a"
    found = labels(slices)
    frame = measure(found, image="a").frame
    table = NucleusTable(frame.assign(type=["epi", "inf"] * 3, type_prob=0.75))
    write_table(table, folder)
    write_labels(folder / "labels.ome.zarr", found, table=table)
    return folder


POINTS = Points(z=[0, 0, 0], y=[1, 22.5, 9], x=[4, 5.25, 6], type=["a", "b", "a"])


@pytest.mark.parametrize("ending", ["a.geojson", "a.geojson.gz", "a.json"])
def test_nuclei_come_back_to_a_hundredth_of_a_pixel(tmp_path: Path, ending: str) -> None:
    folder = result_folder(tmp_path)
    convert(folder, tmp_path / ending)
    before = read_nuclei(folder).table.frame.sort_values(["y", "x"])
    found = read_nuclei(tmp_path / ending)
    after = found.table.frame.sort_values(["y", "x"])
    assert np.abs(after[["y", "x"]].to_numpy() - before[["y", "x"]].to_numpy()).max() < 0.01
    assert found.outlines is not None
    areas = found.outlines.take(after.index.to_numpy()).areas()
    assert np.allclose(areas, before["area_um2"] / 0.25, rtol=1e-3)


def test_a_mat_file_gives_map_and_types_back(tmp_path: Path) -> None:
    convert(result_folder(tmp_path), tmp_path / "a.mat")
    found = read_nuclei(tmp_path / "a.mat")
    assert found.labels is not None
    assert (found.labels.data == labels().data).all()


@pytest.mark.parametrize("ending", ["m.ome.tif", "m.ome.zarr"])
def test_an_instance_map_comes_back_whole(tmp_path: Path, ending: str) -> None:
    convert(result_folder(tmp_path, 3), tmp_path / ending)
    found = read_labels(tmp_path / ending)
    assert (found.data == labels(3).data).all()
    assert found.spacing == (1.0, 0.5, 0.5)


@pytest.mark.parametrize("ending", ["v.ome.tif", "v.ome.zarr"])
def test_an_image_comes_back_with_names_and_scale(tmp_path: Path, ending: str) -> None:
    data = np.random.default_rng(0).integers(0, 4000, (2, 3, 40, 50)).astype(np.uint16)
    volume = Volume(data, ("DAPI", "LT"), (1.0, 0.3, 0.3), "v")
    convert(volume, tmp_path / ending)
    convert(tmp_path / ending, tmp_path / f"again-{ending}")
    found = read_volume(tmp_path / f"again-{ending}")
    assert (found.data == data).all()
    assert found.channels == ("DAPI", "LT")
    assert found.spacing == pytest.approx((1.0, 0.3, 0.3))


@pytest.mark.parametrize(
    "name", ["points", "napari-points", "points-geojson", "points-rois", "cell-counter"]
)
def test_points_come_back(tmp_path: Path, name: str) -> None:
    facts = convert(POINTS, tmp_path / "p.file", to=name)
    assert facts["points"] == 3
    found = read_points(tmp_path / "p.file").zyx()
    expected = np.rint(POINTS.zyx()) if name == "cell-counter" else POINTS.zyx()
    assert np.abs(np.array(sorted(found.tolist())) - sorted(expected.tolist())).max() < 0.01


def test_centres_of_nuclei_are_points(tmp_path: Path) -> None:
    convert(result_folder(tmp_path), tmp_path / "p.csv")
    assert len(read_points(tmp_path / "p.csv")) == 6


def test_outlines_of_a_stack_say_their_slice(tmp_path: Path) -> None:
    import json

    convert(result_folder(tmp_path, 3), tmp_path / "a.geojson")
    features = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert len(features) == 6
    assert all("plane" in f["geometry"] for f in features)


def test_simplified_outlines_have_fewer_vertices(tmp_path: Path) -> None:
    folder = result_folder(tmp_path)
    convert(folder, tmp_path / "a.geojson")
    convert(folder, tmp_path / "b.geojson", simplify=1.0)
    assert (tmp_path / "b.geojson").stat().st_size < 0.7 * (tmp_path / "a.geojson").stat().st_size


# ---------------------------------------------------------------- what is written


def test_every_format_has_one_name_and_the_longest_ending_wins() -> None:
    names = [w.name for w in WRITERS]
    assert len(names) == len(set(names))
    assert writer_for("x.ome.zarr").name == "ome-zarr"
    assert writer_for("x.zarr").name == "spatialdata"
    assert writer_for("X.OME.TIF").name == "ome-tiff"


@pytest.mark.parametrize("writer", WRITERS, ids=lambda w: w.name)
def test_every_format_writes_or_says_what_it_lacks(tmp_path: Path, writer: Any) -> None:
    source: Any = {
        "image": Volume(np.zeros((1, 2, 8, 8), np.uint8), ("a",), (1.0, 1.0, 1.0), "v"),
        "labels": labels(), "points": POINTS,
    }.get(writer.takes, result_folder(tmp_path))  # fmt: skip
    target = tmp_path / "out" / "file.x"
    try:
        convert(source, target, to=writer.name, spacing=(1.0, 0.5, 0.5))
    except (MissingExtraError, InputError, CallError) as error:
        # An extra that is not installed here, a folder that is no atlas, no DICOM slide given.
        lacking = ("anndata", "spatialdata", "embedding-atlas", "dicom-ann")
        assert writer.name in lacking, error
        assert not target.exists()
    else:
        assert target.exists()


@pytest.mark.parametrize(
    ("source", "output", "to", "words"),
    [
        (POINTS, "a.xyz", None, "name one with --to"),
        (POINTS, "a.x", "word", "no format 'word'; there are"),
        (POINTS, "a.ome.tif", None, "points are no image"),
        (POINTS, "a.geojson", None, "hold no nuclei"),
        (Nuclei(NucleusTable.empty()), "a.ome.tif", None, "no instance map"),
    ],
)
def test_the_impossible_is_refused_in_one_sentence(
    tmp_path: Path, source: Any, output: str, to: str | None, words: str
) -> None:
    with pytest.raises(CallError, match=words):
        convert(source, tmp_path / output, to=to)
    assert not list(tmp_path.iterdir())


def test_an_empty_segmentation_is_an_empty_file(tmp_path: Path) -> None:
    convert(Labels(np.zeros((9, 9), np.int32)), tmp_path / "a.geojson")
    assert len(read_nuclei(tmp_path / "a.geojson")) == 0
    assert isinstance(pd.DataFrame(read_nuclei(tmp_path / "a.geojson").table.frame), pd.DataFrame)


def test_an_image_is_not_taken_for_nuclei(tmp_path: Path) -> None:
    data = np.zeros((3, 1, 20, 30), np.uint8)
    write_ome_tiff(tmp_path / "a.ome.tif", Volume(data, ("a", "b", "c"), name="a"))
    for name in ("a.geojson", "a.points.csv"):
        with pytest.raises(InputError, match=r"image of 3 channels.*detect first"):
            convert(tmp_path / "a.ome.tif", tmp_path / name)


@pytest.mark.parametrize("name", ["a.geojson", "a.points.csv", "a.ome.tif"])
def test_java_s_serialisation_is_refused_with_the_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.qpdata").write_bytes(b"\xac\xed\x00\x05sr\x00")
    with pytest.raises(InputError, match="Export objects as GeoJSON"):
        convert(tmp_path / "data.qpdata", tmp_path / name)


@pytest.mark.data
def test_a_slide_read_by_region_is_converted_whole(tmp_path: Path, data: Path) -> None:
    pytest.importorskip("wsidicom")
    convert(data / "formats" / "boxes_0.dcm", tmp_path / "a.ome.tif")
    found = read_volume(tmp_path / "a.ome.tif")
    assert found.shape == (1, 16, 16)
    assert found.spacing is not None
    assert found.spacing[1:] == pytest.approx((0.499, 0.499))
