"""Crop stores on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nucleoscope.data.crops import CropStore
from nucleoscope.errors import CallError, InputError, UnsafeInputError
from nucleoscope.io.crops import CHUNK, read_crops, write_crops


def crops(n: int, seed: int = 0) -> CropStore:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (2, n, 8, 8, 3)).astype(np.uint8)
    pictures = small.repeat(8, axis=2).repeat(8, axis=3)
    return CropStore(
        pictures[0], pictures[1], (pictures[0, ..., 0] > 9).astype(np.uint8),
        rng.random(n) > 0.5, rng.integers(0, 2, n), ("a", "b"), rng.permutation(n),
    )  # fmt: skip


def write(path: Path, store: CropStore, cuts: list[int]) -> None:
    with write_crops(path, len(store), store.slides) as writer:
        for rows in np.split(np.arange(len(store)), cuts):
            writer.add(store.take(rows))


@pytest.mark.parametrize(
    ("n", "cuts"),
    [(0, []), (1, []), (CHUNK, [5]), (CHUNK + 1, [1, 2]), (2 * CHUNK + 40, [300, 301, 500])],
)
def test_what_was_written_block_by_block_is_read_back(
    tmp_path: Path, n: int, cuts: list[int]
) -> None:
    store = crops(n)
    write(tmp_path / "crops.zarr", store, cuts)
    found = read_crops(tmp_path)
    for name in ("morphology", "context", "mask", "border", "slide", "id"):
        assert np.array_equal(np.asarray(getattr(found, name)[:]), getattr(store, name)), name
    assert found.slides == ("a", "b")
    rows = np.random.default_rng(1).permutation(n)[:9]
    assert np.array_equal(found.take(rows).context, store.context[rows])


def test_pictures_stay_on_disk_until_they_are_indexed(tmp_path: Path) -> None:
    write(tmp_path / "crops.zarr", crops(9), [4])
    found = read_crops(tmp_path / "crops.zarr")
    assert not isinstance(found.morphology, np.ndarray)
    assert sum(len(block) for _, block in found.blocks(4)) == 9


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = crops(4)
    with (
        pytest.raises(RuntimeError),
        write_crops(tmp_path / "crops.zarr", 4, store.slides) as writer,
    ):
        writer.add(store.take([0]))
        raise RuntimeError
    with (
        pytest.raises(InputError, match="1 crops came where 4"),
        write_crops(tmp_path / "crops.zarr", 4, store.slides) as writer,
    ):
        writer.add(store.take([0]))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_somebody_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "crops.zarr").mkdir()
    with pytest.raises(CallError, match="exists"):
        write(tmp_path / "crops.zarr", crops(1), [])


def test_other_folders_and_codecs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_crops(tmp_path)
    path = tmp_path / "crops.zarr"
    write(path, crops(2), [])
    meta = json.loads((path / "mask" / "zarr.json").read_text())
    meta["codecs"] = [{"name": "pickle"}]
    (path / "mask" / "zarr.json").write_text(json.dumps(meta))
    with pytest.raises(UnsafeInputError, match="codec pickle"):
        read_crops(path)
    root = json.loads((path / "zarr.json").read_text())
    root["attributes"]["nucleoscope_crops"] = 99
    (path / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(InputError, match="version"):
        read_crops(path)


def test_a_damaged_array_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "crops.zarr"
    write(path, crops(2), [])
    (path / "id" / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        read_crops(path)
