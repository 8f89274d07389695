from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.errors import CallError, InputError
from nucleoscope.metrics import detection_scores, hovernet_type_scores, match_points, type_scores

clouds = st.integers(0, 10**6)


def cloud(seed, axes=2, most=5, side=8):
    """Two small sets on an integer grid, so that distances tie often."""
    rng = np.random.default_rng(seed)
    n, m = rng.integers(0, most + 1, 2)
    p, t = rng.integers(0, side, (n, axes)), rng.integers(0, side, (m, axes))
    return p.astype(float), t.astype(float)


def best_by_trying(p, t, radius):
    """Most pairs and then least distance over every injection."""
    short, long = (p, t) if len(p) <= len(t) else (t, p)
    best = (0, 0.0)
    for order in permutations(range(len(long)), len(short)):
        gaps = [np.hypot(*(a - long[j])) for a, j in zip(short, order, strict=True)]
        near = [g for g in gaps if g <= radius]
        best = min(best, (-len(near), sum(near)))
    return -best[0], best[1]


def greedy_by_loop(p, t, radius):
    """The published rule, literally."""
    free, pairs = list(range(len(p))), []
    for j in sorted(range(len(t)), key=lambda j: (*t[j], j)):
        if free:
            gaps = [np.sqrt(((p[i] - t[j]) ** 2).sum()) for i in free]
            if min(gaps) < radius:
                pairs.append((free.pop(int(np.argmin(gaps))), j))
    return sorted(pairs)


@settings(deadline=None, max_examples=100)
@given(clouds)
def test_optimal_has_most_pairs_and_then_least_distance(seed):
    p, t = cloud(seed)
    matching = match_points(p, t, radius=3)
    count, total = best_by_trying(p, t, 3)
    assert len(matching.distances) == count
    assert np.isclose(matching.distances.sum(), total)


@settings(deadline=None, max_examples=100)
@given(clouds, st.sampled_from([2, 3]))
def test_greedy_is_the_published_loop(seed, axes):
    p, t = cloud(seed, axes, most=9)
    matching = match_points(p, t, radius=3, rule="greedy")
    found = sorted(zip(matching.predicted_index, matching.truth_index, strict=True))
    assert found == greedy_by_loop(p, t, 3)


def test_a_matching_that_once_never_ended_ends():
    # With rounded prices the search for this one went round in circles.
    p, t = cloud(271, most=30, side=20)
    there, back = match_points(p, t, radius=4), match_points(t, p, radius=4)
    assert len(there.distances) == len(back.distances)


@settings(deadline=None, max_examples=50)
@given(clouds)
def test_optimal_is_symmetric_and_never_behind_greedy(seed):
    p, t = cloud(seed, most=30, side=20)
    there, back = match_points(p, t, radius=4), match_points(t, p, radius=4)
    assert len(there.distances) == len(back.distances)
    assert np.isclose(there.distances.sum(), back.distances.sum())
    assert len(there.distances) >= len(match_points(p, t, radius=4, rule="greedy").distances)


@settings(deadline=None, max_examples=50)
@given(clouds)
def test_every_position_is_either_paired_or_left(seed):
    p, t = cloud(seed, axes=3, most=20)
    m = match_points(p, t, radius=(1, 3, 3))
    assert sorted([*m.predicted_index, *m.unmatched_predicted]) == list(range(len(p)))
    assert sorted([*m.truth_index, *m.unmatched_truth]) == list(range(len(t)))
    gap = (p[m.predicted_index] - t[m.truth_index]) / np.array([1, 3, 3])
    assert ((gap**2).sum(axis=1) <= 1 + 1e-9).all()
    assert np.allclose(np.sqrt((gap**2).sum(axis=1)) * 3, m.distances)


def test_the_rim_belongs_to_optimal_but_not_to_greedy():
    assert len(match_points([[0, 0]], [[9, 12]], radius=15).distances) == 1
    assert len(match_points([[0, 0]], [[9, 12]], radius=15, rule="greedy").distances) == 0


def test_an_ellipsoid_is_short_in_z():
    matching = match_points([[0, 0, 0], [0, 50, 0]], [[2, 0, 0], [0, 58, 0]], radius=(1.5, 10, 10))
    assert matching.truth_index.tolist() == [1]


def test_order_of_the_points_does_not_change_the_optimum():
    rng = np.random.default_rng(1)
    p, t = rng.uniform(0, 300, (200, 2)), rng.uniform(0, 300, (190, 2))
    shuffled = match_points(rng.permutation(p), rng.permutation(t), radius=15)
    plain = match_points(p, t, radius=15)
    assert len(plain.distances) == len(shuffled.distances)
    assert np.isclose(plain.distances.sum(), shuffled.distances.sum())


