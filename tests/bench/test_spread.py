"""Means, spread and intervals over seeds and images."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics.spread import spread_of_counts, spread_of_values

TABLES = st.tuples(st.integers(1, 3), st.integers(1, 4)).flatmap(
    lambda shape: st.lists(
        st.integers(0, 20), min_size=shape[0] * shape[1] * 3, max_size=shape[0] * shape[1] * 3
    ).map(lambda flat: np.array(flat).reshape(*shape, 3))
)


@given(TABLES)
def test_the_mean_is_that_of_a_slow_loop(counts: np.ndarray) -> None:
    found = spread_of_counts(counts, n_bootstrap=10)
    slow = []
    for one in counts:
        tp, fp, fn = one.sum(axis=0).tolist()
        if tp + fp + fn:
            slow.append(2 * tp / (2 * tp + fp + fn))
    assert found.n == len(slow)
    if slow:
        assert found.mean == pytest.approx(sum(slow) / len(slow))
    else:
        assert math.isnan(found.mean)


@given(TABLES)
def test_the_interval_lies_in_the_unit_range_and_in_order(counts: np.ndarray) -> None:
    for figure in ("precision", "recall", "f1"):
        found = spread_of_counts(counts, figure, n_bootstrap=20)
        if math.isfinite(found.low):
            assert 0 <= found.low <= found.high <= 1


def test_equal_seeds_and_images_leave_no_spread() -> None:
    found = spread_of_counts(np.tile([9, 1, 1], (3, 4, 1)))
    assert (found.mean, found.sd, found.low, found.high, found.n) == pytest.approx(
        (0.9, 0, 0.9, 0.9, 3)
    )


def test_the_mean_over_images_is_not_the_pooled_figure() -> None:
    counts = [[[1, 1, 1], [98, 2, 2]]]
    assert spread_of_counts(counts).mean == pytest.approx(99 / 102)
    assert spread_of_counts(counts, over="images").mean == pytest.approx((0.5 + 0.98) / 2)


def test_images_with_nothing_to_score_are_left_out_of_the_mean() -> None:
    assert spread_of_counts([[[0, 0, 0], [1, 0, 0]]], over="images").mean == 1.0


def test_one_seed_has_no_deviation_and_one_image_of_one_seed_no_interval() -> None:
    one = spread_of_counts([[[1, 0, 1], [2, 0, 0]]])
    assert math.isnan(one.sd)
    assert math.isfinite(one.low)
    assert math.isnan(spread_of_counts([[[1, 0, 1]]]).low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for trial in range(60):
        tp = rng.binomial(50, 0.8, size=(3, 30))
        counts = np.stack([tp, 50 - tp, np.zeros_like(tp)], axis=-1)
        found = spread_of_counts(counts, "precision", n_bootstrap=200, seed=trial)
        inside += found.low <= 0.8 <= found.high
    assert inside >= 50


def test_the_same_seed_gives_the_same_interval() -> None:
    counts = [[[5, 1, 2], [3, 2, 1]], [[4, 1, 3], [5, 0, 0]]]
    assert spread_of_counts(counts) == spread_of_counts(counts)


def test_values_that_are_not_known_are_left_out() -> None:
    assert spread_of_values([[0.5, np.nan]]).mean == 0.5
    assert math.isnan(spread_of_values([[np.nan]]).mean)


def test_wrong_shapes_and_figures_are_refused() -> None:
    with pytest.raises(InputError):
        spread_of_counts([[1, 2, 3]])
    with pytest.raises(InputError):
        spread_of_values(np.zeros((0, 2)))
    with pytest.raises(CallError):
        spread_of_counts([[[1, 0, 0]]], "accuracy")
