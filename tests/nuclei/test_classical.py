"""The instant recipe's maps: isolated blobs are found, noise is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.nuclei.classical import classical_maps
from nucleoscope.nuclei.peaks import Peaks, PeakSettings, find_peaks, grow

RADIUS, SLICE_PX = 5.0, 4.0
SETTINGS = PeakSettings(threshold=0.35, radius=RADIUS, slice_px=SLICE_PX)
CENTRES = np.array([[2, 15, 15], [3, 15, 50], [4, 50, 16], [3, 48, 50]], float)


def blobs(
    centres: NDArray[np.float64],
    heights: list[float] | None = None,
    *,
    shape: tuple[int, int, int] = (7, 64, 64),
    noise: float = 2.0,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Smooth ellipsoids of the nominal size over a noisy ground."""
    z, y, x = np.indices(shape)
    out = np.full(shape, 10.0)
    for c, height in zip(centres, heights or [120.0] * len(centres), strict=True):
        r2 = ((z - c[0]) * SLICE_PX) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2
        out += height / (1 + np.exp(1.5 * (np.sqrt(r2) - RADIUS)))
    out += np.random.default_rng(seed).normal(0, noise, shape)
    return out.clip(0, 255).astype(np.uint8)


def found_in(image: NDArray[np.generic]) -> Peaks:
    return find_peaks(classical_maps(image, RADIUS, SLICE_PX).centre, SETTINGS)


def test_isolated_blobs_are_found_where_they_are() -> None:
    peaks = found_in(blobs(CENTRES))
    assert len(peaks) == 4
    away = np.linalg.norm(peaks.zyx[:, None] - CENTRES[None], axis=2)
    assert (away.min(axis=0) < 1.0).all()


def test_a_dim_nucleus_beside_bright_ones_is_found() -> None:
    image = blobs(CENTRES, [200.0, 200.0, 200.0, 40.0])
    low = replace(SETTINGS, threshold=0.15)  # thresholds fitted to images lie about there
    peaks = find_peaks(classical_maps(image, RADIUS, SLICE_PX).centre, low)
    assert len(peaks) == 4
    assert np.linalg.norm(peaks.zyx - CENTRES[3], axis=1).min() < 1.5


def test_outlines_are_about_as_large_as_the_nuclei() -> None:
    image = blobs(CENTRES)
    maps = classical_maps(image, RADIUS, SLICE_PX)
    labels = grow(maps.foreground, maps.offsets, find_peaks(maps.centre, SETTINGS), SETTINGS,
                  shape=image.shape)  # fmt: skip
    z, y, x = np.indices(image.shape)
    for c in CENTRES:
        ball = ((z - c[0]) * SLICE_PX) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2 < RADIUS**2
        own = labels == labels[tuple(c.astype(int))]
        assert (ball & own).sum() / (ball | own).sum() > 0.5


@settings(max_examples=8, deadline=None)
@given(gain=st.sampled_from([1, 16, 200]), offset=st.integers(0, 5000))
def test_the_cameras_gain_and_offset_change_nothing(gain: int, offset: int) -> None:
    image = blobs(CENTRES)
    brighter = (image.astype(np.uint16) * gain + offset).astype(np.uint16)
    one, other = found_in(image), found_in(brighter)
    assert np.allclose(one.zyx, other.zyx, atol=0.02)


def test_mirrored_images_have_mirrored_maps() -> None:
    image = blobs(CENTRES)
    maps = classical_maps(image, RADIUS, SLICE_PX)
    turned = classical_maps(image[::-1, ::-1], RADIUS, SLICE_PX)
    assert np.allclose(turned.centre[::-1, ::-1], maps.centre, atol=1e-4)
    assert (turned.foreground[::-1, ::-1] == maps.foreground).mean() > 0.999


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 40), (3, 40, 40)])
@pytest.mark.parametrize("value", [0, 9, 255])
def test_a_constant_image_holds_nothing(shape: tuple[int, int, int], value: int) -> None:
    maps = classical_maps(np.full(shape, value, np.uint8), RADIUS, SLICE_PX)
    assert not maps.foreground.any()
    assert len(find_peaks(maps.centre, SETTINGS)) == 0


def test_maps_are_of_the_contracts_types_and_ranges() -> None:
    maps = classical_maps(blobs(CENTRES).astype(np.float64), RADIUS, SLICE_PX)
    assert maps.stride == 1
    assert maps.types.shape == (0, 7, 64, 64)
    assert not maps.offsets.any()
    for part in (maps.foreground, maps.centre):
        assert part.dtype == np.float32
        assert part.min() >= 0
        assert part.max() <= 1


def test_one_slice_works_as_well_as_many() -> None:
    flat = blobs(np.array([[0, 15, 15], [0, 40, 45]], float), shape=(1, 64, 64))
    peaks = found_in(flat)
    assert len(peaks) == 2
    assert not peaks.zyx[:, 0].any()
