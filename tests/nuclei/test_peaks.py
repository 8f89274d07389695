"""Peaks of a centre map and the nuclei grown from them, against slow loops."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei.peaks import SMOOTHING, Peaks, PeakSettings, find_peaks, grow

SETTINGS = PeakSettings(radius=4.0)


def bump_map(
    shape: tuple[int, int, int],
    centres: list[tuple[float, float, float]],
    *,
    heights: list[float] | None = None,
    sigma: tuple[float, float, float] = (0.8, 1.8, 1.8),
) -> NDArray[np.float32]:
    """Gaussian bumps; where they overlap, the larger."""
    z, y, x = np.indices(shape)
    out = np.zeros(shape)
    for (cz, cy, cx), height in zip(centres, heights or [1.0] * len(centres), strict=True):
        parts = ((z - cz) / sigma[0], (y - cy) / sigma[1], (x - cx) / sigma[2])
        out = np.maximum(out, height * np.exp(-0.5 * sum(p**2 for p in parts)))
    return out.astype(np.float32)


def slow_maxima(smooth: NDArray[np.float32], threshold: float) -> list[tuple[int, int, int]]:
    """Voxels above threshold that nothing within (1, 2, 2) exceeds; of a tie the first."""
    found = []
    for spot in np.ndindex(*smooth.shape):
        value = smooth[spot]
        if not value > threshold:
            continue
        around = product(*(range(-r, r + 1) for r in (1, 2, 2)))
        others = [tuple(a + b for a, b in zip(spot, step, strict=True)) for step in around]
        others = [
            o
            for o in others
            if o != spot and all(0 <= v < n for v, n in zip(o, smooth.shape, strict=True))
        ]
        if all(smooth[o] < value or (smooth[o] == value and o > spot) for o in others):
            found.append(spot)
    return found


def slow_distinct(
    smooth: NDArray[np.float32], spots: list[tuple[int, int, int]], options: PeakSettings
) -> list[tuple[int, int, int]]:
    """From best to worst: dropped when a kept better one is near without a valley between."""
    order = sorted(spots, key=lambda s: (-float(smooth[s]), s))
    reach = 1.5 * options.radius
    kept: list[tuple[int, int, int]] = []
    for spot in order:
        is_new = True
        for better in kept:
            step = np.subtract(spot, better) * [reach / 3.1, 1.0, 1.0]
            if np.linalg.norm(step) > reach * 1.42:
                continue
            line = np.array(better) + np.linspace(0, 1, 9)[:, None] * np.subtract(spot, better)
            values = ndimage.map_coordinates(smooth, line.T, order=1, mode="nearest")
            is_new &= not values.min() > options.valley * smooth[spot]
        if is_new:
            kept.append(spot)
    return kept


@settings(max_examples=30, deadline=None)
@given(
    centre=st.tuples(st.floats(1.5, 3.5), st.floats(6, 13), st.floats(6, 17)),
    height=st.floats(0.5, 1.0),
)
def test_a_centre_is_found_within_half_a_pixel(
    centre: tuple[float, float, float], height: float
) -> None:
    found = find_peaks(
        bump_map((6, 20, 24), [centre], heights=[height]), PeakSettings(threshold=0.2)
    )
    assert len(found) == 1
    assert np.abs(found.zyx[0] - centre).max() < 0.5


def test_centres_are_found_well_below_a_pixel_on_average() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(20):
        centre = tuple((np.array([2, 10, 10]) + rng.uniform(-0.5, 0.5, 3)).tolist())
        errors.append(find_peaks(bump_map((5, 20, 20), [centre]), SETTINGS).zyx[0] - centre)
    assert np.abs(errors)[:, 1:].mean() < 0.1


def test_two_stacked_nuclei_are_kept() -> None:
    found = find_peaks(bump_map((9, 20, 20), [(2, 10, 10), (6, 10, 10)]), SETTINGS)
    assert sorted(found.zyx[:, 0].round().tolist()) == [2, 6]


def test_two_neighbours_with_a_valley_are_kept_and_without_one_are_merged() -> None:
    apart = bump_map((5, 20, 40), [(2, 10, 14), (2, 10, 22)])
    assert len(find_peaks(apart, SETTINGS)) == 2
    ridge = np.maximum(apart, 0.97 * bump_map((5, 20, 40), [(2, 10, 18)], sigma=(0.8, 1.8, 9.0)))
    assert len(find_peaks(ridge, SETTINGS)) == 1


def test_the_valley_decides_and_nothing_else() -> None:
    two = bump_map((5, 20, 40), [(2, 10, 15), (2, 10, 20)], sigma=(0.8, 1.8, 2.2))
    line = ndimage.gaussian_filter(two, SMOOTHING)[2, 10]
    share = line[15:21].min() / line[[15, 20]].min()
    assert 0.3 < share < 0.95
    assert len(find_peaks(two, PeakSettings(radius=4, valley=share + 0.04))) == 2
    assert len(find_peaks(two, PeakSettings(radius=4, valley=share - 0.04))) == 1


def test_the_better_of_two_merged_peaks_stays() -> None:
    ridge = bump_map((5, 20, 40), [(2, 10, 17), (2, 10, 20)], heights=[0.8, 0.9])
    ridge = np.maximum(ridge, 0.79 * (np.abs(np.indices(ridge.shape)[2] - 18.5) < 2)
                       * (ridge > 0.3)).astype(np.float32)  # fmt: skip
    found = find_peaks(ridge, SETTINGS)
    assert len(found) == 1
    assert abs(found.zyx[0, 2] - 20) < 1


def test_peaks_far_apart_never_merge_however_high_the_ground() -> None:
    high = np.maximum(bump_map((3, 20, 60), [(1, 10, 10), (1, 10, 50)]), 0.99)
    high[0, 0, 0] = 1.0  # a third corner
    high -= np.float32(0.001) * np.indices(high.shape)[0].astype(np.float32)
    assert len(find_peaks(high.astype(np.float32), PeakSettings(radius=4, valley=0.9))) >= 2


def test_peaks_come_best_first_and_above_the_threshold() -> None:
    heights = [0.5, 0.9, 0.7, 0.2]
    centres = [(2.0, 10.0, 10.0 + 20 * i) for i in range(4)]
    found = find_peaks(bump_map((5, 20, 90), centres, heights=heights), SETTINGS)
    assert found.zyx[:, 2].round().tolist() == [30, 50, 10]
    assert (np.diff(found.score) <= 0).all()
    assert (found.score > SETTINGS.threshold).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_peaks_equal_a_slow_loop_on_rough_ground(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.random((4, 16, 18)), (0.5, 1.2, 1.2))
    rough = ((rough - rough.min()) / np.ptp(rough)).astype(np.float32)
    options = PeakSettings(threshold=0.4, valley=0.9, radius=3.0)
    smooth = ndimage.gaussian_filter(rough, SMOOTHING, output=np.float32)
    expected = slow_distinct(smooth, slow_maxima(smooth, 0.4), options)
    found = find_peaks(rough, options)
    assert found.score.tolist() == pytest.approx([float(smooth[s]) for s in expected])
    assert np.abs(found.zyx - np.array(expected).reshape(-1, 3)).max(initial=0) <= 0.5


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), low=st.floats(0.3, 0.6), step=st.floats(0.05, 0.3))
def test_a_higher_threshold_only_cuts_the_list(seed: int, low: float, step: float) -> None:
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.random((4, 20, 20)), (0.5, 1.2, 1.2))
    rough = ((rough - rough.min()) / np.ptp(rough)).astype(np.float32)
    options = PeakSettings(radius=3.0)
    many = find_peaks(rough, replace(options, threshold=low, valley=0.9))
    few = find_peaks(rough, replace(options, threshold=low + step, valley=0.9))
    kept = many.score > np.float32(low + step)
    assert np.array_equal(few.zyx, many.zyx[kept])


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_mirrored_map_has_mirrored_peaks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = [tuple(c) for c in rng.uniform([1, 5, 5], [5, 35, 35], (6, 3)).tolist()]
    bumps = bump_map((7, 40, 40), centres, heights=rng.uniform(0.5, 1, 6).tolist())
    there = find_peaks(bumps, SETTINGS).zyx
    back = find_peaks(np.ascontiguousarray(bumps[:, ::-1, ::-1]), SETTINGS).zyx
    back = back * [1, -1, -1] + [0, 39, 39]
    assert len(there) == len(back)
    distance = np.linalg.norm(there[:, None] - back[None], axis=2)
    assert (distance.min(axis=1) < 1e-3).all()


def test_a_flat_top_is_one_peak() -> None:
    flat = np.zeros((3, 20, 20), np.float32)
    flat[:, 8:13, 8:13] = 1.0
    assert len(find_peaks(flat, SETTINGS)) == 1


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 20, 20), (5, 20, 20)])
@pytest.mark.parametrize("value", [0.0, 0.1])
def test_a_map_below_the_threshold_has_no_peak(shape: tuple[int, int, int], value: float) -> None:
    found = find_peaks(np.full(shape, value, np.float32), SETTINGS)
    assert len(found) == 0
    assert found.zyx.shape == (0, 3)


def test_nan_is_no_peak() -> None:
    assert len(find_peaks(np.full((2, 8, 8), np.nan, np.float32), SETTINGS)) == 0


def test_many_peaks_outgrow_the_first_allocation() -> None:
    field = np.zeros((1, 200, 200), np.float32)
    field[0, 2::5, 2::5] = 1.0
    assert len(find_peaks(field, PeakSettings(threshold=0.1, radius=1.0))) == 1600


def test_a_map_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(Z, Y, X\)"):
        find_peaks(np.zeros((4, 4), np.float32), SETTINGS)


@pytest.mark.parametrize(
    "wrong", [{"threshold": 0.0}, {"valley": 1.5}, {"foreground": -1.0}, {"radius": 0.0},
              {"slice_px": -1.0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(CallError, match=next(iter(wrong))):
        PeakSettings(**wrong)


# ---------------------------------------------------------------- grow


def scene(seed: int, n: int = 6, shape: tuple[int, int, int] = (5, 24, 28)) -> tuple[
    NDArray[np.float32], NDArray[np.float32], Peaks
]:  # fmt: skip
    """Foreground of balls, offsets with some error, and their peaks."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform([0.5, 4, 4], [shape[0] - 1.5, shape[1] - 5, shape[2] - 5], (n, 3))
    z, y, x = np.indices(shape)
    away = np.stack([((z - c[0]) * 2) ** 2 + (y - c[1]) ** 2 + (x - c[2]) ** 2 for c in centres])
    owner = away.argmin(axis=0)
    foreground = np.exp(-0.5 * away.min(axis=0) / 16).astype(np.float32)
    offsets = np.stack([centres[owner][..., a] - (z, y, x)[a] for a in range(3)])
    offsets += rng.normal(0, 0.5, offsets.shape)
    return foreground, offsets.astype(np.float32), Peaks(centres, np.linspace(1, 0.5, n))


