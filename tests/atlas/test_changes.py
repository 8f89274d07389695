"""Each change of crops changes what it says and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from nucleoscope.atlas.changes import CHANGES, change
from nucleoscope.data.crops import CropStore
from nucleoscope.errors import CallError


def store(n: int = 6, *, outlined: bool = True, seed: int = 0) -> CropStore:
    """Dark discs of growing size on pink texture, on two slides."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((64, 64)) - 31.5
    masks = np.stack([(np.hypot(y, x) < 6 + i).astype(np.uint8) for i in range(n)])
    pictures = rng.integers(170, 230, (n, 64, 64, 3)).astype(np.uint8)
    pictures[masks > 0] = (90, 60, 130)
    if not outlined:
        masks = np.zeros_like(masks)
    context = rng.integers(100, 200, (n, 64, 64, 3)).astype(np.uint8)
    slide = (np.arange(n) % 2).astype(np.int32)
    return CropStore(
        pictures, context, masks, np.zeros(n, bool), slide, ("a", "b"), np.arange(1, n + 1)
    )


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_keeps_shape_type_and_identity(kind: str) -> None:
    before = store()
    after = change(before, kind)
    assert after.morphology.shape == before.morphology.shape
    assert after.morphology.dtype == np.uint8
    assert (after.id == before.id).all()
    assert (after.slide == before.slide).all()
    assert (after.morphology != before.morphology).any()


@pytest.mark.parametrize("kind", CHANGES)
def test_a_change_repeats_with_its_seed_and_leaves_its_input(kind: str) -> None:
    before = store()
    kept = before.morphology.copy()
    one, two = change(before, kind, seed=4), change(before, kind, seed=4)
    assert (one.morphology == two.morphology).all()
    assert (before.morphology == kept).all()


@pytest.mark.parametrize("kind", CHANGES)
def test_no_nuclei_stay_no_nuclei(kind: str) -> None:
    assert len(change(store().take([]), kind)) == 0


def test_rotation_keeps_the_nucleus_and_its_area() -> None:
    before, after = store(), change(store(), "rotation")
    areas = [np.asarray(s.mask).sum(axis=(1, 2)) for s in (before, after)]
    assert np.allclose(areas[0], areas[1], rtol=0.06)
    assert np.abs(after.morphology[:, 32, 32] - before.morphology[:, 32, 32].astype(int)).max() < 3


def test_size_makes_the_area_larger_by_the_square_of_the_factor() -> None:
    before, after = store(), change(store(), "size")
    ratio = np.asarray(after.mask).sum(axis=(1, 2)) / np.asarray(before.mask).sum(axis=(1, 2))
    assert np.allclose(ratio, 1.25**2, rtol=0.12)


def test_stain_changes_all_nuclei_of_a_slide_alike() -> None:
    after = change(store(), "stain", seed=1)
    centre = after.morphology[:, 32, 32].astype(int)
    assert np.ptp(centre[::2], axis=0).max() == 0
    assert np.ptp(centre[1::2], axis=0).max() == 0
    assert np.abs(centre[0] - centre[1]).max() > 0
    assert np.abs(centre - [90, 60, 130]).max() < 40


def test_blur_keeps_the_mean_and_lowers_the_contrast() -> None:
    before, after = store(), change(store(), "blur")
    assert abs(float(after.morphology.mean()) - float(before.morphology.mean())) < 0.5
    assert after.morphology[:, :10].std() < 0.6 * before.morphology[:, :10].std()


def test_a_new_background_leaves_the_nucleus_as_it_is() -> None:
    before, after = store(), change(store(), "background")
    inside = before.mask > 0
    assert (after.morphology[inside] == before.morphology[inside]).all()
    corner = np.s_[:, :5, :5]
    assert (after.morphology[corner] != before.morphology[corner]).mean() > 0.9


def test_a_new_background_comes_from_the_same_slide() -> None:
    before = store()
    before.morphology[::2, :, :, 0] = 7
    after = change(before, "background")
    assert (after.morphology[::2, :5, :5, 0] == 7).all()
    assert (after.morphology[1::2, :5, :5, 0] != 7).all()


def test_a_nucleus_without_outline_keeps_a_disc() -> None:
    before, after = store(outlined=False), change(store(outlined=False), "background")
    middle = np.s_[:, 26:38, 26:38]
    assert (after.morphology[middle] == before.morphology[middle]).all()


def test_an_unknown_change_is_refused() -> None:
    with pytest.raises(CallError, match="no change 'sharpen'"):
        change(store(), "sharpen")
