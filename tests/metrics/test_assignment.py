from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.metrics import assignment
from nucleoscope.metrics.assignment import assign

graphs = st.sets(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=9)


def cheapest(rows, columns, costs, single):
    """Least price over all sets of disjoint pairs, by trying every one."""
    size = len(set(rows)) + len(set(columns))
    best = np.inf
    for k in range(len(rows) + 1):
        for pick in combinations(range(len(rows)), k):
            used = [rows[i] for i in pick], [columns[i] for i in pick]
            if len(set(used[0])) == k == len(set(used[1])):
                price = sum(costs[i] for i in pick) + single * (size - 2 * k)
                best = min(best, price)
    return best


@settings(deadline=None, max_examples=60)
@given(graphs, st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 100.0]))
def test_the_price_is_the_least_of_all_disjoint_sets_of_pairs(graph, seed, single):
    rows, columns = np.array(sorted(graph), dtype=np.int64).T
    costs = np.random.default_rng(seed).uniform(-1, 1, len(rows))
    chosen = assign(rows, columns, costs, single=single)
    assert len(set(rows[chosen])) == len(chosen) == len(set(columns[chosen]))
    size = len(set(rows)) + len(set(columns))
    price = costs[chosen].sum() + single * (size - 2 * len(chosen))
    assert np.isclose(price, cheapest(rows, columns, costs, single))


def test_splitting_into_batches_changes_nothing(monkeypatch):
    rng = np.random.default_rng(4)
    pairs = np.unique(rng.integers(0, 60, (90, 2)), axis=0)
    costs = rng.random(len(pairs))
    whole = assign(pairs[:, 0], pairs[:, 1], costs, single=None)
    monkeypatch.setattr(assignment, "BATCH", 1)
    assert assign(pairs[:, 0], pairs[:, 1], costs, single=None).tolist() == whole.tolist()


@settings(deadline=None, max_examples=40)
@given(graphs, st.integers(0, 10**6))
def test_without_a_price_for_singles_the_number_of_pairs_comes_first(graph, seed):
    rows, columns = np.array(sorted(graph), dtype=np.int64).T
    costs = np.random.default_rng(seed).choice([0.0, 1.0, 1000.0], len(rows))
    plain, dear = assign(rows, columns, costs), assign(rows, columns, costs, single=1e6)
    assert len(plain) == len(dear)
    assert costs[plain].sum() == costs[dear].sum()


def test_no_pairs_give_no_choice():
    none = np.empty(0, np.int64)
    assert assign(none, none, np.empty(0), single=1.0).tolist() == []
