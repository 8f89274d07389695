from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from nucleoscope.data.labels import Labels
from nucleoscope.nuclei.outline import outlines_of


def discs() -> Labels:
    """Two nuclei that are largest in different slices."""
    y, x = np.indices((40, 60))
    data = np.zeros((3, 40, 60), np.int32)
    for z, r in enumerate((4, 9, 6)):
        data[z][np.hypot(y - 15, x - 15) < r] = 5
    for z, r in enumerate((8, 5, 3)):
        data[z][np.hypot(y - 20, x - 42) < r] = 2
    return Labels(data)


def test_each_outline_is_that_of_the_widest_slice() -> None:
    labels = discs()
    outlines, z = outlines_of(labels, [5, 2])
    assert z.tolist() == [1, 0]
    assert outlines.areas().tolist() == [(labels.data[1] == 5).sum(), (labels.data[0] == 2).sum()]


def test_the_order_is_that_of_the_ids_and_strangers_have_none() -> None:
    outlines, z = outlines_of(discs(), [99, 2])
    assert outlines.is_known().tolist() == [False, True]
    assert z.tolist() == [0, 0]


def test_no_nuclei_have_no_outlines() -> None:
    outlines, z = outlines_of(Labels(np.zeros((4, 4), np.int32)), [])
    assert (len(outlines), len(z)) == (0, 0)


@given(arrays(np.int32, (6, 7), elements=st.integers(0, 3)))
def test_an_outline_has_the_area_of_the_largest_piece(plane: np.ndarray) -> None:
    outlines, _ = outlines_of(Labels(plane), [1, 2, 3])
    for ident, area in zip((1, 2, 3), outlines.areas(), strict=True):
        pieces, n = ndimage.label(plane == ident)
        sizes = [ndimage.binary_fill_holes(pieces == k + 1).sum() for k in range(n)]
        # Of equal pieces either may be traced, and holes count for it.
        assert area in sizes or (n == 0 and area == 0)
