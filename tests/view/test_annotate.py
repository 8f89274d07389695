"""The page of clicks: the points file is resumed, saved whole, and never taken from somebody."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nucleoscope.data.points import Points
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.io.points import read_points, write_points
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.view.annotate import Sheet, clicks_site
from nucleoscope.view.serve import Request

SHAPE = (3, 40, 60)
ROW = {"id": 1, "z": 2, "y": 4.25, "x": 50.5, "type": "a"}


def volume() -> Volume:
    z, y, x = np.indices(SHAPE)
    data = np.zeros((2, *SHAPE), np.uint16)
    for at in ((1, 10, 12), (1, 26, 40), (2, 12, 44)):
        apart = (z - at[0]) ** 2 * 4 + (y - at[1]) ** 2 + (x - at[2]) ** 2
        data[0] += (900 * np.exp(-apart / 18)).astype(np.uint16)
    return Volume(data, ("DAPI", "LT"), (2.0, 1.0, 1.0), "a")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.ome.tif"
    write_ome_tiff(path, volume())
    return path


def state(site: object) -> dict[str, object]:
    found: dict[str, object] = json.loads(site.routes["GET /state"](Request()).body)  # type: ignore[attr-defined]
    return found


def test_clicks_are_saved_as_the_contract_s_file_beside_the_image(image: Path) -> None:
    site = clicks_site(image)
    assert state(site)["points"] == []
    assert state(site)["is_new"] is True
    site.routes["POST /save"](Request(body=json.dumps([ROW]).encode()))
    saved = read_points(image.parent / "a.points.csv")
    assert saved.zyx().tolist() == [[2, 4.25, 50.5]]
    assert saved.types.tolist() == ["a"]
    again = clicks_site(image)
    assert state(again)["points"] == [ROW]
    assert state(again)["types"] == ["a"]


def test_what_was_there_comes_back_to_the_last_digit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    many = Points(
        z=rng.integers(0, 3, 50), y=rng.uniform(0, 39, 50), x=rng.uniform(0, 59, 50),
        type=np.array(["=1+1", "b,c", ""] * 17)[:50], id=rng.permutation(900)[:50],
    )  # fmt: skip
    path = tmp_path / "a.points.csv"
    write_points(path, many)
    before = path.read_bytes()
    sheet = Sheet(path, SHAPE)
    sheet.save(json.loads(json.dumps(sheet.rows())))
    assert path.read_bytes() == before


def test_a_file_that_somebody_changed_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.points.csv"
    sheet = Sheet(path, SHAPE)
    assert sheet.save([ROW]) == 1
    path.write_text("id,z,y,x,type\n7,0,1,1,theirs\n")
    with pytest.raises(CallError, match="another program changed it"):
        sheet.save([ROW, ROW | {"id": 2}])
    assert "theirs" in path.read_text()


def test_a_file_that_appeared_since_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "a.points.csv"
    sheet = Sheet(path, SHAPE)
    path.write_text("id,z,y,x,type\n7,0,1,1,theirs\n")
    with pytest.raises(CallError, match="another program"):
        sheet.save([ROW])
    assert "theirs" in path.read_text()


def test_a_file_with_more_columns_is_not_ours_to_write(tmp_path: Path) -> None:
    path = tmp_path / "a.points.csv"
    path.write_text("y,x,remark\n1,2,mitosis\n")
    with pytest.raises(CallError, match="remark"):
        Sheet(path, SHAPE)


def test_clicks_of_another_program_are_taken_over_into_a_new_file(image: Path) -> None:
    xml = (
        '<?xml version="1.0"?><CellCounter_Marker_File><Marker_Data><Marker_Type><Type>1</Type>'
        "<Marker><MarkerX>5</MarkerX><MarkerY>7</MarkerY><MarkerZ>2</MarkerZ></Marker>"
        "</Marker_Type></Marker_Data></CellCounter_Marker_File>"
    )
    other = image.parent / "a.points.xml"
    other.write_text(xml)
    site = clicks_site(image)
    shown = state(site)["points"]
    assert isinstance(shown, list)
    assert [(p["z"], p["y"], p["x"]) for p in shown] == [(1.0, 7.0, 5.0)]
    site.routes["POST /save"](Request(body=json.dumps(shown).encode()))
    assert other.read_text() == xml
    assert (image.parent / "a.points.csv").is_file()


@pytest.mark.parametrize(
    "rows",
    [3, [3], [{"id": 1}], [ROW | {"y": "x"}], [ROW | {"y": None}], [ROW, ROW],
     [ROW | {"x": 500.0}], [ROW | {"z": 3}], {"a": 1}, [ROW | {"id": 10**30}]],
)  # fmt: skip
def test_rows_that_are_no_clicks_in_the_image_are_refused(tmp_path: Path, rows: object) -> None:
    sheet = Sheet(tmp_path / "a.points.csv", SHAPE)
    with pytest.raises(InputError):
        sheet.save(rows)
    assert not (tmp_path / "a.points.csv").exists()


def test_all_clicks_can_be_taken_back(tmp_path: Path) -> None:
    sheet = Sheet(tmp_path / "a.points.csv", SHAPE)
    sheet.save([ROW])
    assert sheet.save([]) == 0
    assert len(Sheet(tmp_path / "a.points.csv", SHAPE).points) == 0


def test_blobs_that_nobody_clicked_are_suggested(image: Path) -> None:
    site = clicks_site(image)
    clicked = [ROW | {"z": 1, "y": 10, "x": 12}, ROW | {"id": 2, "z": 1, "y": 26, "x": 40}]
    reply = site.routes["POST /suggest"](Request(body=json.dumps(clicked).encode()))
    regions = json.loads(reply.body)["regions"]
    assert regions
    best = regions[0]
    assert best["y0"] <= 12 < best["y1"]
    assert best["x0"] <= 44 < best["x1"]
    assert best["z"] == 2


def test_types_offered_are_those_given_then_those_clicked(image: Path) -> None:
    write_points(image.parent / "a.points.csv", Points(z=[0], y=[1], x=[2], type=["mitosis"]))
    assert state(clicks_site(image, types=["b"]))["types"] == ["b", "mitosis"]


def test_an_image_in_memory_needs_a_file_to_write(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="points file"):
        clicks_site(volume())
    with pytest.raises(CallError, match=r"\.csv"):
        clicks_site(volume(), tmp_path / "a.xml")
    assert state(clicks_site(volume(), tmp_path / "b.csv"))["file"] == "b.csv"
