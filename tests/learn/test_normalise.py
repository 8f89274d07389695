"""One scale per stack and channel: noise stays dark, signal ends near one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.data.volume import Volume
from nucleoscope.learn.normalise import CEILING, NOISE_WIDTHS, levels, normalise


def volume(data: NDArray[np.generic], *, is_rgb: bool = False) -> Volume:
    names = ("red", "green", "blue") if is_rgb else tuple(f"c{i}" for i in range(len(data)))
    return Volume(data, names, is_rgb=is_rgb)


def noisy(seed: int = 0, n: int = 2) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    data = rng.poisson(12, (n, 4, 40, 40)).astype(float)
    data[:, 1:3, 8:20, 8:20] += 150
    return data.clip(0, 255).astype(np.uint8)


def test_signal_ends_at_one_and_ground_starts_at_nought() -> None:
    data = noisy()
    scaled = normalise(data, levels(volume(data)))
    assert np.percentile(scaled, 99.8) == pytest.approx(1, abs=0.05)
    assert np.median(scaled) < 0.4
    assert scaled.dtype == np.float32


def test_a_low_percentile_and_a_high_one_are_the_levels() -> None:
    data = noisy()
    found = levels(volume(data))
    for channel, (low, span) in zip(data, found, strict=True):
        sample = np.sort(channel[:, ::2, ::2].ravel())
        assert low == pytest.approx(np.percentile(sample, 1))
        assert low + span == pytest.approx(np.percentile(sample, 99.8))


def test_pure_noise_stays_dark() -> None:
    noise = np.random.default_rng(0).normal(100, 5, (1, 4, 64, 64)).astype(np.float32)
    scaled = normalise(noise, levels(volume(noise)))
    # Its top would be one if the range were stretched to it.
    assert np.percentile(scaled, 99.8) < 0.75
    assert levels(volume(noise))[0, 1] >= NOISE_WIDTHS * 4


@pytest.mark.parametrize("value", [0, 17, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64])
def test_a_constant_image_is_dark_and_finite(value: int, dtype: type) -> None:
    data = np.full((1, 2, 8, 8), value, dtype)
    scaled = normalise(data, levels(volume(data)))
    assert not scaled.any()


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 1, 1, 5), (1, 9, 1, 1)])
def test_tiny_images_have_levels(shape: tuple[int, ...]) -> None:
    data = np.arange(int(np.prod(shape)), dtype=np.uint8).reshape(shape)
    found = levels(volume(data))
    assert found.shape == (shape[0], 2)
    assert np.isfinite(found).all()
    assert (found[:, 1] > 0).all()


@settings(max_examples=20, deadline=None)
@given(gain=st.sampled_from([2, 16, 200]), offset=st.integers(0, 10_000))
def test_the_cameras_gain_and_offset_do_not_matter(gain: int, offset: int) -> None:
    data = noisy().astype(np.uint16)
    brighter = (data * gain + offset).astype(np.uint16)
    one = normalise(data, levels(volume(data)))
    other = normalise(brighter, levels(volume(brighter)))
    assert np.allclose(one, other, atol=1e-3)


def test_a_slice_is_scaled_with_its_stack_and_not_alone() -> None:
    data = noisy()
    whole = normalise(data, levels(volume(data)))
    part = normalise(data[:, :1], levels(volume(data)))
    assert np.array_equal(whole[:, :1], part)
    assert part.max() < 0.6  # an empty slice stays dark


def test_channels_do_not_touch_each_other() -> None:
    data = noisy()
    other = data.copy()
    other[1] = 0
    assert np.array_equal(levels(volume(data))[0], levels(volume(other))[0])


def test_outliers_are_cut_off() -> None:
    data = noisy().astype(np.uint16)
    data[0, 0, 0, 0] = 65535
    scaled = normalise(data, levels(volume(data)))
    assert scaled.max() == pytest.approx(np.sqrt(CEILING))


def test_values_below_the_ground_are_nought_not_nan() -> None:
    scaled = normalise(np.array([[-50.0, 0.0, 100.0]]), np.array([[10.0, 90.0]]))
    assert scaled.tolist() == [[0.0, 0.0, 1.0]]


def test_the_root_of_the_share() -> None:
    data = np.random.default_rng(0).integers(0, 256, (2, 1, 5, 5)).astype(np.uint8)
    level = np.array([[10.0, 100.0], [0.0, 50.0]])
    expected = [
        [min(max((float(v) - low) / span, 0), CEILING) ** 0.5 for v in channel.ravel()]
        for channel, (low, span) in zip(data, level, strict=True)
    ]
    assert np.allclose(normalise(data, level).reshape(2, -1), expected, atol=1e-6)


def test_colours_are_taken_as_they_are() -> None:
    dim = np.full((3, 1, 6, 6), 51, np.uint8)
    dim[:, 0, 0, 0] = [60, 10, 5]
    assert levels(volume(dim, is_rgb=True)).tolist() == [[0.0, 255.0]] * 3
    scaled = normalise(dim, levels(volume(dim, is_rgb=True)))
    assert scaled[0, 0, 1, 1] == pytest.approx(np.sqrt(0.2))


def test_colours_of_another_depth_end_at_their_maximum() -> None:
    deep = np.zeros((3, 1, 2, 2), np.uint16)
    deep[0, 0, 0, 0] = 4095
    assert levels(volume(deep, is_rgb=True))[:, 1].tolist() == [4095.0] * 3
    black = np.zeros((3, 1, 2, 2), np.uint16)
    assert (levels(volume(black, is_rgb=True))[:, 1] > 0).all()
