"""Arrays in memory where a Volume is wanted: with names they are taken, without they are asked."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nucleoscope.data.volume import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.io.images import as_volume

DATA = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)


class Lazy:
    """What a dask array is to us: something that becomes numpy when asked."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return DATA


def labelled(**coords: Any) -> Any:
    """What an xarray is to us."""
    return SimpleNamespace(data=DATA, dims=("c", "z", "y", "x"), coords=coords, dtype=DATA.dtype,
                           attrs={})  # fmt: skip


def test_a_lazy_array_is_computed() -> None:
    assert (as_volume(Lazy(), axes="CZYX").data == DATA).all()


def test_an_array_with_names_needs_no_axes() -> None:
    volume = as_volume(labelled(c=np.array(["DAPI", "LT"])))
    assert (volume.data == DATA).all()
    assert volume.channels == ("DAPI", "LT")
    assert volume.spacing is None
    assert as_volume(labelled(), channels=["a", "b"]).channels == ("a", "b")


def test_an_array_without_names_is_asked_for_them() -> None:
    with pytest.raises(CallError, match=r"2 x 3 x 4 x 5 does not name its axes; say axes="):
        as_volume(DATA)


def test_a_scale_to_um_is_taken_and_a_given_one_wins() -> None:
    array = labelled()
    scale = SimpleNamespace(axes=("z", "y", "x"), scale=np.array([2.0, 0.5, 0.5]))
    array.attrs = {"transform": {"global": object(), "um": scale}}
    assert as_volume(array).spacing == (2.0, 0.5, 0.5)
    assert as_volume(array, spacing=(1.0, 1.0, 1.0)).spacing == (1.0, 1.0, 1.0)


def test_the_only_image_of_several_scales_is_found() -> None:
    tree = SimpleNamespace(children={"scale0": None, "scale1": None})
    level = SimpleNamespace(data_vars={"image": labelled(c=["a", "b"])})

    class Tree(SimpleNamespace):
        def __getitem__(self, key: str) -> Any:
            return level

    data = SimpleNamespace(images={"one": Tree(children=tree.children)})
    assert as_volume(data).channels == ("a", "b")
    with pytest.raises(CallError, match="the images one, two; give one"):
        as_volume(SimpleNamespace(images={"one": 1, "two": 2}))


def test_axes_that_are_none_of_ours_and_time_are_refused() -> None:
    array = labelled()
    array.dims = ("q", "z", "y", "x")
    with pytest.raises(CallError, match="axes q, z, y, x"):
        as_volume(array)
    array.dims = ("t", "z", "y", "x")
    with pytest.raises(InputError, match="2 time points"):
        as_volume(array)


def test_a_volume_is_given_back() -> None:
    volume = Volume(DATA, ("a", "b"))
    assert as_volume(volume) is volume
