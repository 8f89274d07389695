"""Drawing nuclei: the rim rule against a slow loop, colours, contrast, encoding."""

from __future__ import annotations

import base64

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nucleoscope.data import Points
from nucleoscope.errors import CallError
from nucleoscope.view import overlay as drawing

LABELS = hnp.arrays(np.int32, (3, 7, 6), elements=st.integers(0, 4))


def slow_rims(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    """The rule of ``rims``, word for word."""
    depth, height, width = labels.shape
    out = np.zeros((height, width), np.int32)
    for y in range(height):
        for x in range(width):
            for z in range(depth):
                nucleus = labels[z, y, x]
                around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                inside = [(a, b) for a, b in around if 0 <= a < height and 0 <= b < width]
                if nucleus and any(nucleus not in labels[:, a, b] for a, b in inside):
                    out[y, x] = nucleus
                    break
    return out


@given(LABELS)
@settings(max_examples=60, deadline=None)
def test_rims_follow_their_rule(labels: NDArray[np.int32]) -> None:
    assert np.array_equal(drawing.rims(labels), slow_rims(labels))


@given(LABELS)
@settings(max_examples=30, deadline=None)
def test_a_rim_lies_on_its_nucleus(labels: NDArray[np.int32]) -> None:
    rim = drawing.rims(labels)
    y, x = np.nonzero(rim)
    assert all(rim[a, b] in labels[:, a, b] for a, b in zip(y, x, strict=True))


def test_overlapping_nuclei_both_keep_their_rim_on_a_projection() -> None:
    labels = np.zeros((2, 9, 12), np.int32)
    labels[0, 2:7, 1:7] = 1
    labels[1, 2:7, 4:11] = 2
    assert set(np.unique(drawing.rims(labels))) == {0, 1, 2}
    assert drawing.rims(labels)[4, 4] == 2, "the lower nucleus's edge shows inside the upper one"


@pytest.mark.parametrize("free", [np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]])
def test_a_nucleus_that_fills_all_but_one_side_has_one_straight_rim(free: object) -> None:
    labels = np.ones((1, 5, 6), np.int32)
    labels[0][free] = 0  # type: ignore[index]
    assert np.array_equal(drawing.rims(labels), slow_rims(labels))
    assert drawing.rims(labels).any()


def test_no_nucleus_has_no_rim() -> None:
    assert not drawing.rims(np.zeros((0, 4, 5), np.int32)).any()
    assert drawing.rims(np.zeros((4, 5), np.int32)).shape == (4, 5)


def test_a_nucleus_that_fills_the_image_has_no_rim() -> None:
    assert not drawing.rims(np.ones((5, 5), np.int32)).any()


def test_colours_do_not_depend_on_the_order_of_types() -> None:
    types = ["stroma", "positive", "", "epithelial", "negative"]
    assert drawing.type_colours(types) == drawing.type_colours(types[::-1])


def test_positive_and_negative_keep_their_colours_in_any_company() -> None:
    alone = drawing.type_colours(["positive"])["positive"]
    assert drawing.type_colours(["a", "b", "positive", "z"])["positive"] == alone


def test_many_types_all_get_a_colour() -> None:
    colours = drawing.type_colours([f"type {i}" for i in range(30)])
    assert len(colours) == 30
    assert all(len(drawing.rgb(c)) == 3 for c in colours.values())


@pytest.mark.parametrize("colour", ["red", "#12345", "#12345g", "", "123456#"])
def test_a_colour_that_is_none_is_refused(colour: str) -> None:
    with pytest.raises(CallError, match="#RRGGBB"):
        drawing.rgb(colour)


@pytest.mark.parametrize("name", ["DAPI", "dapi", "Hoechst 33342", "DRAQ5"])
def test_a_usual_nuclear_stain_is_recognised(name: str) -> None:
    assert drawing.channel_tints(["CD3", name, "CD8"]).index(drawing.TINTS[0]) == 1


def test_the_nuclear_stain_can_be_named() -> None:
    assert drawing.channel_tints(["a", "b"], nuclei="B")[1] == drawing.TINTS[0]