def slow_grow(
    foreground: NDArray[np.float32],
    offsets: NDArray[np.float32],
    peaks: Peaks,
    options: PeakSettings,
) -> NDArray[np.int32]:
    """Every voxel to the peak nearest to its vote within reach; then the piece of each seed."""
    cell = max(2.0, 1.5 * options.radius)
    out = np.zeros(foreground.shape, np.int32)
    for spot in np.argwhere(foreground >= options.foreground):
        vote = spot + offsets[:, *spot]
        step = (vote - peaks.zyx) * [options.slice_px, 1, 1]
        distance = (step**2).sum(axis=1)
        if distance.min() < cell * cell:
            out[tuple(spot)] = distance.argmin() + 1
    return out


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_voxels_go_where_they_point(seed: int) -> None:
    foreground, offsets, peaks = scene(seed)
    found = grow(foreground, offsets, peaks, SETTINGS, shape=foreground.shape)
    expected = slow_grow(foreground, offsets, peaks, SETTINGS)
    seeds = np.zeros(found.shape, bool)
    seeds[tuple(np.rint(peaks.zyx).astype(int).T)] = True
    kept = (found > 0) & ~seeds
    assert (found[kept] == expected[kept]).all()
    # What is left out is exactly what hangs on to no seed.
    for i in range(1, len(peaks) + 1):
        whole = (expected == i) & (found != i)
        pieces, n = ndimage.label((expected == i) & ~seeds | (found == i))
        for piece in range(1, n + 1):
            if (whole & (pieces == piece)).any():
                assert not (found[pieces == piece] == i).all()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1, 2, 3]))
