"""Windows around nuclei, and neighbours, against slow loops and laws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.learn import surroundings as module
from nucleoscope.learn.surroundings import (
    N_CROWDING,
    N_SURROUNDINGS,
    NEIGHBOURS,
    RANKS,
    WITHIN,
    crowding,
    of_neighbours,
    surroundings,
)

RADIUS = 4.0


@pytest.fixture(scope="module")
def section():
    """A blotchy stained image whose sides are whole blocks."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(60, 250, size=(3, 32, 32))
    return np.kron(coarse, np.ones((1, 8, 8))).astype(np.uint8)


def test_a_uniform_image_has_no_spread_no_spots_and_no_fibres():
    found = surroundings(np.full((3, 64, 64), 128, np.uint8), np.array([[32.0, 30.0]]), RADIUS)
    table = found.reshape(4, 11)
    density = -np.log(128 / 255)
    assert np.allclose(table[:, :3], density, atol=1e-5)
    assert np.allclose(table[:, 7:10], 0, atol=5e-3)


def test_emptiness_is_one_on_glass_and_zero_in_tissue():
    image = np.full((3, 256, 256), 255, np.uint8)
    image[:, :, 128:] = 100
    found = surroundings(image, np.array([[128.0, 20.0], [128.0, 236.0]]), RADIUS).reshape(2, 4, 11)
    assert np.allclose(found[0, :2, 9], 1)
    assert np.allclose(found[1, :2, 9], 0)


def test_turning_the_image_by_a_right_angle_changes_nothing(section):
    yx = np.array([[100.0, 121.0], [150.0, 90.0]])
    side = section.shape[1] - 1
    turned = np.rot90(section, axes=(1, 2))
    there = np.stack([side - yx[:, 1], yx[:, 0]], axis=1)
    before, after = surroundings(section, yx, RADIUS), surroundings(turned, there, RADIUS)
    assert np.allclose(before, after, atol=2e-4)


def test_tiled_equals_untiled(section, monkeypatch):
    yx = np.random.default_rng(0).uniform(0, 255, size=(40, 2))
    whole = surroundings(section, yx, 1.0)
    monkeypatch.setattr(module, "SQUARE", 64)
    assert np.allclose(surroundings(section, yx, 1.0), whole, atol=1e-4)


def test_what_is_far_away_leaves_no_trace(section):
    yx = np.array([[30.0, 30.0]])
    other = section.copy()
    other[:, 200:, 200:] = 0
    assert np.array_equal(surroundings(section, yx, RADIUS), surroundings(other, yx, RADIUS))


def test_no_nucleus_gives_no_row(section):
    nothing = np.zeros((0, 2))
    assert surroundings(section, nothing, RADIUS).shape == (0, N_SURROUNDINGS)
    assert crowding(nothing, RADIUS).shape == (0, N_CROWDING)


@given(st.integers(2, 40), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_means_of_neighbours_are_those_of_a_slow_loop(n, seed):
    rng = np.random.default_rng(seed)
    yx, values = rng.uniform(0, 100, size=(n, 2)), rng.normal(size=(n, 3))
    found = of_neighbours(yx, values).reshape(n, len(NEIGHBOURS), 3)
    for i in range(n):
        order = np.argsort(np.hypot(*(yx - yx[i]).T), kind="stable")
        others = order[order != i]
        for j, k in enumerate(NEIGHBOURS):
            assert np.allclose(found[i, j], values[others[:k]].mean(axis=0), atol=1e-4)


def test_a_lone_nucleus_is_its_own_company():
    assert of_neighbours(np.zeros((1, 2)), np.array([[5.0]])).tolist() == [[5.0] * len(NEIGHBOURS)]


def test_nuclei_at_one_place_do_not_count_themselves():
    yx = np.zeros((2, 2))
    assert of_neighbours(yx, np.array([[1.0], [3.0]]))[:, 0].tolist() == [3.0, 1.0]


@given(st.floats(0.5, 20), st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_crowding_has_no_unit(scale, seed):
    yx = np.random.default_rng(seed).uniform(0, 100, size=(30, 2))
    assert np.allclose(crowding(yx, 5.0), crowding(yx * scale, 5.0 * scale), atol=1e-5)


def test_crowding_counts_what_lies_within_each_circle():
    yx = np.array([[0.0, 0.0], [0.0, 3.0], [0.0, 6.0], [0.0, 13.0], [0.0, 100.0]])
    counts = np.exp(crowding(yx, 1.0)[0, len(RANKS) :]).round()
    assert counts.tolist() == [(yx[:, 1] <= r).sum() for r in WITHIN]
