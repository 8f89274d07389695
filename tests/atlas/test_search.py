"""Search against a slow sort; ties, filters, too few, and the index."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.atlas import search
from nucleoscope.atlas.search import (
    build_index,
    nearest,
    nearest_many,
    neighbours_of_all,
    search_index,
)
from nucleoscope.errors import CallError, InputError


def vectors(n: int, d: int = 12, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32)


def slow(queries: np.ndarray, reference: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries.astype(float) @ reference.T.astype(float)), axis=1)[:, :k]


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 400), st.integers(1, 30), st.integers(1, 12), st.integers(0, 99))
def test_exact_search_is_a_slow_sort(n: int, q: int, k: int, seed: int) -> None:
    reference, queries = vectors(n, seed=seed), vectors(q, seed=seed + 100)
    found = nearest(queries, reference, k)
    expected = slow(queries, reference, k)
    have = min(k, n)
    assert np.array_equal(found.rows[:, :have], expected)
    assert (found.rows[:, have:] == -1).all() and np.isnan(found.similarity[:, have:]).all()
    cosines = np.take_along_axis(queries @ reference.T, expected, axis=1)
    assert np.allclose(found.similarity[:, :have], cosines, atol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 700])
def test_every_vector_finds_its_neighbours_but_not_itself(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_ROWS", 96)
    monkeypatch.setattr(search, "_COLUMNS", 130)
    whole = vectors(n)
    scores = whole.astype(float) @ whole.T.astype(float)
    np.fill_diagonal(scores, -9)
    have = min(6, n - 1)
    found = neighbours_of_all(whole, 6)
    assert np.array_equal(found.rows[:, :have], np.argsort(-scores, axis=1)[:, :have])
    assert (found.rows[:, have:] == -1).all()


def test_equal_cosines_are_ordered_by_row() -> None:
    reference = np.repeat(np.eye(3, dtype=np.float32), 40, axis=0)
    found = nearest(np.eye(3, dtype=np.float32), reference, 5)
    assert found.rows.tolist() == [[40 * i + j for j in range(5)] for i in range(3)]
    every = neighbours_of_all(reference, 2).rows
    assert every[0].tolist() == [1, 2] and every[50].tolist() == [40, 41]


def test_only_kept_rows_are_answers() -> None:
    reference, queries = vectors(300), vectors(9, seed=1)
    keep = np.zeros(300, bool)
    keep[::7] = True
    expected = np.flatnonzero(keep)[slow(queries, reference[keep], 4)]
    assert np.array_equal(nearest(queries, reference, 4, keep=keep).rows, expected)
    index = build_index(reference)
    assert np.array_equal(search_index(index, queries, 4, keep=keep).rows, expected)
    assert (nearest(queries, reference, 2, keep=np.zeros(300, bool)).rows == -1).all()


def test_kept_rows_are_found_in_groups_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "EXACT_BELOW", 10)
    reference, queries = vectors(300), vectors(9, seed=1)
    keep = np.arange(300) % 3 > 0
    found = search_index(build_index(reference), queries, 4, n_probes=999, keep=keep)
    assert np.array_equal(found.rows, np.flatnonzero(keep)[slow(queries, reference[keep], 4)])


def test_an_index_that_looks_into_every_group_is_exact() -> None:
    reference = vectors(500).astype(np.float16)
    queries = vectors(20, seed=3)
    found = search_index(build_index(reference), queries, 7, n_probes=10_000)
    assert np.array_equal(found.rows, slow(queries, reference.astype(np.float32), 7))


def test_an_index_finds_nearly_all_in_a_few_groups() -> None:
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(8, 64))
    raw = rng.normal(size=(6000, 8)) @ mix + 0.3 * rng.normal(size=(6000, 64))
    whole = (raw / np.linalg.norm(raw, axis=1)[:, None]).astype(np.float16)
    exact = nearest(whole[:400], whole, 10).rows
    found = search_index(build_index(whole), whole[:400], 10, n_probes=64).rows
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
    assert recall > 0.99


def test_many_queries_go_through_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = vectors(200)
    exact = nearest_many(reference, reference, 3)
    monkeypatch.setattr(search, "MOST_PAIRS", 10)
    assert np.array_equal(nearest_many(reference, reference, 3).rows[:, 0], exact.rows[:, 0])


def test_queries_in_blocks_get_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = vectors(300)
    index = build_index(reference)
    keep = np.arange(300) % 3 > 0
    whole = [search_index(index, reference[:40], 5, keep=k) for k in (None, keep)]
    monkeypatch.setattr(search, "_QUERIES", 7)
    for before, k in zip(whole, (None, keep), strict=True):
        after = search_index(index, reference[:40], 5, keep=k)
        assert np.array_equal(before.rows, after.rows)
        assert np.allclose(before.similarity, after.similarity, atol=1e-6)


def test_what_cannot_be_compared_is_one_sentence() -> None:
    with pytest.raises(InputError, match="one encoder"):
        nearest(vectors(2, 3), vectors(2, 4), 1)
    with pytest.raises(CallError, match="k=0"):
        nearest(vectors(2), vectors(2), 0)
    with pytest.raises(InputError, match="keep"):
        nearest(vectors(2), vectors(2), 1, keep=np.ones(3, bool))
    with pytest.raises(CallError, match="n_probes"):
        search_index(build_index(vectors(4)), vectors(1), 1, n_probes=0)
