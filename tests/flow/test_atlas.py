"""The verbs on an ATLAS folder and on an Atlas."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.atlas import search as exact
from nucleoscope.data.atlas import Atlas, unit_rows
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow import atlas as flow
from nucleoscope.flow.atlas import search, subtypes, transfer
from nucleoscope.io.atlas import read_atlas, read_atlas_table, write_atlas
from nucleoscope.io.atlas_index import read_index, write_index

pytest.importorskip("igraph")

OPTIONS = {"levels": (2, 4), "method": "pca", "n_replicates": 1}


def make(n: int = 300, seed: int = 0) -> tuple[Atlas, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 4, n)
    centres = np.random.default_rng(7).normal(size=(4, 12))
    frame = pd.DataFrame(
        {
            "id": np.arange(n) // 2, "image": np.where(np.arange(n) % 2, "s1", "s0"),
            "y": rng.random(n), "x": rng.random(n), "type": np.array(list("abcd"))[kind],
        }
    )  # fmt: skip
    features = pd.DataFrame({"f_area_um2": 20.0 + 10 * kind + rng.random(n)})
    vectors = unit_rows(centres[kind] + 0.15 * rng.normal(size=(n, 12)))
    return Atlas(NucleusTable(frame), vectors, features=features), kind


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / "A"
    write_atlas(path, make()[0], manifest={"verb": "embed"})
    subtypes(path, **OPTIONS)
    return path


def test_subtypes_writes_the_files_of_the_contract(folder: Path) -> None:
    names = {p.name for p in folder.iterdir()}
    assert {"subtypes.parquet", "subtypes.json", "map2d.parquet", "index", "run.json"} <= names
    atlas = read_atlas(folder)
    kind = make()[1]
    assert atlas.subtypes is not None and atlas.map2d is not None
    assert pd.crosstab(atlas.subtypes["subtype_4"], kind).gt(0).sum().tolist() == [1] * 4
    assert read_atlas_table(folder).frame["subtype"].tolist() == atlas.subtypes["subtype"].tolist()


def test_the_report_describes_every_subtype(folder: Path) -> None:
    report = json.loads((folder / "subtypes.json").read_text())
    assert [level["level"] for level in report["levels"]] == [2, 4]
    for level in report["levels"]:
        assert level["found"] == len(level["subtypes"]) and level["ari"] <= 1
        assert sum(card["n"] for card in level["subtypes"]) == 300
    assert report["levels"][1]["ari"] > 0.9
    finest = {card["name"]: card for card in report["levels"][1]["subtypes"]}
    assert any("larger (area" in card["text"] for card in finest.values())
    for name, card in finest.items():
        assert card["parent"] == name.rpartition(".")[0] != ""
        assert max(card["types"].values()) == 1.0
        assert len(card["exemplars"]["medoids"]) == 8


def test_an_atlas_in_memory_gives_the_same(folder: Path) -> None:
    found = subtypes(make()[0], **OPTIONS)
    stored = read_atlas(folder)
    pd.testing.assert_frame_equal(found.atlas.subtypes, stored.subtypes, check_dtype=False)
    pd.testing.assert_frame_equal(found.atlas.map2d, stored.map2d, check_dtype=False)


def test_a_reference_gives_its_subtypes_to_new_nuclei(folder: Path, tmp_path: Path) -> None:
    new, kind = make(100, seed=3)
    write_atlas(tmp_path / "B", new)
    found = subtypes(tmp_path / "B", reference=folder, method="none").atlas.subtypes
    truth = dict(zip(make()[1], read_atlas(folder).subtypes["subtype_4"], strict=True))
    assert (found["subtype_4"] == [truth[k] for k in kind]).all()
    assert {"is_novel", "subtype_similarity"} <= set(found)
    again = subtypes(tmp_path / "B", reference=tmp_path / "B", method="none").atlas.subtypes
    assert again["subtype_4"].tolist() == found["subtype_4"].tolist()
    with pytest.raises(InputError, match="no subtypes"):
        subtypes(tmp_path / "B", reference=tmp_path)


def test_transfer_writes_types_and_keeps_the_old_ones(folder: Path, tmp_path: Path) -> None:
    new, kind = make(120, seed=4)
    blank = NucleusTable(new.table.frame.assign(type="old"))
    write_atlas(tmp_path / "B", new.with_parts(table=blank))
    found = transfer(tmp_path / "B", reference=folder).table.frame
    truth = np.array(list("abcd"))[kind]
    given = (found["type"] != "").to_numpy()
    assert given.mean() > 0.9 and (found["type"].to_numpy()[given] == truth[given]).all()
    stored = read_atlas(tmp_path / "B").table.frame
    assert stored["type"].tolist() == found["type"].tolist()
    kept = pd.read_parquet(tmp_path / "B" / "nuclei.parquet")
    assert set(kept["type"]) == {"old"}


def test_transfer_from_a_table_of_some_of_its_own_nuclei(tmp_path: Path) -> None:
    atlas, kind = make(200, seed=4)
    truth = np.array(list("abcd"))[kind]
    frame = atlas.table.frame.assign(type="")
    write_atlas(tmp_path / "A", atlas.with_parts(table=NucleusTable(frame)))
    some = frame[["image", "id"]].assign(type=truth).iloc[::3]
    some.to_csv(tmp_path / "some.csv", index=False)
    found = transfer(tmp_path / "A", reference=tmp_path / "some.csv").table.frame
    given = (found["type"] != "").to_numpy()
    assert given.mean() > 0.8 and (found["type"].to_numpy()[given] == truth[given]).mean() > 0.95
    some.assign(id=10**6).head(1).to_csv(tmp_path / "none.csv", index=False)
    with pytest.raises(InputError, match="none of its nuclei"):
        transfer(tmp_path / "A", reference=tmp_path / "none.csv")


def test_search_finds_the_most_alike(folder: Path) -> None:
    atlas = read_atlas(folder)
    found = search(folder, nucleus="s1:7", k=5)
    vectors = atlas.embedding.astype(float)
    scores = vectors @ vectors[15]
    scores[15] = -9
    assert np.allclose(scores[found["row"]], np.sort(scores)[::-1][:5], atol=1e-6)
    assert found["rank"].tolist() == [1, 2, 3, 4, 5]
    assert {"id", "image", "type", "subtype", "similarity"} <= set(found)
    assert search(atlas, nucleus=7, image="s1", k=5)["row"].tolist() == found["row"].tolist()


def test_search_filters_by_image_and_type(folder: Path) -> None:
    found = search(folder, nucleus="s0:3", only_image="s1", only_type="b", k=400)
    frame = read_atlas(folder).table.frame
    assert len(found) == ((frame["image"] == "s1") & (frame["type"] == "b")).sum()
    assert set(found["image"]) == {"s1"} and set(found["type"]) == {"b"}
    with pytest.raises(InputError, match="filter"):
        search(folder, nucleus="s0:3", only_type="z")


def test_nuclei_are_named_clearly(folder: Path) -> None:
    with pytest.raises(CallError, match=r"2 images .* s0:7"):
        search(folder, nucleus=7)
    with pytest.raises(InputError, match="no nucleus 9999"):
        search(folder, nucleus=9999)
    with pytest.raises(CallError, match="expected an id"):
        search(folder, nucleus="seven")


def test_large_atlases_are_searched_through_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlas = make()[0]
    write_atlas(tmp_path, atlas)
    expected = search(tmp_path, nucleus="s0:3", k=9)
    monkeypatch.setattr(flow, "EXACT_BELOW", 10)
    monkeypatch.setattr(exact, "EXACT_BELOW", 10)
    for _ in range(2):  # made, then read
        found = search(tmp_path, nucleus="s0:3", k=9)
        assert found["row"].tolist() == expected["row"].tolist()
        assert read_index(tmp_path) is not None
    assert search(atlas, nucleus="s0:3", k=9)["row"].tolist() == expected["row"].tolist()


def test_an_index_of_another_embedding_or_a_damaged_one_is_not_used(tmp_path: Path) -> None:
    write_atlas(tmp_path, make()[0])
    subtypes(tmp_path, levels=(2,), method="none", n_replicates=0)
    stored = read_index(tmp_path)
    assert stored is not None and stored.names is not None
    write_index(tmp_path, stored._replace(order=stored.order + 1))
    with pytest.raises(InputError, match="damaged"):
        read_index(tmp_path)
    (tmp_path / "index" / "order.bin").write_bytes(b"")
    with pytest.raises(InputError, match="0 bytes"):
        read_index(tmp_path)
    write_index(tmp_path, stored)
    write_atlas(tmp_path, make(seed=9)[0], overwrite=True)
    assert read_index(tmp_path) is None
