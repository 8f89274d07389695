from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import zarr

from nucleoscope.data import Labels, NucleusTable, Volume
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io import guard
from nucleoscope.io.images import describe, read_labels, read_volume
from nucleoscope.io.omezarr import write_labels, write_volume

VERSIONS = ("0.4", "0.5")
MAP = np.zeros((3, 40, 30), np.int32)
MAP[0, :4, :4], MAP[1, 10:20, 10:20], MAP[2, 30:, 5:9] = 7, 2_000_000, 12
LABELS = Labels(MAP, (1.5, 0.5, 0.25))
TABLE = NucleusTable(
    pd.DataFrame({"id": [7, 12, 99], "y": [1.0, 2, 3], "x": [1.0, 2, 3],
                  "type": ["positive", "", "x"], "score": [0.5, 1, 1]})
)  # fmt: skip


def attributes(path: Path, version: str) -> dict:
    if version == "0.4":
        return json.loads((path / ".zattrs").read_text())
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


def test_an_instance_map_survives_a_round_trip(version: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.ome.zarr"
    write_labels(path, LABELS, table=TABLE, version=version)
    back = read_labels(path)
    assert np.array_equal(back.data, MAP)
    assert back.data.dtype == np.int32
    assert back.spacing == LABELS.spacing
    flat = Labels(MAP[:1], (1.0, 0.5, 0.25))
    write_labels(tmp_path / "flat.ome.zarr", flat, version=version)
    assert describe(tmp_path / "flat.ome.zarr").axes == "YX"
    assert read_labels(tmp_path / "flat.ome.zarr").spacing == (1.0, 0.5, 0.25)


def test_what_we_write_is_valid_by_the_specifications_models(version: str, tmp_path: Path) -> None:
    models = pytest.importorskip(f"ome_zarr_models.v{version.replace('.', '')}")
    write_labels(tmp_path / "l.ome.zarr", LABELS, table=TABLE, version=version)
    group = models.ImageLabel.from_zarr(zarr.open_group(tmp_path / "l.ome.zarr", mode="r"))
    found = group.ome_attributes if version == "0.5" else group.attributes
    assert found.multiscales[0].axes[0].unit == "micrometer"
    volume = Volume(np.ones((2, 3, 20, 20), np.uint16), ("a", "b"), (1.0, 1.0, 1.0))
    write_volume(tmp_path / "v.ome.zarr", volume, version=version)
    image = models.Image.from_zarr(zarr.open_group(tmp_path / "v.ome.zarr", mode="r"))
    found = image.ome_attributes if version == "0.5" else image.attributes
    assert [axis.name for axis in found.multiscales[0].axes] == ["c", "z", "y", "x"]


def test_colours_and_properties_name_the_nuclei_of_the_map(version: str, tmp_path: Path) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS, table=TABLE, version=version)
    found = attributes(path, version)["image-label"]
    assert [c["label-value"] for c in found["colors"]] == [7, 12, 2_000_000]
    assert len({tuple(c["rgba"]) for c in found["colors"]}) == 3
    assert found["properties"] == [
        {"label-value": 7, "type": "positive", "score": 0.5},
        {"label-value": 12, "type": "", "score": 1.0},
        {"label-value": 2_000_000},
    ]


def test_an_empty_map_is_written_whole(version: str, tmp_path: Path) -> None:
    write_labels(tmp_path / "l.ome.zarr", Labels(np.zeros((2, 9, 9), np.int32)), version=version)
    assert read_labels(tmp_path / "l.ome.zarr").ids().tolist() == []


def test_an_unknown_scale_stays_unknown(version: str, tmp_path: Path) -> None:
    write_labels(tmp_path / "l.ome.zarr", Labels(MAP), version=version)
    assert read_labels(tmp_path / "l.ome.zarr").spacing is None


def test_a_missing_chunk_of_ours_is_refused_and_of_others_reported(
    version: str, tmp_path: Path
) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS, version=version)
    chunks = [p for p in (path / "0").rglob("*") if p.is_file() and p.name[0].isdigit()]
    assert len(chunks) == 3
    chunks[0].unlink()
    with pytest.raises(InputError, match="1 of 3 chunks are absent"):
        read_labels(path)
    (path / guard.MARKER).unlink()
    volume_notes = describe(path).notes
    assert any("fill value" in note for note in volume_notes)


def test_a_chunk_that_is_damaged_is_refused(version: str, tmp_path: Path) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS, version=version)
    for chunk in (p for p in (path / "0").rglob("*") if p.is_file() and p.name[0].isdigit()):
        chunk.write_bytes(chunk.read_bytes()[:20])
    with pytest.raises(InputError, match="damaged"):
        read_labels(path)


def edit(path: Path, change: dict) -> None:
    value = json.loads(path.read_text())
    value.update(change)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        {"filters": [{"id": "pickle"}]},
        {"compressor": {"id": "pickle"}},
        {"filters": [{"id": "json2"}], "dtype": "|O"},
        {"dtype": "|O"},
        {"dtype": [["a", "<i4"]]},
        {"shape": [1 << 20, 1 << 20, 1 << 20]},
        {"chunks": [1 << 20, 1 << 20, 1 << 20]},
        {"shape": [3, 0, 30]},
        {"chunks": [1, 0, 512]},
        {"shape": "x"},
        {"shape": [3, 40]},
    ],
)
def test_array_metadata_that_could_do_harm_is_refused_unread(
    change: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS, version="0.4")
    edit(path / "0" / ".zarray", change)
    monkeypatch.setattr("zarr.open_array", lambda *_, **__: pytest.fail("zarr saw the array"))
    with pytest.raises((UnsafeInputError, InputError, OSError)) as caught:
        read_labels(path)
    assert str(path) in str(caught.value)


