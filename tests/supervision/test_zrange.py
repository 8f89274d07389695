import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleoscope.errors import CallError
from nucleoscope.supervision import slice_areas, z_ranges


def area_tables(max_slices=9):
    shapes = st.tuples(st.integers(1, 6), st.integers(1, max_slices))
    return shapes.flatmap(
        lambda shape: hnp.arrays(np.int64, shape, elements=st.sampled_from([0, 0, 1, 2, 9, 40]))
    )


def slow_range(areas, z):
    """The set grown from the click's slice, one missing slice bridged at a time."""
    enough = {k for k, a in enumerate(areas) if a >= max(2, 0.15 * max(areas))}
    group = {z}
    while True:
        more = {k for k in enough if any(abs(k - g) <= 2 for g in group)} - group
        if not more:
            break
        group |= more
    if not group & enough:
        return set(range(max(0, z - 1), min(len(areas), z + 2))), True
    return set(range(min(group), max(group) + 1)), False


@settings(deadline=None)
@given(area_tables(), st.integers(0, 10**6))
def test_ranges_equal_the_slow_rule(areas, seed):
    z = np.random.default_rng(seed).integers(0, areas.shape[1], len(areas))
    ranges, n_fallback = z_ranges(areas, z)
    slow = [slow_range(row.tolist(), int(k)) for row, k in zip(areas, z, strict=True)]
    assert [set(np.flatnonzero(row)) for row in ranges] == [kept for kept, _ in slow]
    assert n_fallback == sum(fell for _, fell in slow)
    assert ranges[np.arange(len(z)), z].all()


@settings(deadline=None)
@given(area_tables())
def test_the_paper_keeps_every_slice_with_any_pixel(areas):
    ranges, n_fallback = z_ranges(areas, np.zeros(len(areas), np.int64), setting="paper")
    assert np.array_equal(ranges, areas > 0)
    assert n_fallback == 0


@pytest.mark.parametrize("setting", ["default", "paper"])
def test_a_nucleus_that_is_not_here_has_no_slice(setting):
    ranges, n_fallback = z_ranges(np.full((2, 4), 50), np.array([-1, 2]), setting=setting)
    assert ranges.tolist() == [[False] * 4, [True] * 4]
    assert n_fallback == 0


def test_one_noisy_voxel_does_not_pull_a_slice_in():
    areas = np.array([[0, 1, 0, 0, 60, 90, 70, 0, 0, 3, 0, 0]])
    assert np.flatnonzero(z_ranges(areas, np.array([5]))[0][0]).tolist() == [4, 5, 6]
    assert np.flatnonzero(z_ranges(areas, np.array([5]), setting="paper")[0][0]).size == 5


def test_a_nucleus_without_foreground_gets_the_slices_around_its_click():
    ranges, n_fallback = z_ranges(np.zeros((3, 5), np.int64), np.array([0, 2, 4]))
    assert ranges.astype(int).tolist() == [[1, 1, 0, 0, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]]
    assert n_fallback == 3


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.booleans(), st.booleans())
def test_areas_are_counts(seed, in_space, as_labels):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, (5, 7, 30)))
    mask = rng.integers(0, 3, shape).astype(np.int32) if as_labels else rng.random(shape) < 0.5
    cells = rng.integers(0, 5, shape if in_space else shape[1:]).astype(np.int32)
    every = np.broadcast_to(cells, shape)
    slow = [
        [((every[z] == j) & (mask[z] != 0)).sum() for z in range(shape[0])] for j in range(1, 5)
    ]
    assert np.array_equal(slice_areas(mask, cells, 4), slow)


def test_runs_longer_than_a_byte_and_more_than_eight_slices_are_counted():
    rng = np.random.default_rng(0)
    mask = rng.random((19, 3, 1100)) < 0.9
    mask[0] = True
    cells = np.repeat(np.array([[1, 2, 2, 2, 1]] * 3, np.int32), 220, axis=1)
    slow = [[(mask[z] & (cells == j)).sum() for z in range(19)] for j in (1, 2)]
    assert np.array_equal(slice_areas(mask, cells, 2), slow)


def test_wrong_calls_are_refused():
    with pytest.raises(CallError, match="do not fit"):
        slice_areas(np.ones((2, 3, 3), bool), np.ones((3, 4), np.int32), 1)
    with pytest.raises(CallError, match="no setting"):
        z_ranges(np.ones((1, 2)), np.array([0]), setting="Paper")
