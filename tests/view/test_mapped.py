"""The page of an atlas."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.atlas import Atlas, unit_rows
from nucleoscope.data.crops import CropStore
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.atlas import transfer
from nucleoscope.io.atlas import write_atlas
from nucleoscope.view.mapped import Gallery, TypeSheet, map_site
from nucleoscope.view.serve import Request

N = 30


def atlas(*, mapped: bool = True) -> Atlas:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"id": np.arange(1, N + 1), "image": ["a", "b"] * (N // 2), "y": np.arange(N) * 1.0,
         "x": 1.0, "type": ["epi", "inf", ""] * (N // 3), "type_prob": rng.uniform(0, 1, N)}
    )  # fmt: skip
    subtypes = pd.DataFrame({"subtype": [["1", "2", "10"][i % 3] for i in range(N)]})
    places = pd.DataFrame({"map_x": rng.normal(5, 2, N), "map_y": rng.normal(0, 1, N)})
    return Atlas(
        NucleusTable(frame), unit_rows(rng.normal(size=(N, 8))), subtypes=subtypes,
        map2d=places if mapped else None,
    )  # fmt: skip


def crops() -> CropStore:
    """Crops of the odd rows only, in reverse, each as grey as its id."""
    rows = np.arange(N - 1, 0, -2)
    pictures = np.zeros((len(rows), 64, 64, 3), np.uint8)
    pictures += (rows + 1).astype(np.uint8)[:, None, None, None]
    n = len(rows)
    return CropStore(
        pictures, pictures, pictures[..., 0], np.zeros(n, bool), np.array([1] * n, np.int32),
        ("a", "b"), rows + 1,
    )  # fmt: skip


def test_every_place_of_the_map_is_kept_in_its_proportions() -> None:
    gallery = Gallery(atlas())
    found = np.frombuffer(gallery.places(), "<f4").reshape(-1, 2)
    assert found.min() >= 0
    assert found.max() == pytest.approx(1)
    given = gallery.atlas.map2d
    assert given is not None
    wanted = given[["map_x", "map_y"]].to_numpy()
    ratio = np.ptp(wanted, axis=0) / np.ptp(found, axis=0)
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-5)


def test_a_text_column_is_numbered_as_its_names_are_told() -> None:
    gallery = Gallery(atlas())
    told = {c["name"]: c for c in gallery.describe()["columns"]}
    assert told["subtype"]["names"] == ["1", "2", "10"]
    codes = np.frombuffer(gallery.column("subtype"), "<f4").astype(int)
    assert [told["subtype"]["names"][c] for c in codes[:3]] == ["1", "2", "10"]
    numbers = np.frombuffer(gallery.column("type_prob"), "<f4")
    assert np.allclose(numbers, gallery.atlas.table.frame["type_prob"])
    with pytest.raises(InputError, match="no column"):
        gallery.column("nothing")


def test_thumbnails_are_those_of_their_rows() -> None:
    gallery = Gallery(atlas(), crops())
    rows = [1, 29, 0, 5]
    sheet = imagecodecs.png_decode(gallery.thumbnails(rows))
    seen = [int(sheet[32, 64 * i + 32, 0]) for i in range(len(rows))]
    assert seen == [2, 30, 90, 6]  # a nucleus without a crop is grey
    for wrong in ([N], [-1], list(range(300))):
        with pytest.raises(InputError, match="at most"):
            gallery.thumbnails(wrong)


def test_neighbours_are_the_most_alike() -> None:
    gallery = Gallery(atlas())
    found = gallery.nucleus(4)
    vectors = gallery.atlas.embedding.astype(np.float64)
    likeness = vectors @ vectors[4]
    likeness[4] = -9
    assert found["neighbours"][0] == int(likeness.argmax())
    assert found["similarity"] == sorted(found["similarity"], reverse=True)
    assert found["facts"]["id"] == 5


def test_an_atlas_without_a_map_says_what_to_do(tmp_path: Path) -> None:
    write_atlas(tmp_path / "atlas", atlas(mapped=False))
    with pytest.raises(InputError, match="run nucleoscope subtypes"):
        map_site(tmp_path / "atlas")


def test_the_least_certain_are_suggested_each_subtype_in_its_turn() -> None:
    gallery = Gallery(atlas())
    rows = gallery.doubtful({0})
    assert 0 not in rows
    frame = gallery.atlas.frame()
    assert set(frame["subtype"].iloc[rows[:3]]) == {"1", "2", "10"}
    first = frame[(frame["subtype"] == frame["subtype"].iloc[rows[0]]) & (frame.index != 0)]
    assert frame["type_prob"].iloc[rows[0]] == first["type_prob"].min()


def test_types_given_are_kept_and_teach_transfer(tmp_path: Path) -> None:
    given = atlas()
    path = tmp_path / "atlas.types.csv"
    sheet = TypeSheet(path, given)
    assert sheet.save({"3": "mitosis", "0": "other", "7": " "}) == 2
    assert TypeSheet(path, given).types == {0: "other", 3: "mitosis"}
    taught = transfer(given, reference=path)
    assert set(taught.table.frame["type"]) <= {"mitosis", "other", "", "unknown"}
    path.write_text(path.read_text() + "9,b,theirs\n")
    with pytest.raises(CallError, match="another program"):
        sheet.save({})
    assert "theirs" in path.read_text()


@pytest.mark.parametrize("given", [3, {"x": "a"}, {"99": "a"}, {"-1": "a"}])
def test_types_of_no_nucleus_are_refused(tmp_path: Path, given: object) -> None:
    with pytest.raises(InputError):
        TypeSheet(tmp_path / "t.csv", atlas()).save(given)


def test_a_file_that_is_not_of_types_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("id,image,type,mine\n1,a,x,1\n")
    with pytest.raises(CallError, match="columns"):
        TypeSheet(path, atlas())
    path.write_text("id,image,type\n1,zzz,x\n")
    with pytest.raises(InputError, match="line 2"):
        TypeSheet(path, atlas())


def test_the_page_of_an_atlas_writes_only_when_it_annotates(tmp_path: Path) -> None:
    write_atlas(tmp_path / "atlas", atlas())
    looking = map_site(tmp_path / "atlas")
    assert not any(route.startswith("POST") for route in looking.routes)
    typing = map_site(tmp_path / "atlas", types=["mitosis"], labels=tmp_path / "t.csv")
    state = json.loads(typing.routes["GET /state"](Request()).body)
    assert state["types"] == ["mitosis", "epi", "inf"]
    typing.routes["POST /save"](Request(body=b'{"2": "mitosis"}'))
    assert (tmp_path / "t.csv").is_file()
    reply = typing.routes["GET /thumbnails"](Request({"rows": "1,2"}))
    assert reply.kind == "image/png"
    with pytest.raises(InputError):
        typing.routes["GET /thumbnails"](Request({"rows": "1,x"}))
