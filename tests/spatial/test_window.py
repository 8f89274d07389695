"""Windows: sizes, holes, borders, and the overlap of a window with itself."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.data.region import Region
from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial.pairs import window_covariance
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.window import Window


def slow_overlap(window: Window, lag) -> float:
    """Sum over all pairs of pixels of the overlap of one with the other moved by the lag."""
    total = 0.0
    pixels = np.argwhere(window.mask)
    for p in pixels:
        gap = np.abs(pixels - p + np.asarray(lag) / window.scale)
        total += np.prod(np.maximum(1 - gap, 0), axis=1).sum()
    return total * float(np.prod(window.scale))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([(6, 7), (3, 4, 5), (1, 5, 4)]))
def test_set_covariance_is_the_overlap_at_any_lag(seed, shape):
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < 0.6
    mask.flat[0] = True
    window = Window(mask, tuple(rng.uniform(0.5, 3, len(shape))))
    covariance = window_covariance(window, 4.0)
    lags = rng.uniform(-2.3, 2.3, (5, len(shape)))
    lags[0] = 0
    slow = [slow_overlap(window, lag) for lag in lags]
    assert np.allclose(covariance.at(lags), slow, rtol=1e-12, atol=1e-12)
    assert covariance.at(lags)[0] == pytest.approx(window.size)


def test_a_box_is_one_pixel_and_its_overlap_is_exact():
    window = Window.box((0, 10), (4, 16))
    lags = np.array([[1.5, -2.0], [0.0, 0.0], [-3.9, 5.9]])
    truth = (4 - np.abs(lags[:, 0])) * (6 - np.abs(lags[:, 1]))
    assert np.allclose(window_covariance(window, 8.0).at(lags), truth)


def test_holes_are_not_tissue():
    mask = np.ones((10, 10), bool)
    mask[3:6, 3:6] = False
    window = Window(mask, (2.0, 2.0))
    assert window.size == 4 * 91
    at = np.array([[8.0, 8.0], [2.0, 2.0], [-0.9, -0.9], [19.1, 5.0]])
    assert window.contains(at).tolist() == [False, True, True, False]
    places = window.sample(5000, np.random.default_rng(0))
    assert window.contains(places).all()


def test_samples_are_uniform_over_the_tissue():
    mask = np.array([[1, 0], [1, 1]], bool)
    window = Window(mask, (3.0, 5.0), (0.0, 0.0))
    places = window.sample(30_000, np.random.default_rng(1))
    counts = np.histogram2d(places[:, 0], places[:, 1], bins=[[0, 3, 6], [0, 5, 10]])[0]
    assert counts[0, 1] == 0
    assert np.abs(counts[mask] - 10_000).max() < 400


def test_polygons_become_a_window_in_um_with_their_area():
    outer = [[0, 0], [0, 400], [300, 400], [300, 0]]
    hole = [[100, 100], [100, 200], [200, 200], [200, 100]]
    region = Region((np.array(outer), np.array(hole)))
    window = Window.from_region(region, mpp=0.5, pixel=1.0)
    assert window.unit == "um"
    assert window.size == pytest.approx((300 * 400 - 100 * 100) * 0.25, rel=0.01)
    inside = window.contains(np.array([[75.0, 75.0], [25.0, 25.0], [149.0, 199.0]]))
    assert inside.tolist() == [False, True, True]


def test_a_region_in_px_stays_in_px():
    window = Window.from_region(Region(([[0, 0], [0, 8], [8, 8], [8, 0]],)), pixel=1.0)
    assert window.unit == "px"
    assert window.size == 64


def test_distance_to_the_border_counts_holes():
    box = Window.box((0, 0), (10, 20))
    assert box.to_border(np.array([[5.0, 9.0], [1.0, 2.0]])).tolist() == [5.0, 1.0]
    mask = np.ones((40, 40), bool)
    mask[20, 20] = False
    window = Window(mask, (1.0, 1.0))
    at = np.array([[20.0, 24.0], [1.0, 10.0]])
    assert np.allclose(window.to_border(at), [3.5, 1.5])


def test_the_rectangle_of_nuclei_is_unbiased():
    rng = np.random.default_rng(2)
    sizes = [Window.around(rng.random((10, 2))).extent for _ in range(2000)]
    assert np.allclose(np.mean(sizes, axis=0), 1.0, atol=0.01)


@pytest.mark.parametrize("at", [np.empty((0, 2)), [[3.0, 4.0]], [[0.0, 1.0], [0.0, 2.0]]])
def test_few_nuclei_or_a_line_still_have_a_window(at):
    at = np.array(at).reshape(-1, 2)
    window = Window.around(at)
    assert window.size > 0
    assert window.contains(at).all()


def test_tissue_guessed_from_nuclei_holds_them_and_leaves_large_gaps_out():
    rng = np.random.default_rng(3)
    at = rng.random((4000, 2)) * 1000
    at = at[np.linalg.norm(at - 500, axis=1) > 200]
    window = Window.from_nuclei(at, 40.0)
    assert window.contains(at).all()
    assert not window.contains(np.array([[500.0, 500.0]]))[0]
    assert window.size == pytest.approx(1e6 - np.pi * 200**2, rel=0.1)


def test_nuclei_outside_the_window_are_refused_or_left_out_by_name():
    window = Window.box((0, 0), (1, 1))
    at = np.array([[0.5, 0.5], [2.0, 0.5]])
    with pytest.raises(InputError, match="1 of 2 nuclei lie outside the window"):
        Pattern(at, [0, 0], ("a",), window=window)
    kept = Pattern(at, [0, 0], ("a",)).inside(window)
    assert kept.rows.tolist() == [0]


def test_px_and_um_do_not_mix():
    window = Window.box((0, 0), (1, 1), unit="px")
    with pytest.raises(InputError, match="2D in px but the nuclei are 2D in um"):
        Pattern(np.array([[0.5, 0.5]]), [0], ("a",), window=window)


def test_impossible_windows_are_refused():
    with pytest.raises(InputError, match="no tissue"):
        Window(np.zeros((3, 3), bool), (1.0, 1.0))
    with pytest.raises(InputError, match="positive scale"):
        Window(np.ones((3, 3), bool), (1.0, 0.0))
    with pytest.raises(InputError, match="two or three axes"):
        Window(np.ones(3, bool), (1.0,))
    with pytest.raises(CallError, match="um or px"):
        Window(np.ones((3, 3), bool), (1.0, 1.0), unit="mm")