def test_many_points_need_little_memory():
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 5000, (20_000, 2))
    matching = match_points(t + rng.normal(0, 2, t.shape), t, radius=15)
    assert len(matching.distances) > 19_900


@pytest.mark.parametrize(("p", "t", "f1"), [([], [[1, 1]], 0), ([[1, 1]], [], 0), ([], [], None)])
def test_empty_sides_score_zero_or_nothing(p, t, f1):
    scores = detection_scores(match_points(p, t, radius=3))
    assert scores.to_dict()["f1"] == f1
    assert scores.tp == 0


@pytest.mark.parametrize("rule", ["optimal", "greedy"])
def test_a_3d_side_may_be_empty(rule):
    nothing = np.empty((0, 3))
    assert len(match_points(nothing, [[1, 2, 3]], radius=(1, 2, 2), rule=rule).unmatched_truth) == 1


@pytest.mark.parametrize("radius", [0, -1, np.nan, (1, 2, 3)])
def test_an_impossible_radius_is_refused(radius):
    with pytest.raises(CallError, match="radius"):
        match_points([[0, 0]], [[0, 0]], radius=radius)


def test_an_unknown_rule_is_refused():
    with pytest.raises(CallError, match="nearest"):
        match_points([[0, 0]], [[0, 0]], radius=1, rule="nearest")


@pytest.mark.parametrize("p", [[[0, np.nan]], [[0]], [[0, 0, 0]]])
def test_impossible_positions_are_refused(p):
    with pytest.raises(InputError):
        match_points(p, [[0, 0]], radius=1)


def test_types_are_matched_anew_on_the_subset():
    # Type-blind, the near wrong type wins the pair; among positives the far one still counts.
    matching = match_points([[0, 0], [0, 5]], [[0, 1]], radius=10)
    assert matching.predicted_index.tolist() == [0]
    scores = type_scores(matching, ["negative", "positive"], ["positive"])
    assert scores["positive"].f1 == 1.0
    assert scores["negative"].fp == 1


def test_type_scores_equal_detection_scores_when_there_is_one_type():
    rng = np.random.default_rng(2)
    p, t = rng.uniform(0, 90, (40, 2)), rng.uniform(0, 90, (30, 2))
    for rule in ("optimal", "greedy"):
        matching = match_points(p, t, radius=9, rule=rule)
        scores = type_scores(matching, ["a"] * 40, ["a"] * 30)
        assert scores == {"a": detection_scores(matching)}


def test_untyped_truth_is_left_out_with_its_prediction():
    matching = match_points([[0, 0], [50, 50]], [[0, 1], [50, 51]], radius=5)
    scores = type_scores(matching, ["a", "b"], ["", "a"])
    assert {k: (s.tp, s.fp, s.fn) for k, s in scores.items()} == {"a": (0, 0, 1), "b": (0, 1, 0)}
    assert hovernet_type_scores(matching, ["a", "b"], ["", "a"]).f_c == {"a": 0.0, "b": 0.0}


def test_hovernet_scores_are_the_formula():
    rng = np.random.default_rng(7)
    p, t = rng.uniform(0, 200, (120, 2)), rng.uniform(0, 200, (100, 2))
    p_types, t_types = rng.choice(["a", "b", "c"], 120), rng.choice(["a", "b", "c"], 100)
    matching = match_points(p, t, radius=12)
    found = hovernet_type_scores(matching, p_types, t_types)
    pairs = list(zip(matching.predicted_index, matching.truth_index, strict=True))
    for kind in "abc":
        tp = sum(p_types[i] == kind and t_types[j] == kind for i, j in pairs)
        fp = sum(p_types[i] == kind and t_types[j] != kind for i, j in pairs)
        fn = sum(p_types[i] != kind and t_types[j] == kind for i, j in pairs)
        fp_d = sum(p_types[i] == kind for i in matching.unmatched_predicted)
        fn_d = sum(t_types[j] == kind for j in matching.unmatched_truth)
        assert np.isclose(found.f_c[kind], 2 * tp / (2 * tp + 2 * fp + 2 * fn + fp_d + fn_d))
    assert found.f_d == detection_scores(matching).f1


def test_as_many_types_as_positions_are_needed():
    with pytest.raises(InputError, match="types"):
        type_scores(match_points([[0, 0]], [[0, 0]], radius=1), ["a", "b"], ["a"])
