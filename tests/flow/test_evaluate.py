"""Tables against points, image by image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.points import Points
from nucleoscope.data.region import Region
from nucleoscope.data.table import NucleusTable
from nucleoscope.errors import CallError, InputError
from nucleoscope.flow.evaluate import evaluate
from nucleoscope.io.outlines import write_region
from nucleoscope.io.points import read_points
from nucleoscope.io.tables import read_table


def counts(result: object) -> tuple[int, int, int]:
    """True positives, false positives, false negatives of detection, all images."""
    detection = result.rules["optimal"].detection.pooled  # type: ignore[attr-defined]
    return detection.tp, detection.fp, detection.fn


def table(*rows: tuple[float, ...], scale: float | None = None) -> NucleusTable:
    frame = pd.DataFrame(rows, columns=["z", "y", "x"])
    frame["id"] = np.arange(1, len(frame) + 1)
    if scale is not None:
        frame["y_um"], frame["x_um"] = frame["y"] * scale, frame["x"] * scale
    return NucleusTable(frame)


def points(*rows: tuple[float, ...]) -> Points:
    z, y, x = np.array(rows, float).reshape(-1, 3).T
    return Points(z, y, x)


def test_truth_itself_is_perfect(images: Path) -> None:
    clicks = read_points(images / "plaque_01.points.csv")
    found = NucleusTable(clicks.to_frame().assign(image="plaque_01"))
    result = evaluate(found, clicks)
    assert counts(result) == (len(clicks), 0, 0)


def test_a_folder_of_results_against_a_folder_of_points(finished: Path, images: Path) -> None:
    result = evaluate(finished, images)
    n_found = sum(len(read_table(p)) for p in finished.glob("plaque_*"))
    n_true = sum(len(read_points(images / f"plaque_0{i}.points.csv")) for i in (1, 2))
    tp, fp, fn = counts(result)
    assert (tp + fp, tp + fn) == (n_found, n_true)
    assert tp > 0.6 * n_true
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))


def test_one_image_against_one_file(finished: Path, images: Path) -> None:
    truth = images / "plaque_01.points.csv"
    ways = [
        evaluate(finished / "plaque_01", truth),
        evaluate(finished / "plaque_01" / "nuclei.csv", truth),
        evaluate(read_table(finished / "plaque_01"), read_points(truth)),
    ]
    assert len({counts(w) for w in ways}) == 1


def test_a_single_result_needs_no_folder_of_truth(
    finished: Path, images: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished / "plaque_01", tmp_path / "out" / "plaque_01")
    one = evaluate(tmp_path / "out", images / "plaque_01.points.csv")
    assert counts(one) == counts(evaluate(finished / "plaque_01", images / "plaque_01.points.csv"))


def test_the_radius_is_in_pixels_or_micrometres() -> None:
    found, truth = table((0, 10, 10), (0, 50, 50), scale=0.5), points((0, 10, 14), (0, 50, 59))
    assert counts(evaluate(found, truth, radius="5px")) == (1, 1, 1)
    assert counts(evaluate(found, truth, radius=5)) == (1, 1, 1)
    assert counts(evaluate(found, truth, radius="2.5um")) == (1, 1, 1)
    assert counts(evaluate(found, truth, radius="5um")) == (2, 0, 0)
    assert counts(evaluate(found, truth, radius="1 um")) == (0, 2, 2)


def test_micrometres_without_a_scale_are_refused() -> None:
    with pytest.raises(InputError, match="y_um"):
        evaluate(table((0, 1, 1)), points((0, 1, 1)), radius="4um")


@pytest.mark.parametrize("radius", ["", "far", "-3px", "0", "nan", "inf um"])
def test_an_impossible_radius_is_refused(radius: str) -> None:
    with pytest.raises(CallError, match="length"):
        evaluate(table((0, 1, 1)), points((0, 1, 1)), radius=radius)


def test_slices_count_when_a_depth_is_given() -> None:
    found, truth = table((0, 10, 10)), points((4, 10, 10))
    assert counts(evaluate(found, truth)) == (1, 0, 0)
    assert counts(evaluate(found, truth, radius_z=2)) == (0, 1, 1)
    assert counts(evaluate(found, truth, radius_z=5)) == (1, 0, 0)


def test_a_region_leaves_out_both_sides() -> None:
    found = table((0, 5, 5), (0, 5, 80))
    truth = points((0, 6, 5), (0, 60, 80))
    left = Region(([[0, 0], [0, 40], [99, 40], [99, 0]],))
    assert counts(evaluate(found, truth, roi=left)) == (1, 0, 0)
    assert counts(evaluate(found, truth)) == (1, 1, 1)


def test_a_region_beside_the_points_is_used(finished: Path, images: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    for i in (1, 2):
        shutil.copy(images / f"plaque_0{i}.points.csv", truth)
    whole = counts(evaluate(finished, truth))
    write_region(truth / "plaque_01.roi.geojson", Region(([[0, 0], [0, 40], [90, 40], [90, 0]],)))
    part = counts(evaluate(finished, truth))
    assert sum(part) < sum(whole)


def test_no_results_no_truth_and_no_points_are_one_sentence(
    finished: Path, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nowhere"):
        evaluate(tmp_path / "nowhere", images)
    with pytest.raises(InputError, match="nowhere"):
        evaluate(finished / "plaque_01", tmp_path / "nowhere.csv")
    with pytest.raises(InputError, match=r"no plaque_01\.points\.csv"):
        evaluate(finished, tmp_path)
    with pytest.raises(CallError, match="holds 2 images"):
        evaluate(finished, images / "plaque_01.points.csv")


def test_an_unfinished_run_is_not_scored(finished: Path, images: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "out")
    (tmp_path / "out" / "run.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        evaluate(tmp_path / "out", images)


def test_nothing_found_and_nothing_true() -> None:
    nobody = points()
    assert counts(evaluate(NucleusTable.empty(), nobody)) == (0, 0, 0)
    assert counts(evaluate(NucleusTable.empty(), points((0, 1, 1)))) == (0, 0, 1)
    assert counts(evaluate(table((0, 1, 1)), nobody)) == (0, 1, 0)
    json.dumps(evaluate(NucleusTable.empty(), nobody).to_dict(), allow_nan=False)


def test_micrometres_of_an_empty_table_are_no_fault() -> None:
    frame = NucleusTable.empty().frame.assign(y_um=[], x_um=[])
    assert counts(evaluate(NucleusTable(frame), points((0, 1, 1)), radius="4um")) == (0, 0, 1)


def test_the_same_seed_gives_the_same_intervals(finished: Path, images: Path) -> None:
    one, other = evaluate(finished, images), evaluate(finished, images)
    assert one.to_dict() == other.to_dict()
