"""One seed in, independent draws out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nucleoscope.seeds import generator, spawn

SEED = st.integers(0, 2**40)


@given(seed=SEED, path=st.lists(st.integers(0, 2**31), max_size=4))
def test_the_same_path_draws_the_same(seed: int, path: list[int]) -> None:
    assert generator(seed, *path).integers(2**60) == generator(seed, *path).integers(2**60)


@given(seed=SEED, a=st.integers(0, 10**6), b=st.integers(0, 10**6))
def test_another_path_draws_otherwise(seed: int, a: int, b: int) -> None:
    one = generator(seed, a).integers(2**60)
    assert (one == generator(seed, b).integers(2**60)) == (a == b)
    assert one != generator(seed, a, 0).integers(2**60)
    assert one != generator(seed + 1, a).integers(2**60)


@given(seed=SEED, n=st.integers(1, 8))
def test_how_many_are_spawned_changes_none(seed: int, n: int) -> None:
    few, many = spawn(seed, n), spawn(seed, n + 3)
    assert [g.integers(2**60) for g in few] == [g.integers(2**60) for g in many[:n]]


def test_spawned_generators_are_independent() -> None:
    draws = np.array([g.standard_normal(2000) for g in spawn(0, 6)])
    correlation = np.corrcoef(draws) - np.eye(6)
    assert np.abs(correlation).max() < 0.1


def test_the_global_generator_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generator(1).random(10)
    spawn(1, 3)
    assert (before == np.random.get_state()[1]).all()  # noqa: NPY002
