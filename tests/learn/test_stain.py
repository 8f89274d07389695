"""Variation of stain, light and focus."""

import numpy as np
import pytest

from nucleoscope.learn.stain import (
    SPILL_DENSITY,
    SPILL_SHARE,
    SPILLS,
    STAINS,
    UNMIX,
    spill,
    vary_stain,
)


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


@pytest.mark.parametrize("seed", range(8))
def test_ink_takes_part_of_a_crop_and_only_darkens_it(seed):
    density, cover = spill((96, 80), np.random.default_rng(seed))
    assert density.dtype == cover.dtype == np.float32
    assert density.min() >= 0
    assert (density[:, cover == 0] == 0).all()
    assert 0.02 < (cover > 0.5).mean() < SPILL_SHARE[1] + 0.2
    strongest = density.max(axis=0)[cover > 0.9]
    assert strongest.size
    assert 0.3 * SPILL_DENSITY[0] < np.median(strongest) < 3 * SPILL_DENSITY[1]


def test_inks_are_of_every_colour_and_never_that_of_a_nucleus():
    # Haematoxylin takes most green and least blue, eosin only green; ink is black or one-sided.
    unit = SPILLS / np.linalg.norm(SPILLS, axis=1, keepdims=True)
    assert (unit @ STAINS[0] / np.linalg.norm(STAINS[0])).max() < 0.96
    assert all((SPILLS[:, colour] == 1).any() for colour in range(3))
    assert SPILLS.max(axis=1).tolist() == pytest.approx([1.0] * len(SPILLS))


def test_the_same_draw_spills_the_same_ink():
    one, other = (spill((40, 50), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
