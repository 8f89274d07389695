"""A stack checks itself once, at birth."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError

DATA = np.zeros((2, 3, 4, 5), np.uint8)


def test_shape_is_slices_rows_columns() -> None:
    assert Volume(DATA, ("a", "b")).shape == (3, 4, 5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_four_kinds_of_pixels_are_taken(dtype: type) -> None:
    assert Volume(DATA.astype(dtype), ("a", "b")).data.dtype == dtype


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint32, bool, np.complex64, np.float16])
def test_other_pixels_are_refused(dtype: type) -> None:
    with pytest.raises(InputError, match="pixels are"):
        Volume(DATA.astype(dtype), ("a", "b"))


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 5), (1, 1, 1, 1, 1)])
def test_other_axes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"\(C, Z, Y, X\)"):
        Volume(np.zeros(shape, np.uint8), ("a",))


@pytest.mark.parametrize("axis", range(4))
def test_an_empty_image_is_refused(axis: int) -> None:
    shape = [1, 2, 3, 4]
    shape[axis] = 0
    with pytest.raises(InputError, match="empty"):
        Volume(np.zeros(shape, np.uint8), ("a",) * shape[0])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_are_finite(value: float) -> None:
    data = DATA.astype(np.float32)
    data[1, 2, 3, 4] = value
    with pytest.raises(InputError, match="NaN or infinite"):
        Volume(data, ("a", "b"))


def test_channels_have_one_unique_name_each() -> None:
    with pytest.raises(InputError, match="1 channel names for 2 channels"):
        Volume(DATA, ("a",))
    with pytest.raises(InputError, match="repeat"):
        Volume(DATA, ("a", "a"))


def test_a_flat_image_has_one_slice_and_a_scale_is_plausible() -> None:
    with pytest.raises(InputError, match="one slice"):
        Volume(DATA, ("a", "b"), is_2d=True)
    with pytest.raises(InputError, match="spacing"):
        Volume(DATA, ("a", "b"), (1.0, 0.0, 1.0))


def test_a_channel_is_found_by_name_in_any_case_or_by_number() -> None:
    volume = Volume(DATA, ("LT", "DAPI"))
    assert [volume.channel_index(c) for c in ("dapi", "DAPI", 1, "1", "lt")] == [1, 1, 1, 1, 0]
    for wrong in ("CD31", 2, -1, "-1", "", "1.5"):
        with pytest.raises(CallError, match="it has 0 LT, 1 DAPI"):
            volume.channel_index(wrong)


def test_a_number_for_a_name_goes_to_the_name() -> None:
    assert Volume(DATA, ("1", "0")).channel_index("1") == 0


def test_selecting_keeps_the_rest() -> None:
    volume = Volume(DATA.copy(), ("a", "b"), (1.0, 0.5, 0.5), "x", notes=("n",))
    volume.data[1] = 7
    one = volume.select(["b"])
    assert (one.channels, one.spacing, one.name, one.notes) == (("b",), volume.spacing, "x", ("n",))
    assert (one.data == 7).all()
    assert volume.select([1, 0]).channels == ("b", "a")


def test_a_volume_is_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Volume(DATA, ("a", "b")).name = "y"  # type: ignore[misc]
