"""Laws and oracles of the figures that say what an embedding is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nucleoscope.errors import CallError
from nucleoscope.metrics import embedding as judge
from nucleoscope.metrics.embedding import Split

Array = NDArray[Any]


def world(
    seed: int = 0, n: int = 400, signal: float = 3.0, slide_shift: float = 0.0
) -> tuple[Array, Array, Array]:
    """Embedding, types and slides: three types as directions, eight slides as offsets."""
    rng = np.random.default_rng(seed)
    types = rng.integers(0, 3, n)
    slides = rng.integers(0, 8, n)
    x = rng.normal(size=(n, 12))
    x[np.arange(n), types] += signal
    x[:, 3:6] += slide_shift * rng.normal(size=(8, 3))[slides]
    return x, np.array(["ep", "fib", "inf"])[types], np.array([f"s{i}" for i in slides])


# ---------------------------------------------------------------- splits


@given(st.integers(0, 50), st.integers(3, 12))
def test_a_split_has_every_nucleus_once_and_no_slide_twice(seed: int, n_slides: int) -> None:
    slides = np.array([f"s{i % n_slides}" for i in range(5 * n_slides)])
    split = judge.split_by_slide(slides, seed=seed)
    rows = np.concatenate(split)
    assert sorted(rows.tolist()) == list(range(len(slides)))
    sets = [set(slides[part]) for part in split]
    assert all(sets)
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])


def test_the_named_test_slides_are_the_test_set() -> None:
    slides = np.array(["a", "b", "c", "d"])
    assert judge.split_by_slide(slides, test=["b", "d"]).test.tolist() == [1, 3]


def test_the_same_seed_gives_the_same_split() -> None:
    slides = [f"s{i % 9}" for i in range(90)]
    one, two = (judge.split_by_slide(slides, seed=3) for _ in range(2))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("slides", "test", "words"),
    [
        (["a", "b"], None, "needs three of them; found 2"),
        (["a", "b", "c"], ["z"], "'z' has no nuclei"),
        (["a", "b", "c"], ["a", "b"], "no slides are left"),
    ],
)
def test_an_impossible_split_is_refused(slides: list[str], test: Any, words: str) -> None:
    with pytest.raises(CallError, match=words):
        judge.split_by_slide(slides, test=test)


# ---------------------------------------------------------------- probes


def test_votes_are_those_of_a_slow_loop() -> None:
    x, types, slides = world(n=160)
    split = judge.split_by_slide(slides, seed=1)
    probe = judge.knn_probe(x, types, split, neighbours=(7,))
    names, codes = np.unique(types, return_inverse=True)
    z = {
        "as it is": x.astype(np.float32).astype(float),
        "centred": x - x[split.train].mean(axis=0),
        "standardised": judge.standardised(x, split.train).astype(float),
    }[probe.chosen.split(", ")[1]]
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    train = np.concatenate([split.train, split.valid])
    right = 0
    for i in split.test:
        similarity = z[train] @ z[i]
        votes = np.zeros(len(names))
        for j in np.argsort(-similarity)[:7]:
            votes[codes[train[j]]] += np.exp(similarity[j] / 0.07)
        right += votes.argmax() == codes[i]
    assert probe.accuracy == pytest.approx(right / len(split.test))


def test_neighbours_are_counted_around_the_mean_where_types_are_directions_from_it() -> None:
    rng = np.random.default_rng(0)
    angle = rng.integers(0, 5, 900)
    length = rng.lognormal(0.0, 1.0, (900, 1))
    at = np.stack([np.cos(angle * 1.2566), np.sin(angle * 1.2566)], axis=1)
    x = np.full((900, 43), 30.0)
    x[:, :2] += length * (at + rng.normal(size=at.shape) * 0.25)
    x[:, 3:] += rng.normal(size=(900, 40)) * 0.01
    split = Split(np.arange(300), np.arange(300, 600), np.arange(600, 900))
    probe = judge.knn_probe(x, angle.astype(str), split, neighbours=(100,))
    assert probe.chosen.endswith("centred")
    assert probe.weighted_f1 > 0.95
    moved = x - x[split.train].mean(axis=0)
    around = judge.knn_probe(moved, angle.astype(str), split, neighbours=(100,))
    assert probe.weighted_f1 == pytest.approx(around.weighted_f1, abs=0.01)


@pytest.mark.parametrize("probe", [judge.knn_probe, judge.linear_probe])
def test_a_probe_reads_what_is_there_and_nothing_else(probe: Any) -> None:
    x, types, slides = world(n=600)
    split = judge.split_by_slide(slides, seed=0)
    assert probe(x, types, split).weighted_f1 > 0.9
    noise = np.random.default_rng(0).normal(size=x.shape)
    assert probe(noise, types, split).weighted_f1 < 0.5


def test_untyped_nuclei_and_unknown_values_take_no_part() -> None:
    x, types, slides = world(n=600)
    split = judge.split_by_slide(slides, seed=0)
    types = types.copy()
    types[::7] = ""
    x[::11, 5] = np.nan
    assert judge.knn_probe(x, types, split).weighted_f1 > 0.9
    assert judge.linear_probe(x, types, split).weighted_f1 > 0.9


def test_what_is_chosen_does_not_look_at_the_test_slides() -> None:
    x, types, slides = world(n=400, signal=1.0)
    split = judge.split_by_slide(slides, seed=0)
    before = judge.knn_probe(x, types, split).chosen
    shuffled = types.copy()
    shuffled[split.test] = shuffled[split.test][::-1]
    assert judge.knn_probe(x, shuffled, split).chosen == before
    assert (
        judge.linear_probe(x, types, split).chosen == judge.linear_probe(x, shuffled, split).chosen
    )


def test_more_labels_help() -> None:
    x, types, slides = world(n=1500, signal=1.5)
    split = judge.split_by_slide(slides, seed=0)
    few = np.mean(
        [judge.linear_probe(x, types, split, n_labels=15, seed=s).weighted_f1 for s in range(3)]
    )
    assert judge.linear_probe(x, types, split).weighted_f1 > few + 0.05


def test_a_set_without_types_is_refused() -> None:
    split = Split(np.array([0]), np.array([1]), np.array([2]))
    with pytest.raises(CallError, match="test slides hold no typed nucleus"):
        judge.knn_probe(np.eye(3), ["a", "b", ""], split)
    with pytest.raises(CallError, match="one type only"):
        judge.linear_probe(np.eye(3), ["a", "b", "a"], split)


# ---------------------------------------------------------------- clusters


def test_clusters_that_are_types_agree_fully_and_noise_not_at_all() -> None:
    x, types, _ = world(n=400, signal=12.0)
    found = judge.cluster_agreement(x, types)
    assert found.ari > 0.95
    assert found.ami > 0.9
    assert found.purity > 0.98
    assert found.purity_fine > 0.98
    noise = np.random.default_rng(0).normal(size=x.shape)
    assert abs(judge.cluster_agreement(noise, types).ari) < 0.05


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=40))
def test_purity_is_that_of_a_slow_count(pairs: list[tuple[int, int]]) -> None:
    clusters, types = zip(*pairs, strict=True)
    most = sum(
        max([t for c, t in pairs if c == cluster].count(k) for k in range(3))
        for cluster in set(clusters)
    )
    assert judge.purity(clusters, types) == pytest.approx(most / len(pairs))


def test_one_type_has_no_agreement() -> None:
    with pytest.raises(CallError, match="two types"):
        judge.cluster_agreement(np.eye(3), ["a", "a", ""])


# ---------------------------------------------------------------- retrieval and leakage


def test_retrieval_looks_at_other_slides_only() -> None:
    # Within a slide neighbours agree; across slides they are of the other type.
    x = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1]], float)
    types, slides = ["a", "a", "b", "b"], ["s", "s", "t", "t"]
    assert judge.retrieval_precision(x, types, slides, k=1) == 0.0
    assert judge.retrieval_precision(x, types, ["s", "t", "s", "t"], k=1) == 1.0
    with pytest.raises(CallError, match="two slides"):
        judge.retrieval_precision(x, types, ["s"] * 4)


def test_retrieval_is_that_of_a_slow_loop() -> None:
    x, types, slides = world(n=150, signal=1.5)
    z = judge.unit_rows(judge.standardised(x, np.arange(150))).astype(float)
    hits = 0
    for i in range(150):
        near = [j for j in np.argsort(-(z @ z[i]), kind="stable") if slides[j] != slides[i]][:10]
        hits += sum(types[j] == types[i] for j in near)
    assert judge.retrieval_precision(x, types, slides) == pytest.approx(hits / 1500)


def test_leakage_sees_a_shift_between_slides() -> None:
    x, _, slides = world(n=800, slide_shift=6.0)
    assert judge.slide_leakage(x, slides).same_slide > 0.5
    x, _, slides = world(n=800)
    clean = judge.slide_leakage(x, slides)
    assert abs(clean.same_slide - clean.chance) < 0.06


# ---------------------------------------------------------------- invariance and read-out


def test_invariance_is_one_for_the_same_direction_and_zero_for_others() -> None:
    x = np.eye(4)
    assert judge.invariance(x, 3 * x) == pytest.approx(1.0)
    assert judge.invariance(x, np.roll(x, 1, axis=1)) == pytest.approx(0.0)
    with pytest.raises(CallError, match="rows with rows"):
        judge.invariance(x, x[:2])


def test_a_value_that_is_in_the_embedding_is_read_out() -> None:
    x, _, slides = world(n=500)
    split = judge.split_by_slide(slides, seed=0)
    value = np.exp(x @ np.arange(12.0) / 10)
    assert judge.read_out(x, value, split) > 0.97
    value[::9] = np.nan
    assert judge.read_out(x, value, split) > 0.97
    noise = np.random.default_rng(1).normal(size=500)
    assert abs(judge.read_out(x, noise, split)) < 0.3
    with pytest.raises(CallError, match="three known values"):
        judge.read_out(x, np.full(500, np.nan), split)


def test_blocks_weigh_the_same_however_wide_they_are() -> None:
    rng = np.random.default_rng(0)
    x = np.hstack([rng.normal(size=(200, 12)) * 9, rng.normal(size=(200, 3))])
    z = judge.standardised(x, np.arange(200), (12, 3))
    assert z[:, :12].var() * 12 == pytest.approx(z[:, 12:].var() * 3, rel=1e-3)
    assert np.array_equal(z[:, :12], judge.standardised(x, np.arange(200))[:, :12])
    assert np.array_equal(
        judge.standardised(x, np.arange(200), (15,)), judge.standardised(x, np.arange(200))
    )


def test_a_narrow_block_that_knows_the_types_is_heard_beside_a_wide_one() -> None:
    rng = np.random.default_rng(1)
    types = np.array(["a", "b"])[rng.integers(0, 2, 600)]
    knows = np.where(types == "a", -0.5, 0.5)[:, None] + rng.normal(size=(600, 2)) * 0.5
    x = np.hstack([rng.normal(size=(600, 300)), knows])
    split = judge.Split(np.arange(100), np.arange(100, 200), np.arange(200, 600))
    for probe in (judge.knn_probe, judge.linear_probe):
        plain, even = probe(x, types, split), probe(x, types, split, blocks=(300, 2))
        assert even.weighted_f1 > plain.weighted_f1 + 0.03


@pytest.mark.parametrize("blocks", [(2, 3), (4, 0), (1, 1, 1)])
def test_blocks_that_do_not_fit_are_refused(blocks) -> None:
    with pytest.raises(CallError, match="do not make 4"):
        judge.standardised(np.eye(4), np.arange(4), blocks)
