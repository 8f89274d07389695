"""From slides and nuclei to a crop store."""

from __future__ import annotations

import logging
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.nuclei import Nuclei
from nucleoscope.data.slide import Slide
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError, ResourceError
from nucleoscope.flow.crops import crop_nuclei, open_nuclei, open_slides
from nucleoscope.io import guard


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def scattered(n: int, shape: tuple[int, int], seed: int = 0) -> Nuclei:
    yx = np.random.default_rng(seed).uniform(0, np.array(shape) - 1, (n, 2))
    frame = pd.DataFrame({"id": np.arange(n) + 5, "y": yx[:, 0], "x": yx[:, 1]})
    return Nuclei(NucleusTable(frame))


@pytest.fixture
def files(tmp_path: Path) -> tuple[list[Path], list[Path]]:
    """Two tiles and the instance maps beside them."""
    images, maps = [], []
    for name, seed in (("one", 1), ("two", 2)):
        images.append(tmp_path / f"{name}.png")
        images[-1].write_bytes(imagecodecs.png_encode(picture(300, 200, seed)))
        labels = np.zeros((300, 200), np.uint16)
        for i, (y, x) in enumerate([(20, 30), (150, 90), (290, 190), (60, 150)]):
            labels[y - 8 : y + 9, x - 6 : x + 7] = i + 1
        maps.append(tmp_path / f"{name}.labels.tif")
        tifffile.imwrite(maps[-1], labels[:, :: 1 if seed == 1 else -1].copy())
    return images, maps


def test_several_slides_become_one_store(files: tuple[list[Path], list[Path]]) -> None:
    images, maps = files
    store = crop_nuclei(images, maps, mpp=0.5)
    assert store.slides == ("one", "two")
    assert sorted(zip(store.slide.tolist(), store.id.tolist(), strict=True)) == [
        (s, i) for s in (0, 1) for i in (1, 2, 3, 4)
    ]
    alone = crop_nuclei(images[1], maps[1], mpp=0.5)
    assert np.array_equal(alone.morphology, store.morphology[store.slide == 1])
    for i, (slide, nucleus) in enumerate(zip(store.slide, store.id, strict=True)):
        labels = tifffile.imread(maps[slide])
        expected = 4 * (labels == nucleus).sum()
        assert store.mask[i].sum() == expected


def test_a_store_on_disk_equals_one_in_memory(
    files: tuple[list[Path], list[Path]], tmp_path: Path
) -> None:
    images, maps = files
    kept = crop_nuclei(images, maps, mpp=0.25)
    stored = crop_nuclei(images, maps, tmp_path / "ATLAS" / "crops.zarr", mpp=0.25)
    for name in ("morphology", "context", "mask", "border", "slide", "id"):
        assert np.array_equal(np.asarray(getattr(stored, name)[:]), getattr(kept, name)), name
    again = crop_nuclei(images[0], maps[0], tmp_path / "ATLAS" / "crops.zarr", mpp=0.25)
    assert len(again) == 4


def test_rows_of_the_store_lead_back_to_the_table() -> None:
    image = picture(900, 700)
    nuclei = scattered(50, (900, 700))
    store = crop_nuclei(image, nuclei, mpp=0.25)
    rows = store.table_rows(nuclei.table)
    assert sorted(rows.tolist()) == list(range(50))
    for i in (0, 20, 49):
        one = crop_nuclei(image, nuclei.take([rows[i]]), mpp=0.25)
        assert np.array_equal(one.context[0], store.context[i])


def test_several_slides_find_their_rows_too() -> None:
    slides = [Slide.from_array(picture(99, 99, s), mpp=0.25, name=f"s{s}") for s in (0, 1)]
    found = open_nuclei([scattered(3, (99, 99)), scattered(4, (99, 99), 1)], slides)
    store = crop_nuclei(slides, found)
    table = NucleusTable(pd.concat([one.table.frame for one in found]))
    rows = store.table_rows(table)
    assert table.frame["image"].iloc[rows].tolist() == [store.slides[s] for s in store.slide]


def test_no_nucleus_gives_an_empty_store(tmp_path: Path) -> None:
    none = Nuclei(NucleusTable.empty())
    for output in (None, tmp_path / "crops.zarr"):
        store = crop_nuclei(picture(50, 50), none, output, mpp=0.25)
        assert len(store) == 0
        assert store.slides == ("image",)


def test_each_slide_needs_one_file_of_nuclei(files: tuple[list[Path], list[Path]]) -> None:
    images, maps = files
    with pytest.raises(CallError, match="2 files of nuclei were given for 1 slides"):
        crop_nuclei(images[0], maps, mpp=0.5)
    with pytest.raises(InputError, match="two slides are called one"):
        crop_nuclei([images[0], images[0]], maps, mpp=0.5)


def test_the_scale_is_asked_for_by_name(files: tuple[list[Path], list[Path]]) -> None:
    images, maps = files
    with pytest.raises(InputError, match=r"one: its pixel size is unknown.*--mpp"):
        crop_nuclei(images, maps)
    with pytest.raises(CallError, match="--mpp"):
        open_slides(images, mpp=0.001)
    assert open_slides(Slide.from_array(picture(9, 9), mpp=0.5), mpp=0.25)[0].mpp == 0.25


def test_a_map_of_another_size_is_refused() -> None:
    nuclei = Nuclei(scattered(3, (20, 20)).table, None, Labels(np.ones((20, 20), np.int32)))
    with pytest.raises(InputError, match="give the map of full resolution"):
        crop_nuclei(picture(50, 50), nuclei, mpp=0.25)


def test_what_readers_decided_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, picture(64, 64), tile=(64, 64), photometric="rgb", resolution=(2e4, 2e4),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    with caplog.at_level(logging.WARNING):
        crop_nuclei(path, scattered(1, (64, 64)), mpp=0.25)
    assert "--mpp 0.25 replaces the 0.5 um per pixel" in caplog.text


def test_crops_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "available_memory", lambda: 10_000)
    with pytest.raises(ResourceError, match="name an output"):
        crop_nuclei(picture(50, 50), scattered(3, (50, 50)), mpp=0.25)


def test_a_failure_leaves_no_folder(tmp_path: Path) -> None:
    image = picture(300, 300)

    def broken(level: int, box: object) -> NDArray[np.uint8]:
        raise InputError("a.svs: it cannot be decoded.")

    slide = Slide("a", (image.shape[:2],), 0.25, broken)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be decoded"):
        crop_nuclei(slide, scattered(3, (300, 300)), tmp_path / "crops.zarr")
    assert list(tmp_path.iterdir()) == []
