"""Co-occurrence, centrality, Moran's I, niches and marks: oracles, nulls, degenerate patterns."""

from __future__ import annotations

from collections import deque
from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kstest

from nucleoscope.errors import CallError, InputError
from nucleoscope.seeds import generator
from nucleoscope.spatial import (
    Bins,
    Graph,
    Pattern,
    centrality,
    co_occurrence,
    composition,
    coupling,
    delaunay,
    mark_correlation,
    moran,
    nearest,
    niches,
)
from nucleoscope.spatial.autocorrelation import moran_moments
from nucleoscope.spatial.marks import permutation_within

NAMES = ("a", "b", "c")


def smoothed(p, n_simulations: int) -> np.ndarray:
    """p of simulations come in steps; spread over their step they are uniform under the null."""
    p = np.asarray(p)
    return p - np.random.default_rng(0).random(p.shape) / (n_simulations + 1)


def random_pattern(n: int, seed: int, side: float = 100.0, dims: int = 2) -> Pattern:
    rng = np.random.default_rng(seed)
    return Pattern(rng.random((n, dims)) * side, rng.integers(0, 3, n), NAMES)


@pytest.mark.parametrize("dims", [2, 3])
def test_co_occurrence_is_its_definition(dims):
    pattern = random_pattern(90, 0, dims=dims)
    found = co_occurrence(pattern, Bins(60.0, 4))
    distance = np.linalg.norm(pattern.at[:, None] - pattern.at[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    for m, r in enumerate(found.radii):
        near = distance <= r
        for a in range(3):
            around_a = near[pattern.codes == a].sum(axis=0)
            around_any = near.sum(axis=0)
            for b in range(3):
                own = pattern.codes == b
                truth = (around_a[own].sum() / around_a.sum()) / (
                    around_any[own].sum() / near.sum()
                )
                assert found.ratio[a, b, m] == pytest.approx(truth)


def test_the_raster_agrees_with_every_pair_counted():
    rng = np.random.default_rng(1)
    at = np.concatenate([rng.random((6000, 2)) * [900, 500], rng.normal(300, 60, (3000, 2))])
    codes = np.concatenate([rng.integers(0, 2, 6000), np.full(3000, 2)])
    pattern = Pattern(at, codes, NAMES)
    bins = Bins(400.0, 20)
    exact = co_occurrence(pattern, bins, method="exact")
    raster = co_occurrence(pattern, bins, method="raster")
    assert exact.is_exact
    assert not raster.is_exact
    assert np.abs(raster.ratio - exact.ratio).max() < 5e-3


def test_fine_bins_are_exact_in_the_raster_where_pairs_are_close():
    pattern = random_pattern(3000, 2, side=1000.0)
    bins = Bins(50.0, 50)
    exact = co_occurrence(pattern, bins, method="exact").ratio
    raster = co_occurrence(pattern, bins, method="raster").ratio
    near = bins.radii < 15
    assert np.array_equal(exact[..., near], raster[..., near], equal_nan=True)


def test_the_raster_is_for_planes_and_methods_have_names():
    with pytest.raises(CallError, match="for planes"):
        co_occurrence(random_pattern(20, 0, dims=3), Bins(5.0), method="raster")
    with pytest.raises(CallError, match="auto, exact or raster"):
        co_occurrence(random_pattern(20, 0), Bins(5.0), method="fast")


@pytest.mark.parametrize("n", [0, 1, 2])
def test_co_occurrence_of_few_nuclei_has_gaps_and_no_warning(n):
    pattern = Pattern(np.arange(2 * n).reshape(n, 2), np.zeros(n), NAMES)
    ratio = co_occurrence(pattern, Bins(5.0, 2)).ratio
    assert np.isnan(ratio[1]).all()
    assert np.isfinite(ratio[0, 0]).any() == (n == 2)


def slow_centrality(graph: Graph, codes) -> np.ndarray:
    near = [
        set(graph.indices[graph.indptr[i] : graph.indptr[i + 1]].tolist()) for i in range(graph.n)
    ]
    scores = np.zeros((3, 3))
    for code in range(3):
        group = {i for i in range(graph.n) if codes[i] == code}
        outside = graph.n - len(group)
        scores[0, code] = len(set().union(*(near[i] for i in group)) - group) / outside
        coefficients = []
        for i in group:
            d = len(near[i])
            links = sum(v in near[u] for u in near[i] for v in near[i]) if d > 1 else 0
            coefficients.append(links / (d * (d - 1)) if d > 1 else 0.0)
        scores[1, code] = np.mean(coefficients)
        hops = dict.fromkeys(group, 0)
        queue = deque(group)
        while queue:
            i = queue.popleft()
            for j in near[i] - hops.keys():
                hops[j] = hops[i] + 1
                queue.append(j)
        scores[2, code] = outside / sum(hops.values())
    return scores


@pytest.mark.parametrize("build", [delaunay, lambda p: nearest(p, 2)])
def test_centralities_are_those_of_a_slow_search(build):
    pattern = random_pattern(60, 3)
    graph = build(pattern)
    frame = centrality(graph, pattern)
    found = frame[["degree", "clustering", "closeness"]].to_numpy().T
    assert np.allclose(found, slow_centrality(graph, pattern.codes))


def rare_type(n: int, seed: int) -> Pattern:
    """One nucleus in ten of type a, whose scores then take many values."""
    rng = np.random.default_rng(seed)
    return Pattern(rng.random((n, 2)), (rng.permutation(n) >= n // 10).astype(int), NAMES)


def test_centrality_p_is_uniform_under_relabelling():
    pattern = rare_type(200, 4)
    graph = delaunay(pattern)
    p = []
    for seed in range(60):
        shuffled = pattern.relabelled(generator(seed, 9).permutation(pattern.codes))
        frame = centrality(graph, shuffled, permutations=19, seed=seed)
        p.append(frame[["degree_p", "clustering_p", "closeness_p"]].to_numpy()[0])
    assert np.min(p) >= 1 / 20
    for values in np.transpose(smoothed(p, 19)):
        assert kstest(values, "uniform").pvalue > 0.001


def test_a_type_without_nuclei_has_no_centrality():
    pattern = Pattern(np.random.default_rng(0).random((9, 2)), np.zeros(9), NAMES)
    frame = centrality(delaunay(pattern), pattern, permutations=3)
    assert frame["closeness"].isna().tolist() == [False, True, True]
    assert frame["degree_p"].tolist()[0] == 1.0


def slow_moran(graph: Graph, x) -> float:
    z = x - x.mean()
    top = sum(z[i] * z[j] for i, j in zip(graph.rows, graph.indices, strict=True))
    return graph.n / len(graph.indices) * top / (z**2).sum()


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_moran_moments_are_exactly_those_over_all_permutations(is_symmetric):
    rng = np.random.default_rng(5)
    graph = nearest(Pattern(rng.random((7, 2)), np.zeros(7), ("a",)), 2, symmetric=is_symmetric)
    x = rng.exponential(size=7)
    every = [slow_moran(graph, x[list(order)]) for order in permutations(range(7))]
    mean, variance = moran_moments(graph, x[:, None])
    assert mean == pytest.approx(np.mean(every))
    assert variance[0] == pytest.approx(np.var(every))
    assert moran(graph, x[:, None], ("x",))["i"][0] == pytest.approx(slow_moran(graph, x))


@pytest.mark.parametrize("options", [{}, {"permutations": 99}])
def test_moran_p_is_uniform_and_smooth_features_are_found(options):
    pattern = random_pattern(150, 6)
    graph = delaunay(pattern)
    noise = np.random.default_rng(7).normal(size=(150, 1000))
    frame = moran(graph, noise, tuple(f"f_{i}" for i in range(1000)), **options)
    assert kstest(frame["p"], "uniform").pvalue > 0.01
    smooth = moran(graph, pattern.at + noise[:, :2], ("y", "x"), **options)
    assert (smooth["p"] <= 0.01).all()
    assert (smooth["z"] > 5).all()


def test_moran_of_a_constant_or_of_few_nuclei_is_defined():
    graph = delaunay(random_pattern(20, 8))
    frame = moran(graph, np.ones((20, 1)), ("flat",))
    assert np.isnan(frame["i"][0])
    assert frame["p"][0] == 1
    for n in (0, 1, 2, 3):
        few = delaunay(random_pattern(n, 8))
        assert np.isnan(moran(few, np.zeros((n, 1)), ("x",))["p"]).all()
    with pytest.raises(InputError, match="needs \\(20, 2\\) values"):
        moran(graph, np.ones((20, 1)), ("a", "b"))


def test_moran_permutations_do_not_depend_on_the_jobs():
    pattern = random_pattern(50, 9)
    graph = delaunay(pattern)
    one = moran(graph, pattern.at, ("y", "x"), permutations=49)
    assert one.equals(moran(graph, pattern.at, ("y", "x"), permutations=49, n_jobs=3))


def test_composition_counts_neighbours_and_never_oneself_unless_asked():
    pattern = random_pattern(50, 10)
    graph = nearest(pattern, 3, symmetric=False)
    rows = composition(graph, pattern)
    for i in range(50):
        types = pattern.codes[graph.indices[graph.indptr[i] : graph.indptr[i + 1]]]
        assert np.allclose(rows[i], np.bincount(types, minlength=3) / 3)
    with_self = composition(graph, pattern, with_self=True)
    assert np.allclose(with_self.sum(axis=1), 1)
    assert (with_self[np.arange(50), pattern.codes] >= 0.25).all()
    alone = Graph.from_edges(2, np.empty(0, int), np.empty(0, int), np.empty(0))
    assert composition(alone, Pattern(np.zeros((2, 2)), [0, 1], NAMES)).sum() == 0


def test_niches_find_planted_surroundings_across_images():
    rng = np.random.default_rng(11)
    images = []
    for _ in range(2):
        at = rng.random((600, 2)) * 100
        mixed = at[:, 0] > 60
        codes = np.where(mixed, rng.integers(1, 3, 600), 0)
        pattern = Pattern(at, codes, NAMES)
        images.append((composition(delaunay(pattern), pattern, with_self=True), mixed))
    found = niches([rows for rows, _ in images], NAMES, n=2, seed=3)
    assert found.centres[0, 0] > 0.8
    for members, (_, mixed) in zip(found.members, images, strict=True):
        assert ((members == 2) == mixed).mean() > 0.95
    frame = found.to_frame()
    assert frame["n"].sum() == 1200
    assert frame["n"].is_monotonic_decreasing


def test_niches_are_never_more_than_there_are_surroundings():
    rows = np.array([[1.0, 0, 0]] * 4 + [[0, 1.0, 0]])
    assert len(niches([rows], NAMES, n=8).centres) == 2
    empty = niches([np.zeros((0, 3))], NAMES, n=8)
    assert len(empty.centres) == 0
    assert empty.to_frame().empty
    with pytest.raises(CallError, match="n of 1 or more"):
        niches([rows], NAMES, n=0)


def slow_correlogram(at, marks, radii) -> list[float]:
    centred = marks - marks.mean(axis=0)
    power = (centred**2).sum() / len(at)
    low, result = 0.0, []
    for r in radii:
        values = [
            centred[i] @ centred[j] / power
            for i in range(len(at))
            for j in range(len(at))
            if i != j and low < np.linalg.norm(at[i] - at[j]) <= r
        ]
        result.append(np.mean(values))
        low = r
    return result


def test_mark_correlation_is_its_definition():
    pattern = random_pattern(60, 12)
    marks = np.random.default_rng(13).normal(size=(60, 5)) + pattern.at[:, :1] / 30
    found = mark_correlation(pattern, marks, Bins(60.0, 4), permutations=19)
    assert np.allclose(found.observed, slow_correlogram(pattern.at, marks, found.radii), atol=1e-5)


def test_mark_correlation_finds_likeness_that_fades_and_its_reach():
    pattern = random_pattern(800, 14)
    rng = np.random.default_rng(15)
    marks = np.sin(pattern.at / 6) @ rng.normal(size=(2, 12)) + rng.normal(size=(800, 12))
    found = mark_correlation(pattern, marks, Bins(12.0, 6), permutations=99)
    assert found.p == pytest.approx(0.01)
    assert found.observed[0] > found.high[0]
    assert found.observed[0] > found.observed[3]


def test_mark_correlation_uses_no_more_pairs_than_asked_and_stays_near():
    pattern = random_pattern(3000, 16)
    marks = np.sin(pattern.at / 10)
    whole = mark_correlation(pattern, marks, Bins(10.0, 5), permutations=19, max_pairs=10**9)
    some = mark_correlation(pattern, marks, Bins(10.0, 5), permutations=19, max_pairs=20_000)
    assert some.n_pairs.sum() < 25_000 < whole.n_pairs.sum()
    assert np.abs(some.observed - whole.observed).max() < 0.1


@pytest.mark.parametrize("what", ["correlation", "coupling"])
def test_mark_p_is_uniform_without_structure_and_independent_of_jobs(what):
    pattern = random_pattern(80, 17)
    graph = delaunay(pattern)
    p = []
    for seed in range(80):
        marks = np.random.default_rng(seed).normal(size=(80, 3))
        if what == "coupling":
            p.append(coupling(graph, pattern, marks, permutations=39, seed=seed).p)
        else:
            p.append(mark_correlation(pattern, marks, Bins(20.0, 4), permutations=39, seed=seed).p)
    assert min(p) >= 1 / 40
    assert kstest(smoothed(p, 39), "uniform").pvalue > 0.001
    if what == "coupling":
        again = coupling(graph, pattern, marks, permutations=39, seed=79, n_jobs=3).p
    else:
        again = mark_correlation(
            pattern, marks, Bins(20.0, 4), permutations=39, seed=79, n_jobs=3
        ).p
    assert again == p[-1]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", ["correlation", "coupling"])
def test_mark_p_is_uniform_over_a_thousand_nulls(what):
    pattern = random_pattern(60, 18)
    graph = delaunay(pattern)
    p = []
    for seed in range(1000):
        marks = np.random.default_rng(seed).normal(size=(60, 3))
        if what == "coupling":
            p.append(coupling(graph, pattern, marks, permutations=39, seed=seed).p)
        else:
            p.append(mark_correlation(pattern, marks, Bins(20.0, 4), permutations=39, seed=seed).p)
    assert kstest(smoothed(p, 39), "uniform").pvalue > 0.01


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_centrality_p_is_uniform_over_a_thousand_nulls():
    pattern = rare_type(800, 18)
    graph = delaunay(pattern)
    p = []
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        shuffled = pattern.relabelled(rng.permutation(pattern.codes))
        frame = centrality(graph, shuffled, permutations=19, seed=seed)
        p.append(frame[["degree_p", "clustering_p", "closeness_p"]].to_numpy()[0])
    for values in np.transpose(smoothed(p, 19)):
        assert kstest(values, "uniform").pvalue > 0.01


def test_coupling_finds_smooth_looks_and_maps_the_odd_ones_out():
    pattern = random_pattern(400, 19)
    marks = np.column_stack([np.sin(pattern.at / 15), np.cos(pattern.at / 15)])
    marks[7] += 8
    found = coupling(delaunay(pattern), pattern, marks, permutations=39)
    assert found.p == pytest.approx(1 / 40)
    assert found.r2 > 0.5 > found.expected
    assert found.residual.argmax() == 7


def test_marks_are_dealt_within_strata():
    order = permutation_within(np.array([0, 1, 0, 1, 1]), 5, generator(0))
    assert sorted(order[[0, 2]]) == [0, 2]
    assert sorted(order.tolist()) == list(range(5))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_marks_of_few_nuclei_are_defined(n):
    pattern = Pattern(np.zeros((n, 2)), np.zeros(n), ("a",))
    found = mark_correlation(pattern, np.ones((n, 3)), Bins(5.0, 2), permutations=19)
    assert np.isnan(found.p) or found.p == 1
    assert np.isnan(coupling(delaunay(pattern), pattern, np.ones((n, 3))).p)


def test_marks_that_do_not_fit_are_refused():
    pattern = random_pattern(10, 0)
    with pytest.raises(InputError, match="10 nuclei need"):
        mark_correlation(pattern, np.zeros((9, 2)), Bins(5.0))
    with pytest.raises(InputError, match="not a finite number"):
        coupling(delaunay(pattern), pattern, np.full((10, 2), np.nan))
    with pytest.raises(CallError, match="19 permutations"):
        mark_correlation(pattern, np.zeros((10, 2)), Bins(5.0), permutations=5)
