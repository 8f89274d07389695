"""Slides: regions, mirrors, scales."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.data import resample as resampling
from nucleoscope.data.resample import gathered, mirrored, resample
from nucleoscope.data.slide import Box, Slide, check_mpp
from nucleoscope.errors import CallError, InputError


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def area_average(image: NDArray[np.uint8], h: int, w: int) -> NDArray[np.float64]:
    """Slow oracle: what of every source pixel each output pixel covers."""
    height, width, depth = image.shape
    sy, sx = height / h, width / w
    out = np.zeros((h, w, depth))
    for i in range(h):
        for j in range(w):
            for y in range(math.floor(i * sy), min(height, math.ceil((i + 1) * sy))):
                for x in range(math.floor(j * sx), min(width, math.ceil((j + 1) * sx))):
                    cover_y = min(y + 1, (i + 1) * sy) - max(y, i * sy)
                    cover_x = min(x + 1, (j + 1) * sx) - max(x, j * sx)
                    out[i, j] += cover_y * cover_x * image[y, x] / (sy * sx)
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 17), st.integers(1, 17), st.data())
def test_shrinking_averages_by_area(height: int, width: int, data: st.DataObject) -> None:
    h = data.draw(st.integers(1, height))
    w = data.draw(st.integers(1, width))
    image = picture(height, width)
    found = resample(image, (h, w)).astype(float)
    assert np.abs(found - area_average(image, h, w)).max() <= 0.51


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 12), st.integers(2, 5))
def test_growing_is_linear_between_centres(size: int, times: int) -> None:
    image = np.repeat(picture(size, 1)[:, :, :1], 3, axis=1)
    found = resample(image, (size * times, 3))[:, 1, 0].astype(float)
    centres = (np.arange(size * times) + 0.5) / times - 0.5
    assert np.abs(found - np.interp(centres, np.arange(size), image[:, 0, 0])).max() <= 0.51


def test_the_same_size_changes_nothing_and_copies_nothing() -> None:
    image = picture(9, 7)
    assert resample(image, (9, 7)) is image


@settings(deadline=None)
@given(st.integers(-40, 40), st.integers(0, 30), st.integers(1, 9))
def test_mirrors_equal_numpy_symmetric_padding(start: int, length: int, size: int) -> None:
    line = np.arange(size)
    padded = np.pad(line, 100, mode="symmetric")
    expected = padded[100 + start : 100 + start + length]
    assert mirrored(start, start + length, size).tolist() == expected.tolist()


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.tuples(*[st.integers(-20, 20)] * 2),
    st.tuples(*[st.integers(1, 25)] * 2),
)  # fmt: skip
def test_a_region_is_the_mirrored_image_cut(
    height: int, width: int, at: tuple[int, int], size: tuple[int, int]
) -> None:
    image = picture(height, width)
    padded = np.pad(image, ((60, 60), (60, 60), (0, 0)), mode="symmetric")
    box = (at[0], at[1], at[0] + size[0], at[1] + size[1])
    expected = padded[60 + box[0] : 60 + box[2], 60 + box[1] : 60 + box[3]]
    assert np.array_equal(Slide.from_array(image).read(box), expected)


def pyramid(
    image: NDArray[np.uint8], steps: tuple[int, ...], mpp: float
) -> tuple[Slide, list[int]]:
    """A slide whose levels are exact averages, and the levels that were read."""
    used: list[int] = []
    height, width = image.shape[:2]
    levels = [resample(image, (height // s, width // s)) for s in steps]

    def reader(level: int, box: Box) -> NDArray[np.uint8]:
        used.append(level)
        y0, x0, y1, x1 = box
        assert 0 <= y0 < y1 <= levels[level].shape[0]
        assert 0 <= x0 < x1 <= levels[level].shape[1]
        return levels[level][y0:y1, x0:x1]

    shapes = tuple(level.shape[:2] for level in levels)
    return Slide("p", shapes, mpp, reader), used


def test_the_coarsest_level_that_is_fine_enough_is_read() -> None:
    slide, used = pyramid(picture(256, 256), (1, 4, 16), 0.25)
    for wanted, level in ((0.25, 0), (0.5, 0), (1.0, 1), (3.5, 1), (3.7, 2), (4.0, 2), (0.1, 0)):
        slide.read((0, 0, 128, 128), mpp=wanted)
        assert used[-1] == level, wanted


def test_a_level_of_the_wanted_scale_is_read_as_it_is() -> None:
    image = picture(256, 256)
    slide, _ = pyramid(image, (1, 4), 0.25)
    expected = resample(image, (64, 64))[4:20, 8:24]
    assert np.array_equal(slide.read((16, 32, 80, 96), mpp=1.0), expected)


def test_a_pyramid_gives_nearly_what_its_first_level_gives() -> None:
    rng = np.random.default_rng(1)
    smooth = resample(rng.integers(0, 256, (6, 6, 3)).astype(np.uint8), (256, 256))
    with_levels, _ = pyramid(smooth, (1, 4), 0.25)
    alone = Slide.from_array(smooth, mpp=0.25)
    box = (10, 20, 210, 180)
    for mpp in (1.0, 1.3, 2.7):
        one, other = (s.read(box, mpp=mpp).astype(int) for s in (with_levels, alone))
        assert one.shape == other.shape
        assert np.abs(one - other).max() <= 8
        assert np.abs(one - other).mean() <= 1


def test_the_scale_of_what_is_read_is_the_one_asked_for() -> None:
    slide = Slide.from_array(picture(300, 200), mpp=0.499)
    assert slide.read((0, 0, 100, 200), mpp=0.25).shape == (200, 399, 3)
    assert slide.read((0, 0, 1, 1), mpp=50.0).shape == (1, 1, 3)


def test_a_flat_slide_stays_flat_at_every_scale_and_beyond_its_border() -> None:
    slide = Slide.from_array(np.full((31, 17, 3), 201, np.uint8), mpp=0.3)
    for mpp in (0.1, 0.25, 0.3, 0.7, 5.0):
        assert (slide.read((-9, -30, 50, 60), mpp=mpp) == 201).all()


def test_an_unknown_scale_is_asked_for_by_name() -> None:
    slide = Slide.from_array(picture(4, 4), name="tumour")
    with pytest.raises(InputError, match=r"tumour: its pixel size is unknown.*--mpp"):
        slide.read((0, 0, 2, 2), mpp=0.25)
    assert slide.with_mpp(0.5).read((0, 0, 2, 2), mpp=0.5).shape == (2, 2, 3)


@pytest.mark.parametrize("mpp", [0.049, 51.0, float("nan"), float("inf"), -0.25, 0.0])
def test_an_absurd_scale_is_refused(mpp: float) -> None:
    with pytest.raises(InputError, match="--mpp"):
        Slide.from_array(picture(4, 4), mpp=mpp)
    with pytest.raises(InputError):
        check_mpp(mpp, "here")


def test_impossible_slides_and_boxes_are_refused() -> None:
    slide = Slide.from_array(picture(4, 4), mpp=0.25)
    with pytest.raises(CallError, match="empty"):
        slide.read((2, 2, 2, 4))
    with pytest.raises(InputError, match="uint8"):
        Slide.from_array(np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match="uint8"):
        Slide.from_array(np.zeros((4, 4, 3), np.uint16))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="smaller"):
        Slide("a", ((4, 4), (8, 8)), None, slide.reader)
    with pytest.raises(InputError, match="empty"):
        Slide("a", ((0, 4),), None, slide.reader)
    with pytest.raises(InputError, match="empty"):
        Slide("a", (), None, slide.reader)


def test_levels_say_how_much_smaller_they_are() -> None:
    slide = Slide("a", ((1000, 2000), (250, 500)), 0.25, Slide.from_array(picture(2, 2)).reader)
    assert slide.levels == (1.0, 4.0)
    assert slide.shape == (1000, 2000)


@settings(max_examples=60)
@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(-15, 15), st.integers(-15, 15),
    st.integers(0, 20), st.integers(0, 20),
)  # fmt: skip
def test_gathering_is_indexing(
    height: int, width: int, top: int, left: int, down: int, right: int
) -> None:
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    rows, columns = mirrored(top, top + down, height), mirrored(left, left + right, width)
    found = gathered(image, rows, columns)
    assert np.array_equal(found, image[rows[:, None], columns[None, :]])


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 20), st.integers(0, 20))
def test_growing_is_the_same_with_and_without_loops_over_taps(
    height: int, width: int, more: int, wider: int
) -> None:
    rng = np.random.default_rng(height * width)
    image = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    rows, wy = resampling._weights(height, 0.0, height / (height + more), height + more)
    columns, wx = resampling._weights(width, 0.0, width / (width + wider), width + wider)
    out = [np.empty((len(rows), len(columns), 3), np.uint8) for _ in range(2)]
    for weigh, into in zip((resampling._apply, resampling._apply_two), out, strict=True):
        weigh(image, rows, wy, columns, wx, into)
    assert np.array_equal(*out)
