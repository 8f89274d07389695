"""Every nucleus has one owner, so the glued map equals the whole one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei.tiles import cover, merge, owned, owns


def discs(shape, seed, largest=6, n=60):
    """Discs and bars of at most ``2 * largest + 1`` pixels, some touching, some at the border."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, dtype=np.int32)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for number in rng.permutation(n) + 1:
        cy, cx, r = rng.integers(0, shape[0]), rng.integers(0, shape[1]), rng.integers(0, largest)
        inside = (y - cy) ** 2 + (x - cx) ** 2 <= r * r
        labels[inside & (labels == 0)] = number * 7
    return labels


def relabelled(labels):
    """Ids in raster order of the first pixel."""
    ids, first, at = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.zeros(ids.size, dtype=np.int64)
    order = np.argsort(first[ids > 0])
    rank[np.flatnonzero(ids > 0)[order]] = 1 + np.arange(order.size)
    return rank[at].reshape(labels.shape)


SHAPES = [(97, 101), (128, 64), (61, 200), (1, 113)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("tile", [7, 16, 31, 53, 64, 500])
def test_tiled_equals_untiled(shape, tile):
    whole = discs(shape, seed=tile + shape[0])
    tiles = cover(shape, tile, halo=13)
    # Each tile numbers its nuclei in its own way, as decoding each tile would.
    pieces = [(t, (whole[t.view] * (1 + 2 * (i % 3))).astype(np.int32))
              for i, t in enumerate(tiles)]  # fmt: skip
    np.testing.assert_array_equal(relabelled(merge(shape, pieces)), relabelled(whole))


@settings(max_examples=50, deadline=None)
@given(st.tuples(st.integers(0, 60), st.integers(0, 60)), st.integers(1, 70), st.integers(0, 20))
def test_cores_cover_every_pixel_once_and_halos_stay_inside(shape, tile, halo):
    count = np.zeros(shape, dtype=int)
    for each in cover(shape, tile, halo):
        y0, x0, y1, x1 = each.core
        count[y0:y1, x0:x1] += 1
        hy0, hx0, hy1, hx1 = each.halo
        assert (hy0, hx0) == (max(0, y0 - halo), max(0, x0 - halo))
        assert (hy1, hx1) == (min(shape[0], y1 + halo), min(shape[1], x1 + halo))
    assert (count == 1).all()


@given(st.floats(0, 40, exclude_max=True), st.floats(0, 30, exclude_max=True), st.integers(1, 17))
def test_every_anchor_has_exactly_one_owner(y, x, tile):
    assert sum(bool(owns(t, y, x)) for t in cover((41, 31), tile, 3)) == 1


def test_merged_ids_follow_pieces_and_owned():
    whole = discs((64, 64), 1)
    tiles = cover((64, 64), 20, 13)
    merged = merge((64, 64), [(t, whole[t.view]) for t in tiles])
    expected = np.concatenate([owned(t, whole[t.view]) for t in tiles])
    assert expected.size == merged.max() == np.unique(whole).size - 1
    for number, old in enumerate(expected, 1):
        np.testing.assert_array_equal(merged == number, whole == old)


def test_a_nucleus_larger_than_the_halo_is_an_error_that_names_it():
    whole = np.zeros((40, 40), dtype=np.int32)
    whole[10:14, 5:33] = 3
    tiles = cover((40, 40), 10, 4)
    with pytest.raises(InputError, match=r"exceeds the halo .* larger halo"):
        merge((40, 40), [(t, whole[t.view]) for t in tiles])
    kept = merge((40, 40), [(t, whole[t.view]) for t in tiles], on_cut="keep")
    assert not kept[whole == 0].any()


def test_a_cut_nucleus_that_reaches_the_core_is_an_error_whoever_owns_what_is_seen_of_it():
    whole = np.zeros((20, 40), dtype=np.int32)
    whole[5:9, 8:21] = 1
    left = cover((20, 40), 10, 4)[0]
    assert not owns(left, 6.5, 10.5)
    with pytest.raises(InputError, match="exceeds the halo"):
        owned(left, whole[left.view])


def test_an_instance_cut_in_the_halo_alone_is_no_error():
    whole = np.zeros((20, 40), dtype=np.int32)
    whole[5:9, 22:28] = 1  # the left tile sees only its beginning
    tiles = cover((20, 40), 20, 6)
    np.testing.assert_array_equal(merge((20, 40), [(t, whole[t.view]) for t in tiles]), whole)


def test_the_earlier_piece_keeps_a_pixel_two_tiles_claim():
    left, right = cover((8, 16), 8, 4)
    a, b = np.zeros((8, 12), np.int32), np.zeros((8, 12), np.int32)
    a[2:6, 3:9] = 1  # columns 3..8 of the plane
    b[2:6, 3:9] = 1  # columns 7..12
    merged = merge((8, 16), [(left, a), (right, b)])
    assert (merged[3, 3:9] == 1).all()
    assert (merged[3, 9:13] == 2).all()


def test_a_map_of_the_wrong_size_is_refused():
    tile = cover((8, 16), 8, 4)[0]
    with pytest.raises(InputError, match="instance map"):
        owned(tile, np.zeros((8, 8), np.int32))


@pytest.mark.parametrize(("tile", "halo"), [(0, 1), (4, -1)])
def test_impossible_tiles_are_refused(tile, halo):
    with pytest.raises(CallError):
        cover((8, 8), tile, halo)


def test_no_pieces_give_an_empty_map():
    assert not merge((4, 5), []).any()
    assert merge((4, 5), []).shape == (4, 5)