def test_markers_get_different_tints() -> None:
    assert len(set(drawing.channel_tints(["DAPI", "a", "b", "c", "d"]))) == 5


@given(hnp.arrays(np.uint16, (6, 6)))
@settings(max_examples=40, deadline=None)
def test_stretch_keeps_order(channel: NDArray[np.uint16]) -> None:
    grey = drawing.stretch(channel).ravel()[np.argsort(channel, axis=None)]
    assert (np.diff(grey.astype(int)) >= 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_stretch_does_not_depend_on_unit(dtype: type) -> None:
    ramp = np.arange(200).reshape(10, 20)
    assert np.array_equal(drawing.stretch(ramp.astype(dtype)), drawing.stretch(ramp))


def test_a_constant_channel_is_black() -> None:
    assert not drawing.stretch(np.full((4, 4), 17, np.uint8)).any()


def test_a_few_bright_pixels_in_the_dark_stay_visible() -> None:
    channel = np.zeros((100, 100), np.uint8)
    channel[5, 5] = 40
    assert drawing.stretch(channel).max() == 255


def test_percentiles_must_rise() -> None:
    with pytest.raises(CallError, match="percentiles"):
        drawing.stretch(np.zeros(3), low=60, high=40)


def test_each_slice_of_a_stack_is_drawn_with_its_own_nuclei() -> None:
    labels = np.zeros((2, 8, 8), np.int32)
    labels[1, 2:6, 2:6] = 3
    out = drawing.overlay(np.zeros((1, 2, 8, 8), np.uint8), labels, {3: "negative"})
    assert out.shape == (2, 8, 8, 3)
    assert not out[0].any()
    assert tuple(out[1, 2, 2]) == drawing.rgb(drawing.FIXED["negative"])


def test_a_nucleus_without_a_type_is_drawn_as_untyped() -> None:
    labels = np.zeros((8, 8), np.int32)
    labels[2:6, 2:6] = 3
    out = drawing.overlay(np.zeros((2, 8, 8), np.uint8), labels)
    assert tuple(out[2, 2]) == drawing.rgb(drawing.FIXED[""])


def test_a_point_at_the_corner_is_clipped() -> None:
    points = Points([0.0, 1.0], [0.0, 7.4], [0.0, 7.4], ["positive", "positive"])
    out = drawing.overlay(np.zeros((1, 2, 8, 8), np.uint8), points=points)
    colour = drawing.rgb(drawing.FIXED["positive"])
    assert tuple(out[0, 0, 0]) == colour
    assert tuple(out[1, 7, 7]) == colour
    assert not out[0, 4:, 4:].any(), "a click is drawn in its own slice only"


def test_the_bar_has_the_length_it_says() -> None:
    out = drawing.overlay(np.zeros((1, 100, 200), np.uint8), bar_mpp=0.5)
    rows = (out == 255).all(axis=-1)
    assert rows.any(axis=0).sum() == drawing.nice_length(100.0) / 0.5


@given(st.floats(1e-3, 1e6))
def test_a_nice_length_is_at_most_a_fifth_and_at_least_a_twelfth(width: float) -> None:
    length = drawing.nice_length(width)
    assert width / 12.6 <= length <= width / 5 * (1 + 1e-6)


@pytest.mark.parametrize(
    ("image", "labels"),
    [((4, 4), None), ((1, 4, 4), (5, 4)), ((1, 2, 4, 4), (4, 4)), ((1, 0, 4), None)],
)
def test_shapes_that_do_not_belong_together_are_refused(
    image: tuple[int, ...], labels: tuple[int, ...] | None
) -> None:
    with pytest.raises(CallError, match=r"found|fit"):
        drawing.overlay(
            np.zeros(image, np.uint8), None if labels is None else np.zeros(labels, np.int32)
        )


def test_png_round_trips() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 4), dtype=np.uint8)
    assert np.array_equal(imagecodecs.png_decode(drawing.encode_png(picture)), picture)


def test_a_jpeg_is_called_one() -> None:
    uri = drawing.data_uri(drawing.encode_jpeg(np.zeros((8, 8), np.uint8)))
    head, _, body = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    assert imagecodecs.jpeg_decode(base64.b64decode(body)).shape == (8, 8)
