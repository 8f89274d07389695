"""A stack to one plane, from files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nucleoscope.data.points import Points
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError, NucleoscopeError
from nucleoscope.flow.project import project, ranges_of
from nucleoscope.io.images import read_volume


@pytest.fixture
def points(stacks: list[Path]) -> Path:
    return Path(str(stacks[0]).replace(".ome.tif", ".points.csv"))


def test_mip_is_the_maximum_over_slices(stacks: list[Path]) -> None:
    volume = read_volume(stacks[0])
    flat = project(stacks[0], method="mip")
    assert np.array_equal(flat.data, volume.data.max(axis=1))
    assert flat.channels == volume.channels


@pytest.mark.parametrize("known", ["points", "table"])
def test_emip_never_exceeds_mip(
    stacks: list[Path], points: Path, finished: Path, known: str
) -> None:
    if known == "points":
        flat = project(stacks[0], points=points)
    else:
        flat = project(stacks[0], nuclei_table=finished / "plaque_01")
    mip = project(stacks[0], method="mip")
    assert (flat.data <= mip.data).all()
    assert (flat.data < mip.data).any()
    assert flat.method == "emip"


def test_files_and_arrays_give_the_same(stacks: list[Path], points: Path, finished: Path) -> None:
    from nucleoscope.io.points import read_points
    from nucleoscope.io.tables import read_table

    volume = read_volume(stacks[0])
    one = project(volume, points=read_points(points))
    assert np.array_equal(one.data, project(stacks[0], points=points).data)
    table = read_table(finished / "plaque_01")
    two = project(volume, nuclei_table=table)
    other = project(stacks[0], nuclei_table=finished / "plaque_01")
    assert np.array_equal(two.data, other.data)


def test_a_marker_at_other_slices_leaves_no_trace_in_emip() -> None:
    data = np.full((2, 9, 40, 40), 5, np.uint8)
    data[1, 6:9, 16:24, 16:24] = 200
    data[0, 0:2, 16:24, 16:24] = 250
    volume = Volume(data, ("LT", "DAPI"), (2.0, 0.5, 0.5))
    frame = pd.DataFrame(
        {"id": [1], "z": [7.0], "y": [20.0], "x": [20.0], "z_min": [6], "z_max": [8]}
    )
    flat = project(volume, nuclei_table=NucleusTable(frame))
    assert flat.data[0].max() == 5
    assert project(volume, method="mip").data[0].max() == 250
    clicked = project(volume, points=Points([7.0], [20.0], [20.0]))
    assert clicked.data[0, 20, 20] == 5


def test_the_file_written_is_the_projection_with_its_scale(
    stacks: list[Path], points: Path, tmp_path: Path
) -> None:
    flat = project(stacks[0], tmp_path / "flat.ome.tif", points=points)
    back = read_volume(tmp_path / "flat.ome.tif")
    assert np.array_equal(back.data[:, 0], flat.data)
    assert back.channels == flat.channels
    assert back.spacing is not None
    assert back.spacing[1:] == pytest.approx((0.5, 0.5))


def test_a_file_that_is_there_is_not_overwritten_unasked(
    stacks: list[Path], tmp_path: Path
) -> None:
    path = tmp_path / "flat.ome.tif"
    path.write_bytes(b"mine")
    with pytest.raises(CallError, match="exists"):
        project(stacks[0], path, method="mip")
    assert path.read_bytes() == b"mine"
    project(stacks[0], path, method="mip", overwrite=True)
    assert read_volume(path).shape[0] == 1


def test_emip_without_nuclei_or_with_both_kinds_is_refused(
    stacks: list[Path], points: Path, finished: Path, tmp_path: Path
) -> None:
    for given in ({}, {"points": points, "nuclei_table": finished / "plaque_01"}):
        with pytest.raises(CallError, match="--points"):
            project(stacks[0], tmp_path / "f.ome.tif", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "f.ome.tif").exists()


def test_an_unknown_method_is_refused(stacks: list[Path]) -> None:
    with pytest.raises(CallError, match="mean"):
        project(stacks[0], method="mean")


def test_points_outside_are_refused(stacks: list[Path], tmp_path: Path) -> None:
    for wrong in (Points([0], [500], [3]), Points([40], [5], [3])):
        with pytest.raises(InputError, match="outside"):
            project(stacks[0], tmp_path / "f.ome.tif", points=wrong)
    assert not (tmp_path / "f.ome.tif").exists()


def test_a_table_of_another_image_is_refused(stacks: list[Path]) -> None:
    frame = pd.DataFrame({"id": [1], "z": [1.0], "y": [900.0], "x": [20.0]})
    with pytest.raises(NucleoscopeError, match="outside"):
        project(stacks[0], nuclei_table=NucleusTable(frame))


@pytest.mark.parametrize("known", ["points", "table"])
def test_no_nuclei_is_one_sentence_or_the_whole_stack(stacks: list[Path], known: str) -> None:
    volume = read_volume(stacks[0])
    mip = project(volume, method="mip").data
    try:
        if known == "points":
            flat = project(volume, points=Points([], [], []))
        else:
            flat = project(volume, nuclei_table=NucleusTable.empty())
    except NucleoscopeError as error:
        assert "\n" not in str(error)
    else:
        assert (flat.data <= mip).all()


def test_ranges_are_the_slices_from_first_to_last() -> None:
    frame = pd.DataFrame(
        {"id": [1, 2], "z": [1.0, 3.0], "y": [5.0, 5.0], "x": [4.0, 25.0], "z_min": [0, 3],
         "z_max": [2, 3]}
    )  # fmt: skip
    volume = Volume(np.zeros((1, 5, 10, 30), np.uint8), ("DAPI",))
    cells, ranges = ranges_of(NucleusTable(frame), volume)
    assert ranges.astype(int).tolist() == [[1, 1, 1, 0, 0], [0, 0, 0, 1, 0]]
    x = np.indices((10, 30))[1]
    nearest = np.where((x - 4) ** 2 <= (x - 25) ** 2, 1, 2)
    assert np.array_equal(cells, nearest)


def test_an_asked_scale_is_used(stacks: list[Path], points: Path) -> None:
    volume = replace(read_volume(stacks[0]), spacing=None)
    one = project(volume, points=points, spacing=(2.0, 0.5, 0.5))
    assert np.array_equal(one.data, project(stacks[0], points=points).data)
