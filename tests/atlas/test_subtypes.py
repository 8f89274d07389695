"""Subtypes: planted kinds found, strict nesting, repeatable, stable only with structure."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from nucleoscope.atlas.subtypes import (
    adjusted_rand,
    assign_subtypes,
    exemplars,
    find_subtypes,
)
from nucleoscope.atlas.subtypes_graph import Graph, mutual_graph, nested_communities
from nucleoscope.errors import CallError, InputError, MissingExtraError

pytest.importorskip("igraph")


def tree(n: int = 2000, d: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Three families of three kinds each; vectors, family, kind."""
    rng = np.random.default_rng(seed)
    family = rng.integers(0, 3, n)
    kind = 3 * family + rng.integers(0, 3, n)
    raw = 3 * rng.normal(size=(3, d))[family] + 1.2 * rng.normal(size=(9, d))[kind]
    raw += 0.25 * rng.normal(size=(n, d))
    return (raw / np.linalg.norm(raw, axis=1)[:, None]).astype(np.float16), family, kind


@pytest.fixture(scope="module")
def found():  # type: ignore[no-untyped-def]
    vectors, family, kind = tree()
    return vectors, family, kind, find_subtypes(vectors, levels=(9, 3), n_replicates=3)


def test_planted_families_and_kinds_are_found(found) -> None:  # type: ignore[no-untyped-def]
    _, family, kind, subtypes = found
    for level, truth in ((3, family), (9, kind)):
        names = subtypes.frame[f"subtype_{level}"].to_numpy()
        code = np.unique(names.astype(str), return_inverse=True)[1]
        assert adjusted_rand(code, truth) > 0.98


def test_each_level_is_nested_in_the_coarser_one_by_its_name(found) -> None:  # type: ignore[no-untyped-def]
    frame = found[3].frame
    assert list(frame.columns) == ["subtype", "subtype_3", "subtype_9"]
    coarse, fine = frame["subtype_3"].astype(str), frame["subtype_9"].astype(str)
    assert (fine.str.rsplit(".", n=1).str[0] == coarse).all()
    sizes = coarse.value_counts()
    assert sizes.index.tolist() == sorted(sizes.index)  # 1 is the largest


def test_clear_kinds_are_stable(found) -> None:  # type: ignore[no-untyped-def]
    assert [s.level for s in found[3].stability] == [3, 9]
    assert [s.found for s in found[3].stability] == [3, 9]
    assert all(s.ari > 0.9 for s in found[3].stability)


def test_noise_is_not_stable() -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(600, 16))
    vectors = (raw / np.linalg.norm(raw, axis=1)[:, None]).astype(np.float32)
    stability = find_subtypes(vectors, levels=(8,), n_replicates=2).stability[0]
    assert stability.ari < 0.5


def test_the_same_seed_gives_the_same_subtypes(found) -> None:  # type: ignore[no-untyped-def]
    vectors, _, _, subtypes = found
    again = find_subtypes(vectors, levels=(3, 9), n_replicates=0)
    assert again.frame.equals(subtypes.frame) and again.stability == ()


def test_new_nuclei_get_the_subtypes_of_their_nearest_prototype(found) -> None:  # type: ignore[no-untyped-def]
    vectors, _, _, subtypes = found
    same = assign_subtypes(vectors, subtypes)
    assert same[list(subtypes.frame)].equals(subtypes.frame)
    assert same["is_novel"].mean() == pytest.approx(0.01, abs=0.005)
    raw = np.random.default_rng(5).normal(size=(50, 24)).astype(np.float32)
    away = raw / np.linalg.norm(raw, axis=1)[:, None]
    assert assign_subtypes(away, subtypes)["is_novel"].mean() > 0.9


@pytest.mark.parametrize("n", [1, 2, 5, 30])
def test_a_few_nuclei_have_few_subtypes(n: int) -> None:
    vectors, _, _ = tree(n)
    subtypes = find_subtypes(vectors, n_replicates=1)
    assert len(subtypes.frame) == n
    assert subtypes.frame["subtype_80"].nunique() <= n


def test_a_graph_in_pieces_is_joined() -> None:
    centres = np.repeat(np.eye(4, dtype=np.float32), 6, axis=0)
    graph = mutual_graph(centres, k=3)
    assert nested_communities(graph, (1,))[0].max() == 0
    assert nested_communities(graph, (4,))[0].tolist() == np.repeat(np.arange(4), 6).tolist()


def test_edges_are_mutual_and_each_is_there_once() -> None:
    vectors, _, _ = tree(60)
    graph = mutual_graph(vectors.astype(np.float32), k=4)
    assert (graph.a < graph.b).all()
    assert len(np.unique(graph.a * 60 + graph.b)) == len(graph.a)
    assert (graph.weight > 0).all() and (graph.weight <= 1 + 1e-6).all()
    assert (graph.strengths() > 0).all()


def test_an_empty_graph_has_a_community_per_node() -> None:
    none = np.empty(0, np.int64)
    assert nested_communities(Graph(3, none, none, np.empty(0)), (2,))[0].tolist() == [0, 1, 2]


def test_exemplars_lie_inside_their_subtype_and_are_ordered_by_likeness(found) -> None:  # type: ignore[no-untyped-def]
    vectors, _, _, subtypes = found
    names = subtypes.frame["subtype_3"].to_numpy().astype(str)
    for name, chosen in exemplars(vectors, names).items():
        for rows in chosen.values():
            assert len(rows) == 8 and set(names[rows]) == {name}
        centre = vectors[names == name].astype(float).mean(0)
        likeness = vectors.astype(float) @ centre
        assert likeness[chosen["medoids"]].min() >= likeness[chosen["farthest"]].max()


def test_calls_that_cannot_be_are_one_sentence() -> None:
    with pytest.raises(CallError, match="levels"):
        find_subtypes(np.eye(3), levels=())
    with pytest.raises(CallError, match="levels"):
        find_subtypes(np.eye(3), levels=(0, 3))
    with pytest.raises(InputError, match="no nucleus"):
        find_subtypes(np.zeros((0, 4), np.float16))


def test_without_igraph_one_sentence_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "igraph", None)
    with pytest.raises(MissingExtraError, match=r"nucleoscope\[atlas\]"):
        find_subtypes(tree(50)[0])
