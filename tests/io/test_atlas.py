"""ATLAS folders: round trips, layers, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.atlas import Atlas, unit_rows
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io import atlas as module
from nucleoscope.io.atlas import (
    is_atlas,
    read_atlas,
    read_atlas_table,
    read_layer,
    write_atlas,
    write_layer,
)
from nucleoscope.io.guard import Limits


def make(n: int = 40, seed: int = 0, context: bool = True) -> Atlas:
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "id": np.arange(n), "image": "s1", "y": rng.random(n), "x": rng.random(n),
            "type": "tumour", "type_prob": 0.5,
        }
    )  # fmt: skip
    return Atlas(
        NucleusTable(frame),
        unit_rows(rng.normal(size=(n, 16))),
        context=unit_rows(rng.normal(size=(n, 4))) if context else None,
        features=pd.DataFrame({"f_area_um2": rng.random(n), "f_od": np.full(n, np.nan)}),
    )


def assert_same(one: Atlas, other: Atlas) -> None:
    assert np.array_equal(one.embedding, other.embedding)
    pd.testing.assert_frame_equal(one.frame(), other.frame(), check_dtype=False)
    assert (one.context is None) == (other.context is None)
    if one.context is not None:
        assert np.array_equal(one.context, other.context)


@pytest.mark.parametrize("n", [0, 1, 40])
def test_a_round_trip_changes_nothing(tmp_path: Path, n: int) -> None:
    atlas = make(n)
    write_atlas(tmp_path / "A", atlas, manifest={"verb": "embed"})
    assert_same(read_atlas(tmp_path / "A"), atlas)
    manifest = json.loads((tmp_path / "A" / "run.json").read_text())
    assert manifest["verb"] == "embed" and manifest["atlas"]["n_nuclei"] == n


def test_chunks_of_rows_do_not_change_the_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK_ROWS", 7)
    atlas = make(40)
    write_atlas(tmp_path, atlas)
    assert np.array_equal(read_atlas(tmp_path).embedding, atlas.embedding)


def test_what_else_is_in_the_folder_stays(tmp_path: Path) -> None:
    (tmp_path / "crops.zarr").mkdir()
    (tmp_path / "crops.zarr" / "0").write_text("crops")
    write_atlas(tmp_path, make())
    assert (tmp_path / "crops.zarr" / "0").read_text() == "crops"


def test_an_atlas_is_not_replaced_unasked(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    with pytest.raises(CallError, match="overwrite=True"):
        write_atlas(tmp_path, make(seed=1))
    assert_same(read_atlas(tmp_path), make())


def test_without_a_manifest_it_is_not_finished(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    (tmp_path / "run.json").unlink()
    assert not is_atlas(tmp_path)
    with pytest.raises(InputError, match="not a finished atlas"):
        read_atlas(tmp_path)


def test_a_stop_while_replacing_leaves_an_unfinished_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_atlas(tmp_path, make())

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "_write_vectors", stop)
    with pytest.raises(KeyboardInterrupt):
        write_atlas(tmp_path, make(seed=1), overwrite=True)
    assert not is_atlas(tmp_path)


def test_layers_are_read_back_and_replaced(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    for name in ("1", "2"):
        write_layer(tmp_path, "subtypes", pd.DataFrame({"subtype": [name] * 40}))
        assert read_atlas(tmp_path).subtypes["subtype"].unique().tolist() == [name]
    assert read_atlas_table(tmp_path).frame["subtype"].unique().tolist() == ["2"]


def test_a_layer_of_an_earlier_embedding_is_ignored(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    write_layer(tmp_path, "subtypes", pd.DataFrame({"subtype": ["1"] * 40}))
    write_atlas(tmp_path, make(seed=1, context=False), overwrite=True)
    assert read_layer(tmp_path, "subtypes") is None
    assert_same(read_atlas(tmp_path), make(seed=1, context=False))


def test_transferred_types_take_the_place_of_the_old_ones(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    layer = pd.DataFrame({"type": ["immune"] * 40, "type_prob": 0.9, "is_novel": False})
    write_layer(tmp_path, "transfer", layer)
    frame = read_atlas(tmp_path).table.frame
    assert set(frame["type"]) == {"immune"} and set(frame["type_prob"]) == {0.9}
    assert "is_novel" in frame


def test_a_layer_with_another_number_of_rows_is_refused(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    write_layer(tmp_path, "transfer", pd.DataFrame({"type": ["a"]}))
    with pytest.raises(InputError, match="1 rows for 40"):
        read_atlas(tmp_path)


def test_other_layers_are_refused(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    with pytest.raises(CallError, match="subtypes, map2d, transfer"):
        write_layer(tmp_path, "other", pd.DataFrame())


def test_a_swapped_table_is_found_out(tmp_path: Path) -> None:
    write_atlas(tmp_path / "A", make())
    write_atlas(tmp_path / "B", make(seed=1))
    (tmp_path / "A" / "nuclei.parquet").write_bytes(
        (tmp_path / "B" / "nuclei.parquet").read_bytes()
    )
    with pytest.raises(InputError, match="another embedding"):
        read_atlas(tmp_path / "A")


def test_a_damaged_chunk_is_one_sentence(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    chunk = next(p for p in (tmp_path / "embedding.zarr" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(b"nothing")
    with pytest.raises(InputError, match="damaged"):
        read_atlas(tmp_path)


def test_an_unknown_codec_is_refused_before_it_is_used(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    path = tmp_path / "embedding.zarr" / "zarr.json"
    path.write_text(path.read_text().replace('"blosc"', '"pickle"'))
    with pytest.raises(UnsafeInputError, match="pickle"):
        read_atlas(tmp_path)


def test_more_rows_than_the_limit_are_refused(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    with pytest.raises(UnsafeInputError, match="rows"):
        read_atlas(tmp_path, limits=Limits(rows=10))


def test_a_manifest_of_something_else_is_no_atlas(tmp_path: Path) -> None:
    write_atlas(tmp_path, make())
    (tmp_path / "run.json").write_text('{"verb": "detect"}')
    with pytest.raises(InputError, match="not the manifest of an atlas"):
        read_atlas(tmp_path)
