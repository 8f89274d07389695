"""Clicks check themselves once, at birth."""

from __future__ import annotations

import numpy as np
import pytest

from nucleoscope.data.points import Points
from nucleoscope.errors import InputError


def test_defaults_are_untyped_and_numbered_from_one() -> None:
    points = Points([0, 1], [2, 3], [4, 5])
    assert points.types.tolist() == ["", ""]
    assert points.ids.tolist() == [1, 2]
    assert points.zyx().tolist() == [[0, 2, 4], [1, 3, 5]]


def test_no_points_are_points() -> None:
    nobody = Points([], [], [])
    assert len(nobody) == 0
    assert nobody.zyx().shape == (0, 3)
    assert nobody.check_inside((1, 1, 1)) is nobody


@pytest.mark.parametrize("axis", ["z", "y", "x"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_coordinate_that_is_not_finite_names_row_and_axis(axis: str, value: float) -> None:
    given = {"z": [0.0, 0.0], "y": [1.0, 1.0], "x": [2.0, 2.0]}
    given[axis][1] = value
    with pytest.raises(InputError, match=f"row 2, {axis} is not"):
        Points(**given)


def test_lengths_that_differ_and_ids_that_repeat_are_refused() -> None:
    with pytest.raises(InputError, match="values of x"):
        Points([0, 0], [1, 1], [2])
    with pytest.raises(InputError, match="values of type"):
        Points([0, 0], [1, 1], [2, 2], type=["a"])
    with pytest.raises(InputError, match="repeat"):
        Points([0, 0], [1, 1], [2, 2], id=[4, 4])


def test_a_choice_keeps_ids_and_types() -> None:
    points = Points([0, 1, 2], [0, 1, 2], [0, 1, 2], ["a", "b", "c"], [7, 8, 9], "p")
    some = points.where(np.array([True, False, True]))
    assert (some.ids.tolist(), some.types.tolist(), some.name) == ([7, 9], ["a", "c"], "p")


@pytest.mark.parametrize("zyx", [(0, -0.5, -0.5), (2.5, 9.5, 19.5), (1, 5, 5)])
def test_a_point_on_the_image_is_inside(zyx: tuple[float, float, float]) -> None:
    z, y, x = zyx
    assert len(Points([z], [y], [x]).check_inside((3, 10, 20))) == 1


@pytest.mark.parametrize("zyx", [(-1, 5, 5), (3, 5, 5), (1, 10.6, 5), (1, 5, -1.6)])
def test_a_point_outside_is_named(zyx: tuple[float, float, float]) -> None:
    z, y, x = zyx
    points = Points([1, z], [1, y], [1, x], name="a.csv")
    with pytest.raises(InputError, match=r"a\.csv: 1 of 2 points lie outside .*row 2"):
        points.check_inside((3, 10, 20))


def test_a_swap_is_suspected_only_where_it_would_help() -> None:
    with pytest.raises(InputError, match="swapped"):
        Points([0, 0], [15, 3], [5, 4]).check_inside((1, 10, 20))
    with pytest.raises(InputError, match="belongs to this image"):
        Points([0, 0], [15, 300], [5, 4]).check_inside((1, 10, 20))


def test_the_frame_has_the_columns_of_the_contract() -> None:
    assert Points([0], [1], [2]).to_frame().columns.tolist() == ["id", "z", "y", "x", "type"]


def test_a_point_within_a_pixel_of_the_border_is_moved_onto_it() -> None:
    points = Points([1, 1], [9.8, 3], [4, -1.4], ["a", "b"], [7, 8]).check_inside((3, 10, 20))
    assert points.zyx().tolist() == [[1, 9.5, 4], [1, 3, -0.5]]
    assert points.ids.tolist() == [7, 8]
    with pytest.raises(InputError, match="1 of 2 points lie outside"):
        Points([1, 1], [10.6, 3], [4, 4]).check_inside((3, 10, 20))
    with pytest.raises(InputError, match="1 of 1 points lie outside"):
        Points([2.6], [5], [4]).check_inside((3, 10, 20))
