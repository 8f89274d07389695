"""The report of a run's folder: everything found again, or said to be missing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from nucleoscope.errors import InputError
from nucleoscope.io.guard import write_json
from nucleoscope.io.omezarr import write_labels
from nucleoscope.io.outlines import write_region
from nucleoscope.io.points import write_points
from nucleoscope.io.tables import write_table
from nucleoscope.io.tiff import write_ome_tiff
from nucleoscope.view.report import ReportImage
from nucleoscope.view.results import read_results, report


@pytest.fixture
def run(scene: Callable[..., ReportImage], tmp_path: Path) -> Path:
    """An OUT folder of two images, as ``detect`` leaves it, and the images beside it."""
    for name in ("first", "second"):
        image = scene(name)
        write_ome_tiff(tmp_path / f"{name}.ome.tif", image.volume)
        assert image.truth is not None
        assert image.region is not None
        write_points(tmp_path / f"{name}.points.csv", image.truth)
        write_region(tmp_path / f"{name}.roi.geojson", image.region)
        write_table(image.table, tmp_path / "out" / name)
        write_labels(tmp_path / "out" / name / "labels.ome.zarr", image.labels)
    inputs = [{"path": str(tmp_path / "first.ome.tif")}, {"path": "../second.ome.tif"}]
    facts = {
        "recipe": "lecl",
        "versions": {"torch": "2.13.0", "numpy": "2"},
        "timings": {"all": 1.5},
    }
    write_json(tmp_path / "out" / "run.json", {**facts, "inputs": inputs})
    return tmp_path / "out"


def test_everything_a_run_left_is_found_again(run: Path, scene: Callable[..., ReportImage]) -> None:
    what, images = read_results(run)
    assert [image.name for image in images] == ["first", "second"]
    assert what.facts == {
        "recipe": "lecl",
        "versions": "torch 2.13.0, numpy 2",
        "timings": "all 1.5",
    }
    for image in images:
        assert (image.volume.data == scene().volume.data).all()
        assert (image.labels.data == scene().labels.data).all()
        assert image.truth is not None
        assert len(image.truth) == 6
        assert image.region is not None


def test_the_models_training_and_the_readers_notes_are_shown(run: Path) -> None:
    history = [{"step": 1.0, "loss": 2.0}, {"step": 2.0, "loss": 1.0, "held_out_f1": 0.5}]
    training = {"seed": 7, "detection_f1": 0.9, "history": history}
    description = {"recipe": "lecl", "nuclei": "LT", "types": ["a", "b"], "training": training}
    write_json(run.parent / "model" / "model.json", description)
    inputs = [{"path": "../first.ome.tif", "notes": ["the scale was guessed by nobody"]}]
    write_json(run / "run.json", {"model": "../model", "inputs": inputs}, overwrite=True)
    what, images = read_results(run)
    assert what.history == history
    assert what.facts["training"] == "seed 7, detection f1 0.9"
    assert what.facts["types"] == "a, b"
    assert images[0].nuclei == "LT"
    assert images[0].notices == ("the scale was guessed by nobody",)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"training": "long"}'])
def test_a_model_that_cannot_be_read_costs_only_its_facts(run: Path, text: str) -> None:
    (run.parent / "model.json").write_text(text, encoding="utf-8")
    write_json(run / "run.json", {"model": str(run.parent), "inputs": []}, overwrite=True)
    what, images = read_results(run)
    assert what.history is None
    assert len(images) == 2


def test_the_page_lies_in_the_folder_unless_told_otherwise(run: Path, tmp_path: Path) -> None:
    assert report(run) == run / "report.html"
    other = report([run, run], tmp_path / "both.html", title="Both")
    text = other.read_text(encoding="utf-8")
    assert "<h1>Both</h1>" in text
    assert "24 nuclei in 4 images." in text


def test_an_image_that_was_moved_is_named_and_its_nuclei_still_shown(run: Path) -> None:
    (run.parent / "first.ome.tif").unlink()
    _, images = read_results(run)
    assert "first.ome.tif" in images[0].notices[0]
    assert len(images[0].table) == 6
    assert not images[1].notices


def test_a_region_that_was_moved_or_spoilt_is_named(run: Path) -> None:
    inputs = [{"path": "first.ome.tif", "roi": "gone.geojson", "points": "spoilt.csv"}]
    (run.parent / "spoilt.csv").write_text("hello", encoding="utf-8")
    write_json(run / "run.json", {"inputs": inputs}, overwrite=True)
    _, images = read_results(run)
    assert [image.name for image in images] == ["first", "second"]
    assert len(images[0].notices) == 2
    assert "gone.geojson" in images[0].notices[1]
    assert images[0].region is None
    assert images[0].volume.channels == ("LT", "DAPI"), "found beside the folder of results"


def test_a_folder_without_a_manifest_is_not_finished(run: Path) -> None:
    (run / "run.json").unlink()
    with pytest.raises(InputError, match=r"no run\.json"):
        report(run)


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "run.json", {})
    with pytest.raises(InputError, match="run detect first"):
        report(tmp_path)
