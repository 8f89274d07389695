"""Instance maps, maps and tables check themselves once, at birth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.data import HoverMaps, Labels, NucleusTable, Projection, PseudoLabels, StackMaps
from nucleoscope.data.table import REQUIRED
from nucleoscope.errors import InputError


@given(values=st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_ids_are_the_values_there_but_nought(values: list[int]) -> None:
    labels = Labels(np.array(values)[None, None])
    assert labels.ids().tolist() == sorted(set(values) - {0})
    assert labels.data.dtype == np.int32


def test_a_flat_map_is_one_slice() -> None:
    assert Labels(np.ones((3, 4), np.uint8)).shape == (1, 3, 4)
    assert Labels(np.ones((3, 4), bool)).ids().tolist() == [1]


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (np.ones((2, 2)), "integers"),
        (np.ones(4, int), r"\(Z, Y, X\)"),
        (np.ones((1, 1, 1, 1), int), r"\(Z, Y, X\)"),
        (np.array([[-1]]), "negative"),
        (np.array([[2**31]]), "int32"),
    ],
)
def test_what_is_no_instance_map_is_refused(data: np.ndarray, match: str) -> None:
    with pytest.raises(InputError, match=match):
        Labels(data)


def frame(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"id": [1, 2], "y": [1.0, 2.0], "x": [3.0, 4.0]} | columns)


def test_a_table_fills_what_is_neutral_and_keeps_the_rest() -> None:
    table = NucleusTable(frame(f_area=[5, 6], LT_prob=[0.1, 0.9])).frame
    assert table.columns.tolist() == [*REQUIRED, "f_area", "LT_prob"]
    assert table["score"].tolist() == [1.0, 1.0]
    assert table["z"].isna().all()
    assert table["type"].tolist() == ["", ""]


def test_the_empty_table_is_well_typed() -> None:
    table = NucleusTable.empty().frame
    for column, dtype in REQUIRED.items():
        assert str(table[column].dtype) == ("object" if dtype == "str" else dtype)


@pytest.mark.parametrize("column", ["id", "y", "x"])
def test_a_table_without_a_column_is_refused(column: str) -> None:
    with pytest.raises(InputError, match=f"column '{column}'"):
        NucleusTable(frame().drop(columns=column))


def test_ids_repeat_between_images_but_not_within() -> None:
    with pytest.raises(InputError, match="repeat within"):
        NucleusTable(frame(id=[1, 1]))
    assert len(NucleusTable(frame(id=[1, 1], image=["a", "b"]))) == 2


def test_coordinates_are_finite() -> None:
    with pytest.raises(InputError, match="not finite"):
        NucleusTable(frame(y=[1.0, np.nan]))


def test_a_table_does_not_share_the_frame_it_was_given() -> None:
    given = frame()
    table = NucleusTable(given)
    given.loc[0, "y"] = 99.0
    assert table.frame["y"].tolist() == [1.0, 2.0]


def test_pseudo_labels_agree_in_shape() -> None:
    cells, stack = np.ones((4, 5), np.int32), np.zeros((3, 4, 5), np.int32)
    ranges, known = np.ones((1, 3), bool), np.zeros((3, 4, 5), np.uint8)
    assert PseudoLabels(cells, stack, known, ranges).n_fallback == 0
    for wrong in (
        (cells[:2], stack, known, ranges),
        (cells, stack, known[:2], ranges),
        (cells, stack, known, ranges[:, :2]),
        (cells, stack, known, ranges[0]),
    ):
        with pytest.raises(InputError):
            PseudoLabels(*wrong)


def test_maps_and_projections_agree_in_shape() -> None:
    plane = np.zeros((4, 5), np.float32)
    assert HoverMaps(plane, np.zeros((2, 4, 5), np.float32)).types is None
    with pytest.raises(InputError):
        HoverMaps(plane, np.zeros((3, 4, 5), np.float32))
    with pytest.raises(InputError):
        HoverMaps(plane, np.zeros((2, 4, 5), np.float32), np.zeros((3, 4, 4), np.float32))
    with pytest.raises(InputError):
        Projection(np.zeros((2, 4, 5)), ("a",), "mip")


def test_blank_maps_have_the_shapes_of_the_contract() -> None:
    maps = StackMaps.blank((2, 3, 4), 2, n_types=5)
    assert (maps.foreground.shape, maps.centre.shape) == ((2, 3, 4), (2, 3, 4))
    assert (maps.offsets.shape, maps.types.shape) == ((3, 2, 3, 4), (5, 2, 3, 4))
