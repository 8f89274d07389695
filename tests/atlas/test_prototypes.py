"""Prototypes are directions, repeatable, and stand for every vector."""

from __future__ import annotations

import numpy as np
import pytest

from nucleoscope.atlas.prototypes import fit_prototypes, n_prototypes, nearest_prototype
from nucleoscope.errors import CallError, InputError


def clustered(n: int, kinds: int = 6, d: int = 10, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, kinds, n)
    raw = rng.normal(size=(kinds, d))[kind] * 3 + 0.3 * rng.normal(size=(n, d))
    return (raw / np.linalg.norm(raw, axis=1)[:, None]).astype(np.float32), kind


def test_prototypes_have_length_one_and_repeat_with_the_seed() -> None:
    vectors, _ = clustered(800)
    centres = fit_prototypes(vectors, 30, seed=4)
    assert np.allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)
    assert np.array_equal(centres, fit_prototypes(vectors, 30, seed=4))
    assert not np.array_equal(centres, fit_prototypes(vectors, 30, seed=5))


def test_no_prototype_mixes_kinds_that_lie_apart() -> None:
    vectors, kind = clustered(800)
    owner = nearest_prototype(vectors, fit_prototypes(vectors, 40)).owner
    assert all(len(set(kind[owner == p])) == 1 for p in np.unique(owner))


def test_a_round_makes_the_vectors_better_represented() -> None:
    vectors, _ = clustered(800)
    means = [
        nearest_prototype(vectors, fit_prototypes(vectors, 20, n_iterations=i)).similarity.mean()
        for i in (0, 1, 5)
    ]
    assert means[0] < means[1] <= means[2] + 1e-6


def test_the_nearest_prototype_is_that_of_a_slow_loop() -> None:
    vectors, _ = clustered(50)
    centres = fit_prototypes(vectors, 7)
    found = nearest_prototype(vectors, centres)
    for i, vector in enumerate(vectors):
        scores = [float(vector @ centre) for centre in centres]
        assert scores[found.owner[i]] == pytest.approx(max(scores))
        assert found.similarity[i] == pytest.approx(max(scores))


def test_equal_vectors_do_not_break_the_fit() -> None:
    centres = fit_prototypes(np.repeat(np.eye(4, dtype=np.float32)[:1], 20, axis=0), 5)
    assert np.isfinite(centres).all()


def test_there_are_never_more_prototypes_than_nuclei() -> None:
    assert [n_prototypes(n) for n in (0, 1, 16, 100, 10_000)] == [0, 1, 16, 40, 400]
    with pytest.raises(CallError, match="1 to 3"):
        fit_prototypes(np.eye(3), 4)


def test_other_dimensions_are_refused() -> None:
    with pytest.raises(InputError, match="one encoder"):
        nearest_prototype(np.eye(3), np.eye(4, dtype=np.float32))
