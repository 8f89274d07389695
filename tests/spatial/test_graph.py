"""Graphs of neighbours, also of degenerate patterns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.errors import CallError
from nucleoscope.spatial.graph import Graph, delaunay, nearest, within
from nucleoscope.spatial.pattern import Pattern


def pattern_of(at: object) -> Pattern:
    array = np.asarray(at, dtype=float)
    return Pattern(array, np.zeros(len(array)), ("any",))


def edge_set(graph: Graph) -> set[tuple[int, int]]:
    return set(zip(graph.rows.tolist(), graph.indices.tolist(), strict=True))


def is_connected(graph: Graph) -> bool:
    from scipy.sparse.csgraph import connected_components

    return bool(connected_components(graph.to_csr())[0] == 1)


@pytest.mark.parametrize("build", [delaunay, lambda p: nearest(p, 3), lambda p: within(p, 2.0)])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_none_one_and_two_nuclei_have_a_graph(build, n):
    graph = build(pattern_of(np.arange(2 * n).reshape(n, 2) / 4))
    assert graph.n == n
    assert graph.n_edges == (1 if n == 2 else 0)


def test_nuclei_on_a_line_are_joined_along_it():
    at = np.outer([0.0, 3.0, 1.0, 7.0], [1.0, 2.0])
    assert edge_set(delaunay(pattern_of(at))) == {(0, 2), (2, 0), (1, 2), (2, 1), (1, 3), (3, 1)}


def test_a_stack_whose_nuclei_lie_in_one_plane_gives_the_plane_graph():
    flat = np.random.default_rng(0).random((40, 2))
    in_stack = np.column_stack([np.full(40, 3.0), flat])
    assert edge_set(delaunay(pattern_of(flat))) == edge_set(delaunay(pattern_of(in_stack)))


def test_nuclei_in_one_place_are_joined_and_the_graph_stays_whole():
    at = np.random.default_rng(1).random((30, 2))
    graph = delaunay(pattern_of(np.concatenate([at, at[:5], at[:5]])))
    assert is_connected(graph)
    assert (graph.degrees > 0).all()
    assert ((graph.lengths == 0).sum()) == 20


@pytest.mark.parametrize("dims", [2, 3])
def test_delaunay_holds_every_nearest_neighbour(dims):
    pattern = pattern_of(np.random.default_rng(2).random((80, dims)))
    assert edge_set(nearest(pattern, 1)) <= edge_set(delaunay(pattern))


def test_delaunay_edges_are_those_of_empty_circles():
    at = np.random.default_rng(3).random((25, 2))
    graph = delaunay(pattern_of(at))
    truth = set()
    for i in range(25):
        for j in range(25):
            for k in range(25):
                if len({i, j, k}) < 3:
                    continue
                system = 2 * np.array([at[j] - at[i], at[k] - at[i]])
                target = [(at[j] ** 2 - at[i] ** 2).sum(), (at[k] ** 2 - at[i] ** 2).sum()]
                centre = np.linalg.solve(system, target)
                radius = np.linalg.norm(centre - at[i])
                if (np.linalg.norm(at - centre, axis=1) < radius - 1e-9).sum() == 0:
                    truth.add((i, j))
    assert edge_set(graph) == truth


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=25), st.integers(1, 6))
def test_graphs_of_lattice_points_are_simple_and_symmetric(places, k):
    pattern = pattern_of(np.array(places, dtype=float).reshape(-1, 2))
    for graph in (delaunay(pattern), nearest(pattern, k), within(pattern, 1.5)):
        edges = edge_set(graph)
        assert len(edges) == len(graph.indices)
        assert all(i != j and (j, i) in edges for i, j in edges)
        lengths = np.linalg.norm(pattern.at[graph.rows] - pattern.at[graph.indices], axis=1)
        assert np.allclose(lengths, graph.lengths)


def test_directed_nearest_has_k_out_of_every_nucleus_even_among_duplicates():
    at = np.concatenate([np.zeros((9, 2)), np.ones((3, 2))])
    graph = nearest(pattern_of(at), 4, symmetric=False)
    assert (graph.degrees == 4).all()
    assert not (graph.rows == graph.indices).any()


def test_the_radius_is_inclusive_and_in_the_patterns_unit():
    graph = within(pattern_of([[0, 0], [0, 5], [0, 10.5]]), 5.0)
    assert edge_set(graph) == {(0, 1), (1, 0)}


def test_longer_edges_are_left_out():
    pattern = pattern_of(np.random.default_rng(4).random((60, 2)))
    whole, short = delaunay(pattern), delaunay(pattern, max_length=0.15)
    assert short.lengths.max() <= 0.15 < whole.lengths.max()
    assert edge_set(short) == {
        edge
        for edge, length in zip(
            zip(whole.rows.tolist(), whole.indices.tolist(), strict=True),
            whole.lengths,
            strict=True,
        )
        if length <= 0.15
    }


def test_impossible_settings_are_refused_in_a_sentence():
    pattern = pattern_of([[0, 0], [1, 1]])
    with pytest.raises(CallError, match="k of 1 or more; found 0"):
        nearest(pattern, 0)
    with pytest.raises(CallError, match="positive radius"):
        within(pattern, 0.0)
