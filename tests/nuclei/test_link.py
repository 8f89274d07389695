"""Tracks through slices: planted nuclei come back, and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nucleoscope.errors import CallError, InputError
from nucleoscope.nuclei.link import link, traces


def stack(discs, depth, side=64):
    """Slices with discs ``(z, y, x, r)``, ids 1, 2.. within each slice in the order given."""
    y, x = np.mgrid[:side, :side]
    planes = np.zeros((depth, side, side), dtype=np.int32)
    for z in range(depth):
        for number, (_, cy, cx, r) in enumerate([d for d in discs if d[0] == z], 1):
            planes[z][(y - cy) ** 2 + (x - cx) ** 2 <= r * r] = number
    return list(planes)


def ball(z, y, x, r, step=2.0):
    """Discs of a ball of radius ``r`` whose slices are ``step`` pixels apart."""
    reach = int(r / step)
    return [(z + k, y, x, np.sqrt(r * r - (k * step) ** 2))
            for k in range(-reach, reach + 1) if r > abs(k) * step]  # fmt: skip


def scene(seed, n_side=4, depth=12):
    """Balls on a jittered grid, apart from each other, two deep in z."""
    rng = np.random.default_rng(seed)
    balls = []
    for i, j in itertools.product(range(n_side), range(n_side)):
        for z in (2, 9):
            y, x = 24 * i + 14 + rng.uniform(-3, 3), 24 * j + 14 + rng.uniform(-3, 3)
            balls.append(ball(z, y, x, rng.uniform(5, 7), step=3.0))
    return balls, stack([d for b in balls for d in b], depth, side=24 * n_side + 4)


@pytest.mark.parametrize("seed", range(3))
def test_balls_come_back_one_id_each(seed):
    balls, planes = scene(seed)
    linked = link(planes, spacing=(1.5, 0.5, 0.5))
    assert linked.spacing == (1.5, 0.5, 0.5)
    assert linked.ids().tolist() == list(range(1, len(balls) + 1))
    np.testing.assert_array_equal(linked.data > 0, np.stack(planes) > 0)
    for discs in balls:
        z, y, x, _ = discs[len(discs) // 2]
        inside = np.argwhere(linked.data == linked.data[z, round(y), round(x)])
        assert np.unique(inside[:, 0]).tolist() == [d[0] for d in discs]
        np.testing.assert_allclose(inside[:, 1:].mean(axis=0), [y, x], atol=0.3)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 3))
def test_renaming_the_instances_of_each_slice_changes_nothing(seed, which):
    _, planes = scene(which, n_side=2)
    rng = np.random.default_rng(seed)
    renamed = []
    for plane in planes:
        new = np.concatenate([[0], rng.permutation(5000)[: plane.max()] + 1]).astype(np.int32)
        renamed.append(new[plane])
    one, other = link(planes).data, link(renamed).data
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    assert pairs.shape[1] == one.max() + 1 == other.max() + 1


def test_one_missing_slice_is_bridged_and_two_are_not():
    discs = [(z, 20, 20, 6) for z in (0, 1, 3, 4)] + [(z, 44, 44, 6) for z in (0, 1, 4, 5)]
    linked = link(stack(discs, 6))
    assert linked.data[:, 20, 20].tolist() == [1, 1, 0, 1, 1, 0]
    low, high = linked.data[0, 44, 44], linked.data[5, 44, 44]
    assert low > 0
    assert high > 0
    assert low != high


def test_two_nuclei_on_top_of_each_other_are_split_at_the_neck():
    radii = [6, 7, 7, 3, 7, 7, 6]
    linked = link(stack([(z, 30, 30, r) for z, r in enumerate(radii)], 7))
    column = linked.data[:, 30, 30].tolist()
    assert column[:3] == [1, 1, 1]
    assert column[4:] == [2, 2, 2]
    shallow = link(stack([(z, 30, 30, r) for z, r in enumerate([6, 7, 7, 6, 7, 7, 6])], 7))
    assert shallow.data[:, 30, 30].tolist() == [1] * 7


def test_several_necks_split_into_several_nuclei():
    radii = [7, 7, 3, 7, 7, 3, 7, 7]
    linked = link(stack([(z, 30, 30, r) for z, r in enumerate(radii)], 8))
    assert linked.ids().size == 3


def test_a_lone_slice_counts_only_with_a_high_score():
    planes = stack([(1, 20, 20, 6), (1, 44, 44, 6), (0, 20, 44, 5), (1, 20, 44, 5)], 3)
    assert link(planes).ids().size == 1
    scores = [[0.5], [0.79, 0.8, 0.5], []]
    linked = link(planes, scores=scores)
    assert linked.ids().size == 2
    assert linked.data[1, 44, 44] > 0
    assert linked.data[1, 20, 20] == 0


def test_a_single_slice_is_taken_as_it_is():
    planes = stack([(0, 20, 20, 6), (0, 44, 44, 6)], 1)
    np.testing.assert_array_equal(link(planes).data[0], planes[0])


def test_neighbours_take_the_partner_that_serves_both():
    # The left disc of slice 1 overlaps both discs of slice 0; greedy by slice order would steal.
    planes = stack([(0, 30, 22, 6), (0, 30, 33, 6), (1, 30, 26, 6), (1, 30, 37, 6)], 2)
    linked = link(planes, radius=8).data
    assert linked[0, 30, 18] == linked[1, 30, 22]
    assert linked[0, 30, 38] == linked[1, 30, 42]


def test_assignment_is_the_best_of_all_assignments():
    rng = np.random.default_rng(4)
    for _ in range(20):
        discs = [(z, *rng.uniform(20, 44, 2), 7) for z in (0, 1) for _ in range(4)]
        planes = stack(discs, 2)
        found = traces(planes, link(planes, radius=7, scores=[[1.0] * (np.unique(p).size - 1)
                                                              for p in planes]))  # fmt: skip
        assert gain_of(planes, found) == pytest.approx(best_gain(planes), abs=1e-9)


def similarity(a, b, radius=7.0):
    iou = (a & b).sum() / (a | b).sum()
    d = np.hypot(*(np.argwhere(a).mean(axis=0) - np.argwhere(b).mean(axis=0)))
    return iou + 1 / (1 + d / radius) if iou > 0.25 or d < radius / 2 else 0.0


def gain_of(planes, rows):
    total = 0.0
    for z, number, nucleus in rows[rows[:, 0] == 0]:
        for _, other, _ in rows[(rows[:, 0] == 1) & (rows[:, 2] == nucleus)]:
            total += similarity(planes[z] == number, planes[1] == other)
    return total


def best_gain(planes):
    ids = [np.unique(p[p > 0]) for p in planes]
    table = np.array([[similarity(planes[0] == i, planes[1] == j) for j in ids[1]] for i in ids[0]])
    size = max(table.shape)
    square = np.zeros((size, size))
    square[: table.shape[0], : table.shape[1]] = table
    return max(square[range(size), p].sum() for p in itertools.permutations(range(size)))


def test_a_track_holds_one_instance_per_slice():
    rng = np.random.default_rng(9)
    planes = stack([(z, *rng.uniform(5, 59, 2), 5) for z in range(6) for _ in range(20)], 6)
    rows = traces(planes, link(planes))
    counted = rows[rows[:, 2] > 0]
    assert np.unique(counted[:, [0, 2]], axis=0).shape[0] == counted.shape[0] > 10
    assert rows.shape[0] == sum(np.unique(p).size - 1 for p in planes)


def test_paper_setting_is_the_union_of_discs_around_centroids():
    rng = np.random.default_rng(2)
    planes = stack([(z, *rng.uniform(0, 63, 2), 3) for z in range(4) for _ in range(9)], 4)
    linked = link(planes, setting="paper")
    canvas = np.zeros((64, 64), dtype=bool)
    y, x = np.mgrid[:64, :64]
    centres = []
    for z, plane in enumerate(planes):
        for number in np.unique(plane[plane > 0]):
            cy, cx = np.rint(np.argwhere(plane == number).mean(axis=0))
            canvas |= (y - cy) ** 2 + (x - cx) ** 2 <= 16
            centres.append((z, number, int(cy), int(cx)))
    component, n = ndimage.label(canvas, np.ones((3, 3)))
    assert linked.ids().size == n
    rows = traces(planes, linked)
    expected = [component[cy, cx] for _, _, cy, cx in centres]
    assert np.unique(np.stack([rows[:, 2], expected]), axis=1).shape[1] == n
    np.testing.assert_array_equal(linked.data > 0, np.stack(planes) > 0)


def test_paper_setting_fuses_what_default_keeps_apart():
    planes = stack([(z, 30, 30, 5) for z in (0, 1, 6, 7)], 8)
    assert link(planes, setting="paper").ids().size == 1
    assert link(planes).ids().size == 2


@pytest.mark.parametrize("setting", ["default", "paper"])
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 1), (2, 0, 4)])
def test_empty_slices_give_empty_labels(setting, shape):
    linked = link(list(np.zeros(shape, np.int32)), setting=setting)
    assert linked.shape == shape
    assert linked.ids().size == 0


@pytest.mark.parametrize("setting", ["default", "paper"])
def test_a_slice_full_of_one_nucleus_is_one_nucleus(setting):
    planes = [np.ones((5, 5), np.int32)] * 3
    assert (link(planes, setting=setting).data == 1).all()


def test_wrong_calls_are_refused():
    plane = np.zeros((4, 4), np.int32)
    with pytest.raises(CallError, match="found none"):
        link([])
    with pytest.raises(CallError, match="setting"):
        link([plane], setting="best")
    with pytest.raises(CallError, match="radius"):
        link([plane], radius=0)
    with pytest.raises(CallError, match="scores"):
        link([plane, plane], scores=[[0.5], []])
    with pytest.raises(InputError, match="slice 1"):
        link([plane, plane[:3]])
    with pytest.raises(InputError, match="float64"):
        link([plane.astype(float)])