def test_each_nucleus_is_one_piece_and_holds_its_peak(seed: int, scale: int) -> None:
    foreground, offsets, peaks = scene(seed)
    shape = (foreground.shape[0], scale * foreground.shape[1], scale * foreground.shape[2])
    found = grow(foreground, offsets, peaks, SETTINGS, shape=shape)
    spots = peaks.zyx.copy()
    spots[:, 1:] = (spots[:, 1:] + 0.5) * scale - 0.5
    spots = np.rint(spots).astype(int)
    distinct = len(np.unique(spots, axis=0)) == len(spots)
    for i, spot in enumerate(spots):
        _, n = ndimage.label(found == i + 1)
        assert n <= 1
        if distinct:
            assert found[tuple(spot)] == i + 1


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_peaks_only_renumbers(seed: int) -> None:
    foreground, offsets, peaks = scene(seed)
    # Of two peaks in one voxel the better keeps it: there the order does matter.
    assume(len(np.unique(np.rint(peaks.zyx), axis=0)) == len(peaks))
    order = np.random.default_rng(seed).permutation(len(peaks))
    one = grow(foreground, offsets, peaks, SETTINGS, shape=foreground.shape)
    other = grow(
        foreground, offsets, Peaks(peaks.zyx[order], peaks.score[order]), SETTINGS,
        shape=foreground.shape,
    )  # fmt: skip
    table = np.concatenate([[0], order + 1])
    assert np.array_equal(table[other], one)


