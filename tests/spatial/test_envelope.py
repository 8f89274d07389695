"""Nulls by name and the one p per curve: uniform under the null, small under a planted signal."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from nucleoscope.errors import CallError, InputError
from nucleoscope.seeds import generator
from nucleoscope.spatial.envelope import CURVES, _simulated_curves, curve_test, global_envelope
from nucleoscope.spatial.nulls import NULLS, density_strata, null_model
from nucleoscope.spatial.pairs import Bins
from nucleoscope.spatial.pattern import Pattern
from nucleoscope.spatial.window import Window

BOX = Window.box((0, 0), (100, 100))
L_SHAPE = Window(np.kron([[1, 0], [1, 1]], np.ones((20, 20))) > 0, (2.5, 2.5), (0.0, 0.0))


def uniform(window: Window, n: int, seed: int) -> Pattern:
    rng = np.random.default_rng(seed)
    codes = (np.arange(n) % 3 > 0).astype(int)
    return Pattern(window.sample(n, rng), codes, ("a", "b"), window=window)


def clustered(window: Window, seed: int) -> Pattern:
    """Two independent types, each in its own clusters."""
    rng = np.random.default_rng(seed)
    at, codes = [], []
    for code in range(2):
        # Parents also lie around the window, so that its edge is like its middle.
        parents = window.corner - 10 + rng.random((18, 2)) * (window.extent + 20)
        children = np.repeat(parents, 12, axis=0) + rng.normal(0, 3, (216, 2))
        children = children[window.contains(children)]
        at.append(children)
        codes.append(np.full(len(children), code))
    return Pattern(np.concatenate(at), np.concatenate(codes), ("a", "b"), window=window)


def slow_erl(curves) -> float:
    """p of the first curve, by the definition."""
    total = len(curves)
    words = []
    for c in curves:
        below = [
            ((curves[:, r] < c[r]).sum() + (curves[:, r] <= c[r]).sum() + 1) / 2
            for r in range(len(c))
        ]
        words.append(sorted(min(b, total + 1 - b) for b in below))
    return sum(w <= words[0] for w in words) / total


@pytest.mark.parametrize("seed", range(5))
def test_the_global_p_follows_the_definition_of_extreme_rank_length(seed):
    rng = np.random.default_rng(seed)
    curves = np.rint(np.cumsum(rng.normal(size=(40, 7)), axis=1) * (1 + seed))
    p, _, _ = global_envelope(curves[0], curves[1:])
    assert float(p) == pytest.approx(slow_erl(curves))


def test_the_curve_leaves_the_envelope_exactly_when_p_is_small():
    rng = np.random.default_rng(1)
    for _ in range(60):
        curves = rng.normal(size=(100, 15))
        curves[0] += rng.normal(0, 1.5)
        p, low, high = global_envelope(curves[0], curves[1:])
        leaves = (curves[0] < low).any() or (curves[0] > high).any()
        assert leaves == (p <= 0.05 + 1e-12)


def test_gaps_are_skipped_and_a_curve_of_gaps_has_no_p():
    curves = np.random.default_rng(2).normal(size=(50, 2, 6))
    curves[:, 0] = np.nan
    curves[3, 1, 0] = np.nan
    p, low, _ = global_envelope(curves[0], curves[1:])
    assert np.isnan(p[0])
    assert 1 / 50 <= p[1] <= 1
    assert np.isnan(low[1, 0])
    assert np.isfinite(low[1, 1:]).all()


def test_csr_keeps_counts_and_stays_in_the_tissue():
    pattern = uniform(L_SHAPE, 90, 0)
    drawn = NULLS["csr"].simulate(pattern, generator(0, 5))
    assert np.array_equal(drawn.counts, pattern.counts)
    assert not np.array_equal(drawn.at, pattern.at)


def test_labelling_keeps_places_and_strata_keep_their_types():
    strata = np.arange(90) % 3
    pattern = Pattern(BOX.sample(90, generator(0)), np.arange(90) % 2, ("a", "b"), strata=strata)
    free = NULLS["labelling"].simulate(pattern, generator(1))
    held = NULLS["labelling within strata"].simulate(pattern, generator(1))
    assert np.array_equal(free.at, pattern.at)
    for s in range(3):
        own = strata == s
        assert held.codes[own].sum() == pattern.codes[own].sum()
    assert any(free.codes[strata == s].sum() != pattern.codes[strata == s].sum() for s in range(3))


@pytest.mark.parametrize("window", [BOX, L_SHAPE], ids=["box", "mask"])
def test_a_shift_moves_all_nuclei_by_one_vector(window):
    pattern = uniform(window, 60, 3)
    drawn = NULLS["shift"].simulate(pattern, generator(2))
    placed, moved = drawn.at[drawn.codes < 2], drawn.at[drawn.codes >= 2]
    lags = (moved[:, None] - pattern.at[None]).reshape(-1, 2)
    if window.is_box:
        lags = np.mod(lags + 1e-9, 100.0)
    _, counts = np.unique(np.round(lags, 5), axis=0, return_counts=True)
    assert counts.max() == len(moved)
    assert len(placed) <= 60
    assert drawn.window.size <= window.size


@pytest.mark.parametrize("null", ["csr", "labelling", "shift"])
@pytest.mark.parametrize("statistic", CURVES)
def test_every_curve_runs_under_every_null_and_jobs_change_nothing(statistic, null):
    is_bound = null == "shift" and statistic in ("g", "co_occurrence")
    pattern = uniform(BOX if is_bound else L_SHAPE, 80, 4)
    one = curve_test(pattern, Bins(10.0, 5), statistic, null=null, n_simulations=19, seed=3)
    two = curve_test(
        pattern, Bins(10.0, 5), statistic, null=null, n_simulations=19, seed=3, n_jobs=3
    )
    other = curve_test(pattern, Bins(10.0, 5), statistic, null=null, n_simulations=19, seed=4)
    assert np.array_equal(one.low, two.low, equal_nan=True)
    assert np.array_equal(one.p, two.p, equal_nan=True)
    assert not np.array_equal(one.low, other.low, equal_nan=True)
    assert 1 / 20 <= one.p[0, 1] <= 1
    assert np.isnan(one.p[0, 0]) == (null == "shift")


def test_listed_and_streamed_relabelling_agree_in_distribution():
    pattern = uniform(L_SHAPE, 200, 5)
    listed = curve_test(pattern, Bins(10.0, 5), null="labelling", n_simulations=400)
    from nucleoscope.spatial.envelope import _Setting
    from nucleoscope.spatial.pairs import window_covariance

    setting = _Setting(Bins(10.0, 5), L_SHAPE, window_covariance(L_SHAPE, 10.0))
    streamed = _simulated_curves(pattern, "k", setting, null_model("labelling"), 400, 0, 1)
    error = streamed.std(axis=0) * np.sqrt(2 / 400)
    assert (np.abs(streamed.mean(axis=0) - listed.expected) <= 4 * error + 1e-9).all()


@pytest.mark.parametrize("null", ["csr", "labelling", "shift"])
@pytest.mark.parametrize("statistic", CURVES)
def test_planted_attraction_is_found(statistic, null):
    rng = np.random.default_rng(6)
    a = BOX.sample(80, rng)
    b = np.clip(a + rng.normal(0, 1.0, a.shape), 0, 100)
    c = BOX.sample(80, rng)
    pattern = Pattern(
        np.concatenate([a, b, c]), np.repeat([0, 1, 2], 80), ("a", "b", "c"), window=BOX
    )
    test = curve_test(pattern, Bins(10.0, 10), statistic, null=null, n_simulations=99)
    assert test.p[0, 1] <= 0.02
    assert (test.observed > test.high)[0, 1, :3].any()


def test_planted_repulsion_is_found():
    rng = np.random.default_rng(7)
    a = BOX.sample(60, rng)
    b = BOX.sample(600, rng)
    from scipy.spatial import cKDTree

    b = b[cKDTree(a).query(b)[0] > 5]
    pattern = Pattern(
        np.concatenate([a, b]), np.repeat([0, 1], [60, len(b)]), ("a", "b"), window=BOX
    )
    test = curve_test(pattern, Bins(8.0, 8), "pcf", null="shift", n_simulations=99)
    assert test.p[0, 1] <= 0.02
    assert test.observed[0, 1, 1] < test.low[0, 1, 1]


NULL_CASES = [
    ("k", "csr", "uniform", L_SHAPE),
    ("g", "csr", "uniform", L_SHAPE),
    ("pcf", "csr", "uniform", BOX),
    ("k", "labelling", "uniform", L_SHAPE),
    ("co_occurrence", "labelling", "uniform", BOX),
    ("k", "shift", "uniform", BOX),
    ("k", "shift", "uniform", L_SHAPE),
    ("k", "shift", "clustered", BOX),
    ("k", "shift", "clustered", L_SHAPE),
    ("g", "shift", "clustered", BOX),
]


def null_p(statistic, null, kind, window, n_data, n_simulations=39) -> np.ndarray:
    values = []
    for seed in range(n_data):
        if kind == "uniform":
            pattern = uniform(window, 60, 1000 + seed)
        else:
            pattern = clustered(window, 1000 + seed)
        if null == "labelling":
            pattern = pattern.relabelled(generator(seed, 7).permutation(pattern.codes))
        test = curve_test(
            pattern, Bins(10.0, 5), statistic, null=null, n_simulations=n_simulations, seed=seed
        )
        values.append(test.p[0, 1])
    return np.array(values)


def smoothed(p, n_simulations: int) -> np.ndarray:
    """p of simulations come in steps; spread over their step they are uniform under the null."""
    p = np.asarray(p)
    return p - np.random.default_rng(0).random(p.shape) / (n_simulations + 1)


@pytest.mark.parametrize(("statistic", "null", "kind", "window"), NULL_CASES[:4])
def test_p_is_not_far_from_uniform_in_a_hundred_nulls(statistic, null, kind, window):
    p = null_p(statistic, null, kind, window, 100, 19)
    assert kstest(smoothed(p, 19), "uniform").pvalue > 0.001


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("statistic", "null", "kind", "window"), NULL_CASES)
def test_p_is_uniform_over_a_thousand_nulls(statistic, null, kind, window):
    p = null_p(statistic, null, kind, window, 1000)
    assert p.min() >= 1 / 40
    assert kstest(smoothed(p, 39), "uniform").pvalue > 0.01


def test_a_line_of_duplicates_and_one_type_are_defined():
    line = Pattern(
        np.repeat(np.column_stack([np.arange(10.0), np.zeros(10)]), 2, axis=0), np.zeros(20), ("a",)
    )
    for null in ("csr", "labelling"):
        test = curve_test(line, Bins(3.0, 3), null=null, n_simulations=19)
        assert 1 / 20 <= test.p[0, 0] <= 1


@pytest.mark.parametrize("statistic", CURVES)
def test_dealing_out_one_type_changes_nothing_so_p_is_one(statistic):
    pattern = Pattern(L_SHAPE.sample(400, generator(0)), np.zeros(400), ("a",), window=L_SHAPE)
    test = curve_test(pattern, Bins(20.0, 8), statistic, null="labelling", n_simulations=19)
    assert test.p[0, 0] == 1


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_nuclei_have_no_p_and_no_warning(n):
    pattern = Pattern(np.zeros((n, 2)), np.zeros(n), ("a",))
    for statistic in CURVES:
        test = curve_test(pattern, Bins(3.0, 3), statistic, n_simulations=19)
        assert np.isnan(test.p).all()


def test_what_cannot_be_is_refused():
    pattern = uniform(BOX, 20, 0)
    with pytest.raises(CallError, match="no curve 'h'"):
        curve_test(pattern, Bins(3.0), "h")
    with pytest.raises(CallError, match="no null 'toroidal'; there are csr"):
        curve_test(pattern, Bins(3.0), null="toroidal")
    with pytest.raises(CallError, match="19 simulations or more"):
        curve_test(pattern, Bins(3.0), n_simulations=9)
    with pytest.raises(CallError, match="for rectangles; in a mask take k or pcf"):
        curve_test(uniform(L_SHAPE, 20, 0), Bins(3.0), "g", null="shift")
    with pytest.raises(CallError, match="needs strata"):
        curve_test(pattern, Bins(3.0), null="labelling within strata")
    thin = Window(np.random.default_rng(0).random((40, 40)) < 0.1, (1.0, 1.0))
    inside = Pattern(thin.sample(20, generator(0)), np.zeros(20), ("a",), window=thin)
    with pytest.raises(InputError, match="too thin"):
        for number in range(10):
            NULLS["shift"].simulate(inside, generator(number))


def test_density_strata_are_equal_and_ordered_by_density():
    rng = np.random.default_rng(8)
    at = np.concatenate([rng.random((300, 2)) * 10, rng.random((300, 2)) * 100 + 50])
    pattern = Pattern(at, np.zeros(600), ("a",))
    strata = density_strata(pattern, n=6, radius=5.0)
    assert np.bincount(strata).tolist() == [100] * 6
    assert strata[:300].mean() > strata[300:].mean() + 2
