"""The watershed against scikit-image, where ties decide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.segmentation import watershed as literal

from nucleoscope.nuclei.flood import watershed
from nucleoscope.nuclei.runs import find_runs


def both(levels, markers):
    """Ours and scikit-image's, on an energy of few distinct values."""
    interior = levels.astype(np.float32)
    energy = interior.astype(np.float64)
    for axis in (0, 1):
        energy = ndimage.correlate1d(energy, [1.0, 2.0, 1.0], axis=axis, mode="mirror")
    foreground = find_runs((levels > 0).astype(np.uint8)).without_small(1)
    found = watershed(foreground, find_runs(markers).without_small(1), interior)
    numbered = ndimage.label(markers)[0]
    return found, literal(-energy, markers=numbered, mask=levels > 0), energy


@pytest.mark.parametrize("seed", range(8))
def test_plateaus_are_shared_in_order_of_age(seed):
    rng = np.random.default_rng(seed)
    levels = np.ones((40, 40), dtype=np.uint8)
    levels[rng.random((40, 40)) < 0.25] = 0
    markers = np.zeros((40, 40), dtype=np.uint8)
    chosen, used = rng.permutation(np.argwhere(levels)), set()
    energy = both(levels, markers)[2]
    for y, x in chosen:  # markers of one energy would tie without an age to decide
        if (
            energy[y, x] not in used
            and not markers[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].any()
        ):
            markers[y, x] = 1
            used.add(energy[y, x])
    found, expected, _ = both(levels, markers)
    assert len(used) > 4
    same = np.unique(np.stack([found.ravel(), expected.ravel()]), axis=1)
    assert same.shape[1] == np.unique(expected).size


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, (9, 11), elements=st.integers(0, 3)),
    hnp.arrays(np.uint8, (9, 11), elements=st.sampled_from([0, 0, 0, 0, 0, 1])),
)
def test_every_reachable_foreground_pixel_gets_a_marker_and_no_other_does(levels, markers):
    found, expected, _ = both(levels, markers)
    np.testing.assert_array_equal(found > 0, expected > 0)
    inside = (markers > 0) & (levels > 0)
    pairs = np.unique(np.stack([found[inside], expected[inside]]), axis=1)
    assert pairs.shape[1] == found.max() == np.unique(pairs[0]).size
