import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from nucleoscope.errors import CallError, InputError
from nucleoscope.supervision import cell_edges, distance_map, nearest_point, nearest_within

_spec = importlib.util.spec_from_file_location("literal", Path(__file__).with_name("literal.py"))
literal = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(literal)


@st.composite
def scenes(draw, ndim):
    shape = tuple(draw(st.integers(1, size)) for size in (5, 14, 37)[-ndim:])
    places = st.tuples(*[st.integers(0, size - 1) for size in shape])
    return shape, np.array(draw(st.lists(places, min_size=1, max_size=25)))


@settings(deadline=None, max_examples=150)
@given(scenes(2))
def test_cells_in_the_plane_are_the_nearest_click_and_ties_go_to_the_smaller_index(scene):
    shape, voxel = scene
    cells, distance = literal.nearest(shape, voxel)
    assert np.array_equal(nearest_point(shape, voxel), cells)
    assert np.allclose(distance_map(shape, voxel), distance, rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=150)
@given(scenes(3), st.sampled_from([0.5, 1.0, 1.5, 3.0, 11.0]))
def test_cells_in_space_count_a_slice_as_z_step_pixels(scene, z_step):
    shape, voxel = scene
    cells, distance = literal.nearest(shape, voxel, z_step)
    assert np.array_equal(nearest_point(shape, voxel, z_step), cells)
    assert np.allclose(distance_map(shape, voxel, z_step), distance, rtol=1e-6, atol=0)


@settings(deadline=None, max_examples=100)
@given(scenes(3), st.floats(0.3, 12.0), st.floats(1.0, 30.0))
def test_a_limit_cuts_the_distance_and_changes_nothing_below(scene, z_step, limit):
    shape, voxel = scene
    full = distance_map(shape, voxel, z_step)
    cut, cells = nearest_within(shape, voxel, z_step, limit)
    assert np.allclose(cut, np.minimum(full, np.float32(limit)), rtol=1e-6, atol=0)
    assert np.array_equal(cut, distance_map(shape, voxel, z_step, limit))
    sure = np.abs(full - limit) > 1e-4
    assert np.array_equal((cells > 0)[sure], (full < limit)[sure])
    owner = voxel[np.maximum(cells, 1) - 1]
    gap = (np.stack(np.indices(shape), axis=-1) - owner) * (z_step, 1, 1)
    own = np.sqrt((gap.astype(np.float64) ** 2).sum(axis=-1))
    assert np.allclose(own[cells > 0], full[cells > 0], rtol=1e-5)


@settings(deadline=None, max_examples=50)
@given(scenes(3), st.integers(0, 1000))
def test_the_order_of_clicks_changes_names_not_distances(scene, seed):
    shape, voxel = scene
    order = np.random.default_rng(seed).permutation(len(voxel))
    assert np.array_equal(distance_map(shape, voxel, 3.0), distance_map(shape, voxel[order], 3.0))
    unique = len(np.unique(voxel[:, 1:], axis=0)) == len(voxel)
    cells, shuffled = nearest_point(shape[1:], voxel), nearest_point(shape[1:], voxel[order])
    square = ((np.stack(np.indices(shape[1:]), -1)[:, :, None] - voxel[:, 1:]) ** 2).sum(-1)
    alone = (square == square.min(axis=-1, keepdims=True)).sum(axis=-1) == 1
    if unique:
        assert np.array_equal(cells[alone], order[shuffled - 1][alone] + 1)


def test_distances_equal_scipys_with_sampling():
    rng = np.random.default_rng(3)
    shape = (6, 90, 130)
    voxel = np.column_stack([rng.integers(0, size, 60) for size in shape])
    empty = np.ones(shape, dtype=bool)
    empty[tuple(voxel.T)] = False
    oracle = ndimage.distance_transform_edt(empty, sampling=(3.3, 1, 1))
    assert np.allclose(distance_map(shape, voxel, 3.3), oracle, rtol=1e-6)


@pytest.mark.parametrize(
    "clicks",
    [
        [[0, 5, 5]],
        [[0, 5, 5], [0, 5, 5]],
        [[0, 3, x] for x in range(12)],
        [[0, k, k] for k in range(10)],
        [[1, 5, 5], [0, 5, 5], [2, 5, 5]],
    ],
    ids=["one", "twice the same", "a row", "a diagonal", "one pixel, three slices"],
)
def test_no_arrangement_of_clicks_is_degenerate(clicks):
    voxel = np.array(clicks)
    cells, distance = literal.nearest((3, 11, 12), voxel, 2.0)
    assert np.array_equal(nearest_point((3, 11, 12), clicks, 2.0), cells)
    assert np.allclose(distance_map((3, 11, 12), clicks, 2.0), distance)
    assert np.array_equal(
        nearest_point((11, 12), clicks), literal.nearest((11, 12), voxel[:, 1:])[0]
    )


def test_clicks_between_pixels_belong_to_the_pixel_that_holds_them():
    assert nearest_point((1, 6), [[0, 0.4, -0.5], [0, -0.2, 5.49]]).tolist() == [[1, 1, 1, 2, 2, 2]]


def test_impossible_clicks_are_refused_in_one_sentence():
    with pytest.raises(InputError, match="at least one click"):
        nearest_point((4, 4), np.empty((0, 3)))
    with pytest.raises(InputError, match="outside the image"):
        distance_map((4, 4), [[0, 4, 0]])
    with pytest.raises(CallError, match="rows of"):
        distance_map((2, 4, 4), [[1, 2]])
    with pytest.raises(CallError, match="z step"):
        distance_map((2, 4, 4), [[0, 1, 2]], z_step=0.0)
    with pytest.raises(CallError, match="limit"):
        distance_map((2, 4, 4), [[0, 1, 2]], limit=-1.0)


def test_walls_separate_all_cells():
    rng = np.random.default_rng(1)
    cells = nearest_point((80, 90), rng.integers(0, 80, (40, 2)))
    edge = cell_edges(cells)
    inside = np.where(edge, 0, cells)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        moved = np.roll(inside, (dy, dx), axis=(0, 1))[1:-1, 1:-1]
        here = inside[1:-1, 1:-1]
        assert not ((here != moved) & (here > 0) & (moved > 0)).any()
    assert not cell_edges(np.ones((5, 5), np.int32)).any()
