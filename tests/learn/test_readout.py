"""The readout of interpretable features: found in closed form, harmless where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from nucleoscope.learn.readout import LENGTH, RIDGE, Readout


def fitted(x: np.ndarray, features: np.ndarray, width: int) -> Readout:
    readout = Readout(x.shape[1], width)
    readout.fit(torch.from_numpy(x), features)
    return readout


def read(readout: Readout, x: np.ndarray) -> np.ndarray:
    return readout(torch.from_numpy(x))[:, x.shape[1] :].numpy()


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def scene(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = 3 + rng.normal(size=(n, 12))
    features = x[:, :3] @ rng.normal(size=(3, 5)) + 0.1 * rng.normal(size=(n, 5))
    return x, features


def test_before_it_is_fitted_it_says_nothing() -> None:
    x, _ = scene(4)
    out = Readout(12, 5)(torch.from_numpy(x)).numpy()
    assert np.allclose(out[:, :12], unit(x), atol=1e-6)
    assert not out[:, 12:].any()


def test_it_is_a_ridge_regression_turned_and_scaled() -> None:
    x, features = scene(500)
    z = unit(x)
    z = (z - z.mean(0)) / z.std(0)
    y = (features - features.mean(0)) / features.std(0)
    predicted = Ridge(alpha=RIDGE, fit_intercept=False).fit(z, y).predict(z)
    u, s, _ = np.linalg.svd(predicted, full_matrices=False)
    spread = s / np.sqrt(len(z))
    slow = LENGTH * unit(u[:, :3] * s[:3] / np.sqrt(spread[:3]))
    ours = read(fitted(x, features, 3), x)
    # An axis may point either way.
    signs = np.sign((slow * ours).sum(0))
    assert np.allclose(ours, slow * signs, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_rows_have_a_known_length_and_the_same_direction_at_any_length(n, width, seed) -> None:
    x, features = scene(n, seed)
    readout = fitted(x, features, width)
    one, other = read(readout, x), read(readout, 7 * x)
    assert np.allclose(one, other, atol=1e-5)
    lengths = np.linalg.norm(one, axis=1)
    assert ((lengths < 1e-6) | np.isclose(lengths, LENGTH, atol=1e-5)).all()


def test_units_of_features_do_not_matter() -> None:
    x, features = scene(300)
    one = fitted(x, features, 3)
    other = fitted(x, features * [1e-3, 5, 100, 2, 1] + 40, 3)
    assert torch.allclose(one.weights, other.weights, rtol=1e-4, atol=1e-6)


def test_a_feature_that_is_unknown_or_constant_is_left_out() -> None:
    x, features = scene(300)
    more = np.column_stack([features, np.full(300, np.nan), np.full(300, 4.0)])
    one, other = fitted(x, features, 3), fitted(x, more, 3)
    assert torch.allclose(one.weights, other.weights, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("features", [np.full((9, 4), np.nan), np.ones((9, 4)), np.empty((9, 0))])
def test_without_anything_to_learn_it_says_nothing(features) -> None:
    x, _ = scene(9)
    readout = fitted(x, features, 3)
    assert not read(readout, x).any()
    assert torch.isfinite(readout.weights).all()


def test_more_numbers_than_features_are_zero() -> None:
    x, features = scene(200)
    assert not fitted(x, features, 8).weights[:, 5:].any()
