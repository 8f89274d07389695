"""Scores to probabilities that come true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit as sigmoid

from nucleoscope.calibrate import platt, two_groups
from nucleoscope.errors import CallError


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


# ---------------------------------------------------------------- two groups


def slow_groups(x: list[float], told: list[int], rounds: int) -> tuple[float, float]:
    """Expectation maximisation of two normals of one spread, one score at a time."""
    ones = [v for v, t in zip(x, told, strict=True) if t == 1]
    zeros = [v for v, t in zip(x, told, strict=True) if t == 0]
    middle = (sum(ones) / len(ones) + sum(zeros) / len(zeros)) / 2
    share = [float(t) if t >= 0 else float(v > middle) for v, t in zip(x, told, strict=True)]
    for _ in range(rounds + 1):
        n1 = sum(share)
        n0 = len(x) - n1
        m1 = sum(s * v for s, v in zip(share, x, strict=True)) / n1
        m0 = sum((1 - s) * v for s, v in zip(share, x, strict=True)) / n0
        spread = sum(
            s * (v - m1) ** 2 + (1 - s) * (v - m0) ** 2 for s, v in zip(share, x, strict=True)
        ) / len(x)
        for i, (v, t) in enumerate(zip(x, told, strict=True)):
            if t < 0:
                high = n1 * np.exp(-((v - m1) ** 2) / (2 * spread))
                low = n0 * np.exp(-((v - m0) ** 2) / (2 * spread))
                share[i] = high / (high + low)
    slope = (m1 - m0) / spread
    return slope, np.log(n1 / n0) - (m1**2 - m0**2) / (2 * spread)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(6, 60), apart=st.floats(3.0, 9.0))
def test_groups_are_those_of_a_slow_loop(seed: int, n: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    high = rng.random(n) < 0.4
    high[:2] = True, False
    x = rng.normal(size=n) + apart * high
    told = np.where(rng.random(n) < 0.2, high, -1).astype(int)
    told[:2] = 1, 0
    found = two_groups(x, told)
    slow = slow_groups(x.tolist(), told.tolist(), 400)
    assert found.slope == pytest.approx(slow[0], rel=1e-3, abs=1e-4)
    assert found.offset == pytest.approx(slow[1], rel=1e-3, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 0.6))
def test_two_told_scores_find_the_border_of_well_parted_groups(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    high = rng.random(800) < share
    x = rng.normal(size=800) + 8.0 * high
    told = np.full(800, -1)
    told[np.flatnonzero(high)[0]], told[np.flatnonzero(~high)[0]] = 1, 0
    found = two_groups(x, told)
    assert 6.5 < found.separation < 9.5
    assert np.mean((found.slope * x + found.offset > 0) == high) > 0.995


def test_one_group_is_not_well_parted() -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        x = np.random.default_rng(seed).normal(size=500)
        told = np.full(500, -1)
        told[rng.permutation(500)[:6]] = (0, 0, 0, 0, 1, 1)
        assert two_groups(x, told).separation < 3


def test_groups_of_which_one_is_not_told_are_refused() -> None:
    with pytest.raises(CallError, match="a score of each"):
        two_groups([0.0, 1.0], [0, -1])
