"""Tiles, outlines and rows of one image."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.data.labels import Labels
from nucleoscope.data.table import NucleusTable
from nucleoscope.data.volume import Volume
from nucleoscope.errors import InputError
from nucleoscope.view import scene as scene_module
from nucleoscope.view.scene import Scene, columns_of, tile_of


def stack() -> Scene:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 4000, (2, 3, 40, 50)).astype(np.uint16)
    labels = np.zeros((3, 40, 50), np.int32)
    labels[0, 4:9, 5:11] = 3
    labels[1, 5:8, 6:9] = 3
    labels[2, 6:12, 6:9] = 8
    table = NucleusTable(
        pd.DataFrame(
            {"id": [3, 8], "z": [0.3, 2.0], "y": [6.0, 9.0], "x": [7.5, 7.0],
             "type": ["positive", "<b>"], "score": [0.5, np.nan]}
        )
    )  # fmt: skip
    return Scene(Volume(data, ("DAPI", "LT"), (1.0, 0.5, 0.5), "a"), Labels(labels), table)


def decoded(png: bytes) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = imagecodecs.png_decode(png)
    return found


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(0, 3), st.integers(0, 2**16),
)  # fmt: skip
def test_tiles_put_together_are_the_plane(height: int, width: int, level: int, seed: int) -> None:
    plane = np.random.default_rng(seed).integers(0, 255, (height, width)).astype(np.uint8)
    step, tile = 2**level, 8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_module, "TILE", tile)
        rows = [
            np.hstack([tile_of(plane, level, r, c) for c in range(-(-width // (tile * step)))])
            for r in range(-(-height // (tile * step)))
        ]
    found = np.vstack(rows)
    assert found.shape == (-(-height // step), -(-width // step))
    whole = found[: height // step, : width // step]
    slow = [
        [plane[y * step : (y + 1) * step, x * step : (x + 1) * step].mean(dtype=np.float64)
         for x in range(whole.shape[1])] for y in range(whole.shape[0])
    ]  # fmt: skip
    assert np.allclose(whole, np.reshape(slow, whole.shape), atol=1e-3)


@pytest.mark.parametrize("at", [(-1, 0, 0), (0, 5, 0), (0, 0, 1), (0, -1, 0), (99, 0, 0)])
def test_a_tile_that_is_not_there_is_refused(at: tuple[int, int, int]) -> None:
    with pytest.raises(InputError, match="no tile"):
        tile_of(np.zeros((40, 50)), *at)


def test_a_tile_is_grey_between_its_limits() -> None:
    shown = stack()
    grey = decoded(shown.tile(1, 2, 0, 0, 0, low=1000, high=3000))
    expected = np.clip((shown.volume.data[1, 2].astype(float) - 1000) / 2000 * 255, 0, 255)
    assert np.abs(grey.astype(float) - expected).max() <= 0.51


def test_the_maximum_over_slices_is_the_stack_s() -> None:
    shown = stack()
    grey = decoded(shown.tile(0, -1, 0, 0, 0, low=0, high=4000))
    expected = shown.volume.data[0].max(axis=0) / 4000 * 255
    assert np.abs(grey - expected).max() <= 0.51


def test_a_colour_image_stays_as_it_is() -> None:
    data = np.random.default_rng(1).integers(0, 255, (3, 1, 20, 30)).astype(np.uint8)
    shown = Scene(Volume(data, ("red", "green", "blue"), name="a", is_rgb=True))
    picture = decoded(shown.tile(0, 0, 0, 0, 0))
    assert (np.moveaxis(picture, -1, 0) == data[:, 0]).all()
    assert shown.describe()["channels"] == []


@pytest.mark.parametrize(("channel", "z"), [(2, 0), (-1, 0), (0, 3), (0, -2)])
def test_a_channel_or_slice_that_is_not_there_is_refused(channel: int, z: int) -> None:
    with pytest.raises(InputError, match="no slice"):
        stack().tile(channel, z, 0, 0, 0)


def test_outlines_of_a_slice_enclose_its_nuclei() -> None:
    shown = stack().outlines(0)
    assert shown["ids"] == [3]
    xy = np.array(shown["xy"]).reshape(-1, 2) / 2
    assert xy.min(axis=0).tolist() == [4.5, 3.5]
    assert xy.max(axis=0).tolist() == [10.5, 8.5]


def test_outlines_of_all_slices_hold_every_nucleus_once_where_it_is_largest() -> None:
    shown = stack().outlines(-1)
    assert shown["ids"] == [3, 8]
    first = np.array(shown["xy"]).reshape(-1, 2)[: shown["offsets"][1]] / 2
    assert first.max(axis=0).tolist() == [10.5, 8.5]


def test_an_image_without_nuclei_has_no_outline() -> None:
    shown = Scene(stack().volume)
    assert shown.outlines(0)["ids"] == []
    assert shown.nucleus_at(0, 5, 6) == 0
    assert shown.rows() == []
    with pytest.raises(InputError):
        stack().outlines(3)


@pytest.mark.parametrize(
    ("place", "expected"),
    [((0, 5, 6), 3), ((1, 4, 6), 0), ((2, 7, 7), 8), ((-1, 6, 7.6), 3), ((-1, 7.4, 7), 3),
     ((-1, 11, 7), 8), ((0, -3, 6), 0), ((0, 5, 900), 0)],
)  # fmt: skip
def test_the_nucleus_at_a_place(place: tuple[int, float, float], expected: int) -> None:
    assert stack().nucleus_at(*place) == expected


def test_rows_hold_plain_values_only() -> None:
    columns = {c["name"]: c for c in stack().rows()}
    assert columns["score"]["values"] == [0.5, None]
    assert columns["type"] == {"name": "type", "is_number": False, "values": ["positive", "<b>"]}
    assert "image" not in columns


def test_direction_characters_are_spelt_out() -> None:
    frame = pd.DataFrame({"type": ["a" + chr(0x202E) + "b"]})
    assert columns_of(frame)[0]["values"] == ["a\\u202eb"]


def test_a_flat_channel_has_limits_that_can_be_moved() -> None:
    flat = Scene(Volume(np.zeros((1, 1, 4, 4), np.uint8), ("a",)))
    channel = flat.describe()["channels"][0]
    assert channel["min"] <= channel["low"] < channel["high"] <= channel["max"]
    assert decoded(flat.tile(0, 0, 0, 0, 0, low=0, high=0)).max() == 0
