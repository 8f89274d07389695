"""Polygons with holes, by one rule for points and for pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.data.region import Region
from nucleoscope.errors import InputError

CORNER = st.tuples(st.floats(-5, 25), st.floats(-5, 30))


@settings(max_examples=60, deadline=None)
@given(rings=st.lists(st.lists(CORNER, min_size=3, max_size=7), min_size=1, max_size=3))
def test_the_mask_holds_the_pixels_whose_centre_is_inside(
    rings: list[list[tuple[float, float]]],
) -> None:
    region = Region(tuple(np.array(ring) for ring in rings))
    y, x = np.indices((20, 25))
    expected = region.contains(y.ravel().astype(float), x.ravel().astype(float)).reshape(20, 25)
    assert np.array_equal(region.mask((20, 25)), expected)


def test_a_ring_in_a_ring_is_a_hole() -> None:
    outer, inner = ([[0, 0], [0, 10], [10, 10], [10, 0]], [[3, 3], [3, 7], [7, 7], [7, 3]])
    region = Region((outer, inner))
    assert region.contains([1.0, 5.0, 12.0], [1.0, 5.0, 5.0]).tolist() == [True, False, False]
    assert region.mask((12, 12)).sum() == 100 - 16


def test_turning_and_closing_a_ring_change_nothing() -> None:
    ring = np.array([[1.0, 1.0], [2.0, 9.0], [8.0, 6.0]])
    mask = Region((ring,)).mask((10, 10))
    for other in (ring[::-1], np.roll(ring, 1, axis=0), np.vstack([ring, ring[:1]])):
        assert np.array_equal(Region((other,)).mask((10, 10)), mask)


def test_neighbours_share_no_pixel_and_leave_none_out() -> None:
    left = Region(([[-1, -1], [-1, 4.5], [20, 4.5], [20, -1]],)).mask((10, 10))
    right = Region(([[-1, 4.5], [-1, 20], [20, 20], [20, 4.5]],)).mask((10, 10))
    assert (left ^ right).all()


@pytest.mark.parametrize(
    ("rings", "match"),
    [
        ((), "no polygon"),
        (([[0, 0], [1, 1]],), "three"),
        (([0, 1, 2],), "three"),
        (([[0, 0], [0, np.nan], [1, 1]],), "not finite"),
    ],
)
def test_what_is_no_polygon_is_refused(rings: tuple[list[float], ...], match: str) -> None:
    with pytest.raises(InputError, match=match):
        Region(rings, "a.roi")  # type: ignore[arg-type]


def test_nothing_lies_in_a_region_elsewhere() -> None:
    assert not Region(([[50, 50], [50, 60], [60, 60]],)).mask((20, 20)).any()
