"""Variation of stain, light and focus."""

import numpy as np
import pytest

from nucleoscope.learn.stain import STAINS, UNMIX, vary_stain


def picture(stain: int, amount: float) -> np.ndarray:
    density = (STAINS[stain] * amount).reshape(3, 1, 1, 1)
    return np.exp(-np.broadcast_to(density, (3, 1, 12, 12))).astype(np.float32)


def test_stains_and_their_unmixing_undo_each_other():
    assert np.allclose(STAINS @ UNMIX, np.eye(3), atol=1e-5)
    assert np.allclose(np.linalg.norm(STAINS, axis=1), 1, atol=2e-3)


def test_the_same_draw_gives_the_same_picture():
    image = picture(0, 0.8)
    one, other = (vary_stain(image, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(one, other)
    assert one.dtype == np.float32
    assert not np.array_equal(one, image)


def test_the_picture_given_is_not_changed():
    image = picture(0, 0.8)
    before = image.copy()
    vary_stain(image, np.random.default_rng(1))
    assert np.array_equal(image, before)


@pytest.mark.parametrize("stain", [0, 1])
def test_a_stain_stays_that_stain(stain):
    image = picture(stain, 0.9)
    for seed in range(20):
        varied = vary_stain(image, np.random.default_rng(seed)).mean(axis=(1, 2, 3))
        amounts = UNMIX.T @ -np.log(np.clip(varied, 1e-3, 1))
        assert amounts[stain] > 3 * np.abs(np.delete(amounts, stain)).max()


def test_on_average_nothing_is_gained():
    image = picture(0, 0.8)
    means = [vary_stain(image, np.random.default_rng(s)).mean() for s in range(200)]
    assert np.mean(means) == pytest.approx(image.mean(), rel=0.03)
    assert np.std(means) > 0.01


def test_black_and_white_stay_finite():
    for value in (0.0, 1.0):
        varied = vary_stain(np.full((3, 1, 8, 8), value, np.float32), np.random.default_rng(0))
        assert np.isfinite(varied).all()
        assert varied.min() >= 0