def test_an_unknown_codec_of_zarr_3_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS)
    edit(path / "0" / "zarr.json", {"codecs": [{"name": "numcodecs.pickle"}]})
    with pytest.raises(UnsafeInputError, match="pickle"):
        read_labels(path)


@pytest.mark.parametrize("place", ["../other", "/etc", "..", "", "a/../../b", "..\\x"])
def test_a_path_that_leaves_the_folder_is_refused(place: str, tmp_path: Path) -> None:
    write_labels(tmp_path / "other", LABELS, version="0.4")
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS, version="0.4")
    value = json.loads((path / ".zattrs").read_text())
    value["multiscales"][0]["datasets"][0]["path"] = place
    (path / ".zattrs").write_text(json.dumps(value))
    with pytest.raises(UnsafeInputError, match="outside itself"):
        read_labels(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_labels(tmp_path / "other", LABELS)
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS)
    (path / "0").rename(tmp_path / "moved")
    (path / "0").symlink_to(tmp_path / "moved")
    with pytest.raises(UnsafeInputError, match="outside itself"):
        read_labels(path)


@pytest.mark.parametrize(
    "change",
    [
        {"multiscales": []},
        {"multiscales": [{}]},
        {"multiscales": [{"datasets": []}]},
        {"multiscales": [{"datasets": [{"path": "9"}], "axes": ["z", "y", "x"]}]},
        {"multiscales": [{"datasets": [{"path": "0"}], "axes": ["y", "x"]}]},
        {"multiscales": [{"datasets": [{"path": "0"}], "axes": ["z", "y", "q"]}]},
        {"multiscales": 5},
    ],
)
def test_damaged_group_metadata_is_one_sentence(change: dict, tmp_path: Path) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS, version="0.4")
    edit(path / ".zattrs", change)
    with pytest.raises((InputError, CallError)) as caught:
        read_labels(path)
    assert "\n" not in str(caught.value)


def test_scales_of_level_and_image_multiply_and_units_convert(tmp_path: Path) -> None:
    path = tmp_path / "l.ome.zarr"
    write_labels(path, LABELS, version="0.4")
    value = json.loads((path / ".zattrs").read_text())
    multiscale = value["multiscales"][0]
    multiscale["coordinateTransformations"] = [{"type": "scale", "scale": [2, 2, 2]}]
    multiscale["axes"][0] = {"name": "z", "type": "space", "unit": "nanometer"}
    multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] = [700, 0.5, 0.25]
    (path / ".zattrs").write_text(json.dumps(value))
    assert read_labels(path).spacing == pytest.approx((1.4, 1.0, 0.5))


def test_a_time_axis_is_refused_unless_it_is_one(tmp_path: Path) -> None:
    for n, name in ((1, "one"), (2, "two")):
        group = zarr.create_group(
            tmp_path / name, zarr_format=2,
            attributes={"multiscales": [{"version": "0.4", "axes": list("tcyx"),
                                         "datasets": [{"path": "0"}]}]},
        )  # fmt: skip
        array = group.create_array("0", shape=(n, 2, 8, 8), dtype="uint8", chunks=(1, 1, 8, 8))
        array[...] = 3
    assert read_volume(tmp_path / "one").data.shape == (2, 1, 8, 8)
    with pytest.raises(InputError, match="2 time points"):
        read_volume(tmp_path / "two")


def test_the_only_label_map_of_an_image_is_found(tmp_path: Path) -> None:
    path = tmp_path / "v.ome.zarr"
    write_volume(path, Volume(np.ones((1, 3, 40, 30), np.uint8), ("a",)), version="0.4")
    write_labels(path / "labels" / "nuclei", LABELS, version="0.4")
    (path / "labels" / ".zattrs").write_text('{"labels": ["nuclei"]}')
    assert np.array_equal(read_labels(path).data, MAP)
    (path / "labels" / ".zattrs").write_text('{"labels": ["nuclei", "cells"]}')
    with pytest.raises(InputError, match="nuclei, cells"):
        read_labels(path)


def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CallError, match=r"0\.4 or 0\.5"):
        write_labels(tmp_path / "a", LABELS, version="0.1")  # type: ignore[arg-type]


def test_a_2d_volume_keeps_its_two_axes(version: str, tmp_path: Path) -> None:
    volume = Volume(np.ones((2, 1, 9, 8), np.float32), ("a", "b"), (1.0, 0.5, 0.5), is_2d=True)
    write_volume(tmp_path / "v.ome.zarr", volume, version=version)
    back = read_volume(tmp_path / "v.ome.zarr")
    assert (back.is_2d, back.spacing, back.channels) == (True, (1.0, 0.5, 0.5), ("a", "b"))
    assert describe(tmp_path / "v.ome.zarr").axes == "CYX"