def test_a_peak_whose_voxel_points_elsewhere_still_keeps_it() -> None:
    foreground = np.ones((1, 12, 12), np.float32)
    offsets = np.zeros((3, 1, 12, 12), np.float32)
    y, x = np.mgrid[:12, :12]
    offsets[1, 0], offsets[2, 0] = 3 - y, 3 - x  # all point at the first
    peaks = Peaks(np.array([[0.0, 3, 3], [0.0, 8, 8]]), np.array([0.9, 0.8]))
    found = grow(foreground, offsets, peaks, SETTINGS, shape=(1, 12, 12))
    assert found[0, 8, 8] == 2
    assert (found == 2).sum() == 1


def test_a_finer_shape_gives_the_same_nuclei_in_finer_outline() -> None:
    foreground, offsets, peaks = scene(3)
    n_z, h, w = foreground.shape
    coarse = grow(foreground, offsets, peaks, SETTINGS, shape=(n_z, h, w))
    fine = grow(foreground, offsets, peaks, SETTINGS, shape=(n_z, 2 * h, 2 * w))
    again = np.repeat(np.repeat(coarse, 2, 1), 2, 2)
    assert (again == fine).mean() > 0.9
    assert set(np.unique(fine)) == set(np.unique(coarse))


def test_without_peaks_nothing_grows() -> None:
    empty = Peaks(np.zeros((0, 3)), np.zeros(0))
    found = grow(np.ones((2, 8, 8), np.float32), np.zeros((3, 2, 8, 8), np.float32), empty,
                 SETTINGS, shape=(2, 8, 8))  # fmt: skip
    assert found.dtype == np.int32
    assert not found.any()


def test_without_foreground_each_nucleus_is_its_peak() -> None:
    peaks = Peaks(np.array([[0.0, 2, 2], [1.0, 5, 5]]), np.array([0.9, 0.8]))
    found = grow(np.zeros((2, 8, 8), np.float32), np.zeros((3, 2, 8, 8), np.float32), peaks,
                 SETTINGS, shape=(2, 8, 8))  # fmt: skip
    assert (found > 0).sum() == 2
    assert (found[0, 2, 2], found[1, 5, 5]) == (1, 2)


def test_a_vote_far_from_every_peak_counts_for_none() -> None:
    foreground = np.ones((1, 40, 40), np.float32)
    offsets = np.zeros((3, 1, 40, 40), np.float32)
    peaks = Peaks(np.array([[0.0, 20.0, 20.0]]), np.array([1.0]))
    found = grow(foreground, offsets, peaks, SETTINGS, shape=(1, 40, 40))
    y, x = np.nonzero(found[0])
    assert np.hypot(y - 20, x - 20).max() < 1.5 * SETTINGS.radius


def test_wild_offsets_are_harmless() -> None:
    foreground = np.ones((2, 10, 10), np.float32)
    for value in (1e9, -1e9):
        offsets = np.full((3, 2, 10, 10), value, np.float32)
        peaks = Peaks(np.array([[0.0, 5.0, 5.0]]), np.array([1.0]))
        found = grow(foreground, offsets, peaks, SETTINGS, shape=(2, 10, 10))
        assert (found > 0).sum() == 1
