"""Collapse: what is healthy, what is not, and when training stops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.errors import InputError
from nucleoscope.learn.collapse import Health, check_health, effective_rank, health, uniformity


def test_effective_rank_counts_equal_directions() -> None:
    for d in (2, 5, 9):
        cross = np.vstack([np.eye(d), -np.eye(d)])
        assert effective_rank(cross) == pytest.approx(d)


def test_effective_rank_of_two_unequal_directions_is_the_entropy() -> None:
    cross = np.array([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    share = 0.75
    entropy = -(share * math.log(share) + 0.25 * math.log(0.25))
    assert effective_rank(cross) == pytest.approx(math.exp(entropy))


@given(st.integers(0, 100), st.floats(0.1, 50))
@settings(max_examples=20, deadline=None)
def test_scale_shift_and_rotation_leave_the_rank(seed, factor) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(20, 4))
    turn = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    assert effective_rank(factor * x @ turn + 7) == pytest.approx(effective_rank(x), rel=1e-6)


def test_uniformity_equals_its_slow_loop() -> None:
    x = np.random.default_rng(0).normal(size=(6, 3))
    unit = [row / math.sqrt(sum(row**2)) for row in x]
    pairs = [math.exp(-2 * sum((a - b) ** 2)) for i, a in enumerate(unit) for b in unit[i + 1 :]]
    assert uniformity(x) == pytest.approx(math.log(sum(pairs) / len(pairs)))


def test_spread_vectors_are_healthy_and_equal_ones_are_not() -> None:
    rng = np.random.default_rng(0)
    assert not health(rng.normal(size=(200, 16))).is_collapsed
    assert health(np.ones((200, 16))).is_collapsed
    assert health(np.ones((200, 16)) + 1e-4 * rng.normal(size=(200, 16))).is_collapsed


def test_vectors_on_one_line_are_collapsed() -> None:
    line = np.linspace(-1, 1, 50)[:, None] * np.ones(8)
    assert health(line).is_collapsed


def test_what_is_not_finite_is_collapsed() -> None:
    assert health(np.array([[np.nan, 1.0], [0.0, 1.0]])).is_collapsed


def test_fewer_than_two_vectors_have_no_rank() -> None:
    assert effective_rank(np.zeros((0, 3))) == effective_rank(np.ones((1, 3))) == 0.0
    assert uniformity(np.ones((1, 3))) == 0.0


def test_one_bad_check_is_forgiven_and_two_stop_with_one_sentence() -> None:
    bad, good = Health(1.0, 0.0), Health(20.0, -2.0)
    check_health([good, bad], step=5, dimensions=128)
    check_health([bad, good], step=5, dimensions=128)
    with pytest.raises(InputError, match=r"step 9.*effective rank 1\.0 of 128.*loss") as found:
        check_health([good, bad, bad], step=9, dimensions=128)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("measure", [effective_rank, uniformity])
def test_only_tables_of_vectors_are_measured(measure) -> None:
    with pytest.raises(InputError, match="shape"):
        measure(np.zeros(4))
