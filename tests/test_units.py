"""Pixels and micrometres."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.errors import CallError, InputError
from nucleoscope.units import PLAUSIBLE_UM, check_spacing, parse_length, z_step_px

PLAUSIBLE = st.floats(*PLAUSIBLE_UM)


@given(z=PLAUSIBLE, y=PLAUSIBLE, x=PLAUSIBLE)
def test_a_plausible_spacing_is_kept(z: float, y: float, x: float) -> None:
    assert check_spacing((z, y, x)) == (z, y, x)


def test_an_unknown_spacing_stays_unknown() -> None:
    assert check_spacing(None) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("value", [0.0, -1.0, 0.01, 1000.0, math.nan, math.inf])
def test_an_implausible_spacing_names_the_axis(axis: int, value: float) -> None:
    spacing = [1.0, 0.5, 0.5]
    spacing[axis] = value
    with pytest.raises(InputError, match=f"a {'zyx'[axis]} spacing .* --spacing"):
        check_spacing((spacing[0], spacing[1], spacing[2]))


@pytest.mark.parametrize("spacing", [(1.0,), (1.0, 2.0), (1.0, 1.0, 1.0, 1.0), ()])
def test_a_spacing_is_three_numbers(spacing: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="three numbers"):
        check_spacing(spacing)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15px", (15.0, "px")), ("4.5um", (4.5, "um")), ("12", (12.0, "px")),
        (" 4.5 UM ", (4.5, "um")), ("3µm", (3.0, "um")), ("3μm", (3.0, "um")),
        ("1e1px", (10.0, "px")),
    ],
)  # fmt: skip
def test_lengths_are_read_with_their_unit(text: str, expected: tuple[float, str]) -> None:
    assert parse_length(text) == expected


@pytest.mark.parametrize("text", ["", "px", "um", "far", "4,5um", "5mm", "0", "-2", "nan", "inf"])
def test_what_is_no_length_is_refused(text: str) -> None:
    with pytest.raises(CallError, match="length"):
        parse_length(text)


@given(dz=PLAUSIBLE, dxy=PLAUSIBLE)
def test_a_slice_step_in_pixels_is_the_ratio(dz: float, dxy: float) -> None:
    assert z_step_px((dz, dxy, dxy), fallback=11.0) == pytest.approx(dz / dxy)


def test_an_unknown_slice_step_is_the_fallback() -> None:
    assert z_step_px(None, fallback=11.0) == 11.0
    assert z_step_px((2.0, 0.25, 1.0), fallback=11.0) == 4.0
