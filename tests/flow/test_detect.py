"""Detection from files to files: resumed exactly, shared between processes, kept from harm."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.region import Region
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.lecl import Found, detect
from nucleoscope.io.images import read_labels, read_volume
from nucleoscope.io.outlines import write_region
from nucleoscope.io.tables import read_table
from nucleoscope.learn.infer import Detection
from nucleoscope.learn.model import load_model

Own = Callable[..., Path]


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def results(folder: Path) -> dict[str, bytes]:
    """What was found, without times and paths of the run."""
    return {k: v for k, v in snapshot(folder).items() if not k.endswith((".json",))}


def run_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "run.json").read_text()))


def times(folder: Path) -> dict[str, int]:
    return {p.parent.name: p.stat().st_mtime_ns for p in folder.glob("*/image.json")}


# ---------------------------------------------------------------- what is written


def test_a_folder_per_image_and_a_manifest(finished: Path, stacks: list[Path]) -> None:
    names = [p.name.removesuffix(".ome.tif") for p in stacks[:2]]
    assert sorted(p.name for p in finished.iterdir()) == [*names, "run.json"]
    for name in names:
        inside = sorted(p.name for p in (finished / name).iterdir())
        assert inside == ["image.json", "labels.ome.zarr", "nuclei.csv", "nuclei.parquet"]


def test_table_and_label_map_agree(finished: Path) -> None:
    for place in sorted(finished.glob("plaque_*")):
        frame = read_table(place).frame
        labels = read_labels(place / "labels.ome.zarr")
        assert len(frame) > 5
        assert labels.ids().tolist() == frame["id"].tolist() == list(range(1, len(frame) + 1))
        assert labels.spacing == pytest.approx((2.0, 0.5, 0.5))
        assert set(frame["image"]) == {place.name}
        assert frame["y_um"].to_numpy() == pytest.approx(0.5 * frame["y"].to_numpy())
        pd.testing.assert_frame_equal(frame, read_table(place / "nuclei.csv").frame)


def test_the_manifest_names_model_images_hashes_and_figures(
    finished: Path, instant: Path, stacks: list[Path]
) -> None:
    run = run_of(finished)
    assert run["verb"] == "detect"
    assert run["model"] == str(instant)
    assert {e["path"] for e in run["inputs"]} == {str(p) for p in stacks[:2]}  # type: ignore[union-attr]
    assert all(len(e["stamp"]["image"]) == 64 for e in run["inputs"])  # type: ignore[union-attr]
    counts = [len(read_table(p)) for p in sorted(finished.glob("plaque_*"))]
    assert run["figures"] == {"nuclei": sum(counts), "images": 2, "failed": {}}
    assert "torch" in run["versions"]  # type: ignore[operator]


def test_files_and_arrays_give_the_same_answer(
    finished: Path, instant: Path, stacks: list[Path]
) -> None:
    found = detect([read_volume(p) for p in stacks[:2]], load_model(instant))
    assert isinstance(found, list)
    for one, place in zip(found, sorted(finished.glob("plaque_*")), strict=True):
        assert isinstance(one, Detection)
        assert np.array_equal(one.labels.data, read_labels(place / "labels.ome.zarr").data)
        pd.testing.assert_frame_equal(one.table.frame, read_table(place).frame)


def test_a_network_runs_from_file_to_file(light: Path, stacks: list[Path], tmp_path: Path) -> None:
    found = detect(stacks[0], light, tmp_path / "out", quiet=True)
    assert isinstance(found, Found)
    assert found.failed == {}
    assert (tmp_path / "out" / "run.json").is_file()


def test_the_order_of_files_does_not_matter(
    finished: Path, instant: Path, stacks: list[Path], tmp_path: Path
) -> None:
    detect(stacks[1::-1], instant, tmp_path / "out", quiet=True)
    assert results(tmp_path / "out") == results(finished)


def test_two_at_a_time_equal_one_after_the_other(
    finished: Path, instant: Path, stacks: list[Path], tmp_path: Path
) -> None:
    found = detect(stacks[:2], instant, tmp_path / "out", jobs=2, quiet=True)
    assert isinstance(found, Found)
    assert results(tmp_path / "out") == results(finished)
    assert found.counts == {
        e["name"]: e["nuclei"]
        for e in run_of(finished)["inputs"]  # type: ignore[union-attr]
    }


# ---------------------------------------------------------------- resume


@pytest.fixture
def started(finished: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    shutil.copytree(finished, folder)
    return folder


def again(stacks: list[Path], model: Path, folder: Path, **options: object) -> list[str]:
    """Names of the images that were done again."""
    before = times(folder)
    detect(stacks[:2], model, folder, resume=True, quiet=True, **options)  # type: ignore[arg-type]
    after = times(folder)
    return sorted(name for name in after if after[name] != before.get(name))


def test_finished_images_are_kept(started: Path, instant: Path, stacks: list[Path]) -> None:
    before = snapshot(started)
    assert again(stacks, instant, started) == []
    after = snapshot(started)
    assert {k: v for k, v in after.items() if k != "run.json"} == {
        k: v for k, v in before.items() if k != "run.json"
    }


def test_an_image_that_was_not_begun_is_done(
    started: Path, instant: Path, stacks: list[Path], finished: Path
) -> None:
    shutil.rmtree(started / "plaque_02")
    (started / "run.json").unlink()
    assert again(stacks, instant, started) == ["plaque_02"]
    assert results(started) == results(finished)


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def first_chunk(place: Path) -> Path:
    files = [p for p in (place / "labels.ome.zarr").rglob("*") if p.is_file()]
    return max(files, key=lambda p: p.stat().st_size)


TAMPERS: dict[str, Callable[[Path], None]] = {
    "flip the table": lambda p: flip(p / "nuclei.parquet"),
    "flip the csv": lambda p: flip(p / "nuclei.csv"),
    "flip the map": lambda p: flip(first_chunk(p)),
    "no table": lambda p: (p / "nuclei.parquet").unlink(),
    "no csv": lambda p: (p / "nuclei.csv").unlink(),
    "no chunk": lambda p: first_chunk(p).unlink(),
    "no map": lambda p: shutil.rmtree(p / "labels.ome.zarr"),
    "another file in the map": lambda p: (p / "labels.ome.zarr" / "x").write_text("?"),
    "no entry": lambda p: (p / "image.json").unlink(),
    "empty entry": lambda p: (p / "image.json").write_text("{}"),
    "damaged entry": lambda p: (p / "image.json").write_text('{"stamp": '),
    "entry of another kind": lambda p: (p / "image.json").write_text("[1, 2]"),
    "half a table": lambda p: (p / "nuclei.csv").write_text("id,y,x\n"),
}


@pytest.mark.parametrize("case", sorted(TAMPERS))
def test_a_tampered_image_is_done_again_and_only_that(
    started: Path, instant: Path, stacks: list[Path], finished: Path, case: str
) -> None:
    TAMPERS[case](started / "plaque_01")
    assert again(stacks, instant, started) == ["plaque_01"]
    assert results(started) == results(finished)


@pytest.mark.parametrize("options", [{"resume": True}, {"shard_of": "1/1"}])
def test_a_table_of_somebody_else_is_never_replaced_by_going_on(
    stacks: list[Path], instant: Path, tmp_path: Path, options: dict[str, object]
) -> None:
    place = tmp_path / "out" / "plaque_01"
    place.mkdir(parents=True)
    (place / "nuclei.csv").write_text("id,y,x\n1,2,3\n")
    found = detect(stacks[:2], instant, tmp_path / "out", quiet=True, **options)  # type: ignore[arg-type]
    assert isinstance(found, Found)
    assert "not of an earlier detect" in found.failed["plaque_01"]
    assert list(found.counts) == ["plaque_02"]
    assert snapshot(place) == {"nuclei.csv": b"id,y,x\n1,2,3\n"}
    whole = detect(stacks[:2], instant, tmp_path / "out", overwrite=True, quiet=True)
    assert isinstance(whole, Found)
    assert whole.failed == {}


def test_what_an_interrupted_run_left_is_known_as_ours(
    started: Path, instant: Path, stacks: list[Path], finished: Path
) -> None:
    place = started / "plaque_01"
    (place / "image.json").unlink()
    (place / "nuclei.parquet").unlink()
    shutil.rmtree(place / "labels.ome.zarr")
    (place / "image.unfinished").write_text("x")
    assert again(stacks, instant, started) == ["plaque_01"]
    assert results(started) == results(finished)
    assert not (place / "image.unfinished").exists()


def test_another_model_does_everything_again(
    started: Path, instant: Path, stacks: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(instant, other)
    raw = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps(raw | {"threshold": 0.6}))
    assert again(stacks, other, started) == ["plaque_01", "plaque_02"]


@pytest.mark.parametrize(
    "option", [{"nuclei_only": True}, {"nucleus_radius": 8.0}, {"spacing": (2.0, 0.4, 0.4)}]
)
def test_another_option_does_everything_again(
    started: Path, instant: Path, stacks: list[Path], option: dict[str, object]
) -> None:
    assert again(stacks, instant, started, **option) == ["plaque_01", "plaque_02"]


def test_results_of_another_version_are_done_again(
    started: Path, instant: Path, stacks: list[Path]
) -> None:
    path = started / "plaque_01" / "image.json"
    entry = json.loads(path.read_text())
    entry["stamp"]["version"] = "0.0.1"
    path.write_text(json.dumps(entry))
    assert again(stacks, instant, started) == ["plaque_01"]


def test_a_changed_image_or_region_is_done_again(own: Own, instant: Path, tmp_path: Path) -> None:
    image, out = own(), tmp_path / "out"
    square = [[10, 10], [10, 80], [80, 80], [80, 10]]
    region = tmp_path / "mine.roi.geojson"
    write_region(region, Region((square,)))
    first = detect(image, instant, out, quiet=True)
    assert isinstance(first, Found)

    write_region(region, Region(([[a / 2, b] for a, b in square],)), overwrite=True)
    second = detect(image, instant, out, resume=True, quiet=True)
    assert isinstance(second, Found)
    assert second.counts["mine"] < first.counts["mine"]
    region.unlink()
    third = detect(image, instant, out, resume=True, quiet=True)
    assert isinstance(third, Found)
    assert third.counts["mine"] > first.counts["mine"]


def test_a_volume_in_memory_is_told_from_another_of_its_name(
    stacks: list[Path], instant: Path, tmp_path: Path
) -> None:
    volume = read_volume(stacks[0])
    dark = replace(volume, data=np.zeros_like(volume.data))
    one = detect(volume, instant, tmp_path / "out", quiet=True)
    other = detect(dark, instant, tmp_path / "out", resume=True, quiet=True)
    assert isinstance(one, Found)
    assert isinstance(other, Found)
    assert one.counts["plaque_01"] > 0
    assert other.counts["plaque_01"] == 0


# ---------------------------------------------------------------- shards


def test_shards_join_to_the_whole(
    stacks: list[Path], instant: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    detect(stacks[:2], instant, out, shard_of="2/2", quiet=True)
    assert not (out / "run.json").exists()
    detect(stacks[:2], instant, out, shard_of="1/2", quiet=True)
    assert results(out) == results(finished)
    run, whole = run_of(out), run_of(finished)
    assert run["figures"] == whole["figures"]
    assert [e["name"] for e in run["inputs"]] == ["plaque_01", "plaque_02"]  # type: ignore[union-attr]


def test_more_shards_than_images_join_too(
    stacks: list[Path], instant: Path, tmp_path: Path
) -> None:
    for k in (1, 2, 3):
        detect(stacks[:2], instant, tmp_path / "out", shard_of=f"{k}/3", quiet=True)
    assert run_of(tmp_path / "out")["figures"]["images"] == 2  # type: ignore[index]


def test_a_failure_in_any_shard_is_in_the_joined_manifest(
    own: Own, instant: Path, tmp_path: Path
) -> None:
    images = [own("a"), own("b")]
    images[0].write_bytes(images[0].read_bytes()[:500])
    for k in (1, 2):
        detect(images, instant, tmp_path / "out", shard_of=f"{k}/2", quiet=True)
    figures = run_of(tmp_path / "out")["figures"]
    assert list(figures["failed"]) == ["a"]  # type: ignore[index]
    assert figures["images"] == 1  # type: ignore[index]


# ---------------------------------------------------------------- trouble


def test_an_image_that_fails_is_named_and_the_others_go_on(
    own: Own, instant: Path, tmp_path: Path
) -> None:
    images = [own("a"), own("b")]
    data = images[0].read_bytes()
    images[0].write_bytes(data[: len(data) // 2])
    found = detect(images, instant, tmp_path / "out", quiet=True)
    assert isinstance(found, Found)
    assert list(found.failed) == ["a"]
    assert "\n" not in found.failed["a"]
    assert list(found.counts) == ["b"]
    assert not (tmp_path / "out" / "a").exists()
    assert run_of(tmp_path / "out")["figures"]["failed"] == found.failed  # type: ignore[index]


def test_an_image_that_failed_is_done_when_it_is_whole_again(
    own: Own, instant: Path, tmp_path: Path
) -> None:
    image = own()
    data = image.read_bytes()
    image.write_bytes(data[:1000])
    detect([image], instant, tmp_path / "out", quiet=True)
    image.write_bytes(data)
    found = detect([image], instant, tmp_path / "out", resume=True, quiet=True)
    assert isinstance(found, Found)
    assert found.failed == {}
    assert found.counts["mine"] > 0


def test_a_folder_with_something_in_it_is_refused_and_left_alone(
    stacks: list[Path], instant: Path, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CallError, match="not empty"):
        detect(stacks[0], instant, tmp_path, quiet=True)
    assert snapshot(tmp_path) == {"notes.txt": b"mine"}


def test_a_file_where_a_folder_goes_is_refused(
    stacks: list[Path], instant: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(CallError, match="it is a file"):
        detect(stacks[0], instant, tmp_path / "out", quiet=True)


def test_overwriting_replaces_results_and_nothing_else(
    started: Path, instant: Path, stacks: list[Path], finished: Path
) -> None:
    (started / "notes.txt").write_text("mine")
    (started / "plaque_01" / "nuclei.csv").write_text("old")
    detect(stacks[:2], instant, started, overwrite=True, quiet=True)
    found = results(started)
    assert found.pop("notes.txt") == b"mine"
    assert found == results(finished)


def test_images_of_one_name_are_refused(instant: Path, own: Own, tmp_path: Path) -> None:
    image = own()
    (tmp_path / "sub").mkdir()
    twin = tmp_path / "sub" / image.name
    shutil.copy(image, twin)
    with pytest.raises(CallError, match="two images are called mine"):
        detect([image, twin], instant, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_read_leaves_no_folder(stacks: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a finished model"):
        detect(stacks[0], tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_need_a_model_that_has_a_folder(
    stacks: list[Path], instant: Path, tmp_path: Path
) -> None:
    with pytest.raises(CallError, match="model's folder"):
        detect(stacks[0], load_model(instant), tmp_path / "out")


def test_an_image_without_nuclei_gives_empty_files(instant: Path, tmp_path: Path) -> None:
    from nucleoscope.data.volume import Volume
    from nucleoscope.io.tiff import write_ome_tiff

    dark = Volume(np.zeros((2, 2, 40, 40), np.uint8), ("LT", "DAPI"), (2.0, 0.5, 0.5), "dark")
    write_ome_tiff(tmp_path / "dark.ome.tif", dark)
    found = detect(tmp_path / "dark.ome.tif", instant, tmp_path / "out", quiet=True)
    assert isinstance(found, Found)
    assert found.counts == {"dark": 0}
    place = tmp_path / "out" / "dark"
    assert len(read_table(place)) == 0
    assert read_table(place / "nuclei.csv").frame.columns.tolist() == (
        read_table(place).frame.columns.tolist()
    )
    assert not read_labels(place / "labels.ome.zarr").data.any()


def test_an_unknown_scale_works_in_pixels(own: Own, instant: Path, tmp_path: Path) -> None:
    from nucleoscope.io.tiff import write_ome_tiff

    volume = replace(read_volume(own()), spacing=None, name="bare")
    write_ome_tiff(tmp_path / "bare.ome.tif", volume)
    detect(tmp_path / "bare.ome.tif", instant, tmp_path / "out", quiet=True)
    columns = set(read_table(tmp_path / "out" / "bare").frame.columns)
    assert "volume_px" in columns
    assert not [c for c in columns if c.endswith(("_um", "_um3"))]


def test_channels_called_otherwise_are_named(
    own: Own, instant: Path, finished: Path, tmp_path: Path
) -> None:
    from nucleoscope.io.tiff import write_ome_tiff

    volume = read_volume(own())
    other = replace(volume, channels=("tdTomato", "Hoechst"), name="plaque_01")
    path = tmp_path / "plaque_01.ome.tif"
    write_ome_tiff(path, other)
    failed = detect(path, instant, tmp_path / "no", quiet=True)
    assert isinstance(failed, Found)
    assert "needs channel LT" in failed.failed["plaque_01"]
    detect(path, instant, tmp_path / "out", nuclei="Hoechst", marker=["tdTomato"], quiet=True)
    here, there = (read_table(f / "plaque_01").frame for f in (tmp_path / "out", finished))
    pd.testing.assert_frame_equal(here, there)
