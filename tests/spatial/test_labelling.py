"""Random labelling in closed form: exact moments, p near uniform, the same answer as simulating."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from nucleoscope.errors import ResourceError
from nucleoscope.seeds import generator
from nucleoscope.spatial import labelling
from nucleoscope.spatial.envelope import curve_test
from nucleoscope.spatial.labelling import (
    LabellingTest,
    PairMoments,
    _score,
    _value,
    curve_moments,
)
from nucleoscope.spatial.pairs import Bins, PairList, pair_sums, window_covariance
from nucleoscope.spatial.parallel import stream_seeds
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.relabel import Relabelling
from nucleoscope.spatial.window import Window

BOX = Window.box((0, 0), (100, 100))
BINS = Bins(12.0, 6)


def mixed(n: int, seed: int, *, clustered: bool = False) -> Pattern:
    """Types a (a tenth), b, c at random over places that may be clustered."""
    rng = np.random.default_rng(seed)
    at = BOX.sample(n, rng)
    if clustered:
        at = np.clip(at[rng.integers(0, n // 20, n)] + rng.normal(0, 3, (n, 2)), 0, 100)
    codes = rng.permutation(np.repeat([0, 1, 2], [n // 10, n // 2, n - n // 10 - n // 2]))
    return Pattern(at, codes, ("a", "b", "c"), window=BOX)


def relabelled_sums(pattern: Pattern, n: int, *, weighted: bool = True) -> np.ndarray:
    """``(n, K, K, m)``: cumulative pair sums of ``n`` random relabellings."""
    pairs = PairList.of(pattern, BINS)
    weights = pairs.weights(window_covariance(BOX, BINS.reach)) if weighted else None
    dealt = Relabelling.of(pattern, pairs.i, pairs.j, weights, pairs.firsts)
    half = np.concatenate([dealt.sums(stream_seeds(seed, 50)) for seed in range(n // 50)])
    return np.cumsum(half + half.transpose(0, 2, 1, 3), axis=-1)[..., 1:]


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), same=st.booleans())
def test_moments_equal_those_of_all_relabellings(seed, same):
    rng = np.random.default_rng(seed)
    pattern = Pattern(rng.random((6, 2)) * 12, [0, 0, 0, 1, 1, 2], ("a", "b", "c"), window=BOX)
    bins = Bins(8.0, 3)
    covariance = window_covariance(BOX, bins.reach)
    b = 0 if same else 1
    every = np.stack(
        [
            np.cumsum(pair_sums(pattern.relabelled(codes), bins, covariance=covariance)[0, b])[1:]
            for codes in {tuple(codes) for codes in permutations(pattern.codes)}
        ]
    )
    sums = PairMoments.of(pattern, bins, covariance)
    mean, second = curve_moments(sums, 3, 3 if same else 2, 6, same=same)
    scale = float(every.max()) + 1e-300
    assert mean / scale == pytest.approx(every.mean(axis=0) / scale, abs=1e-12)
    assert second / scale**2 == pytest.approx(np.cov(every.T, ddof=0) / scale**2, abs=1e-12)


def null_p(clustered: bool, n: int) -> np.ndarray:
    """``(n, K, K)``: p of as many relabellings of one pattern."""
    pattern = mixed(600, 1, clustered=clustered)
    sums = PairMoments.of(pattern, BINS, window_covariance(BOX, BINS.reach))
    simulated = relabelled_sums(pattern, n)
    return np.stack([LabellingTest.of(sums, pattern.counts, one).p for one in simulated])


def test_p_is_not_far_from_uniform_over_a_hundred_relabellings():
    p = null_p(True, 100)
    for a, b in ((0, 1), (1, 1), (1, 2)):
        assert kstest(p[:, a, b], "uniform").pvalue > 0.001


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("clustered", [False, True])
def test_p_is_uniform_over_a_thousand_relabellings(clustered):
    p = null_p(clustered, 1000)
    for a, b in ((0, 1), (1, 1), (1, 2)):
        assert kstest(p[:, a, b], "uniform").pvalue > 0.01
        assert 0.03 < (p[:, a, b] <= 0.05).mean() < 0.07
    assert (p[:, 0, 0] <= 0.05).mean() < 0.08  # 60 nuclei: the least normal


@pytest.mark.parametrize("statistic", ["k", "pcf"])
def test_it_says_what_simulating_says(statistic):
    pattern = mixed(800, 2, clustered=True)
    exact = curve_test(pattern, BINS, statistic, null="labelling-exact")
    drawn = curve_test(pattern, BINS, statistic, null="labelling", n_simulations=999)
    assert not exact.by_simulation.any()
    assert drawn.by_simulation.all()
    assert exact.observed == pytest.approx(drawn.observed)
    assert exact.expected == pytest.approx(drawn.expected, rel=0.05)
    judged = np.isfinite(exact.low)
    width = (drawn.high - drawn.low)[judged]
    assert np.abs(exact.low - drawn.low)[judged] / width == pytest.approx(0, abs=0.35)
    assert np.abs(exact.high - drawn.high)[judged] / width == pytest.approx(0, abs=0.35)


@pytest.mark.parametrize("statistic", ["k", "pcf"])
def test_the_curve_leaves_the_envelope_exactly_when_p_is_small(statistic):
    for seed in range(12):
        test = curve_test(mixed(400, seed), BINS, statistic, null="labelling-exact", seed=seed)
        outside = (test.observed < test.low) | (test.observed > test.high)
        assert np.array_equal(outside.any(axis=-1), test.p <= 0.05)


def test_planted_attraction_is_found_and_jobs_change_nothing():
    rng = np.random.default_rng(3)
    a, c = BOX.sample(80, rng), BOX.sample(240, rng)
    b = np.clip(a + rng.normal(0, 1, a.shape), 0, 100)
    pattern = Pattern(
        np.concatenate([a, b, c]), np.repeat([0, 1, 2], [80, 80, 240]), ("a", "b", "c"), window=BOX
    )
    one, two = (
        curve_test(pattern, BINS, null="labelling-exact", n_jobs=n, n_simulations=19)
        for n in (1, 2)
    )
    assert one.p[0, 1] == pytest.approx(1 / (labelling.DRAWS + 1))
    assert np.array_equal(one.p, two.p)
    assert np.array_equal(one.p, one.p.T)
    assert set(one.to_frame()["method"]) == {"closed form"}


def test_few_pairs_are_simulated_and_other_statistics_too():
    pattern = mixed(100, 4)
    test = curve_test(pattern, Bins(8.0, 3), null="labelling-exact", n_simulations=19)
    assert test.by_simulation[0, 0]
    assert not test.by_simulation[1, 2]
    assert np.isfinite(test.p).all()
    assert set(test.to_frame()["method"]) == {"closed form", "simulation"}
    assert np.isfinite(test.low[0, 0]).all()
    for statistic in ("g", "co_occurrence"):
        found = curve_test(pattern, BINS, statistic, null="labelling-exact", n_simulations=19)
        same = curve_test(pattern, BINS, statistic, null="labelling", n_simulations=19)
        assert np.array_equal(found.p, same.p)


def test_one_type_cannot_change_so_its_p_is_one():
    pattern = Pattern(BOX.sample(300, generator(0)), np.zeros(300), ("a",), window=BOX)
    test = curve_test(pattern, BINS, null="labelling-exact")
    assert test.p[0, 0] == 1
    assert test.expected == pytest.approx(test.observed)


@settings(deadline=None)
@given(z=st.floats(-3, 8), skew=st.floats(1e-6, 0.3))
def test_scores_and_values_are_inverse_and_skewness_pulls_the_right_tail_in(z, skew):
    score = float(_score(np.array([z]), np.array([skew]))[0])
    assert float(_value(score, np.array([skew]))[0]) == pytest.approx(z, abs=1e-6)
    assert score <= z + skew


def test_too_many_pairs_are_refused_by_name(monkeypatch):
    monkeypatch.setattr(labelling, "MAX_PAIRS", 10)
    with pytest.raises(ResourceError, match="more than 10 pairs within 12 um"):
        curve_test(mixed(200, 5), BINS, null="labelling-exact")
