import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nucleoscope.data import Volume
from nucleoscope.errors import CallError, InputError
from nucleoscope.supervision import PROJECTIONS, emip, mip, project


@st.composite
def scenes(draw, max_slices=12):
    shape = tuple(draw(st.integers(1, size)) for size in (max_slices, 6, 23))
    n = draw(st.integers(1, 6))
    dtype = draw(st.sampled_from([np.uint8, np.uint16]))
    stack = draw(hnp.arrays(dtype, shape))
    cells = draw(hnp.arrays(np.int32, shape[1:], elements=st.integers(0, n)))
    ranges = draw(hnp.arrays(bool, (n, shape[0])))
    return stack, cells, ranges


def slow_emip(stack, cells, ranges):
    out = np.zeros(cells.shape, stack.dtype)
    for y, x in np.ndindex(cells.shape):
        for z in range(len(stack)):
            if cells[y, x] and ranges[cells[y, x] - 1, z]:
                out[y, x] = max(out[y, x], stack[z, y, x])
    return out


@settings(deadline=None)
@given(scenes())
def test_emip_equals_the_loop_over_pixels_and_never_exceeds_mip(scene):
    stack, cells, ranges = scene
    answer = emip(stack, cells, ranges)
    assert answer.dtype == stack.dtype
    assert np.array_equal(answer, slow_emip(stack, cells, ranges))
    assert (answer <= mip(stack)).all()
    twice = emip(np.stack([stack, stack[::-1]]), cells, ranges)
    assert np.array_equal(twice[0], answer)
    assert np.array_equal(twice[1], emip(stack[::-1], cells, ranges))


@settings(deadline=None)
@given(scenes())
def test_emip_equals_mip_when_every_range_is_full(scene):
    stack, cells, ranges = scene
    full = np.ones_like(ranges)
    assert np.array_equal(emip(stack, np.maximum(cells, 1), full), mip(stack))


@settings(deadline=None)
@given(scenes(), st.integers(0, 99))
def test_the_order_of_nuclei_does_not_matter(scene, seed):
    stack, cells, ranges = scene
    order = np.random.default_rng(seed).permutation(len(ranges))
    renamed = np.concatenate([[0], np.argsort(order) + 1]).astype(np.int32)[cells]
    assert np.array_equal(emip(stack, cells, ranges), emip(stack, renamed, ranges[order]))


def test_marker_of_another_cell_above_leaves_no_trace():
    marker = np.zeros((10, 20, 20), np.uint8)
    marker[:4, 5:15, 5:15] = 200
    ranges = np.zeros((1, 10), dtype=bool)
    ranges[0, 4:] = True
    cells = np.ones((20, 20), np.int32)
    assert emip(marker, cells, ranges).max() == 0
    assert mip(marker).max() == 200


@pytest.mark.parametrize("n_slices", [8, 9, 64, 65, 130])
def test_any_number_of_slices_works(n_slices):
    rng = np.random.default_rng(n_slices)
    stack = rng.integers(0, 256, (n_slices, 5, 33), dtype=np.uint8)
    cells = rng.integers(0, 4, (5, 33)).astype(np.int32)
    ranges = rng.random((3, n_slices)) < 0.1
    assert np.array_equal(emip(stack, cells, ranges), slow_emip(stack, cells, ranges))


def test_negative_images_keep_the_law():
    stack = -np.ones((3, 2, 2), np.float32)
    ranges = np.zeros((1, 3), dtype=bool)
    assert (emip(stack, np.ones((2, 2), np.int32), ranges) <= mip(stack)).all()


def test_the_marker_alone_is_restricted_when_asked():
    rng = np.random.default_rng(0)
    volume = Volume(
        rng.integers(1, 256, (2, 4, 6, 7), dtype=np.uint8), ("LT", "DAPI"), (2.0, 0.5, 0.5)
    )
    cells, ranges = np.ones((6, 7), np.int32), np.array([[True, False, False, False]])
    marker = project(volume, method="emip", cells=cells, z_ranges=ranges, channels="marker")
    assert np.array_equal(marker.data[0], volume.data[0, 0])
    assert np.array_equal(marker.data[1], volume.data[1].max(axis=0))
    both = project(volume, method="emip", cells=cells, z_ranges=ranges, channels="both")
    assert np.array_equal(both.data, volume.data[:, 0])
    named = project(volume, method="emip", cells=cells, z_ranges=ranges, channels=["dapi"])
    assert np.array_equal(named.data[1], volume.data[1, 0])
    assert np.array_equal(named.data[0], volume.data[0].max(axis=0))
    assert (both.method, both.channels, both.spacing) == ("emip", volume.channels, volume.spacing)
    assert np.array_equal(project(volume).data, volume.data.max(axis=1))


def test_a_new_projection_is_one_row_of_the_table():
    assert set(PROJECTIONS) == {"mip", "emip"}


def test_wrong_calls_say_what_fits():
    volume = Volume(np.zeros((1, 2, 3, 3), np.uint8), ("DAPI",))
    cells, ranges = np.ones((3, 3), np.int32), np.ones((1, 2), dtype=bool)
    with pytest.raises(CallError, match="no projection"):
        project(volume, method="mean")
    with pytest.raises(CallError, match="needs cells"):
        project(volume, method="emip")
    with pytest.raises(CallError, match="does not fit"):
        project(volume, method="emip", cells=cells[:2], z_ranges=ranges)
    with pytest.raises(CallError, match="does not fit"):
        project(volume, method="emip", cells=cells, z_ranges=ranges[:, :1])
    with pytest.raises(InputError, match="rows of z ranges"):
        project(volume, method="emip", cells=cells + 1, z_ranges=ranges)
    with pytest.raises(CallError, match="list of channels"):
        project(volume, method="mip", channels="DAPI")
    with pytest.raises(CallError, match="no channel"):
        project(volume, method="mip", channels="marker", nuclei="Hoechst")
