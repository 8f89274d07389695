"""The closed form against all permutations, many permutations, and its own null."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kstest

from nucleoscope.errors import CallError, InputError
from nucleoscope.spatial.enrichment import (
    benjamini_hochberg,
    edge_sums,
    enrichment,
    null_moments,
    permuted_sums,
)
from nucleoscope.spatial.graph import Graph, delaunay, nearest
from nucleoscope.spatial.pattern import Pattern

NAMES = ("a", "b", "c")


def random_pattern(n: int, seed: int, probabilities=(0.5, 0.3, 0.2), **more) -> Pattern:
    rng = np.random.default_rng(seed)
    return Pattern(rng.random((n, 2)), rng.choice(3, n, p=probabilities), NAMES, **more)


def slow_sums(graph: Graph, codes, weights) -> np.ndarray:
    sums = np.zeros((3, 3))
    for i in range(graph.n):
        for e in range(graph.indptr[i], graph.indptr[i + 1]):
            sums[codes[i], codes[graph.indices[e]]] += weights[e]
    return sums


@pytest.mark.parametrize("is_symmetric", [True, False])
@pytest.mark.parametrize("strata", [None, [0, 0, 0, 0, 1, 1, 1]])
def test_moments_are_exactly_those_over_all_relabellings(is_symmetric, strata):
    rng = np.random.default_rng(0)
    pattern = Pattern(rng.random((7, 2)), [0, 0, 0, 1, 1, 2, 0], NAMES, strata=strata)
    graph = nearest(pattern, 3, symmetric=is_symmetric)
    if strata is not None:
        graph = graph.within_strata(pattern.strata)
    weights = rng.random(len(graph.indices))
    groups = [range(7)] if strata is None else [range(4), range(4, 7)]
    every = []
    for first in permutations(groups[0]):
        every += [
            slow_sums(graph, pattern.codes[list(first + second)], weights)
            for second in (permutations(groups[-1]) if strata is not None else [()])
        ]
    mean, variance = null_moments(graph, pattern, weights=weights)
    assert np.allclose(mean, np.mean(every, axis=0))
    assert np.allclose(variance, np.var(every, axis=0))


def test_z_of_ten_thousand_permutations_lies_within_their_error():
    pattern = random_pattern(400, 1)
    graph = delaunay(pattern)
    result = enrichment(graph, pattern)
    simulated = permuted_sums(graph, pattern, 10_000, seed=3)
    mean, sd = simulated.mean(axis=0), simulated.std(axis=0)
    assert np.abs((mean - result.expected) / result.sd).max() < 4 / np.sqrt(10_000)
    assert np.abs(sd / result.sd - 1).max() < 4 / np.sqrt(20_000)
    z = (result.counts - mean) / sd
    allowed = 4 * np.sqrt(1 / 10_000 + result.z**2 / 20_000)
    assert (np.abs(z - result.z) < allowed).all()


def test_counts_are_sums_over_edges_in_each_direction():
    pattern = random_pattern(120, 2)
    graph = delaunay(pattern)
    ones = np.ones(len(graph.indices))
    assert np.array_equal(edge_sums(graph, pattern), slow_sums(graph, pattern.codes, ones))


def test_permuted_counts_depend_on_the_seed_and_not_on_the_jobs():
    pattern = random_pattern(200, 3, strata=np.arange(200) % 4)
    graph = delaunay(pattern).within_strata(pattern.strata)
    one = permuted_sums(graph, pattern, 100, seed=1)
    assert np.array_equal(one, permuted_sums(graph, pattern, 100, seed=1, n_jobs=3))
    assert np.array_equal(one[:10], permuted_sums(graph, pattern, 10, seed=1))
    assert not np.array_equal(one, permuted_sums(graph, pattern, 100, seed=2))
    weights = np.ones(len(graph.indices))
    assert np.allclose(one, permuted_sums(graph, pattern, 100, seed=1, weights=weights))


def test_relabelling_stays_within_strata():
    strata = np.repeat([0, 1], 50)
    pattern = Pattern(np.random.default_rng(4).random((100, 2)), strata, NAMES, strata=strata)
    graph = delaunay(pattern).within_strata(pattern.strata)
    sums = permuted_sums(graph, pattern, 5)
    assert (sums == edge_sums(graph, pattern)).all()
    result = enrichment(graph, pattern)
    assert (result.sd == 0).all()
    assert (result.p == 1).all()


def null_p(pair: tuple[int, int], simulations: int, **options) -> np.ndarray:
    pattern = random_pattern(1000, 5, probabilities=(0.4, 0.3, 0.3))
    graph = delaunay(pattern)
    rng = np.random.default_rng(6)
    values = []
    for number in range(simulations):
        shuffled = pattern.relabelled(rng.permutation(pattern.codes))
        values.append(enrichment(graph, shuffled, seed=number, **options).p[pair])
    return np.array(values)


@pytest.mark.parametrize("pair", [(0, 0), (0, 1), (2, 2)])
def test_p_is_uniform_under_random_labelling(pair):
    assert kstest(null_p(pair, 1000, fallback=0), "uniform").pvalue > 0.01


def test_p_of_permutations_is_uniform_and_never_zero():
    p = null_p((0, 1), 300, permutations=99)
    assert kstest(p, "uniform").pvalue > 0.01
    assert p.min() >= 1 / 100


def test_small_expected_counts_fall_back_to_permutations_by_themselves():
    pattern = random_pattern(300, 7, probabilities=(0.9, 0.08, 0.02))
    result = enrichment(delaunay(pattern), pattern)
    assert np.array_equal(result.by_permutation, result.expected < 5)
    assert result.by_permutation[2, 2]
    assert not result.by_permutation[0, 0]
    assert (result.p[result.by_permutation] >= 1 / 1000).all()


def test_planted_attraction_and_repulsion_are_found():
    rng = np.random.default_rng(8)
    a = rng.random((300, 2)) * 100
    b = a[:150] + rng.normal(0, 0.5, (150, 2))
    c = np.column_stack([rng.random(150) * 100, 200 + rng.random(150) * 100])
    pattern = Pattern(np.concatenate([a, b, c]), np.repeat([0, 1, 2], [300, 150, 150]), NAMES)
    frame = enrichment(delaunay(pattern), pattern).to_frame().set_index(["type_a", "type_b"])
    assert frame.loc[("a", "b"), "log2_low"] > 0
    assert frame.loc[("a", "c"), "log2_high"] < 0
    assert (frame.loc[[("a", "b"), ("a", "c"), ("c", "c")], "q"] < 1e-6).all()


def test_the_interval_excludes_nought_exactly_where_p_is_small():
    pattern = random_pattern(300, 9)
    result = enrichment(delaunay(pattern), pattern, fallback=0)
    low, high = result.interval(0.5)
    assert np.array_equal((low > 0) | (high < 0), result.p < 0.5)


def test_several_images_add_up_and_are_never_joined():
    patterns = [random_pattern(150, seed) for seed in (10, 11)]
    graphs = [delaunay(p) for p in patterns]
    both = enrichment(graphs, patterns)
    each = [enrichment(g, p) for g, p in zip(graphs, patterns, strict=True)]
    assert np.array_equal(both.counts, sum(r.counts for r in each))
    assert np.allclose(both.sd**2, sum(r.sd**2 for r in each))
    as_strata = Pattern(
        np.concatenate([patterns[0].at, patterns[1].at + 50]),
        np.concatenate([p.codes for p in patterns]),
        NAMES,
        strata=np.repeat([0, 1], 150),
    )
    joined = enrichment(delaunay(as_strata), as_strata)
    assert joined.n_dropped > 0
    assert abs(joined.counts.sum() - both.counts.sum()) < 0.1 * both.counts.sum()


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_few_nuclei_are_defined(n):
    pattern = Pattern(np.random.default_rng(0).random((n, 2)), np.arange(n) % 2, NAMES)
    result = enrichment(delaunay(pattern), pattern)
    assert np.isfinite(result.z).all()
    assert ((result.p > 0) & (result.p <= 1)).all()


def test_one_type_cannot_vary_and_says_so():
    pattern = Pattern(np.random.default_rng(0).random((50, 2)), np.zeros(50), ("a",))
    result = enrichment(delaunay(pattern), pattern)
    assert result.sd[0, 0] == 0
    assert result.p[0, 0] == 1
    assert result.log2_ratio[0, 0] == 0


def test_the_order_of_the_types_changes_nothing():
    pattern = random_pattern(200, 12)
    graph = delaunay(pattern)
    turned = Pattern(pattern.at, (pattern.codes + 1) % 3, ("c", "a", "b"))
    z, other = enrichment(graph, pattern).z, enrichment(graph, turned).z
    order = [1, 2, 0]
    assert np.allclose(z, other[np.ix_(order, order)])


def test_what_does_not_belong_together_is_refused():
    pattern = random_pattern(20, 13)
    with pytest.raises(InputError, match="19 nuclei but the pattern has 20"):
        enrichment(delaunay(pattern.where(np.arange(20) > 0)), pattern)
    split = random_pattern(20, 13, strata=np.arange(20) % 2)
    with pytest.raises(CallError, match="joins two strata"):
        null_moments(delaunay(split), split)


def test_false_discovery_values_follow_the_step_up_rule_and_keep_gaps():
    q = benjamini_hochberg(np.array([0.5, np.nan, 0.001, 0.02]))
    assert np.allclose(q[[0, 2, 3]], [0.5, 0.003, 0.03])
    assert np.isnan(q[1])
