"""Scores to probabilities that come true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit as sigmoid

from nucleoscope.calibrate import platt


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), slope=st.floats(0.4, 2.5), offset=st.floats(-1.5, 1.5))
def test_a_known_calibration_is_recovered(seed: int, slope: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    logit = rng.uniform(-4, 4, 6000)
    positive = rng.random(6000) < sigmoid(slope * logit + offset)
    found = platt(logit, positive)
    assert found[0] == pytest.approx(slope, rel=0.2, abs=0.05)
    assert found[1] == pytest.approx(offset, abs=0.25)


def slow_loss(theta: tuple[float, float], logit: list[float], positive: list[bool]) -> float:
    """Negative log likelihood with the prior of ten nuclei."""
    total = 5.0 * (theta[0] - 1) ** 2 + 1.25 * theta[1] ** 2
    for x, y in zip(logit, positive, strict=True):
        odds = theta[0] * x + theta[1]
        total += float(np.logaddexp(0, -odds if y else odds))
    return total


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30))
def test_the_fit_is_the_minimum_of_its_loss(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    logit, positive = rng.normal(0, 3, n), rng.random(n) < 0.5
    found = platt(logit, positive)
    if found[0] <= 0.05:
        return
    best = slow_loss(found, logit.tolist(), positive.tolist())
    for step in ((0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)):
        near = (found[0] + step[0], found[1] + step[1])
        assert slow_loss(near, logit.tolist(), positive.tolist()) >= best


@pytest.mark.parametrize("value", [True, False])
def test_few_nuclei_of_one_type_bend_little(value: bool) -> None:
    slope, offset = platt(np.array([1.0, 2.0, -1.0]), np.full(3, value))
    assert 0.5 < slope < 1.5
    assert abs(offset) < 1


def test_no_nuclei_change_nothing() -> None:
    assert platt(np.zeros(0), np.zeros(0, bool)) == (1.0, 0.0)


def test_a_logit_that_points_the_wrong_way_is_never_followed() -> None:
    logit = np.linspace(-8, 8, 400)
    slope, _ = platt(logit, logit < 0)
    assert slope == pytest.approx(0.05)
